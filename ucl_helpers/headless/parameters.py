"""Read which parameters a notebook takes, convert values, refuse secrets; and tell whether a person runs the notebook.

A notebook declares its parameters in the cell tagged ``parameters``, which is read without running it. The cell holds
literals with a type each (``key_length: int = 4096  # RSA bits``). A value that comes as text, from a command line,
becomes what the parameter declares: a ``str`` stays a string, also when it reads ``1e5`` or ``True``. Papermill reads
such texts as numbers before it knows the type. So an ``int`` becomes text again, and other values for a ``str`` are
refused, since ``1e5`` cannot be told from ``100000.0`` any more.

:func:`typed` is the one rule. ``ucl run`` and the engine ``ucl`` apply it before anything runs, and a notebook applies
it itself, by :func:`check_parameters`, whatever runs it.
"""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ucl_helpers.errors import SecretFound, UsageError
from ucl_helpers.headless.redaction.search import find_secret

PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
SECRET_NAME = re.compile(r"token|bearer|passphrase|password|secret", re.IGNORECASE)
TOKEN_IN_URL = re.compile(r"[?&]token=", re.IGNORECASE)
PROMPT = "prompt"
REFERENCE = re.compile(r"(env:|file:).+")
NONE = "None"
_FROM_TEXT: Mapping[str, Callable[[str], object]] = {
    NONE: lambda text: {NONE: None}[text],
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": int,
    "float": float,
    "str": str,
}
"""How a text becomes a value of each type, in the order in which the types of a parameter are tried."""
BUILT_IN = "PAPERMILL_"
"""Names that begin so are papermill's own (``--inject-paths``)."""
_INJECTED = "# Parameters\n"
KNOWN = {"bool", "int", "float", "str", NONE}


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell.

    Attributes:
        name: the variable.
        types: what it may be, out of ``bool``, ``int``, ``float``, ``str`` and ``None``; empty if it does not say, or
            says something else: then any value passes as it is.
        default: what it is if nothing is given; None if that has to be worked out.
    """

    name: str
    types: frozenset[str]
    default: object = field(default=None, compare=False)

    def convert(self, value: object) -> object:
        """Return the value as the type declared; text is converted, anything else must be of the type already.

        Raises:
            ValueError: it is neither.
        """
        if not self.types:
            return value
        if isinstance(value, str):
            for kind, from_text in _FROM_TEXT.items():
                if kind in self.types:
                    with suppress(KeyError, ValueError):
                        return from_text(value)
        kind = NONE if value is None else type(value).__name__
        if kind in self.types or (kind == "int" and "float" in self.types):
            return value
        if kind == "int" and "str" in self.types:
            return str(value)
        hint = ""
        if self.types <= {"bool", NONE}:
            hint = f": write True or False{' or None' if NONE in self.types else ''}"
        elif "str" in self.types:
            hint = " (papermill passes a text as it is with -r instead of -p)"
        raise ValueError(f"{value!r} is not {self.wanted}{hint}")

    @property
    def wanted(self) -> str:
        """Return the types for a message: ``int``, ``None or str``."""
        return " or ".join(sorted(self.types))


def declared(notebook: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return the parameters that a notebook declares, by name; none if it has no cell tagged ``parameters``.

    Raises:
        UsageError: the cell is not Python.
    """
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", ()):
            try:
                tree = ast.parse("".join(cell["source"]))
                return {parameter.name: parameter for parameter in map(_parameter, tree.body) if parameter}
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # a NUL, brackets too deep
                reason = str(error) or "it nests too deep"
                raise UsageError(f"The notebook's parameters cell is not Python: {reason}.") from error
    return {}


def accept(declarations: Mapping[str, Parameter], given: Mapping[str, object]) -> dict[str, object]:
    """Return the values as the types declared; refuse secrets.

    Raises:
        UsageError: see :func:`typed`.
        SecretFound: a value is, or holds, a secret. Values would be written into the executed notebook.
    """
    for name, value in given.items():
        refuse_secret(name, value)
    return typed(declarations, given)


def typed(declarations: Mapping[str, Parameter], given: Mapping[str, object]) -> dict[str, object]:
    """Return the values as the types declared.

    Raises:
        UsageError: a name is not known, or a value is not of its type; everything that is wrong is named at once.
    """
    wrong: list[str] = []
    accepted: dict[str, object] = {}
    for name, value in given.items():
        if name not in declarations:
            wrong.append(f"there is no parameter {name!r}")
            continue
        try:
            accepted[name] = declarations[name].convert(value)
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        takes = ", ".join(declarations) or "none: it has no cell tagged 'parameters'"
        raise UsageError(
            f"The notebook does not take these parameters: {'; '.join(wrong)}.",
            remedy=f"Its parameters are {takes}.",
            known=sorted(declarations),
        )
    return accepted


def require_connection(declarations: Mapping[str, Parameter], values: Mapping[str, object], notebook: str) -> None:
    """Check that a headless run is told which connection it is for, or that it is to practise.

    A notebook without the parameter ``practice`` may give an empty ``connection`` a meaning of its own, unless the
    name is given and empty, as an unset variable of a shell is, or the notebook is to run only if something is due.

    Args:
        declarations: what the notebook declares.
        values: what it is given.
        notebook: its name.

    Raises:
        UsageError: it is told neither.
    """
    if values.get("practice"):
        return
    for name in ("connection", "connections"):
        if name in declarations and str(values.get(name, declarations[name].default) or "").strip():
            return
        if name in declarations and (name in values or "practice" in declarations or values.get("only_if_due")):
            raise UsageError(
                f"{notebook} has to be told a connection, and the parameter {name} is empty.",
                remedy=f"Name it: -p {name} NAME. To practise in the sandbox: --practice.",
            )


def check_parameters(variables: MutableMapping[str, Any]) -> None:
    """Convert the parameters of the notebook that calls this to their types, in place.

    The kernel knows no tags. So the declarations are found by their form: the last cell so far that holds nothing but
    literals with a type each. Papermill's own cell begins with a comment of its own.

    Args:
        variables: the notebook's, ``globals()``; IPython keeps the executed cells there as ``In``.

    Raises:
        UsageError: a value is not of its type, or papermill was given a name that the notebook does not have.
    """
    declarations, injected = dict[str, Parameter](), set[str]()
    for source in variables.get("In", ()):
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):  # magics, for instance
            statements = ast.parse(source).body
            if source.startswith(_INJECTED):
                injected = set(_assigned(statements))
            elif statements and all(map(_is_declaration, statements)):
                declarations = {parameter.name: parameter for parameter in map(_parameter, statements) if parameter}
    if declarations:
        injected = {name for name in injected if not name.startswith(BUILT_IN)}
        names = [name for name in variables if name in declarations or name in injected]
        variables.update(typed(declarations, {name: variables[name] for name in names}))


def _is_declaration(statement: ast.stmt) -> bool:
    with suppress(ValueError, TypeError):
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            ast.literal_eval(statement.value)
            return True
    return False


def _assigned(statements: list[ast.stmt]) -> Iterator[str]:
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name


def refuse_secret(name: str, value: object) -> None:
    """Refuse what must not end up in a notebook: what looks like a key or a token, or is a secret by its name.

    Also in the items of lists and tables. Not checked: whether a value under a harmless name is a secret that has no
    mark of its own, such as a passphrase.

    Raises:
        SecretFound: the error names the parameter, never the value.
        UsageError: the value is ``prompt``, which asks a person for the secret.
    """
    if isinstance(value, Mapping):
        for key, held in value.items():
            refuse_secret(str(key), held)
    elif isinstance(value, list | tuple):
        for held in value:
            refuse_secret(name, held)
    text = str(value)
    if text == PROMPT and SECRET_NAME.search(name):
        raise UsageError(
            f"Parameter {name!r} is {PROMPT!r}, but a headless run cannot ask you for a value.",
            remedy="Pass another reference: env:NAME or file:PATH.",
        )
    bare = bool(SECRET_NAME.search(name)) and isinstance(value, str) and text and not REFERENCE.fullmatch(text)
    if bare or PRIVATE_KEY.search(text) or TOKEN_IN_URL.search(text) or find_secret(text):
        raise SecretFound(
            f"Parameter {name!r} holds a secret, and parameters are written into the executed notebook.",
            remedy="Pass a reference to it: env:NAME or file:PATH.",
            parameter=name,
        )


def _parameter(statement: ast.stmt) -> Parameter | None:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            return Parameter(name, _types(annotation), _literal(value))
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=default)) if default is not None:
            return Parameter(name, frozenset({type(default).__name__} & KNOWN), default)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return Parameter(name, frozenset(), _literal(value))
    return None


def _literal(value: ast.expr | None) -> object:
    with suppress(ValueError, TypeError):
        return ast.literal_eval(value) if value is not None else None
    return None


def _types(annotation: ast.expr) -> frozenset[str]:
    names = {part.strip() for part in ast.unparse(annotation).split("|")}
    return frozenset(names) if names <= KNOWN else frozenset()


_BY_HAND = {"jupyter-nbconvert", "jupyter-execute", "nbconvert", "nbclient", "voila"}
_WORDS = 3  # of a command line: interpreter, -m, program


def is_attended() -> bool:
    """Return whether the current cell may ask the user for input; True outside of a notebook.

    JupyterLab and others with a person in front of them allow input (``allow_stdin`` of Jupyter's protocol). Papermill,
    ``ucl run`` and services that run notebooks do not. ``jupyter nbconvert --execute`` and ``jupyter execute`` do not
    either, but they take no parameters, so no connection can have been meant: they count as a person's, as Voilà does.
    """
    ipython: Any = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython else None
    if kernel is None:
        return True
    request = kernel.get_parent("shell").get("content", {})
    return bool(request.get("allow_stdin", True)) or _started_by_hand(os.environ.get("JPY_PARENT_PID", ""))


def _started_by_hand(starter: str) -> bool:
    import psutil  # which every kernel has, since ipykernel needs it

    with suppress(ValueError, psutil.Error):
        words = psutil.Process(int(starter)).cmdline()[:_WORDS]
        return not _BY_HAND.isdisjoint(Path(word).stem for word in words)
    return False
