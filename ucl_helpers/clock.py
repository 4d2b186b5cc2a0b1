"""The clock, as an argument: whoever needs the time takes a ``Clock``, so that tests bring their own."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
MOST_SECONDS = 1e10  # three centuries: clocks that differ by more tell each other nothing


def utc_now() -> datetime:
    """The system's clock, aware, UTC."""
    return datetime.now(UTC)
