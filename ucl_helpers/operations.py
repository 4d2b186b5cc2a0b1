"""The GraphQL operations, and how an answer becomes a model. Pure.

The texts are sent with variables and are validated against the sandbox's schema in a test. Aliases (``result:``) are
the tutorial's. Nothing here checks that an answer is *true*; see :mod:`ucl_helpers.checks` for that.
"""

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ucl_helpers.errors import BadAnswer, EmptyAnswer, RequestRejected, UsageError
from ucl_helpers.models import Configuration, OneTimeToken, SignedCertificates

CONFIGURATION = """\
query {
  result: configuration {
    certificateSigningRequestInfo { subject keyAlgorithm }
    managementPlaneInfo { directorURL certificateSecuredConnectorURL }
  }
}"""

CONFIGURATION_WITH_TOKEN = """\
query {
  result: configuration {
    token { token }
    certificateSigningRequestInfo { subject keyAlgorithm }
    managementPlaneInfo { directorURL certificateSecuredConnectorURL }
  }
}"""

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
        RequestRejected: the server answered with GraphQL errors; their texts are in ``data['errors']``.
        EmptyAnswer: neither data nor errors (the server's known bug; may be retried).
        BadAnswer: this is no GraphQL answer.
    """
    if not isinstance(answer, dict):
        raise BadAnswer(f"{where} is not a GraphQL answer but {_kind(answer)}.", remedy=_CHECK_URL)
    errors = answer.get("errors")
    if errors:
        texts = _error_texts(errors)
        raise RequestRejected(f"UCL rejected the request: {'; '.join(texts)}", remedy=_remedy_for(texts), errors=texts)
    data = answer.get("data")
    if data is None or data == {}:
        raise EmptyAnswer("UCL answered with neither data nor an error.", remedy="This passes by itself: run it again.")
    if not isinstance(data, dict) or "result" not in data:
        raise BadAnswer(f"{where} has no data.result.", remedy=_CHECK_URL)
    if data["result"] is None:
        raise EmptyAnswer(
            "UCL answered with an empty result and no error.", remedy="This passes by itself: run it again."
        )
    return data["result"]


def configuration_from(result: object) -> Configuration:
    """``configuration`` → :class:`Configuration`.

    Raises:
        BadAnswer: a field is missing or has the wrong type; the text names it.
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
    """``signCertificateSigningRequest`` → :class:`SignedCertificates`.

    Raises:
        BadAnswer: a field is missing or has the wrong type; the text names it.
    """
    return SignedCertificates(
        certificate_chain=_text(result, "certificateChain"),
        ca_certificate=_text(result, "caCertificate"),
        client_certificate=_text(result, "clientCertificate"),
    )


def token_from(result: object) -> OneTimeToken:
    """``requestOneTimeTokenForApplication`` → :class:`OneTimeToken`.

    Raises:
        BadAnswer: a field is missing or has the wrong type; the text names it.
    """
    try:
        token = read_token(_text(result, "token"))
    except UsageError as error:
        raise BadAnswer(f"token in UCL's answer: {error.message}", remedy=_CHECK_URL) from None
    return replace(token, connector_url=_optional_text(result, "connectorURL") or token.connector_url)


def read_token(text: str) -> OneTimeToken:
    """A one-time token in any form a user is given: bare, ``rawEncoded``, or a URL with ``?token=``.

    ``rawEncoded`` is base64 of a JSON object with ``token`` and ``connectorURL``. A URL yields the token and, when its
    path is a Connector's (it ends in ``/graphql``), the endpoint as well.

    Raises:
        UsageError: it is empty, or a URL without a token. The text itself is never repeated.
    """
    text = text.strip()
    token = _from_url(text) if text.startswith(("https://", "http://")) else _raw_encoded(text) or OneTimeToken(text)
    if not _is_token(token.token):
        raise UsageError(
            "The one-time token is empty, or has blanks or other characters in it that no token has.",
            remedy="Give the token alone, as it was issued.",
        )
    return token


def _is_token(text: str) -> bool:
    return text.isascii() and text.isprintable() and bool(text) and " " not in text


def _from_url(text: str) -> OneTimeToken:
    try:
        parts = urlsplit(text)
        token = parse_qs(parts.query)["token"][0]
    except (ValueError, KeyError):
        raise UsageError("The one-time token is a URL without ?token=.", remedy="Copy the whole URL.") from None
    endpoint = parts._replace(query="", fragment="").geturl() if parts.path.endswith("/graphql") else None
    return OneTimeToken(token, endpoint)


def _raw_encoded(text: str) -> OneTimeToken | None:
    try:
        raw = json.loads(base64.b64decode(text, validate=True))
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("token"), str):
        return None
    url = raw.get("connectorURL")
    return OneTimeToken(raw["token"], url if isinstance(url, str) and url else None, _moment(raw.get("expiresAt")))


def _moment(text: object) -> datetime | None:
    """A moment (UTC) as the Director writes it; None for anything else (the year 1 is none), which stops no token."""
    with suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(text) if isinstance(text, str) else None
        return when.astimezone(UTC) if when and when.tzinfo and when.year > 1 else None
    return None


_CHECK_URL = "Check that the URL is a Connector's GraphQL endpoint and that no proxy answers in its place."


def _remedy_for(texts: list[str]) -> str:
    joined = " ".join(texts)
    if "CSR: " in joined:
        return "The CSR's subject must be exactly the one from configuration."
    if "base64" in joined or "pem block" in joined:
        return "The CSR must be base64 of PEM on one line."
    return "See the text; the request id finds it in UCL's log."


def _error_texts(errors: object) -> list[str]:
    listed = errors if isinstance(errors, list) else [errors]
    texts = [one.get("message") if isinstance(one, dict) else one for one in listed[:10]]
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
