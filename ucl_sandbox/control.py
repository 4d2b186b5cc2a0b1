"""The faults at run time, over the Director's listener: GET shows plan and counts, PUT sets a plan, DELETE clears it.

And the limit of calls, to be looked at.

Not a part of the Director's GraphQL API, whose schema is that of the real one. It takes the same bearer token.
"""

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from ucl_sandbox.faults.catalogue import CATALOGUE
from ucl_sandbox.faults.plans import ANY, Fault, Faults, FaultsError, parse_plan
from ucl_sandbox.transport import JSON, Request, Response

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
        """Count a call; the answer if it is one too many, with whole seconds after which one would be let through."""
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
        """Return the limit, and how many calls there were and were refused since the start."""
        return {"rate": self.rate, "calls": self.calls, "refused": self.refused}

    def shown(self) -> Response:
        """Return the same as an answer."""
        return Response(200, json.dumps(self.as_json()).encode(), "application/json")


FAULTS_PATH, LIMIT_PATH = "/faults", "/limit"


def by_control(faults: Faults, bearer: str, request: Request) -> Response:
    """Answer at `FAULTS_PATH`."""
    if not _knows(bearer, request):
        return _STRANGER
    try:
        if request.method == "PUT":
            wanted = parse_plan(request.body.decode("utf-8"))
            _check_way_back(wanted.plan)
            faults.set(wanted.plan, seed=wanted.seed)
        elif request.method == "DELETE":
            faults.clear()
        elif request.method != "GET":
            return _told(405, {"error": "GET, PUT or DELETE"}, Allow="GET, PUT, DELETE")
    except FaultsError as error:
        return _told(400, {"error": str(error)})
    except UnicodeDecodeError:
        return _told(400, {"error": "not a text in UTF-8"})
    return _told(200, faults.as_json())


def limit_by_control(limit: Limit, bearer: str, request: Request) -> Response:
    """Answer at `LIMIT_PATH`."""
    if not _knows(bearer, request):
        return _STRANGER
    return limit.shown() if request.method == "GET" else _told(405, {"error": "GET"}, Allow="GET")


def _knows(bearer: str, request: Request) -> bool:
    shown = request.headers.get("Authorization", "")
    return secrets.compare_digest(shown.encode(), f"Bearer {bearer}".encode())


def _check_way_back(plan: Iterable[Fault]) -> None:
    """Refuse a plan that would keep its author from taking it back: the Director could not be reached any more."""
    for fault in plan:
        always = fault.probability == 1 and fault.times is None and not CATALOGUE[fault.kind].once
        if CATALOGUE[fault.kind].blind and fault.at in {ANY, "director"} and always:
            raise FaultsError(
                f"{fault.kind} would shut the Director's listener, and with it the way to take it back: "
                'name another listener by "at", or give it "times" or a "probability"'
            )


def _told(status: int, content: dict[str, Any], **headers: str) -> Response:
    return Response(status, json.dumps(content).encode(), JSON, headers)


_STRANGER = _told(401, {"error": "the bearer token is wrong or missing"})
