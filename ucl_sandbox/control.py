"""The paths at the Director's listener that control the sandbox: its plan of faults and its limit of calls.

For the faults, GET shows the plan and its counts, PUT sets a plan and DELETE clears it. The limit can only be read.
These paths are not part of the Director's GraphQL API, whose schema is that of the real Director. They need the same
bearer token.
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
    """A limit of calls per second. Any thread may use it.

    Args:
        rate: Calls per second, above 0. None for no limit, so that calls are only counted. It may change at any time.
        clock: Returns seconds, and never goes back.
    """

    def __init__(self, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock, self._lock = rate, clock, threading.Lock()
        self.calls = self.refused = 0
        self._allowance, self._at = max(1.0, rate or 0.0), clock()

    def refusal(self) -> Response | None:
        """Count a call. Return None, or if it exceeds the limit, an answer with the whole seconds to wait."""
        with self._lock:
            self.calls += 1
            if self.rate is None:
                return None
            now = self._clock()
            self._allowance = min(max(1.0, self.rate), self._allowance + (now - self._at) * self.rate)
            self._at = now
            if self._allowance >= 1:
                self._allowance -= 1
                return None
            self.refused += 1
            after = math.ceil((1 - self._allowance) / self.rate)
            return Response(TOO_MANY, b"Too Many Requests", "text/plain", {"Retry-After": str(after)})

    def as_json(self) -> dict[str, Any]:
        """Return the limit, and the numbers of calls and of refused calls since the start."""
        return {"rate": self.rate, "calls": self.calls, "refused": self.refused}


FAULTS_PATH, LIMIT_PATH = "/faults", "/limit"


def answer_faults(faults: Faults, bearer: str, request: Request) -> Response:
    """Answer a request at `FAULTS_PATH`."""
    if not _is_authorized(bearer, request):
        return _UNAUTHORIZED
    try:
        if request.method == "PUT":
            parsed = parse_plan(request.body.decode("utf-8"))
            _require_reachable_director(parsed.plan)
            faults.set(parsed.plan, seed=parsed.seed)
        elif request.method == "DELETE":
            faults.clear()
        elif request.method != "GET":
            return _json_response(405, {"error": "GET, PUT or DELETE"}, Allow="GET, PUT, DELETE")
    except FaultsError as error:
        return _json_response(400, {"error": str(error)})
    except UnicodeDecodeError:
        return _json_response(400, {"error": "not a text in UTF-8"})
    return _json_response(200, faults.as_json())


def answer_limit(limit: Limit, bearer: str, request: Request) -> Response:
    """Answer a request at `LIMIT_PATH`."""
    if not _is_authorized(bearer, request):
        return _UNAUTHORIZED
    if request.method != "GET":
        return _json_response(405, {"error": "GET"}, Allow="GET")
    return _json_response(200, limit.as_json())


def _is_authorized(bearer: str, request: Request) -> bool:
    header = request.headers.get("Authorization", "")
    return secrets.compare_digest(header.encode(), f"Bearer {bearer}".encode())


def _require_reachable_director(plan: Iterable[Fault]) -> None:
    """Refuse a plan that would always block the Director's listener, because its author could not clear it."""
    for fault in plan:
        always = fault.probability == 1 and fault.times is None and not CATALOGUE[fault.kind].once
        if CATALOGUE[fault.kind].blind and fault.at in {ANY, "director"} and always:
            raise FaultsError(
                f"{fault.kind} would shut the Director's listener, so that you could not clear the plan: "
                'set "at" to another listener, or set "times" or "probability"'
            )


def _json_response(status: int, content: dict[str, Any], **headers: str) -> Response:
    return Response(status, json.dumps(content).encode(), JSON, headers)


_UNAUTHORIZED = _json_response(401, {"error": "the bearer token is wrong or missing"})
