"""The faults of a sandbox that runs in another process, over its Director's listener; see `control.py`."""

import json
import ssl
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from ucl_sandbox.access import Access
from ucl_sandbox.control import FAULTS_PATH
from ucl_sandbox.faults import FaultsError
from ucl_sandbox.state import SandboxError

_SECONDS = 10.0


class RemoteFaults:
    """Looks at the plan of faults and changes it; each answers with plan, seed and counts, as JSON has them.

    Raises:
        SandboxError: The sandbox does not answer.
    """

    def __init__(self, access: Access) -> None:
        self._where = urlsplit(access.director_url)
        self._headers = {"Authorization": f"Bearer {access.director_token}"}
        self._trust = ssl.create_default_context(cafile=access.ca_file)
        self._trust.hostname_checks_common_name = False

    def shown(self) -> dict[str, Any]:
        """The plan, and how often each of its kinds has struck."""
        return self._ask("GET")

    def set(self, plan: str) -> dict[str, Any]:
        """Puts another plan in place; `plan` is what `parse_plan` reads: a name, or JSON.

        Raises:
            FaultsError: It cannot be used.
        """
        return self._ask("PUT", plan)

    def clear(self) -> dict[str, Any]:
        """Nothing strikes any more."""
        return self._ask("DELETE")

    def _ask(self, method: str, plan: str = "") -> dict[str, Any]:
        host, port = self._where.hostname or "", self._where.port
        try:
            with closing(HTTPSConnection(host, port, timeout=_SECONDS, context=self._trust)) as connection:
                connection.request(method, FAULTS_PATH, plan.encode(), self._headers)
                answer = connection.getresponse()
                told = json.loads(answer.read())
        except (OSError, HTTPException, ValueError) as error:
            raise SandboxError(f"the sandbox does not answer when asked for its faults: {error}") from None
        if answer.status == HTTPStatus.BAD_REQUEST:
            raise FaultsError(told["error"])
        if answer.status != HTTPStatus.OK:
            raise SandboxError(f"the sandbox answers {answer.status} when asked for its faults")
        return dict(told)
