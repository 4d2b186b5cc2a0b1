"""What headers of an answer say (the server's clock, when to come again, where to go), and what ours may hold."""

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ucl_helpers.clock import MOST_SECONDS
from ucl_helpers.errors import UsageError

if TYPE_CHECKING:
    from requests import Response

MAX_RETRY_AFTER = timedelta(days=1)


def server_time(response: "Response") -> tuple[datetime | None, float | None]:
    """The server's clock (UTC) and the difference to ours in seconds, server's minus ours; a date in reason only."""
    date = _date(response.headers.get("Date", ""))
    difference = (date - datetime.now(UTC)).total_seconds() if date else math.inf
    return (date, difference) if abs(difference) < MOST_SECONDS else (None, None)


def host_of(location: str) -> str:
    """Scheme, host and port of a redirect, and nothing else of it; empty when it names none."""
    try:
        parts = urlsplit(location)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme and parts.hostname else ""


def _date(text: str) -> datetime | None:
    """A date of RFC 9110, section 5.6.7; UTC where it names no zone."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def retry_after(response: "Response") -> float | None:
    """``Retry-After`` in seconds, at most a day, given as seconds or as a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
    elif when := _date(value):
        seconds = (when - (server_time(response)[0] or datetime.now(UTC))).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER.total_seconds())


def sendable(name: str, value: str) -> str:
    """A value that a header can carry, as it is.

    Raises:
        UsageError: it is empty, or has characters that no header can carry; names the header, not the value.
    """
    if not (value and value.isascii() and value.isprintable() and value == value.strip()):
        raise UsageError(
            f"What {name} should hold is empty, or has characters that no header can carry.", remedy="Copy it again."
        )
    return value


def echoes(secrets: Sequence[str]) -> list[str]:
    """Secrets as they are, as URLs and JSON write them, and in base64: so an answer may hold what we sent."""
    forms = {text for one in secrets for text in (one, quote(one), quote(one, safe=""), json.dumps(one)[1:-1])}
    for raw in map(str.encode, secrets):  # within a longer text it begins at any of three places
        forms |= {b64encode(bytes(at) + raw)[-(-at * 4 // 3) : (at + len(raw)) * 4 // 3].decode() for at in range(3)}
    return sorted(forms)
