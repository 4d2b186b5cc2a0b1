"""The clock, as an argument: whoever needs the time takes a ``Clock``, so that tests bring their own."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

Clock = Callable[[], datetime]
MOST_SECONDS = 1e10  # three centuries: clocks that differ by more tell each other nothing


def moment_from(text: object) -> datetime | None:
    """A moment (UTC) from ISO 8601 as a file holds it; None: it holds something else, or names no zone."""
    with suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(text) if isinstance(text, str) else None
        return when.astimezone(UTC) if when and when.tzinfo else None
    return None


def utc_now() -> datetime:
    """The system's clock, aware, UTC."""
    return datetime.now(UTC)
