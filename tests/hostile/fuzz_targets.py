"""One function a parser: bytes in; nothing happens, or the law is broken and it raises.

The law: any bytes give a result that fits its type and survives a round trip where there is one, or one of the
documented errors; never another exception, and never a secret in the error. Nothing here knows of the fuzzer, so that
corpus and findings can be replayed without it.
"""

import base64
import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from quick_keys import QUICK_BITS
from requests import Response

from ucl_helpers.checks import Expected, check_identity, require
from ucl_helpers.connection.settings import MAX_CHARACTERS, Settings, as_toml, parse_settings, plain, toml
from ucl_helpers.crypto import (
    common_name,
    decode_certificates,
    dump_certificates,
    encode,
    make_csr,
    parse_subject,
    read_certificates,
    same_subject,
    subject_text,
)
from ucl_helpers.errors import BadAnswer, ChecksFailed, InvalidSettings, UCLError, UsageError
from ucl_helpers.keys import dump_key, is_sealed, load_key, open_key
from ucl_helpers.models import Identity, Validity, fingerprint
from ucl_helpers.operations import configuration_from, read_token, signed_from, token_from
from ucl_helpers.policy import due, parse_duration
from ucl_helpers.urls import check_url
from ucl_helpers.wire.client import MAX_RETRY_AFTER, Client, server_time
from ucl_sandbox.connector import _present
from ucl_sandbox.csr import CsrRefusedError, ExpectedSubject, accept, elements, read_name, write_name
from ucl_sandbox.graphql import Api
from ucl_sandbox.transport import JSON, Request, respond

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = 16  # what is shorter may stand in an error's text by chance
TOKEN = "canary-2ClhTW-dMgEWl9yb7j3XqzqHBCS4yvQsTPMfL94PIRu4viPgy0HroCo9BHzSIHzel0DW"
CLIENT = "0b0e0b9e-7f0c-4a52-9ef5-2f1d0a3c0d11"


class LawBrokenError(AssertionError):
    """A parser gave what it may not give."""


def law(holds, what):
    if not holds:
        raise LawBrokenError(what)


@cache
def own_key():
    """For CSRs; their bytes do not matter."""
    return rsa.generate_private_key(public_exponent=65537, key_size=QUICK_BITS)


def told(error, secret=""):
    """The error can be printed, and the secret is not in it."""
    text = f"{error}{error.remedy}{error.data}"
    str(error).encode()
    law(len(secret) < SECRET or secret not in text, "an error tells a secret")


def texts(value):
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


# -- what UCL answers --------------------------------------------------------------------------------------------------


def answers(data):
    """The body of an answer, of two statuses, through every reader of a result."""
    result = interpret(200, data)
    interpret(422, data)
    for read in (configuration_from, signed_from, token_from):
        try:
            model = read(result)
        except BadAnswer as error:
            for text in texts(result.get("token") if isinstance(result, dict) else None):
                told(error, text)
            continue
        law(all(value is None or isinstance(value, str | bool) for value in asdict(model).values()), "not a text")
        token = getattr(model, "token", None) or ""
        law(
            len(token) < SECRET or token in str(result_without_token(result)) or token not in f"{model}{model!r}",
            "told",
        )
        if read is signed_from:
            decode(model.certificate_chain)


def interpret(status, body, **headers):
    """The result of an answer, or None: then it was one of our errors."""
    response = Response()
    response.status_code = status
    response.headers.update(headers)
    try:
        return client()._interpret(response, body, server_time(response)[0])
    except UCLError as error:
        told(error, TOKEN)
        after = error.data.get("retry_after")
        law(after is None or 0 <= after <= MAX_RETRY_AFTER.total_seconds(), "it waits for ever")
    return None


@cache
def client():
    return Client("https://ucl.example/connector/graphql", "token", headers={"connector-token": TOKEN})


def result_without_token(result):
    return {name: value for name, value in result.items() if name != "token"}


def decode(text):
    with suppress(BadAnswer):
        for one in decode_certificates(text, name="certificateChain"):
            law(isinstance(one, x509.Certificate), "no certificate")


# -- PEM, DER, base64 --------------------------------------------------------------------------------------------------


def pem(der, label="CERTIFICATE"):
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label.encode(), base64.encodebytes(der), label.encode())


def certificates(data):
    """As PEM, as DER, as PEM around it, as base64 of that: and everything that is asked of a certificate later."""
    for given in (data, pem(data)):
        try:
            found = read_certificates(given, name="this")
            law(decode_certificates(encode(dump_certificates(*found)), name="this") == found, "not read back")
        except BadAnswer as error:
            told(error)
            continue
        look_at(found)


def look_at(chain):
    leaf = chain[0]
    validity = Validity.of(leaf)
    expected = Expected(
        public_key=own_key().public_key(),
        subject=leaf.subject,
        server_now=NOW,
        local_now=NOW + timedelta(hours=1),
        due=lambda _: due(validity, seed="x", now=NOW),
        previous=chain[-1],
        previous_ca=chain[1:],
    )
    checks = check_identity(chain, expected, client=chain[:1], ca=chain[1:])
    law(same_subject(leaf.subject, leaf.subject), "a subject is not itself")
    law(len(fingerprint(leaf)) == 2 * SECRET * 2, "no fingerprint")
    f"{Identity(chain, (), checks)}{validity}{common_name(leaf.subject)}{subject_text(leaf.subject)}".encode()
    with suppress(ChecksFailed):
        require(checks, what="This")
        raise LawBrokenError("a certificate for another key passes")


def keys(data):
    """As PEM or DER, and as PEM around it."""
    for given in (data, pem(data, "PRIVATE KEY"), pem(data, "RSA PRIVATE KEY")):
        try:
            key = load_key(given, where="this")
        except UsageError as error:
            told(error, data.decode("latin-1"))
            continue
        law(load_key(dump_key(key)).private_numbers() == key.private_numbers(), "a key is not read back")
    for given in (data, pem(data, "ENCRYPTED PRIVATE KEY")):
        law(isinstance(is_sealed(given), bool), "neither")
        with suppress(UsageError):
            open_key(given, TOKEN.encode, where="this")


# -- texts -------------------------------------------------------------------------------------------------------------


def subject(data):
    """A subject that is taken can be asked for, and is the same when it is written and read."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        name = parse_subject(text)
    except BadAnswer as error:
        told(error)
        return
    law(x509.load_pem_x509_csr(make_csr(own_key(), name)).subject == name, "the CSR has another subject")
    law(parse_subject(subject_text(name)) == name, "a subject is not read back")


def token(data):
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = read_token(text)
    except UsageError as error:
        told(error, text.strip())
        return
    law(found.token.isascii() and found.token.isprintable() and " " not in found.token, "no token")
    law(len(found.token) < SECRET or found.token not in repr(found).replace(repr(found.connector_url), ""), "shown")


def words(data):
    """Durations, settings, dates and URLs."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(UsageError):
        law(timedelta(0) < parse_duration(text) < timedelta.max, "no duration")
    settings(text)
    interpret(429, b"", **{"Date": text, "Retry-After": text})
    with suppress(UsageError):
        law(check_url(text) == text and text.isprintable(), "another URL")


def settings(text):
    """As a file, and where a reference should stand and it may be the secret itself; what is taken is read back."""
    for key in ("key_passphrase", "exports.pkcs12", "notices.urls"):
        given = toml([text] if key == "notices.urls" else text)
        try:
            parse_settings(f"{key} = {given}")
        except InvalidSettings as error:
            if "must be a reference" in error.message:
                told(error, text)
    try:
        found = parse_settings(text)
    except InvalidSettings as error:
        told(error)
        return
    law(isinstance(found, Settings), "no settings")
    shown = as_toml(found)
    law(len(shown) > MAX_CHARACTERS or parse_settings(shown) == found, "settings are not read back")
    json.dumps(plain(found))


# -- what the sandbox is sent ------------------------------------------------------------------------------------------


def csr(data):
    """As the text that is sent, as base64, and as base64 of PEM around it."""
    for text in (data.decode("utf-8", "replace"), encode(data), encode(pem(data, "CERTIFICATE REQUEST"))):
        with suppress(CsrRefusedError):
            law(isinstance(accept(text, ExpectedSubject(CLIENT)).key, rsa.RSAPublicKey), "no RSA key")
    with suppress(ValueError):
        ((_, content, whole),) = elements(write_name(read_name(data)))
        law(write_name(read_name(content)) == whole, "a name is not read back")


def request(data):
    """As the body that is posted, and as the query string of a GET."""
    for method, query, body in (("POST", "", data), ("GET", data.decode("utf-8", "surrogateescape"), b"")):
        response = respond(sandbox_api(), Request(method, {"Content-Type": JSON}, query, body), None)
        law(response.status in {200, 400, 406, 422}, f"it answers {response.status}")
        answer = json.loads(response.body)
        crashed = any(one["message"] == "internal system error" for one in answer.get("errors") or ())
        law(not crashed or response.status == NULL_BODY, "it crashes")


NULL_BODY = 422  # the real server's word for it is an internal error as well


@cache
def sandbox_api():
    """The Connector's schema; its answers do not matter."""
    configuration = {
        "token": {"token": "t"},
        "certificateSigningRequestInfo": {"subject": "CN=x", "keyAlgorithm": "rsa2048"},
        "managementPlaneInfo": {"directorURL": "u", "certificateSecuredConnectorURL": "u"},
    }
    resolvers = {
        "Query.configuration": lambda *_: configuration,
        "Mutation.signCertificateSigningRequest": lambda *_, csr: {
            "certificateChain": csr,
            "caCertificate": csr,
            "clientCertificate": csr,
        },
        "Mutation.revokeCertificate": lambda *_: True,
    }
    return Api("schema.graphql", resolvers, _present)


def planted(data):
    """Not a parser: breaks the law on purpose, so that a test can see that the fuzzer finds it."""
    law(data[:3] != b"{}\n", "planted")


TARGETS = {one.__name__: one for one in (answers, certificates, keys, subject, token, words, csr, request)}
