"""Explain refusals and failed connections. Pure.

UCL gives few reasons when it refuses a request. It sends 400 with an empty body, sends a TLS alert, or only closes the
connection. This module derives the likely causes from the endpoint, the certificate and the clocks. The likeliest
cause comes first.
"""

import errno
import ssl
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import urlsplit

from cryptography import x509

from ucl_helpers.errors import BadAnswer, CertificateRejected, ServerNotTrusted, UCLError, Unreachable, UsageError
from ucl_helpers.models import Validity
from ucl_helpers.tables import moment, span
from ucl_helpers.wire.proxy import Proxy
from ucl_helpers.wire.sockets import AnswerTooLarge, NoTunnel

Endpoint = Literal["token", "certificate", "director"]
SystemTrust = Callable[[], tuple[str, str] | None]
"""Returns None, or an environment variable that hides the system's CAs, and a sentence about it."""

GRACE = timedelta(minutes=5)
_BROKEN = (ssl.SSLError, ConnectionError, EOFError)

_CERTIFICATE_ALERTS = {
    "CERTIFICATE_REQUIRED": "the server requires a client certificate, and none was sent",
    "UNKNOWN_CA": "the server does not know the CA of our client certificate",
    "CERTIFICATE_EXPIRED": "the server says our client certificate has expired",
    "CERTIFICATE_REVOKED": "the server says our client certificate was revoked",
    "BAD_CERTIFICATE": "the server does not accept our client certificate, or requires one",
    "CERTIFICATE_UNKNOWN": "the server does not accept our client certificate",
    "UNSUPPORTED_CERTIFICATE": "the server does not accept this kind of client certificate",
    "ACCESS_DENIED": "the server denies access to this client certificate",
    "HANDSHAKE_FAILURE": "the server ended the handshake; it may require another client certificate",
    "DECRYPT_ERROR": "the server says our private key does not belong to our certificate",
}
_OTHER_CA = (
    "Ask UCL's operator for the CA of this server, and give it (PEM) with --ca-file or ca_file. The CA in UCL's "
    "answers signs client certificates and does not verify the server. For a connection in use, ucl doctor prints the "
    "command."
)
_VERIFY_PROBLEMS = {
    9: ("its certificate is not valid yet", "Compare the clocks. This machine's clock may be behind."),
    10: ("its certificate has expired", "Compare the clocks. If ours is right, the server's operator must renew it."),
    18: ("its certificate is self-signed", "If you trust it, give it with --ca-file or ca_file."),
    19: ("its CA is unknown here", _OTHER_CA),
    20: ("its CA is unknown here", _OTHER_CA),
    21: ("its certificate cannot be verified", _OTHER_CA),
    62: (
        "its certificate is for another host: no subjectAltName names this one, and a common name does not count",
        "Check the URL's host name. If it is right, the server's operator must renew the certificate with this name.",
    ),
    64: ("its certificate is for another address", "Check the URL's address."),
}
# OpenSSL's numbers for wrong or missing CA markings, for extensions, and for the rules of VERIFY_X509_STRICT.
_BREAKS_A_RULE = {24, 32, 34, 37, 41, 79, *range(80, 95)}
_TOO_WEAK = {66, 67, 68}
_UNKNOWN_CA = {18, 19, 20, 21}
_ISSUED_AGAIN = "The server's operator must replace it. To show it: openssl s_client -showcerts"


_UNREACHED = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
_BAD_REQUEST, _FORBIDDEN, _LOGIN_WANTED, _SERVER_ERROR = 400, 403, 407, 500
_DOWN = (
    "an outage of UCL: while its Director or the Director's database is down, it refuses every certificate and token"
)
_UNSENT = {"NewConnectionError", "ConnectTimeoutError"}  # of urllib3: there was no connection to send anything over
_UNRESOLVED = "gaierror"  # of socket, which is not imported here
_WRONG_URL = "perhaps it is the certificate-secured Connector URL instead of the token-secured one"


def certificate_causes(certificate: x509.Certificate | None, now: datetime, *, accepted: bool = False) -> list[str]:
    """Return the causes of a refusal at ``now`` that the certificate's dates show.

    ``now`` is UTC, by the server's clock if it is known. A certificate that UCL has ``accepted`` before is not too new.
    """
    if certificate is None:
        return []
    validity = Validity.of(certificate)
    if now >= validity.not_after:
        return [f"the client certificate expired {moment(validity.not_after)}: establish the connection again"]
    if now < validity.not_before:
        return [f"the client certificate is valid only from {moment(validity.not_before)}: compare the clocks"]
    if now - validity.not_before < GRACE and not accepted:
        age = span(now - validity.not_before)
        return [f"the client certificate is {age} old and a gateway's clock may be behind: try again in 5 minutes"]
    return []


def may_pass(endpoint: Endpoint, status: int, body: bytes, certificate: x509.Certificate | None, now: datetime) -> bool:
    """Return whether an outage of UCL may be the cause of a refusal.

    It may be if the answer is 400 with an empty body, does not come from the Director, and the certificate has not
    expired.
    """
    empty = status == _BAD_REQUEST and not body.strip()
    return empty and endpoint != "director" and (certificate is None or now < Validity.of(certificate).not_after)


def refusal_causes(
    endpoint: Endpoint,
    certificate: x509.Certificate | None,
    now: datetime,
    *,
    accepted: bool = False,
    outage: bool = True,
) -> list[str]:
    """Return the causes of an authentication failure at an endpoint, the likeliest first.

    Args:
        endpoint: the kind of the endpoint.
        certificate: the client certificate that was sent, or None.
        now: the moment by the server's clock if it is known (UTC).
        accepted: whether UCL has accepted this certificate before.
        outage: whether an outage may be the cause, see :func:`may_pass`.
    """
    down = [_DOWN] if outage else []
    if endpoint == "token":
        return [
            "the one-time token was used before (the first request that carries it uses it up, even a failed one)",
            "it expired (5 minutes after it was issued)",
            "UCL does not know it, or its application was unregistered",
            *down,
        ]
    if endpoint == "director":
        return ["the bearer token is missing, wrong or expired", "the tenant does not belong to the bearer"]
    wrong_url = ["the URL is the token-secured Connector URL, and this call needs the certificate-secured one"]
    return [
        *(down if accepted else []),
        *certificate_causes(certificate, now, accepted=accepted),
        *([] if accepted else wrong_url),
        "the client certificate was revoked",
        "its client was deleted at UCL (the application or its authentication)",
        "it belongs to another landscape or subject (its CA is right, because the handshake succeeded)",
        *(wrong_url if accepted else down),
    ]


def clock_note(difference: float | None) -> str:
    """Return a sentence about clocks that differ by more than five minutes, or an empty text.

    ``difference`` is in seconds, the server's clock minus ours.
    """
    if difference is None or abs(difference) <= GRACE.total_seconds():
        return ""
    way = "behind" if difference > 0 else "ahead of"
    return f" Our clock is {span(timedelta(seconds=abs(difference)))} {way} the server's."


def transport_error(
    error: BaseException,
    *,
    url: str,
    certificate: x509.Certificate | None,
    now: datetime,
    proxy: Proxy | None = None,
    accepted: bool = False,
    by_system: bool = False,
    system_trust: SystemTrust = lambda: None,
) -> UCLError:
    """Return a failed connection as a typed error, which says what happened, what it likely means and what to do.

    Args:
        error: the exception of the HTTP library. Its causes are searched too.
        url: the URL that was called.
        certificate: the client certificate that was sent, or None.
        now: our clock, UTC.
        proxy: the proxy that the call went through, or None.
        accepted: whether UCL has accepted this certificate before.
        by_system: whether the system's CAs verify the server. They always verify a proxy.
        system_trust: finds the variable that hides the system's CAs. It is called only if the CA is unknown.
    """
    chain = list(_unfold(error))
    ended = next((part for part in chain if isinstance(part, NoTunnel)), None)
    facts: dict[str, Any] = {"url": url}
    if proxy and ended:
        return _blame_trust(_blame_proxy(ended, list(_unfold(ended)), proxy, facts), chain, system_trust)
    if any(type(part).__name__ == _UNRESOLVED for part in chain):
        facts["unresolved"] = True
    if any(type(part).__name__ in _UNSENT or isinstance(part, ConnectionRefusedError) for part in chain):
        facts["unsent"] = True
    kind, message, remedy = _explain(chain, url, certificate, now, accepted=accepted)
    if proxy and kind in {ServerNotTrusted, Unreachable} and any(isinstance(part, _BROKEN) for part in chain):
        host = urlsplit(url).hostname  # a proxy that opened the connection may impersonate the server
        message += f" The connection goes through {proxy.named}, which may be the cause."
        remedy += f" If the proxy is not needed for {host}, name {host} in NO_PROXY."
        facts |= proxy.facts
    return _blame_trust(kind(message, remedy=remedy, **facts), chain, system_trust if by_system else lambda: None)


def _blame_trust(error: UCLError, chain: list[BaseException], system_trust: SystemTrust) -> UCLError:
    """Name the variable that hides the system's CAs, if the CA is unknown and there is such a variable."""
    codes = {part.verify_code for part in chain if isinstance(part, ssl.SSLCertVerificationError)}
    if not codes & _UNKNOWN_CA or (hidden := system_trust()) is None:
        return error
    variable, problem = hidden
    remedy = f"Correct {variable}, or remove it: unset {variable}. If the CA is still unknown then: {error.remedy}"
    return error.replaced(f"{error.message} {problem}", remedy=remedy, trust_variable=variable)


def answered_by_proxy(error: UCLError, proxy: Proxy) -> UCLError:
    """Return the error for an answer through a tunnel that may not be UCL's.

    A proxy that inspects TLS can answer in UCL's place, for example with 407, 403, 502 or a page of its own.
    """
    if error.data.get("status") == _LOGIN_WANTED:
        host = urlsplit(str(error.data.get("url", ""))).hostname
        problem, remedy = _tunnel_status(_LOGIN_WANTED, proxy, host)
        message = f"{_capitalised(proxy.named)} {problem} ({_LOGIN_WANTED})."
        return Unreachable(message, remedy=remedy, **{**error.data, **proxy.facts, "proxy_status": _LOGIN_WANTED})
    first, *others = error.message.split("\n")
    first += f" Or {proxy.named} answered in UCL's place."
    return error.replaced("\n".join([first, *others]), **proxy.facts)


def _explain(
    chain: list[BaseException], url: str, certificate: x509.Certificate | None, now: datetime, *, accepted: bool
) -> tuple[type[UCLError], str, str]:
    """Return the class of the error, what happened and what to do."""
    # Python raises HTTPException itself, none of its subclasses, for more than 100 headers or trailers.
    if any(isinstance(part, AnswerTooLarge) or type(part) is HTTPException for part in chain):
        return BadAnswer, f"The answer of {url} is larger than a call accepts.", "Check the URL."
    tls = next((part for part in chain if isinstance(part, ssl.SSLError)), None)
    likely = certificate_causes(certificate, now, accepted=accepted)
    hint = f" Likely: {'; '.join(likely)}." if likely else ""
    if isinstance(tls, ssl.SSLCertVerificationError):
        problem, remedy = _verify_problem(tls)
        return ServerNotTrusted, f"The server at {url} is not trusted: {problem}.", remedy
    reason = getattr(tls, "reason", None) or ""  # not there when it was made by hand
    for alert, meaning in _CERTIFICATE_ALERTS.items():
        if reason.endswith(alert):
            remedy = "Check that key and certificate are those that UCL issued for this landscape."
            remedy = remedy if certificate else f"Check the URL: {_WRONG_URL}."
            return CertificateRejected, f"No secure connection to {url}: {meaning} ({reason}).{hint}", remedy
    if "VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        message = f"The server at {url} speaks no TLS 1.2 or newer ({reason})."
        return ServerNotTrusted, message, "Check the URL and port."
    broken = any(
        isinstance(part, ConnectionResetError | BrokenPipeError | EOFError | ssl.SSLEOFError) for part in chain
    )
    broken = broken or any(map(_is_gone, chain)) or "disconnected" in str(chain[0]).lower()
    if broken and certificate is not None and now >= Validity.of(certificate).not_after:
        message = f"The server at {url} closed the connection after it received our client certificate.{hint}"
        return CertificateRejected, message, "Establish the connection again with a one-time token."
    remedy = "Check network, proxy and URL, then run it again; nothing is lost."
    if broken:
        doubt = "rejects our client certificate" if certificate else f"requires a client certificate ({_WRONG_URL})"
        remedy += f" If the error persists: a server that {doubt} may also close the connection without a reason."
    return Unreachable, f"No answer from {url}: {_innermost(chain)}.{hint if broken else ''}", remedy


def _verify_problem(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Return the problem of a server's certificate, and what to do."""
    if error.verify_code in _BREAKS_A_RULE:
        return f"its certificate or a CA's breaks a rule of RFC 5280 ({error.verify_message})", _ISSUED_AGAIN
    if error.verify_code in _TOO_WEAK:
        return f"its certificate or a CA's is too weak ({error.verify_message})", _ISSUED_AGAIN
    return _VERIFY_PROBLEMS.get(error.verify_code, (error.verify_message, "To show it: openssl s_client -showcerts"))


def _blame_proxy(ended: NoTunnel, chain: list[BaseException], proxy: Proxy, facts: dict[str, Any]) -> UCLError:
    """Return the error for a proxy that opened no tunnel. The proxy's own text is left out, since it is not trusted."""
    named, host = _capitalised(proxy.named), urlsplit(facts["url"]).hostname
    facts |= {"proxy": str(proxy), "variable": proxy.variable}
    elsewhere = f"Check {proxy.variable}, or name {host} in NO_PROXY; nothing is lost."
    tls = next((part for part in chain if isinstance(part, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        problem, _ = _verify_problem(tls)
        remedy = "Add its CA to the system's CAs, or name it in SSL_CERT_FILE."
        return ServerNotTrusted(f"{named} is not trusted: {problem}.", remedy=remedy, **facts)
    if "VERSION" in (getattr(tls, "reason", None) or ""):
        remedy = f"Write http:// in place of https:// in {proxy.variable}."
        return UsageError(f"{named} speaks no TLS.", remedy=remedy, **facts)
    if ended.status is not None:
        what, remedy = _tunnel_status(ended.status, proxy, host)
        what, facts["proxy_status"] = f"{what} ({ended.status})", ended.status
        return Unreachable(f"{named} {what}.", remedy=remedy or elsewhere, **facts)
    what = f"did not connect to {host}: {_innermost(chain)}"
    if any(type(part).__name__ == _UNRESOLVED for part in chain):
        what = f"cannot be found: {_innermost(chain)}"
    elif any(isinstance(part, OSError) and part.errno in _UNREACHED for part in chain):
        what = f"cannot be reached: {_innermost(chain)}"
    if ended.oddity == "BadStatusLine" and not ended.speaks_http:
        remedy = f"Check scheme, host and port in {proxy.variable}, or name {host} in NO_PROXY."
        return UsageError(f"{named} is no HTTP proxy: it answers in another protocol.", remedy=remedy, **facts)
    if any(isinstance(part, AnswerTooLarge) for part in chain):
        what = "answers without end"
    elif ended.oddity:
        what = f"did not answer like an HTTP proxy ({ended.oddity})"
    return Unreachable(f"{named} {what}.", remedy=elsewhere, **facts)


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _tunnel_status(status: int, proxy: Proxy, host: str | None) -> tuple[str, str]:
    """Return the meaning of a proxy's status, and what to do; the latter is empty if there is no special advice."""
    if status == _LOGIN_WANTED:
        what = "does not accept the user name and password" if proxy.has_password else "wants a user name and password"
        where = str(proxy).replace("://", "://USER:PASSWORD@", 1)
        return what, (
            f"Write {where} in {proxy.variable}; nothing is lost. `ucl` logs in with this (Basic) only: if the proxy "
            f"wants Negotiate, Kerberos or NTLM, ask its administrator to let {host} through without a login."
        )
    if status == _FORBIDDEN:
        return f"does not allow connections to {host}", f"Ask its administrator to allow {host}; nothing is lost."
    if status >= _SERVER_ERROR:
        later = f"Run it again later. If it stays so, ask the proxy's administrator whether it can reach {host}."
        return f"does not reach {host}", later
    return f"did not connect to {host}", ""


def _unfold(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes and the exceptions among its arguments."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        part = queue.pop(0)
        if isinstance(part, BaseException) and id(part) not in seen:
            seen.add(id(part))
            yield part
            queue += [part.__cause__, part.__context__, getattr(part, "reason", None), *part.args]


def _is_gone(error: BaseException) -> bool:
    """Return whether the connection was reset before the handshake began, which makes its socket unconnected."""
    return isinstance(error, OSError) and error.errno == errno.ENOTCONN


def _innermost(chain: list[BaseException]) -> str:
    if any(map(_is_gone, chain)):
        return "connection reset by peer"
    system = [
        part for part in chain if isinstance(part, OSError) and part.strerror and not isinstance(part, ssl.SSLError)
    ]
    if system:
        return str(system[-1].strerror).lower()
    if any(isinstance(part, TimeoutError) or "timed out" in str(part) for part in chain):
        return "timed out"
    reasons = [getattr(part, "reason", None) for part in chain if isinstance(part, ssl.SSLError)]
    alert = next((reason for reason in reasons if reason and "ALERT" in reason), None)
    return f"the server ended TLS ({alert})" if alert else f"the connection broke off ({type(chain[-1]).__name__})"
