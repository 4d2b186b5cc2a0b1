"""A call as people may look at it: what was sent and what came back, without secrets. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ucl_helpers.tables import Row, Shown


@dataclass(frozen=True)
class Exchange(Shown):
    """What was sent and what came back, for people: tokens masked, long texts shortened."""

    url: str
    request_id: str
    operation: str
    variables: Mapping[str, Any] = field(repr=False)  # may hold tokens
    result: Any = field(repr=False)

    title: ClassVar[str] = "Sent and received"

    def rows(self) -> list[Row]:
        """What was sent, then what came back."""
        return [
            ("POST", _without_token(self.url)),
            ("x-request-id", self.request_id),
            ("query", self.operation),
            ("variables", _readable(self.variables)),
            ("data.result", _readable(self.result)),
        ]


def _readable(value: object) -> str:
    return json.dumps(_masked(value), indent=2, ensure_ascii=False)


def _masked(value: object, key: str = "") -> object:
    match value:
        case dict():
            return {name: _masked(one, str(name)) for name, one in value.items()}
        case list():
            return [_masked(one, key) for one in value]
        case str() if _NO_LETTER.sub("", key.lower()) in _TOKENS:
            return _MASK
        case str() if len(value) > _SHOWN:
            return f"{_without_token(value)[: _SHOWN // 2]}… ({len(value)} characters)"
        case str():
            return _without_token(value)
    return value


def _without_token(text: str) -> str:
    return _IN_URL.sub(_MASK, text)


_MASK, _SHOWN = "(kept out of sight)", 120
_TOKENS = {"token", "raw", "rawencoded", "connectortoken"}  # keys by their letters alone
_NO_LETTER, _IN_URL = re.compile(r"[^a-z]"), re.compile(r"(?<=[?&]token=)[^&#\s\"']+", re.IGNORECASE)
