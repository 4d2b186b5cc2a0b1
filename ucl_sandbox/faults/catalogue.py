"""The catalogue of faults: the effect of each one, and whether the sandbox acts on the request first.

Acting first matters most for `sign`, because such a fault leaves a certificate that the client does not receive.
"""

import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Literal

Family = Literal["transport", "http", "graphql", "certificate", "url"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        family: The part of a call that it affects.
        effect: Its effect, in one line.
        acted: Whether the sandbox acts on the request first. For example, it signs, revokes, or uses a token up.
        blind: Whether it strikes before the request is read, when the operation is not known.
        value: The meaning of `Fault.value` and its default. Empty if the kind takes no value.
        number: Whether that value must be a number above 0.
        values: The allowed values, if they are limited.
        switch: Whether it is on or off for a whole listener, without a probability and a number of times.
        once: Whether it strikes only once, with a permanent effect.
    """

    family: Family
    effect: str
    acted: bool = False
    blind: bool = False
    value: str = ""
    number: bool = False
    values: Collection[str | float] = ()
    switch: bool = False
    once: bool = False


_transport, _http = partial(Kind, "transport"), partial(Kind, "http")
_graphql = partial(Kind, "graphql", acted=True)
_ALERTS = [alert.name.removeprefix("ALERT_DESCRIPTION_").lower() for alert in ssl.AlertDescription]
_TRANSPORT = {
    "refused": _transport("nobody listens: the connection is refused", blind=True, switch=True),
    "reset-in-handshake": _transport("the connection is reset before the TLS handshake", blind=True),
    "reset-before-reading": _transport("reset after the handshake, before the request is read", blind=True),
    "reset-after-reading": _transport("reset after the request is read, before it is acted on"),
    "reset-after-acting": _transport("the lost answer: the request is acted on, then reset", acted=True),
    "reset-in-mid-answer": _transport("half of the answer, then a reset", acted=True),
    "black-hole": _transport("nothing ever comes, until the faults are changed or the sandbox ends"),
    "slow-drip": _transport("the answer, a byte at a time", acted=True, value="seconds between bytes (5)", number=True),
    "tls-alert": _transport(
        "an alert ends the TLS handshake", blind=True, value="the alert's name (internal_error)", values=_ALERTS
    ),
    "server-certificate-expired": _transport("the server's certificate has expired", blind=True),
    "server-certificate-wrong-host": _transport("the server's certificate is for another host", blind=True),
    "server-certificate-unknown-ca": _transport("the server's certificate is of an unknown CA", blind=True),
    "server-ca-changed": _transport("all listeners get a new CA, for good; the CA file has it", blind=True, once=True),
}

_RETRY_AFTER = "Retry-After: seconds or an HTTP date (none)"
_FORMER_PHRASES = {413: "Request Entity Too Large", 422: "Unprocessable Entity"}


def answer_line(status: int) -> str:
    """Return a status with its phrase in Go's servers, which differs from that in Python 3.13 and newer."""
    return f"{status} {_FORMER_PHRASES.get(status) or HTTPStatus(status).phrase}"


_REDIRECT, _REDIRECTS = "the status (307)", (301, 302, 303, 307, 308)
_ACTED_ON = {500, 504}  # the server or a gateway failed after the request was acted on
_HTTP = {
    "http-400-empty": _http("400 with an empty body, as for a failed authentication"),
    "outage": _http(
        "the Director or its database is down: each endpoint answers as the real ones do then",
        value="what is down: process or database (process)",
        values=("process", "database"),
    ),
    **{
        f"http-{status}": _http(
            answer_line(status), acted=status in _ACTED_ON, value=_RETRY_AFTER if status in {429, 503} else ""
        )
        for status in (401, 403, 404, 408, 413, 429, 500, 502, 503, 504)
    },
    "redirect-same-host": _http("a redirect to another path of the same host", value=_REDIRECT, values=_REDIRECTS),
    "redirect-other-host": _http("a redirect to another host name", value=_REDIRECT, values=_REDIRECTS),
    "redirect-to-http": _http("a redirect to http", value=_REDIRECT, values=_REDIRECTS),
    "wrong-content-type": _http(
        "the right answer under the wrong content type", acted=True, value="the type (text/html)"
    ),
    "html-200": _http("an HTML page with 200, as of a captive portal"),
    "html-502": _http("an HTML page with 502, as of a gateway"),
}

_GRAPHQL = {
    "json-broken": _graphql("what comes is no JSON"),
    "json-truncated": _graphql("half of the JSON, with the Content-Length of that half"),
    "json-short": _graphql("half of the JSON, then the end: shorter than its Content-Length"),
    "json-huge": _graphql("a very long answer", value="megabytes (100)", number=True),
    "json-nested": _graphql("deeply nested JSON", value="levels (100000)", number=True),
    "gzip-bomb": _graphql(
        "gzip, though not asked for, that unpacks to very much", value="megabytes unpacked (1000)", number=True
    ),
    "empty-body": _graphql("200 and nothing else"),
    "empty-object": _graphql("`{}`"),
    "data-null": _graphql("`data` is null, without errors"),
    "data-empty": _graphql("`data` is `{}`, without errors"),
    "result-null": _graphql("the field that was asked for is null, without errors"),
    "missing-fields": _graphql("fields are missing", value="the one that is missing (all)"),
    "wrong-types": _graphql("values are of another type", value="the field (all)"),
    "errors-beside-data": _graphql("errors beside the data", value="the error's text"),
}

_CERTIFICATE = {
    name: Kind("certificate", effect, acted=True, value=value, number=bool(value))
    for name, effect, value in (
        ("another-key", "the certificate is for another key", ""),
        ("another-subject", "the certificate has another subject", ""),
        ("expired", "the certificate has expired", "seconds ago (a day)"),
        ("not-yet-valid", "the certificate is not valid yet", "seconds until it is (a day)"),
        ("already-due", "the certificate is due for renewal already", ""),
        ("chain-reordered", "the chain is in another order", ""),
        ("missing-intermediate", "the chain lacks the intermediate CA", ""),
        ("extra-certificate", "the chain has an unrelated certificate in addition", ""),
        ("self-signed", "the certificate is signed by itself", ""),
        ("foreign-ca", "the CA in the answer is not the one that signed", ""),
        ("sha1", "the certificate is signed with SHA-1", ""),
        ("rsa-1024", "the certificate is for a key of 1024 bits", ""),
        ("wrong-eku", "the certificate is not for client authentication", ""),
        ("text-around-pem", "there is text around the PEM blocks", ""),
        ("der", "DER instead of PEM", ""),
        ("crlf", "PEM with CRLF at the ends of lines", ""),
        ("two-leaves", "two client certificates", ""),
        ("garbage", "garbage in the place of a certificate", ""),
        ("old-certificate", "the old certificate again", ""),
    )
}

_URL = {
    f"{which}-url-{how}": Kind("url", f"{field} is {effect}", acted=True, value=value)
    for which, field in (("director", "directorURL"), ("connector", "certificateSecuredConnectorURL"))
    for how, effect, value in (
        ("null", "null", ""),
        ("empty", "empty", ""),
        ("http", "an http one", ""),
        ("dead", "one where nobody answers", "the URL"),
        ("moved", "another one that works: 127.0.0.1 instead of localhost", "the URL"),
    )
}

CATALOGUE: Mapping[str, Kind] = {**_TRANSPORT, **_HTTP, **_GRAPHQL, **_CERTIFICATE, **_URL}
