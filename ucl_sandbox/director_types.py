"""How rows of the state become what the Director's GraphQL types want."""

import base64
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from ucl_sandbox.landscape import Landscape, Urls

_NEVER = "0001-01-01T00:00:00Z"
_CURSOR_PREFIX = "sandbox:"


def as_application(landscape: Landscape, row: sqlite3.Row) -> dict[str, Any]:
    """An `Application`; the fields that are not in it are null."""
    return {
        "id": row["id"],
        "name": row["name"],
        "providerName": row["provider"],
        "description": row["description"],
        "labels": json.loads(row["labels"]),
        "status": {"condition": row["condition"], "timestamp": _seconds(row["changed_at"])},
        "auths": [as_auth(landscape, auth) for auth in landscape.state.system_auths(row["id"])],
        "createdAt": _seconds(row["created_at"]),
    }


def as_page(landscape: Landscape, rows: Sequence[sqlite3.Row], total: int, offset: int, start: str) -> dict[str, Any]:
    """An `ApplicationPage`; an empty cursor says that there is no page in that direction."""
    reached = offset + len(rows)
    more = reached < total
    end = base64.urlsafe_b64encode(f"{_CURSOR_PREFIX}{reached}".encode()).decode() if more else ""
    return {
        "data": [as_application(landscape, row) for row in rows],
        "totalCount": total,
        "pageInfo": {"startCursor": start, "endCursor": end, "hasNextPage": more},
    }


def offset_of(cursor: str) -> int:
    """Reads a cursor; ValueError for one that this Director did not give."""
    if not cursor:
        return 0
    text = base64.urlsafe_b64decode(cursor).decode()
    if not text.startswith(_CURSOR_PREFIX):
        raise ValueError(cursor)
    return int(text.removeprefix(_CURSOR_PREFIX))


def as_auth(landscape: Landscape, row: sqlite3.Row) -> dict[str, Any]:
    """An `AppSystemAuth`; its certificates are not listed, and it has no other credential."""
    token = as_token(landscape.urls, row, suggested=False) if row["token"] else None
    return {
        "__typename": "AppSystemAuth",
        "id": row["id"],
        "auth": {"oneTimeToken": token, "certCommonName": ""},
        "type": "APPLICATION",
        "tenantId": landscape.state.internal_tenant,
        "referenceObjectId": row["application_id"],
    }


def as_token(urls: Urls, row: sqlite3.Row, *, suggested: bool) -> dict[str, Any]:
    """A `OneTimeTokenForApplication`; `suggested` puts the encoded form in the place of the token."""
    used = row["used_at"] is not None
    raw = json.dumps(
        {
            "token": row["token"],
            "connectorURL": urls.connector,
            "used": used,
            "expiresAt": _shortest(row["expires_at"]),
            "createdAt": _shortest(row["created_at"]),
            "usedAt": _shortest(row["used_at"]) if used else _NEVER,
            "type": "Application",
            "scenario_groups": [],
        },
        separators=(",", ":"),
    )
    encoded = base64.b64encode(raw.encode()).decode()
    return {
        "__typename": "OneTimeTokenForApplication",
        "token": encoded if suggested else row["token"],
        "connectorURL": urls.connector,
        "legacyConnectorURL": f"{urls.legacy_connector}?token={row['token']}",
        "used": used,
        "expiresAt": _seconds(row["expires_at"]),
        "createdAt": _seconds(row["created_at"]),
        "usedAt": _seconds(row["used_at"]) if used else _NEVER,
        "raw": raw,
        "rawEncoded": encoded,
        "type": "Application",
        "scenarioGroups": [],
    }


def _seconds(stamp: str) -> str:
    """Without the fraction."""
    return stamp.partition(".")[0] + "Z"


def _shortest(stamp: str) -> str:
    """Without trailing zeros of the fraction, as Go writes it."""
    return stamp.removesuffix("Z").rstrip("0").removesuffix(".") + "Z"
