"""When the next renewal may start: the whole fleet makes so many calls a second. Pure: the clock is an argument.

The law of this file:

1.  Starts are evenly spaced; a start that comes late is not made up for, so there is never a burst.
2.  A 429 pauses every start for ``Retry-After``, and halves the rate; what was on its way when the rate was halved
    does not halve it again.
3.  After the pause, each :data:`STEP_SECONDS` without a 429 the rate grows by a twentieth of the wanted one, up to it.

Moments are seconds of any clock that never goes back.
"""

import math

CALLS = 3
"""What one renewal asks of UCL: configuration, sign, and configuration once more as the new identity."""

DEFAULT_RATE = 10.0
"""Calls a second: 200 renewals a minute, so that a fleet of ten thousand is done within the hour. It is low on purpose:
the limit of a gateway in front of UCL is not known to us; who knows his says so."""

LEAST_SHARE = 1 / 64
STEP_SECONDS = 10.0
UNKNOWN_PAUSE = 5.0


class Pace:
    """The pace of one run.

    Args:
        rate: calls a second, above 0, over all workers together.
        now: the moment of the beginning.
    """

    def __init__(self, rate: float, *, now: float) -> None:
        self.wanted, self.rate = rate, rate
        self.limited = 0
        self._next, self._changed, self._halved = now, now, -math.inf

    def delay(self, now: float) -> float:
        """Seconds until the next renewal may start; 0 for now."""
        return max(0.0, self._next - now)

    def start(self, now: float) -> None:
        """One starts now."""
        self._recover(now)
        self._next = max(self._next, now) + CALLS / self.rate

    def slow_down(self, now: float, *, started: float, retry_after: float | None = None) -> None:
        """UCL answered 429 to a renewal that had started at ``started``.

        Args:
            now: the moment it became known.
            started: when that renewal was started.
            retry_after: what UCL said, in seconds; None for a pause of :data:`UNKNOWN_PAUSE`.
        """
        self.limited += 1
        self._next = max(self._next, now + (UNKNOWN_PAUSE if retry_after is None else retry_after))
        if started >= self._halved:
            self.rate = max(self.rate / 2, self.wanted * LEAST_SHARE)
            self._halved = now
        self._changed = self._next  # a pause proves nothing

    def _recover(self, now: float) -> None:
        steps = int((now - self._changed) / STEP_SECONDS) if self.rate < self.wanted else 0
        if steps > 0:
            self.rate = min(self.wanted, self.rate + steps * self.wanted / 20)
            self._changed += steps * STEP_SECONDS
