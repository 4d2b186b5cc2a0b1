"""Replays recorded requests and compares the answers; `data/contract/README.md` says what counts as the same."""

import base64
import http.client
import json
import re
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from quick_keys import QUICK_BITS

from ucl_sandbox import Access

DATA = Path(__file__).parent / "data" / "contract"
CONFIGURATION = (
    "query { result: configuration { token { token } certificateSigningRequestInfo { subject keyAlgorithm } "
    "managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }"
)
SIGN = (
    "mutation ($csr: String!) { result: signCertificateSigningRequest(csr: $csr) "
    "{ certificateChain caCertificate clientCertificate } }"
)
JSON_TYPE = {"Content-Type": "application/json"}
DEFAULT_TYPE = "application/json;charset=UTF-8"
OIDS = {
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "C": NameOID.COUNTRY_NAME,
    "CN": NameOID.COMMON_NAME,
}


@cache
def load(name: str) -> list[dict[str, Any]]:
    return json.loads((DATA / name).read_text("utf-8"))


@cache
def _made_once(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def rsa_key(bits: int = QUICK_BITS) -> rsa.RSAPrivateKey:
    return _made_once(bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name_of(pairs: list[tuple[str, str]]) -> x509.Name:
    return x509.Name([x509.NameAttribute(OIDS[field], value) for field, value in pairs])


def fields_of_subject(client_id: str, **changed: str | None) -> list[tuple[str, str]]:
    """The subject that is asked for, with fields changed, or left out if None."""
    fields = {"O": "Org", "OU": "OrgUnit", "L": "locality", "ST": "province", "C": "DE", "CN": client_id, **changed}
    return [(field, value) for field, value in fields.items() if value is not None]


def csr_pem(subject: x509.Name, key: Any = None, hash_: hashes.HashAlgorithm | None = None, **options: Any) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = builder.sign(key or rsa_key(), hash_ or hashes.SHA256(), **options)
    return request.public_bytes(serialization.Encoding.PEM)


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


# -- the wire ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    status: int | None
    content_type: str | None
    body: str

    @property
    def result(self) -> Any:
        return json.loads(self.body)["data"]["result"]


NO_ANSWER = Answer(None, None, "")


def trusting(ca_file: Path, identity: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.hostname_checks_common_name = False
    if identity is not None:
        context.load_cert_chain(identity)
    return context


def send(
    url: str,
    context: ssl.SSLContext,
    body: str | bytes = "",
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    query: dict[str, str] | None = None,
) -> Answer:
    """Sends one request over a connection of its own; a TLS failure is no answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=30)
    target = parts.path + (f"?{urlencode(query)}" if query else "")
    data = body.encode() if isinstance(body, str) else body
    try:
        connection.putrequest(method, target)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        response = connection.getresponse()
        return Answer(response.status, response.getheader("Content-Type"), response.read().decode())
    except (ssl.SSLError, ConnectionError):
        return NO_ANSWER
    finally:
        connection.close()


def graphql(query: str, **variables: Any) -> str:
    return json.dumps({"query": query, "variables": variables} if variables else {"query": query})


class Landscape:
    """A sandbox as a client sees it."""

    def __init__(self, ucl: Access, token: Any) -> None:
        self.ucl, self.new_token = ucl, token
        self.context = trusting(ucl.ca_file)

    def at_token(self, body: str | bytes, token: str, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        headers = {**(JSON_TYPE if headers is None else headers), "connector-token": token}
        return send(self.ucl.connector_url, self.context, body, headers, **how)

    def configure(self) -> tuple[str, str]:
        """A new client: its id, and a one-time token for it."""
        result = self.at_token(graphql(CONFIGURATION), self.new_token()).result
        return result["certificateSigningRequestInfo"]["subject"].rpartition("CN=")[2], result["token"]["token"]

    def establish(self, folder: Path) -> "Established":
        """A new client with a certificate."""
        client_id, token = self.configure()
        csr = encoded(csr_pem(name_of(fields_of_subject(client_id))))
        return Established(self, client_id, self.at_token(graphql(SIGN, csr=csr), token), folder / "identity.pem")


class Established:
    """A client with a certificate, signed for `rsa_key()`."""

    def __init__(self, landscape: Landscape, client_id: str, signed: Answer, identity: Path) -> None:
        self.landscape, self.client_id, self.identity = landscape, client_id, identity
        key = rsa_key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.chain = base64.b64decode(signed.result["certificateChain"])
        identity.write_bytes(key + self.chain)
        self.context = trusting(landscape.ucl.ca_file, identity)

    def call(self, body: str | bytes, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        url = self.landscape.ucl.certificate_secured_connector_url
        return send(url, self.context, body, {**JSON_TYPE, **(headers or {})}, **how)

    def call_director(self, body: str | bytes, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        url = self.landscape.ucl.certificate_secured_connector_url.replace("/connector/", "/director/")
        return send(url, self.context, body, {**JSON_TYPE, **(headers or {})}, **how)

    def renew(self) -> "Established":
        csr = encoded(csr_pem(name_of(fields_of_subject(self.client_id))))
        renewed = self.call(graphql(SIGN, csr=csr))
        return Established(self.landscape, self.client_id, renewed, self.identity.with_name("renewed.pem"))


# -- what counts as the same -------------------------------------------------------------------------------------------

_DECODERS_WORDS = re.compile(r"(parsing CSR:|decoded:).*", re.DOTALL)
_PEM_COUNT = re.compile(r"\{base64 PEM, (\d) certificates?\}")


def differences(case: dict[str, Any], answer: Answer) -> list[str]:
    """How an answer differs from the recorded one, in what counts."""
    if case["status"] != answer.status or case.get("contentType") != answer.content_type:
        return [f"{(case['status'], case.get('contentType'))} became {(answer.status, answer.content_type)}"]
    recorded = case.get("responseBody", "")
    if not recorded or not answer.body:
        return [] if recorded == answer.body else [f"{recorded!r} became {answer.body!r}"]
    wanted, found = json.loads(recorded), json.loads(answer.body)
    unworded = answer.status == 422 or (answer.status == 400 and "json request body" in recorded)
    wanted_errors, found_errors = (
        [_comparable(error, unworded=unworded) for error in body.get("errors", [])] for body in (wanted, found)
    )
    problems = [] if wanted_errors == found_errors else [f"{wanted_errors} became {found_errors}"]
    if not _same_value(wanted["data"], found["data"]):
        problems.append(f"{wanted['data']} became {found['data']}")
    return problems


def _comparable(error: dict[str, Any], *, unworded: bool) -> dict[str, Any]:
    kept = {"path": error.get("path"), "code": (error.get("extensions") or {}).get("code")}
    return kept if unworded else {**kept, "message": _DECODERS_WORDS.sub(r"\1", error["message"])}


def _same_value(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return list(wanted) == list(found) and all(_same_value(wanted[name], found[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_same_value, wanted, found))
    if isinstance(wanted, str) and isinstance(found, str) and "{" in wanted:
        return _fits(wanted, found)
    return wanted == found


def _fits(wanted: str, found: str) -> bool:
    """Whether a value is what its placeholder promises."""
    if counted := _PEM_COUNT.fullmatch(wanted):
        pem = base64.b64decode(found, validate=True)
        return len(x509.load_pem_x509_certificates(pem)) == int(counted[1])
    pattern = re.escape(wanted)
    for placeholder, meaning in {
        "{one-time token}": "[A-Za-z0-9_-]{86}==",
        "{client id}": "[0-9a-f-]{36}",
        "{directorURL}": r"https://localhost:\d+/director/graphql",
        "{certificateSecuredConnectorURL}": r"https://localhost:\d+/connector/graphql",
    }.items():
        pattern = pattern.replace(re.escape(placeholder), meaning)
    return re.fullmatch(pattern, found) is not None
