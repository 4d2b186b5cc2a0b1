"""Make the clock an argument. Functions that need the time take a ``Clock``, so that tests can pass their own."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

Clock = Callable[[], datetime]
MOST_SECONDS = 1e10  # three centuries: a clock that differs by more has no usable time


def moment_from(text: object) -> datetime | None:
    """Parse ISO 8601 from a file and return the moment (UTC), or None for other values and moments without a zone."""
    with suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(text) if isinstance(text, str) else None
        return when.astimezone(UTC) if when and when.tzinfo else None
    return None


def utc_now() -> datetime:
    """Return the time of the system's clock, aware, UTC."""
    return datetime.now(UTC)
