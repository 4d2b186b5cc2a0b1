"""A call as people may look at it: what was sent and what came back, without secrets. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ucl_helpers.show import Row, Shown


@dataclass(frozen=True)
class Exchange(Shown):
    """What was sent and what came back, for people: tokens masked, long texts shortened."""

    url: str
    request_id: str
    operation: str
    variables: Mapping[str, Any]
    result: Any

    title: ClassVar[str] = "Sent and received"

    def rows(self) -> list[Row]:
        """What was sent, then what came back."""
        return [
            ("POST", self.url),
            ("x-request-id", self.request_id),
            ("query", self.operation),
            ("variables", _readable(self.variables)),
            ("data.result", _readable(self.result)),
        ]


def _readable(value: object) -> str:
    return json.dumps(_masked(value), indent=2, ensure_ascii=False)


def _masked(value: object) -> object:
    match value:
        case dict():
            return {
                key: _MASK if key == "token" and isinstance(one, str) else _masked(one) for key, one in value.items()
            }
        case list():
            return [_masked(one) for one in value]
        case str() if len(value) > _SHOWN:
            return f"{value[: _SHOWN // 2]}… ({len(value)} characters)"
    return value


def _is_token(key: str, value: object) -> bool:
    return key == "token" and isinstance(value, str)


_MASK, _SHOWN = "(kept out of sight)", 120
