"""The parsing, validation and execution of GraphQL, as in the real servers, which use Go's gqlgen and gqlparser.

graphql-core does most of the work. This module changes the differences. An empty list of arguments is allowed, and type
definitions are syntax errors. A document without an operation has an error of its own, every error carries gqlgen's
code, and introspection lists all built-in scalars, sorted. The tokens of a request, its depth and the fields of its
answer, which aliases and fragments multiply, are limited.

Variables are checked as in gqlparser, whose errors have a path. In their values, JSON numbers are kept as `Number`, the
text that was sent, so a number is a valid String. graphql-core handles default values and lists of one value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, TypeVar

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLFloat,
    GraphQLID,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    Source,
    TokenKind,
    Undefined,
    ValidationRule,
    build_schema,
    execute_sync,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_required_input_field,
    specified_rules,
    type_from_ast,
    validate,
)
from graphql.language.ast import DefinitionNode
from graphql.language.parser import Parser

_GO_KINDS = {bool: "bool", list: "slice", dict: "map"}


class Number(str):
    """A JSON number as the text that was sent."""

    __slots__ = ()


class VariableError(Exception):
    """A refused value of a variable. `path` is its place."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def variable_values(
    schema: GraphQLSchema, operation: OperationDefinitionNode, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Check and return the values of the variables that an operation defines. Ignore other variables.

    Raises:
        VariableError: The value of a variable is refused. Only the first is reported.
    """
    values = {}
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        path = ("variable", name)
        type_: Any = type_from_ast(schema, definition.type)
        value = variables.get(name, Undefined)
        if value is Undefined:
            if definition.default_value is None and isinstance(type_, GraphQLNonNull):
                raise VariableError(path, "must be defined")
            continue
        values[name] = _checked(path, type_, value)
    return values


def _checked(path: tuple[str | int, ...], type_: GraphQLInputType, value: Any) -> Any:
    """Check a value, and return it in the form that graphql-core expects."""
    if isinstance(type_, GraphQLNonNull):
        if value is None:
            raise VariableError(path, "cannot be null")
        return _checked(path, type_.of_type, value)
    if value is None:
        return None
    if isinstance(type_, GraphQLList):
        items = value if isinstance(value, list) else [value]
        return [_checked((*path, index), type_.of_type, item) for index, item in enumerate(items)]
    named = get_named_type(type_)
    if isinstance(named, GraphQLInputObjectType):
        return _checked_object(path, named, value)
    if isinstance(named, GraphQLEnumType):
        return _checked_enum(path, named, value)
    if isinstance(named, GraphQLScalarType):
        return _checked_scalar(path, named.name, value)
    raise VariableError(path, "must an input type")


def _checked_object(path: tuple[str | int, ...], type_: GraphQLInputObjectType, value: Any) -> Any:
    if not isinstance(value, dict):
        raise VariableError(path, f"must be a {type_.name}")
    for name in value:
        if name not in type_.fields and name != "__typename":
            raise VariableError((*path, name), "unknown field")
    checked = {}
    for name, field in type_.fields.items():
        if name in value:
            checked[name] = _checked((*path, name), field.type, value[name])
        elif is_required_input_field(field):
            raise VariableError((*path, name), "must be defined")
    return checked


def _checked_enum(path: tuple[str | int, ...], type_: GraphQLEnumType, value: Any) -> str:
    if not isinstance(value, str):
        raise VariableError(path, "enums must be ints or strings")
    for name in map(str, type_.values):
        if name.casefold() == value.casefold():
            return name
    raise VariableError(path, f"{value} is not a valid {type_.name}")


def _checked_scalar(path: tuple[str | int, ...], name: str, value: Any) -> Any:
    if name in {"Int", "Float"} and isinstance(value, str):
        try:
            return int(value) if name == "Int" else float(value)
        except ValueError:
            raise VariableError(path, f"cannot use value {value} as {name}") from None
    if name in {"String", "ID"} and isinstance(value, str):
        return str(value)
    if name in {"Int", "Float", "String", "ID"} or (name == "Boolean" and not isinstance(value, bool)):
        kind = "string" if isinstance(value, str) else _GO_KINDS[type(value)]
        raise VariableError(path, f"cannot use {kind} as {name}")
    return value


PARSE_FAILED, VALIDATION_FAILED = "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"
TOO_COMPLEX = "COMPLEXITY_LIMIT_EXCEEDED"
MOST_TOKENS, MOST_FIELDS = 1000, 20_000
_KEPT, _LENGTH_KEPT = 64, 4096
"""The number and maximum length of queries that are kept parsed and validated, because clients repeat queries."""

_UNKNOWN_RULES = {"ExecutableDefinitionsRule", "MaxIntrospectionDepthRule"}
_EXECUTABLE = {"query", "mutation", "subscription", "fragment"}

_Node = TypeVar("_Node")
Resolver = Callable[..., Any]
ResolveInfo = GraphQLResolveInfo[Any]


class ApiError(Exception):
    """A resolver's refusal. The client gets the message and the extensions."""

    def __init__(self, message: str, **extensions: str | int) -> None:
        super().__init__(message)
        self.extensions = extensions


@dataclass(frozen=True)
class Fault:
    """A problem in a request that is found before execution."""

    message: str
    code: str | None = None
    path: tuple[str | int, ...] | None = None
    located: bool = False


class FaultyRequestError(Exception):
    """A request that cannot be executed. `faults` has the reasons."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*(fault.message for fault in faults))
        self.faults = faults


@dataclass(frozen=True)
class Params:
    """A GraphQL request as it was sent."""

    query: str = ""
    operation_name: str = ""
    variables: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Operation:
    """A request that may be executed."""

    document: DocumentNode
    definition: OperationDefinitionNode
    variables: dict[str, Any]

    @property
    def is_query(self) -> bool:
        """Whether it is a query, which only reads."""
        return self.definition.operation is OperationType.QUERY


class _FieldsOfLeavesRule(ValidationRule):
    """A rule that reports each field that is selected of a scalar, as gqlparser does."""

    def enter_field(self, node: FieldNode, *_: object) -> None:
        type_ = self.context.get_type()
        if type_ is not None and node.selection_set and is_leaf_type(get_named_type(type_)):
            for child in node.selection_set.selections:
                if isinstance(child, FieldNode) and child.name.value != "__typename":
                    self.report_error(GraphQLError(f'Cannot query field "{child.name.value}" on type "{type_}".'))


class _Parser(Parser):
    """A parser with gqlparser's grammar where that differs from graphql-core's."""

    def any(self, open_kind: TokenKind, parse_fn: Callable[[], _Node], close_kind: TokenKind) -> tuple[_Node, ...]:
        """Refuse an empty selection, and accept other empty lists."""
        is_selection = parse_fn == self.parse_selection
        return (super().many if is_selection else super().any)(open_kind, parse_fn, close_kind)

    def optional_many(
        self, open_kind: TokenKind, parse_fn: Callable[[], _Node], close_kind: TokenKind
    ) -> tuple[_Node, ...]:
        """Accept an empty pair of parentheses as a list."""
        nodes: list[_Node] = []
        if self.expect_optional_token(open_kind):
            while not self.expect_optional_token(close_kind):
                nodes.append(parse_fn())
        return tuple(nodes)

    def parse_definition(self) -> DefinitionNode:
        """Accept only operations and fragments, and none with a description."""
        token = self._lexer.token
        if token.kind is TokenKind.BRACE_L or (token.kind is TokenKind.NAME and token.value in _EXECUTABLE):
            return super().parse_definition()
        raise self.unexpected(token)


class _Budget:
    """Middleware that counts the fields of an answer, and refuses further fields above the limit."""

    remaining = MOST_FIELDS

    def resolve(self, resolver: Resolver, source: object, info: ResolveInfo, **arguments: Any) -> Any:
        """Count a field, and call its own resolver."""
        self.remaining -= 1
        if self.remaining < 0:
            raise ApiError("too many fields")
        return resolver(source, info, **arguments)


_RULES = [
    *(rule for rule in specified_rules if rule.__name__ not in _UNKNOWN_RULES),
    _FieldsOfLeavesRule,
]


class Api:
    """One GraphQL schema with its resolvers.

    Args:
        schema_file: The schema's file in this package.
        resolvers: The resolvers, by `Type.field`.
        present: Converts a fault to an entry of `errors`.
    """

    def __init__(
        self,
        schema_file: str,
        resolvers: Mapping[str, Resolver],
        present: Callable[[Fault], dict[str, Any]],
    ) -> None:
        self.present = present
        self._parse_cached = lru_cache(_KEPT)(self._parse)
        self._schema = _load_schema(schema_file)
        # gqlgen executes every field of a mutation, also after one that failed; without `!` graphql-core does too.
        self._for_mutations = _load_schema(schema_file)
        mutation = self._for_mutations.mutation_type
        for field in mutation.fields.values() if mutation else ():
            field.type = get_nullable_type(field.type)
        for schema in (self._schema, self._for_mutations):
            for coordinate, resolver in resolvers.items():
                type_name, _, field_name = coordinate.partition(".")
                type_: Any = schema.type_map[type_name]
                type_.fields[field_name].resolve = resolver

    def prepare(self, params: Params) -> Operation:
        """Parse and validate a request.

        Raises:
            FaultyRequestError: The request cannot be executed.
        """
        try:
            parse = self._parse_cached if len(params.query) <= _LENGTH_KEPT else self._parse
            document = parse(params.query)
            definition = _find_operation(document, params.operation_name)
            values = variable_values(self._schema, definition, params.variables or {})
        except RecursionError:
            raise FaultyRequestError(Fault("exceeded max depth", PARSE_FAILED, located=True)) from None
        except VariableError as error:
            raise FaultyRequestError(Fault(str(error), VALIDATION_FAILED, error.path)) from None
        return Operation(document, definition, values)

    def execute(self, operation: Operation, caller: object) -> dict[str, Any]:
        """Execute a request. Its resolvers get `caller` as their context."""
        name, budget = operation.definition.name, _Budget()
        result = execute_sync(
            self._schema if operation.is_query else self._for_mutations,
            operation.document,
            context_value=caller,
            variable_values=operation.variables,
            operation_name=name.value if name else None,
            middleware=[budget],
        )
        if budget.remaining < 0:
            fault = Fault(f"operation is answered with more than {MOST_FIELDS} fields", TOO_COMPLEX)
            return {"errors": [self.present(fault)], "data": None}
        data = result.data
        if not operation.is_query and data and None in data.values():
            data = None
        if result.errors:
            return {"errors": [self._entry(error) for error in result.errors], "data": data}
        return {"data": data}

    def _parse(self, query: str) -> DocumentNode:
        try:
            document = _Parser(Source(query), max_tokens=MOST_TOKENS).parse_document()
        except GraphQLSyntaxError as error:
            if not _only_ignored(query):
                raise FaultyRequestError(Fault(error.message, PARSE_FAILED, located=True)) from None
            document = DocumentNode(definitions=())
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        if not operations:
            raise FaultyRequestError(Fault("no operation provided", VALIDATION_FAILED))
        errors = [error.message for error in validate(self._schema, document, _RULES)]
        errors += ['There can be only one operation named "".'] * (sum(not node.name for node in operations) - 1)
        if errors:
            raise FaultyRequestError(*(Fault(error, VALIDATION_FAILED, located=True) for error in errors))
        return document

    def _entry(self, error: GraphQLError) -> dict[str, Any]:
        path = tuple(error.path) if error.path else None
        cause = error.original_error
        if not isinstance(cause, ApiError):
            return {**self.present(Fault("internal system error")), "path": path}
        entry: dict[str, Any] = {"message": str(cause), "path": path}
        return {**entry, "extensions": cause.extensions} if cause.extensions else entry


def _load_schema(schema_file: str) -> GraphQLSchema:
    schema = build_schema(files(__package__).joinpath(schema_file).read_text("utf-8"))
    arguments: dict[str, Any] = {**schema.to_kwargs()}
    arguments["types"] = (*arguments["types"], GraphQLFloat, GraphQLID, GraphQLInt)
    schema = GraphQLSchema(**arguments)
    schema.type_map = dict(sorted(schema.type_map.items()))
    return schema


def _only_ignored(query: str) -> bool:
    """Return whether a document has no tokens."""
    return all(not line.partition("#")[0].strip(" \t\r,\ufeff") for line in query.split("\n"))


def _find_operation(document: DocumentNode, name: str) -> OperationDefinitionNode:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if not name and len(operations) == 1:
        return operations[0]
    for node in operations:
        if (node.name.value if node.name else "") == name:
            return node
    raise FaultyRequestError(Fault(f"operation {name} not found", VALIDATION_FAILED))
