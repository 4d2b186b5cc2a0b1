"""Every fault that the sandbox knows, by name: what is seen, and whether the request has been acted on by then.

It matters most for `sign`: a fault after acting leaves a certificate that nobody has been told of.
"""

import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

Family = Literal["transport", "http", "graphql", "certificate", "url"]


@dataclass(frozen=True)
class Kind:
    """What a fault is.

    Attributes:
        family: What part of an exchange it spoils.
        told: What happens, in one line.
        acted: Whether the sandbox acts on the request first: signs, revokes, uses a token up.
        blind: It strikes before the request is read, so its operation cannot be known.
        value: What `Fault.value` means here, and what holds without one; empty where there is none.
        number: Whether that value is a number above 0.
        values: The only values there are, if they are few.
        switch: It is on or off for a whole listener: neither a probability nor a number of times makes sense.
        once: It strikes once and stays.
    """

    family: Family
    told: str
    acted: bool = False
    blind: bool = False
    value: str = ""
    number: bool = False
    values: Collection[str | float] = ()
    switch: bool = False
    once: bool = False


_ALERTS = [alert.name.removeprefix("ALERT_DESCRIPTION_").lower() for alert in ssl.AlertDescription]
_TRANSPORT = {
    "refused": Kind("transport", "nobody listens: the connection is refused", blind=True, switch=True),
    "reset-in-handshake": Kind("transport", "the connection is reset before the TLS handshake", blind=True),
    "reset-before-reading": Kind("transport", "reset after the handshake, before the request is read", blind=True),
    "reset-after-reading": Kind("transport", "reset after the request is read, before it is acted on"),
    "reset-after-acting": Kind("transport", "the lost answer: the request is acted on, then reset", acted=True),
    "reset-in-mid-answer": Kind("transport", "half of the answer, then a reset", acted=True),
    "black-hole": Kind("transport", "nothing ever comes, until the faults are changed or the sandbox ends"),
    "slow-drip": Kind(
        "transport", "the answer, a byte at a time", acted=True, value="seconds between bytes (5)", number=True
    ),
    "tls-alert": Kind(
        "transport",
        "an alert ends the TLS handshake",
        blind=True,
        value="the alert's name (internal_error)",
        values=_ALERTS,
    ),
    "server-certificate-expired": Kind("transport", "the server's certificate has expired", blind=True),
    "server-certificate-wrong-host": Kind("transport", "the server's certificate is for another host", blind=True),
    "server-certificate-unknown-ca": Kind("transport", "the server's certificate is of an unknown CA", blind=True),
    "server-ca-changed": Kind(
        "transport", "all listeners get a new CA, for good; the CA file has it", blind=True, once=True
    ),
}

_RETRY_AFTER = "Retry-After: seconds or an HTTP date (none)"
_FORMER_PHRASES = {413: "Request Entity Too Large", 422: "Unprocessable Entity"}


def answer_line(status: int) -> str:
    """Return a status with its words, as Go's servers say them: Python's own differ since version 3.13."""
    return f"{status} {_FORMER_PHRASES.get(status) or HTTPStatus(status).phrase}"


_REDIRECT, _REDIRECTS = "the status (307)", (301, 302, 303, 307, 308)
_ACTED_ON = {500, 504}  # broken, or given up on by a gateway, while the answer was on its way
_HTTP = {
    "http-400-empty": Kind("http", "400 with an empty body, as for a failed authentication"),
    "outage": Kind(
        "http",
        "the Director or its database is down: each endpoint answers as the real ones do then",
        value="what is down: process or database (process)",
        values=("process", "database"),
    ),
    **{
        f"http-{status}": Kind(
            "http",
            answer_line(status),
            acted=status in _ACTED_ON,
            value=_RETRY_AFTER if status in {429, 503} else "",
        )
        for status in (401, 403, 404, 408, 413, 429, 500, 502, 503, 504)
    },
    "redirect-same-host": Kind(
        "http", "a redirect to another path of the same host", value=_REDIRECT, values=_REDIRECTS
    ),
    "redirect-other-host": Kind("http", "a redirect to another host name", value=_REDIRECT, values=_REDIRECTS),
    "redirect-to-http": Kind("http", "a redirect to http", value=_REDIRECT, values=_REDIRECTS),
    "wrong-content-type": Kind(
        "http", "the right answer under the wrong content type", acted=True, value="the type (text/html)"
    ),
    "html-200": Kind("http", "an HTML page with 200, as of a captive portal"),
    "html-502": Kind("http", "an HTML page with 502, as of a gateway"),
}

_GRAPHQL = {
    "json-broken": Kind("graphql", "what comes is no JSON", acted=True),
    "json-truncated": Kind("graphql", "half of the JSON, with the Content-Length of that half", acted=True),
    "json-short": Kind("graphql", "half of the JSON, then the end: shorter than its Content-Length", acted=True),
    "json-huge": Kind("graphql", "a very long answer", acted=True, value="megabytes (100)", number=True),
    "json-nested": Kind("graphql", "deeply nested JSON", acted=True, value="levels (100000)", number=True),
    "gzip-bomb": Kind(
        "graphql",
        "gzip, though not asked for, that unpacks to very much",
        acted=True,
        value="megabytes unpacked (1000)",
        number=True,
    ),
    "empty-body": Kind("graphql", "200 and nothing else", acted=True),
    "empty-object": Kind("graphql", "`{}`", acted=True),
    "data-null": Kind("graphql", "`data` is null, without errors", acted=True),
    "data-empty": Kind("graphql", "`data` is `{}`, without errors", acted=True),
    "result-null": Kind("graphql", "the field that was asked for is null, without errors", acted=True),
    "missing-fields": Kind("graphql", "fields are missing", acted=True, value="the one that is missing (all)"),
    "wrong-types": Kind("graphql", "values are of another type", acted=True, value="the field (all)"),
    "errors-beside-data": Kind("graphql", "errors beside the data", acted=True, value="the error's text"),
}

_CERTIFICATE = {
    name: Kind("certificate", told, acted=True, value=value, number=bool(value))
    for name, told, value in (
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
    f"{which}-url-{how}": Kind("url", f"{field} is {told}", acted=True, value=value)
    for which, field in (("director", "directorURL"), ("connector", "certificateSecuredConnectorURL"))
    for how, told, value in (
        ("null", "null", ""),
        ("empty", "empty", ""),
        ("http", "an http one", ""),
        ("dead", "one where nobody answers", "the URL"),
        ("moved", "another one that works: 127.0.0.1 instead of localhost", "the URL"),
    )
}

CATALOGUE: Mapping[str, Kind] = {**_TRANSPORT, **_HTTP, **_GRAPHQL, **_CERTIFICATE, **_URL}
