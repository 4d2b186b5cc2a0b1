"""A connection's ``settings.toml`` ↔ :class:`Settings`. Pure; errors name line and key.

::

    key_length = 4096        # RSA bits of the next key
    renew_before = "30d"     # due this long before the end, instead of two thirds of the lifetime
    keep = 5                 # distinct identities kept on disk, the current one included
    sandbox = "…/ready.json" # only for practice: the sandbox whose URLs this connection follows
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ucl_helpers.crypto import DEFAULT_BITS, key_length
from ucl_helpers.errors import InvalidSettings, UsageError
from ucl_helpers.policy import parse_duration

MIN_KEEP, MAX_KEEP, MAX_CHARACTERS = 2, 1000, 10_000


@dataclass(frozen=True)
class Settings:
    """What a user may choose for a connection.

    Attributes:
        key_length: RSA bits of the next key, 2048 to 8192.
        renew_before: see :mod:`ucl_helpers.policy`; None for the rule by fractions.
        keep: how many distinct identities stay on disk, 2 to 1000.
        sandbox: path of a ready file whose URLs are followed; marks the connection as practice.
    """

    key_length: int = DEFAULT_BITS
    renew_before: timedelta | None = None
    keep: int = 5
    sandbox: str | None = None


def parse_settings(text: str, *, where: str = "settings.toml") -> Settings:
    """Read ``settings.toml``.

    Raises:
        InvalidSettings: not TOML, an unknown key, or a value that is not allowed; names ``where``, line and key.
    """
    if len(text) > MAX_CHARACTERS:  # keys of many parts would take for ever
        raise InvalidSettings(f"{where} is longer than {MAX_CHARACTERS} characters.", remedy="Leave out what is none.")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers too long and brackets too deep are none of tomllib's errors
        raise InvalidSettings(f"{where} is not TOML: {error}.", remedy="Mend that line.") from None
    readers = {"key_length": key_length, "renew_before": _duration, "keep": _keep, "sandbox": _path}
    values: dict[str, Any] = {}
    for key, value in table.items():
        place = f"{where}, line {_line(text, key)}, {key}"
        if key not in readers:
            raise InvalidSettings(f"{place}: there is no such setting.", remedy=f"Known: {', '.join(readers)}.")
        try:
            values[key] = readers[key](value)
        except ValueError:
            raise InvalidSettings(f"{place}: the number is too long to be shown.", remedy="Mend that line.") from None
        except UsageError as error:
            raise InvalidSettings(f"{place}: {error.message}", remedy=error.remedy) from None
    return Settings(**values)


def dump_settings(values: Mapping[str, str | int]) -> str:
    """Settings as TOML, one ``key = value`` a line."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = re.sub(r'[\x00-\x1f\x7f"\\]', lambda found: f"\\u{ord(found[0]):04x}", value)
    return f'"{escaped}"'


def _line(text: str, key: str) -> int:
    pattern = re.compile(rf"\s*[\"\[']*{re.escape(key)}(?![\w-])")
    return next((number for number, line in enumerate(text.split("\n"), 1) if pattern.match(line)), 1)


def _duration(value: object) -> timedelta:
    if not isinstance(value, str):
        raise UsageError(f"{value!r} is not a duration.", remedy='Write it like "30d" or "36h".')
    return parse_duration(value)


def _keep(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not MIN_KEEP <= value <= MAX_KEEP:
        raise UsageError(f"{value!r} is not a whole number from {MIN_KEEP} to {MAX_KEEP}.")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{value!r} is not a path.")
    return value
