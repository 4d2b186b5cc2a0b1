"""Checks the values of a request's variables as gqlparser does, which refuses the request with a path.

The values come from JSON whose numbers are kept as `Number`, the text that was sent: so a number is a fine String.
What the specification and gqlparser have in common beyond that (default values, lists of one) is left to graphql-core.
"""

from collections.abc import Mapping
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLSchema,
    OperationDefinitionNode,
    Undefined,
    get_named_type,
    is_required_input_field,
    type_from_ast,
)

_GO_KINDS = {bool: "bool", list: "slice", dict: "map"}


class Number(str):
    """A JSON number, as its text."""

    __slots__ = ()


class VariableError(Exception):
    """A variable's value is refused; `path` says where."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def variable_values(
    schema: GraphQLSchema, operation: OperationDefinitionNode, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Checks the variables that an operation defines; others are ignored.

    Raises:
        VariableError: At the first that does not fit.
    """
    values = {}
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        path = ("variable", name)
        type_: Any = type_from_ast(schema, definition.type)
        value = given.get(name, Undefined)
        if value is Undefined:
            if definition.default_value is None and isinstance(type_, GraphQLNonNull):
                raise VariableError(path, "must be defined")
            continue
        values[name] = _checked(path, type_, value)
    return values


def _checked(path: tuple[str | int, ...], type_: GraphQLInputType, value: Any) -> Any:
    """Checks one value; returns it as graphql-core takes it."""
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
