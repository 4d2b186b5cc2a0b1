"""Define the GraphQL operations, and turn answers into models. Pure.

The operations are sent with variables. A test validates them against the sandbox's schema. The aliases (``result:``)
are those of the tutorial. *Not* checked: whether an answer is true; see :mod:`ucl_helpers.checks`.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ucl_helpers.clock import moment_from
from ucl_helpers.errors import BadAnswer, EmptyAnswer, RequestRejected, UsageError
from ucl_helpers.formats.texts import unwrapped, without_blanks
from ucl_helpers.models import Configuration, OneTimeToken, SignedCertificates

CONFIGURATION = """\
query {
  result: configuration {
    certificateSigningRequestInfo { subject keyAlgorithm }
    managementPlaneInfo { directorURL certificateSecuredConnectorURL }
  }
}"""

CONFIGURATION_WITH_TOKEN = CONFIGURATION.replace("configuration {", "configuration {\n    token { token }")

SIGN = """\
mutation ($csr: String!) {
  result: signCertificateSigningRequest(csr: $csr) {
    certificateChain
    caCertificate
    clientCertificate
  }
}"""

REVOKE = """\
mutation {
  result: revokeCertificate
}"""

VIEWER = """\
query {
  result: viewer { id type }
}"""

ONE_TIME_TOKEN = """\
mutation ($id: ID!) {
  result: requestOneTimeTokenForApplication(id: $id) { token connectorURL }
}"""


def result_of(answer: object, *, where: str = "the answer") -> Any:
    """Unwrap ``{"data": {"result": …}}``.

    Raises:
        RequestRejected: the server answered with GraphQL errors. Their texts are in ``data['errors']``.
        EmptyAnswer: the answer has neither data nor errors. This is a known bug of the server, and a retry may help.
        BadAnswer: this is not a GraphQL answer.
    """
    if not isinstance(answer, dict):
        raise BadAnswer(f"{where} is not a GraphQL answer but {_kind(answer)}.", remedy=_CHECK_URL)
    errors = answer.get("errors")
    if errors:
        texts = _error_texts(errors)
        raise RequestRejected(f"UCL rejected the request: {'; '.join(texts)}", remedy=_remedy_for(texts), errors=texts)
    data = answer.get("data")
    if data in (None, {}, {"result": None}):
        raise EmptyAnswer("UCL answered with neither data nor an error.", remedy="This is temporary. Run it again.")
    if not isinstance(data, dict) or data.get("result") is None:
        raise BadAnswer(f"{where} has no data.result.", remedy=_CHECK_URL)
    return data["result"]


def configuration_from(result: object) -> Configuration:
    """Return the answer to ``configuration`` as a :class:`Configuration`.

    Raises:
        BadAnswer: a field is missing or has the wrong type. The text names it.
    """
    info = _mapping(result, "certificateSigningRequestInfo")
    plane = _mapping(result, "managementPlaneInfo", nullable=True)
    token = _mapping(result, "token", nullable=True)
    fresh = _optional_text(token, "token")
    if fresh is not None and not _is_token(fresh):
        raise BadAnswer("token in UCL's answer is not a token.", remedy=_CHECK_URL)
    return Configuration(
        subject=_text(info, "subject"),
        key_algorithm=_text(info, "keyAlgorithm"),
        director_url=_optional_text(plane, "directorURL"),
        certificate_secured_connector_url=_optional_text(plane, "certificateSecuredConnectorURL"),
        token=fresh,
    )


def signed_from(result: object) -> SignedCertificates:
    """Return the answer to ``signCertificateSigningRequest`` as :class:`SignedCertificates`.

    Raises:
        BadAnswer: a field is missing or has the wrong type. The text names it.
    """
    return SignedCertificates(
        certificate_chain=_text(result, "certificateChain"),
        ca_certificate=_text(result, "caCertificate"),
        client_certificate=_text(result, "clientCertificate"),
    )


def token_from(result: object) -> OneTimeToken:
    """Return the answer to ``requestOneTimeTokenForApplication`` as a :class:`OneTimeToken`.

    Raises:
        BadAnswer: a field is missing or has the wrong type. The text names it.
    """
    text = _text(result, "token")
    try:
        token = _token_in(text) or OneTimeToken(text)
    except UsageError as error:
        raise BadAnswer(f"token in UCL's answer: {error.message}", remedy=_CHECK_URL) from None
    if not _is_token(token.token):
        raise BadAnswer("token in UCL's answer is not a token.", remedy=_CHECK_URL)
    return replace(token, connector_url=_optional_text(result, "connectorURL") or token.connector_url)


def read_token(text: str) -> OneTimeToken:
    """Read a one-time token in any form in which users get it.

    The forms are the token alone, ``raw`` (JSON with ``token`` and ``connectorURL``), ``rawEncoded`` (base64 of that),
    a URL with ``?token=``, and the Director's whole answer. The function removes quotes, blanks and line breaks, and
    adds a missing ``==`` at the end. A URL also gives the endpoint if its path is a Connector's (it ends in
    ``/graphql``). The path of ``legacyConnectorURL`` is not.

    Raises:
        UsageError: the text has none of these forms, so it is not sent. The error says what it looks like, and never
            repeats the text.
    """
    token = _token_in(text)
    if token is None or not _is_token(token.token):
        instead = _what_instead(unwrapped(text))
        raise UsageError(
            f"The one-time token {instead}.",
            remedy="It was not sent. Give it as UCL issued it: the token alone (88 characters), rawEncoded, raw, or "
            "the URL with ?token=.",
            **({"is_word": True} if instead.endswith(_OTHER_LENGTH) and len(unwrapped(text).split()) == 1 else {}),
        )
    return token


def read_bearer(text: str) -> str:
    """Read a bearer token for the Director: alone, as a header (``Bearer …``), or in the JSON that it was issued in.

    Raises:
        UsageError: the text has none of these forms. The error never repeats the text.
    """
    bearer = _HEADER_OF_BEARER.sub("", unwrapped(text))
    with suppress(ValueError, RecursionError):
        value = json.loads(bearer)
        if isinstance(value, dict) and isinstance(value.get("access_token"), str):  # RFC 6749, section 5.1
            bearer = value["access_token"]
    bearer = re.sub(r"\s*[\r\n]\s*", "", _HEADER_OF_BEARER.sub("", unwrapped(bearer)))  # a terminal wraps it
    if not _BEARER.fullmatch(bearer):
        raise UsageError(
            "The bearer token has characters that no bearer token has.",
            remedy="It was not sent. Give the access token alone, or the JSON with access_token that it came in.",
        )
    return bearer


_TOKEN = re.compile(r"[A-Za-z0-9_-]{86}={0,2}")  # 64 bytes; a double click selects no "=" at the end
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_HEADER_OF_TOKEN = re.compile(r"(\"?)((connector-)?token|rawEncoded|raw)\1\s*[:=]\s*|Bearer\s+", re.IGNORECASE)
_HEADER_OF_BEARER = re.compile(r"^\s*(authorization\s*:\s*)?(bearer(:?\s+|$))?", re.IGNORECASE)
_TOKEN_FIELDS = ("token", "rawEncoded", "raw", "legacyConnectorURL")
_NO_TOKEN = (
    (re.compile(r"(env|file):"), "is a reference itself: give that reference in place of the one that led to it"),
    (re.compile(r".*-----BEGIN", re.DOTALL), "is PEM: a key or a certificate"),
    (
        re.compile(r"(Bearer\s+)?eyJ[\w-]+\.[\w-]+\.[\w-]*$"),
        "is a JWT; if it is a bearer token for the Director, give that as bearer (--bearer)",
    ),
    (re.compile(r"[<{\[]"), "is JSON or a page without a token in it, or was cut off"),
    (re.compile(r"ey"), "looks like rawEncoded, but is damaged or was cut off"),
)
_URL_SAFE = str.maketrans("-_", "+/")
_DEEPEST = 6  # the Director's answer, in it a text, in that base64, in that JSON


def _is_token(text: str) -> bool:
    return text.isascii() and text.isprintable() and bool(text) and " " not in text


def _token_in(text: str, depth: int = 0) -> OneTimeToken | None:
    """Return the token in a text, or None if the text has no known form."""
    for _ in range(2):  # the name may stand before the quotes or inside them
        text = text.strip().removesuffix(",")
        if named := _HEADER_OF_TOKEN.match(text):
            text = text[named.end() :]
        with suppress(ValueError, RecursionError):
            value = json.loads(text)
            if isinstance(value, str) and (token := _from_json(value, depth + 1)):
                return token
        text = unwrapped(re.sub(r"\\[nr]", "", text))  # line breaks as a shell or JSON writes them
    joined = without_blanks(text)
    if _TOKEN.fullmatch(joined):
        return OneTimeToken(joined.rstrip("=") + "==")
    if joined.lower().startswith(("https://", "http://")):
        return _from_url(joined)
    for value in _json_in(text):
        if token := _from_json(value, depth + 1):
            return token
    return None


def _json_in(text: str) -> Iterator[object]:
    """Yield the JSON in a text: as it is, wrapped by a terminal, with escaped quotes, or as base64."""
    encoded = without_blanks(text)
    with suppress(ValueError):
        padded = encoded + "=" * (-len(encoded) % 4)
        decoded = base64.b64decode(padded.translate(_URL_SAFE), validate=True).decode()
        with suppress(ValueError, RecursionError):
            yield json.loads(decoded)
    for form in (text, re.sub(r"[\r\n]+", "", text), text.replace('\\"', '"')):
        with suppress(ValueError, RecursionError):
            yield json.loads(form)
            return


def _from_json(value: object, depth: int) -> OneTimeToken | None:
    if depth > _DEEPEST:
        return None
    if isinstance(value, str):
        return _token_in(value, depth)
    if not isinstance(value, dict):
        return None
    for name in _TOKEN_FIELDS:
        given = value.get(name)
        if not isinstance(given, str) or not given:
            continue
        # JSON is whole or none, so a token in it was not cut off, whatever its length.
        token = _token_in(given, depth) or (OneTimeToken(given) if name == "token" else None)
        if token:
            if value.get("used") is True:
                raise UsageError("The one-time token is used up.", remedy="It was not sent. Get a new one-time token.")
            url, expires = value.get("connectorURL"), moment_from(value.get("expiresAt"))
            if expires and expires.year == 1:  # the Director's "never set", which stops no token
                expires = None
            named = url if isinstance(url, str) and url else token.connector_url
            return replace(token, connector_url=named, expires_at=expires or token.expires_at)
    inner = (_from_json(item, depth + 1) for item in value.values() if isinstance(item, dict))
    return next(filter(None, inner), None)


def _from_url(text: str) -> OneTimeToken:
    try:
        parts = urlsplit(text.replace("&amp;", "&"))
        token = parse_qs(parts.query)["token"][0]
    except (ValueError, KeyError):
        raise UsageError("The one-time token is a URL without ?token=.", remedy="Copy the whole URL.") from None
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"The token in the URL has {len(token)} characters or some that no token has; a token has 88.",
            remedy="It was not sent. Copy the whole URL: it may have been cut off.",
        )
    endpoint = parts._replace(query="", fragment="").geturl() if parts.path.endswith("/graphql") else None
    return OneTimeToken(token.rstrip("=") + "==", endpoint)


_OTHER_LENGTH = ", and a token has 88"


def _what_instead(text: str) -> str:
    """Describe a text that is not a token, as the rest of a sentence that repeats nothing of the text."""
    joined = without_blanks(text)
    if not joined:
        return "is empty"
    if looks := next((words for pattern, words in _NO_TOKEN if pattern.match(text)), None):
        return looks
    if re.fullmatch(r"[\w=-]+", joined, re.ASCII):
        return f"has {len(joined)} characters{_OTHER_LENGTH}"
    return "has characters that no token has"


_CHECK_URL = "Check that the URL is a Connector's GraphQL endpoint and that no proxy answers in its place."


def _remedy_for(texts: list[str]) -> str:
    joined = " ".join(texts)
    if "CSR: " in joined:
        return "The CSR's subject must be exactly the one from configuration."
    if "base64" in joined or "pem block" in joined:
        return "The CSR must be base64 of PEM on one line."
    if "bearer token" in joined:
        return "Check the bearer for the Director. If you gave none: the URL is the Director's, not a Connector's."
    if "not found" in joined:
        return "Check the ID that the text names."
    return "See the text; the request id finds it in UCL's log."


def _error_texts(errors: object) -> list[str]:
    listed = errors if isinstance(errors, list) else [errors]
    texts = [error.get("message") if isinstance(error, dict) else error for error in listed[:10]]
    return [" ".join(text.split())[:500] if isinstance(text, str) else "an error without a text" for text in texts]


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")


def _mapping(parent: object, name: str, *, nullable: bool = False) -> Mapping[str, Any]:
    value = parent.get(name) if isinstance(parent, Mapping) else parent
    if nullable and (value is None or not isinstance(parent, Mapping)):
        return {}
    if not isinstance(parent, Mapping) or not isinstance(value, Mapping):
        raise BadAnswer(f"{name} in UCL's answer is {_kind(value)}, not an object.", remedy=_CHECK_URL)
    return value


def _text(parent: object, name: str) -> str:
    value = parent.get(name) if isinstance(parent, Mapping) else None
    if not isinstance(value, str) or not value:
        raise BadAnswer(f"{name} in UCL's answer is missing, empty or not a text.", remedy=_CHECK_URL)
    return value


def _optional_text(parent: object, name: str) -> str | None:
    value = parent.get(name) if isinstance(parent, Mapping) else None
    if value is not None and not isinstance(value, str):
        raise BadAnswer(f"{name} in UCL's answer is {_kind(value)}, not a text.", remedy=_CHECK_URL)
    return value or None
