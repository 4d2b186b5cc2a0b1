"""A limit of calls, as a gateway in front of the Connector has one: what is above it is answered 429, with Retry-After.

A bucket holds one second's worth of calls and is filled at the limit's rate; a call takes one out, or is refused.
Calls are counted by all clients together, at the token endpoint and the certificate endpoint.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from ucl_sandbox.transport import Response

TOO_MANY = 429


class Limit:
    """Lets so many calls a second through; any thread may use it.

    Args:
        rate: Calls a second, above 0; None for no limit: then calls are only counted. It may be changed at any time.
        clock: Gives seconds, and never goes back.
    """

    def __init__(self, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock, self._lock = rate, clock, threading.Lock()
        self.calls = self.refused = 0
        self._left, self._at = max(1.0, rate or 0.0), clock()

    def refusal(self) -> Response | None:
        """Counts a call; the answer if it is one too many, with whole seconds after which one would be let through."""
        with self._lock:
            self.calls += 1
            if self.rate is None:
                return None
            now = self._clock()
            self._left = min(max(1.0, self.rate), self._left + (now - self._at) * self.rate)
            self._at = now
            if self._left >= 1:
                self._left -= 1
                return None
            self.refused += 1
            after = math.ceil((1 - self._left) / self.rate)
            return Response(TOO_MANY, b"Too Many Requests", "text/plain", {"Retry-After": str(after)})

    def as_json(self) -> dict[str, Any]:
        """The limit, and how many calls there were and were refused since the sandbox was started."""
        return {"rate": self.rate, "calls": self.calls, "refused": self.refused}

    def shown(self) -> Response:
        """The same as an answer."""
        return Response(200, json.dumps(self.as_json()).encode(), "application/json")
