"""The faults at run time, over the Director's listener: GET shows plan and counts, PUT sets a plan, DELETE clears it.

And the limit of calls, to be looked at.

Not a part of the Director's GraphQL API, whose schema is that of the real one. It takes the same bearer token.
"""

import json
import secrets
from collections.abc import Iterable
from typing import Any

from ucl_sandbox.catalogue import CATALOGUE
from ucl_sandbox.faults import ANY, Fault, Faults, FaultsError, parse_plan
from ucl_sandbox.limit import Limit
from ucl_sandbox.transport import JSON, Request, Response

FAULTS_PATH, LIMIT_PATH = "/faults", "/limit"


def by_control(faults: Faults, bearer: str, request: Request) -> Response:
    """Answers at `FAULTS_PATH`."""
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
    """Answers at `LIMIT_PATH`."""
    if not _knows(bearer, request):
        return _STRANGER
    return limit.shown() if request.method == "GET" else _told(405, {"error": "GET"}, Allow="GET")


def _knows(bearer: str, request: Request) -> bool:
    shown = request.headers.get("Authorization", "")
    return secrets.compare_digest(shown.encode(), f"Bearer {bearer}".encode())


def _check_way_back(plan: Iterable[Fault]) -> None:
    """Refuses a plan that would keep its author from taking it back: the Director could not be reached any more."""
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
