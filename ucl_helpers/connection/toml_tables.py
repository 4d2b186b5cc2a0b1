"""Read a TOML table by a table of readers, one for each key that is allowed in it. Pure.

A reader takes a value from TOML and returns its meaning, or raises :class:`UsageError`. Its message never repeats a
text, which may be a secret at a wrong place. :class:`WrongValue` carries the way to the value: keys of tables, and
numbers in lists. :func:`line_of` finds the line of that value.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any

from ucl_helpers.errors import UsageError

Reader = Callable[[Any], Any]
Path = tuple[str | int, ...]
REFERENCE_KIND = "reference: env:NAME or file:PATH"


class WrongValue(UsageError):
    """A value that is not allowed, and the way to it."""

    def __init__(self, path: Path, message: str, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.path = path


def read_table(table: Mapping[str, Any], readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Return the values of a table, each by its reader.

    Raises:
        WrongValue: a key that has no reader, or a value that its reader does not take.
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in readers:
            raise WrongValue((key,), "there is no such setting.", f"Known: {', '.join(readers)}.")
        values[key] = _within(key, readers[key], value)
    return values


def _within(part: str | int, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except WrongValue as wrong:
        raise WrongValue((part, *wrong.path), wrong.message, wrong.remedy) from None
    except ValueError:
        raise WrongValue((part,), "the number is too long to be shown.", "Correct that line.") from None
    except UsageError as error:
        raise WrongValue((part,), error.message, error.remedy) from None


def what_it_is(value: object) -> str:
    """Return a value as errors name it: a number as it is, and only the kind of every other value."""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    kinds: dict[type, str] = {str: "a text", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time") if value or not isinstance(value, list) else "an empty list"


def table_of(kind: Callable[..., Any], readers: Mapping[str, Reader], *needed: str) -> Reader:
    """Return a reader of a table as a ``kind``; the ``needed`` keys must be given."""

    def read(value: object) -> Any:
        remedy = f"Known in it: {', '.join(readers)}."
        if not isinstance(value, dict):
            raise UsageError(f"{what_it_is(value)} is not a table.", remedy=remedy)
        values = read_table(value, readers)
        if missing := [key for key in needed if key not in value]:
            raise UsageError(f"{' and '.join(missing)} must be given.", remedy=remedy)
        return kind(**values)

    return read


def list_of(reader: Reader, *, most: int, how: str) -> Reader:
    """Return a reader of a list of one to ``most`` values, as a tuple; ``how`` says how it is written."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise UsageError(f"{what_it_is(value)} is not a list of 1 to {most}.", remedy=how)
        return tuple(_within(number, reader, item) for number, item in enumerate(value))

    return read


def whole_number(least: int, most: int) -> Reader:
    """Return a reader of a whole number from ``least`` to ``most``."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            how = "Write it without quotes." if isinstance(value, str) else ""
            raise UsageError(f"{what_it_is(value)} is not a whole number from {least} to {most}.", remedy=how)
        return value

    return read


def text(pattern: str, what: str, remedy: str = "") -> Reader:
    """Return a reader of a text that matches ``pattern`` (dot matches all) as a whole; ``what`` describes it."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            given = "it" if isinstance(value, str) else what_it_is(value)
            raise UsageError(f"{given} is not {what}.", remedy=remedy)
        return value

    return read


def flag(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        remedy = "Write true or false, without quotes."
        raise UsageError(f"{what_it_is(value)} is neither true nor false.", remedy=remedy)
    return value


def reference(value: object) -> str:
    """Read ``env:NAME`` or ``file:PATH``. Errors repeat no other value, which may be the secret itself."""
    if not isinstance(value, str) or not re.fullmatch(r"(env|file):[^\0]+", value):
        raise UsageError("it must be a reference, not the secret itself.", remedy="Write it as env:NAME or file:PATH.")
    return value


def line_of(text: str, path: Path) -> int:
    """Return the line, counted from 1, of the statement that gives the value at ``path``, or of its table.

    Args:
        text: TOML that can be read.
        path: the way to a value in it.
    """
    names = [part for part in path if isinstance(part, str)]
    numbers = [(at, part) for at, part in enumerate(path) if isinstance(part, int)]
    which = {at - earlier: part for earlier, (at, part) in enumerate(numbers)}  # by how many names come before it
    best, best_line, table = 0, 1, list[str]()
    lists: Counter[tuple[str, ...]] = Counter()
    for line, statement in _statements(text):
        way, is_list = _way(tomllib.loads(statement))
        is_header = statement.lstrip().startswith("[")
        if is_header:
            table = way
            lists[tuple(way)] += is_list
        whole = way if is_header else table + way
        within = [(which.get(len(key)), count - 1) for key, count in lists.items() if tuple(whole[: len(key)]) == key]
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(whole, names, strict=False))))
        if same > best and all(wanted in {number, None} for wanted, number in within):
            best, best_line = same, line
    return best_line


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each key with its value and each head of a table, with the number of its first line."""
    statement, first = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        first = first if statement else number
        statement += line + "\n"
        with suppress(ValueError, RecursionError):
            tomllib.loads(statement)
            yield first, statement
            statement = ""


def _way(table: Any) -> tuple[list[str], bool]:
    """Return the keys that lead into a statement's table, and whether they lead to a list."""
    way: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        [(key, table)] = table.items()
        way.append(key)
    return way, isinstance(table, list)
