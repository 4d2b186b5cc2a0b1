"""Call one GraphQL endpoint over one TLS connection, retry, and raise each failure as a typed error.

The URL must be https. Redirects are not followed. The time of a call and the size of an answer are limited.
:mod:`ucl_helpers.wire.tls` describes how the server is verified.
"""

import json
import math
import re
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from ucl_helpers.clock import MOST_SECONDS
from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    EmptyAnswer,
    RateLimited,
    Refused,
    RetryLater,
    ServerNotTrusted,
    UCLError,
    Unavailable,
    Unreachable,
    UsageError,
)
from ucl_helpers.keys import Credentials
from ucl_helpers.models import MASK, CallRecord
from ucl_helpers.operations import result_of
from ucl_helpers.progress import waiting
from ucl_helpers.tables import span
from ucl_helpers.urls import check_url, host_of
from ucl_helpers.wire.diagnosis import (
    Endpoint,
    answered_by_proxy,
    clock_note,
    may_pass,
    refusal_causes,
    transport_error,
)
from ucl_helpers.wire.proxy import proxy_for
from ucl_helpers.wire.tls import system_context, system_trust_problem, tls_context

if TYPE_CHECKING:
    from requests import Response

CONNECT_SECONDS, READ_SECONDS, DEADLINE_SECONDS = 10.0, 30.0, 60.0
MAX_RETRY_AFTER = timedelta(days=1)
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_RECEIVED_BYTES = MAX_ANSWER_BYTES + 256 * 1024
"""The most bytes that one try may receive: the answer with headers and chunk sizes, and a proxy's answer before it."""
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0)
PASSING_STATUS = {408, 429, 500, 502, 503, 504}
_OF_PROXIES = {401, 403, 500, 502, 503, 504}  # also what a proxy answers that looks into TLS
RETRIED_STATUS = {429, 502, 503, 504}
WAITS_WHEN_LIMITED: ContextVar[bool] = ContextVar("WAITS_WHEN_LIMITED", default=True)
"""Whether a call waits after a 429 and tries again. A fleet sets this to False, and slows down all its renewals."""
_BLANKS = r"\s|\\[nrt]"  # also as JSON writes them
_SECRET_HEADERS, _SECRET_LENGTH = ("Authorization", "connector-token"), 8  # what is shorter may be a common word
_SHOWN_HEADERS = ("Content-Type", "Tenant", *_SECRET_HEADERS, "Date")


@dataclass(frozen=True)
class Answer:
    """A result, the server's ``date`` (UTC) or None, and ``clock_difference`` in seconds (server's minus ours)."""

    result: Any = field(repr=False)  # may hold a token
    date: datetime | None
    clock_difference: float
    record: CallRecord = field(repr=False)

    @property
    def request_id(self) -> str:
        """The call's ``x-request-id``."""
        return self.record.request_id


class Client:
    """A client for GraphQL operations at one endpoint, over one kept TLS connection. It is a context manager.

    Args:
        url: an https URL.
        endpoint: the kind of the endpoint. The explanation of a refusal depends on it.
        ca_file: PEM file with the CAs that verify the server, or None for the system's CAs.
        credentials: the client certificate, or None.
        headers: sent with each call (a bearer, a tenant, a one-time token).
        retry: call again after connection errors, 429, 502, 503, 504 and empty answers. False for one-time tokens.
        deadline: seconds for a call with all its retries.
        wait: waits so many seconds between two tries.

    Raises:
        UsageError: the URL is not https, a header cannot be sent, or a variable names a proxy that cannot be used.
        StorageFailed: a file cannot be used.
    """

    def __init__(
        self,
        url: str,
        endpoint: Endpoint,
        *,
        ca_file: Path | None = None,
        credentials: Credentials | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = True,
        deadline: float = DEADLINE_SECONDS,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.url = check_url(url)
        self._proxy = proxy_for(self.url)
        headers = {name: sendable(name, value) for name, value in (headers or {}).items()}
        secrets = [headers[name].split()[-1].rstrip("=") for name in _SECRET_HEADERS if name in headers]
        self._secrets = echoes([secret for secret in secrets if len(secret) >= _SECRET_LENGTH])
        self._endpoint = endpoint
        self._certificate = credentials.certificate if credentials else None
        self._accepted = credentials.accepted if credentials else False
        self._retry, self._deadline, self._wait = retry, deadline, wait
        self.context, self._by_system = tls_context(ca_file, credentials), ca_file is None
        import requests

        from ucl_helpers.wire.adapter import Adapter

        self._session = requests.Session()
        self._session.trust_env = False  # no netrc, no REQUESTS_CA_BUNDLE; call() asks for the proxy
        self._session.mount("https://", Adapter(self.context, system_context))
        self._session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity", **headers})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def call(self, operation: str, variables: Mapping[str, Any] | None = None) -> Answer:
        """Send an operation and unwrap its ``result``.

        Raises:
            RetryLater: a temporary failure, see its subclasses. Where possible, the call was tried again first.
            Refused: the server refused the call. The error lists the likely causes.
            ServerNotTrusted: the server's certificate does not verify.
            BadAnswer: the answer is not a GraphQL answer.
        """
        until = time.monotonic() + self._deadline
        for attempt in range(len(BACKOFF_SECONDS) + 1):
            try:
                return self._once(operation, variables, until)
            except RetryLater as error:
                pause = _pause(error, attempt)
                if not self._retry or pause is None or time.monotonic() + pause >= until:
                    raise
                with waiting(f"{error.message.splitlines()[0]} Try {attempt + 2} in {pause:.1f} s."):
                    self._wait(pause)
        raise AssertionError("the last attempt either answers or raises")

    def _once(self, operation: str, variables: Mapping[str, Any] | None, until: float) -> Answer:
        from urllib3.exceptions import HTTPError

        request_id = str(uuid.uuid4())
        seconds = max(until - time.monotonic(), 0.001)
        self.context.bounds.until, self.context.bounds.room = until, MAX_RECEIVED_BYTES
        answering = False
        try:
            with self._session.post(
                self.url,
                json={"query": operation, "variables": variables or {}},
                headers={"x-request-id": request_id},
                timeout=(min(CONNECT_SECONDS, seconds), min(READ_SECONDS, seconds)),
                proxies={"https": self._proxy.url} if self._proxy else {},
                allow_redirects=False,
                stream=True,
            ) as response:
                answering = response.status_code == HTTPStatus.OK
                body = _read(response, until)
        except (HTTPError, OSError) as error:  # those of requests are OSErrors
            failure = transport_error(
                error,
                url=self.url,
                certificate=self._certificate,
                now=datetime.now(UTC),
                proxy=self._proxy,
                accepted=self._accepted or answering,
                by_system=self._by_system,
                system_trust=system_trust_problem,
            )
            raise self._with_request_id(failure, request_id) from None
        date, difference = server_time(response)
        try:
            result = self._interpret(response, body, date)
        except UCLError as error:
            failure = self._with_request_id(error, request_id, clock_note(difference), clock_difference=difference)
            foreign = isinstance(error, BadAnswer) or error.data.get("status") in _OF_PROXIES
            raise answered_by_proxy(failure, self._proxy) if self._proxy and foreign else failure from None
        self._accepted = True  # from now on, whatever breaks off is not for a certificate that is too young
        record = CallRecord(
            self.url,
            request_id,
            operation,
            dict(variables or {}),
            result,
            status=f"{response.status_code} {response.reason}",
            sent=_headers_shown(response.request.headers),
            received=_headers_shown(response.headers),
        )
        return Answer(result, date, difference or 0.0, record)

    def _with_request_id(self, error: UCLError, request_id: str, note: str = "", **facts: Any) -> UCLError:
        """Return the error with the URL and the request id, which finds it in UCL's log."""
        first, *others = error.message.split("\n")
        note += "" if isinstance(error, ServerNotTrusted) else f" (x-request-id {request_id})"  # it got no request
        message = "\n".join([f"{first}{note}", *others])
        return error.replaced(message, **facts, url=self.url, request_id=request_id)

    def _masked(self, text: str) -> str:
        """Remove our secrets from a server's text: in any case of letters, quoted, or broken by blanks."""
        squeezed = re.sub(_BLANKS, "", text).lower()
        echoed = [secret for secret in self._secrets if secret.lower() in squeezed]
        forms = [f"(?:{_BLANKS})*".join(map(re.escape, secret)) for secret in sorted(echoed, key=len, reverse=True)]
        return re.sub("|".join(forms), "…", text, flags=re.IGNORECASE) if forms else text

    def _interpret(self, response: "Response", body: bytes, date: datetime | None) -> Any:
        status = response.status_code
        if status == HTTPStatus.OK and not body:
            raise EmptyAnswer("UCL answered with nothing at all.", remedy="Run it again. This failure is temporary.")
        if status == HTTPStatus.OK:
            return result_of(_json(body, self._masked), where=self.url)
        if status in {401, 403} or (status == HTTPStatus.BAD_REQUEST and not body.strip()):
            now = date or datetime.now(UTC)
            outage = may_pass(self._endpoint, status, body, self._certificate, now)
            causes = refusal_causes(self._endpoint, self._certificate, now, accepted=self._accepted, outage=outage)
            raise AuthenticationFailed(
                "\n- ".join([f"{self.url} refused to authenticate us ({status}).\nIt may mean:", *causes]),
                remedy=_TRY_AGAIN[self._endpoint] if outage else _REMEDIES[self._endpoint],
                causes=causes,
                status=status,
                **({"outage": "possible", "endpoint": self._endpoint} if outage else {}),
            )
        if status in PASSING_STATUS:
            limited, after = status == HTTPStatus.TOO_MANY_REQUESTS, retry_after(response)
            kind, what = (RateLimited, "asks to slow down") if limited else (Unavailable, "cannot answer now")
            when = f"in {span(timedelta(seconds=after))}" if after else "later"
            raise kind(
                f"{self.url} {what} ({status}).", remedy=f"Run it again {when}.", retry_after=after, status=status
            )
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise Refused(f"{self.url} says the request is too large (413).", remedy="Check gateway and URL.")
        if status in {400, 422}:
            result_of(_json(body, self._masked), where=self.url)
        to = self._masked(host_of(response.headers.get("Location", "")))
        where = f" to {to[:100] or 'itself'}, which is not followed" if response.is_redirect else ""
        message = f"{self.url} answered {status}{where}."
        raise BadAnswer(message, remedy="Check that it is a Connector's GraphQL URL.", status=status)


def _headers_shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: MASK if name in _SECRET_HEADERS else headers[name] for name in _SHOWN_HEADERS if name in headers}


_REMEDIES: Mapping[Endpoint, str] = {
    "token": "Get a new one-time token.",
    "certificate": "If it was revoked, expired or its client deleted, establish the connection again.",
    "director": "Get a fresh bearer and check the tenant.",
}


_TRY_AGAIN: Mapping[Endpoint, str] = {
    "token": "If UCL had an outage, the token is still good: try it once more within its five minutes, which costs "
    "nothing. If it is refused again, get a new one-time token.",
    "certificate": "Wait and try again before you establish the connection again: an outage passes. If it was revoked "
    "or its client deleted, establish the connection again.",
}


def _pause(error: RetryLater, attempt: int) -> float | None:
    """Return the seconds until the next try, or None if there is no next try."""
    if attempt >= len(BACKOFF_SECONDS) or (isinstance(error, RateLimited) and not WAITS_WHEN_LIMITED.get()):
        return None
    if HTTPStatus.BAD_REQUEST <= error.data.get("proxy_status", 0) < HTTPStatus.INTERNAL_SERVER_ERROR:
        return None  # the proxy says the same again, and may lock an account whose password is wrong
    if isinstance(error, Unreachable | EmptyAnswer) or error.data.get("status") in RETRIED_STATUS:
        return max(BACKOFF_SECONDS[attempt], error.data.get("retry_after") or 0.0)
    return None


def _read(response: "Response", until: float) -> bytes:
    """Return the decoded body of an answer. Stop reading as soon as the body is larger than allowed."""
    body = bytearray()
    while len(body) <= MAX_ANSWER_BYTES and (part := response.raw.read1(65536, decode_content=True)):
        body += part
        if time.monotonic() > until:
            raise TimeoutError("timed out before the answer was complete")
    return bytes(body)


def _json(body: bytes, masked: Callable[[str], str]) -> Any:
    if len(body) > MAX_ANSWER_BYTES:
        raise BadAnswer(f"The answer is larger than {MAX_ANSWER_BYTES} bytes.", remedy="Check the URL.")
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
        text.encode()  # a lone surrogate could be neither shown nor kept
        value = json.loads(masked(text))
    except (ValueError, RecursionError):
        # The error does not quote the answer, because even half an answer may have a token.
        kind = "a web page" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes of something else"
        raise BadAnswer(
            f"The answer is not JSON but {kind}.", remedy="Check the URL; a proxy may answer in its place."
        ) from None
    return value


# -- headers ----------------------------------------------------------------------------------------------------------


def server_time(response: "Response") -> tuple[datetime | None, float | None]:
    """Return the server's time (UTC) and its difference to ours in seconds (server's minus ours).

    Both are None if the answer has no ``Date``, or one that is centuries away.
    """
    date = _date(response.headers.get("Date", ""))
    difference = (date - datetime.now(UTC)).total_seconds() if date else math.inf
    return (date, difference) if abs(difference) < MOST_SECONDS else (None, None)


def _date(text: str) -> datetime | None:
    """Parse a date of RFC 9110, section 5.6.7. It is UTC if it names no zone."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def retry_after(response: "Response") -> float | None:
    """Return ``Retry-After`` in seconds, at most a day. It may be a number or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
    elif when := _date(value):
        seconds = (when - (server_time(response)[0] or datetime.now(UTC))).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER.total_seconds())


def sendable(name: str, value: str) -> str:
    """Return the value unchanged if a header can carry it.

    Raises:
        UsageError: it is empty, or has characters that no header can carry. The text names the header, not the value.
    """
    if not (value and value.isascii() and value.isprintable() and value == value.strip()):
        raise UsageError(
            f"The value of {name} is empty, or has characters that no header can carry.", remedy="Copy it again."
        )
    return value


def echoes(secrets: Sequence[str]) -> list[str]:
    """Return the forms in which an answer may repeat our secrets: plain, as in URLs and JSON, and in base64."""
    forms = {
        text for secret in secrets for text in (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
    }
    for raw in map(str.encode, secrets):  # within a longer text it begins at any of three places
        forms |= {b64encode(bytes(at) + raw)[-(-at * 4 // 3) : (at + len(raw)) * 4 // 3].decode() for at in range(3)}
    return sorted(forms)
