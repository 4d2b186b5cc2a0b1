"""An outage of the Director or of its database, as each endpoint answers during one.

The Connector asks the Director about every certificate and every token. While the Director cannot tell, the Connector
refuses them all, good ones included: 400 with an empty body. Nothing is acted on, and no token is used up.
"""

import json
from collections.abc import Callable

from ucl_sandbox.transport import Request, Response


def during_outage(what: object, request: Request, without_database: Callable[[Request], Response] | None) -> Response:
    """Answers a request during an outage.

    Args:
        what: What is down: "database", or else the Director's process.
        request: It has come in.
        without_database: How the Director answers it while its database is down; None for a request to the Connector.
    """
    if without_database is not None:
        return without_database(request) if what == "database" else Response(502)
    # The gateway in front reads the body of a POST before anyone is authenticated.
    return Response(400 if request.method != "POST" or _is_operation(request.body) else 502)


def _is_operation(body: bytes) -> bool:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(decoded, dict) and isinstance(decoded.get("query"), str)
