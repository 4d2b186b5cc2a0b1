"""The data that all endpoints share, and the authentication of clients by certificate."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ucl_sandbox.ca import SUBJECT_PLACE, ClientCa
from ucl_sandbox.csr import Attribute, ExpectedSubject, elements, read_name
from ucl_sandbox.faults.plans import Faults
from ucl_sandbox.state import State

if TYPE_CHECKING:
    from ucl_sandbox.control import Limit


@dataclass(frozen=True)
class Urls:
    """The endpoints' addresses."""

    director: str
    connector: str
    certificate_director: str
    certificate_connector: str
    legacy_connector: str


@dataclass(frozen=True)
class Landscape:
    """The state, client CA, clock, addresses, faults and limit of one sandbox."""

    state: State
    ca: ClientCa
    clock: Callable[[], datetime]
    validity: timedelta
    urls: Urls
    faults: Faults
    limit: "Limit"


@dataclass(frozen=True)
class ClientCertificate:
    """The client certificate of a TLS connection. The handshake has verified it against the client CA."""

    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """Its SHA-256 fingerprint, because all serial numbers are the same."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def client_id(self) -> str | None:
        """Return its CN, or None if the client CA does not issue such a subject."""
        (_, certificate, _), *_ = elements(self.certificate.tbs_certificate_bytes)
        subject = read_name(elements(certificate)[SUBJECT_PLACE][1])
        names = [value for type_, value in subject if type_ is Attribute.COMMON_NAME]
        if not names or not ExpectedSubject(names[-1]).matches(subject):
            return None
        return names[-1]


@dataclass(frozen=True)
class Client:
    """A system auth of an application, authenticated by token or by certificate."""

    id: str
    application_id: str
    certificate: ClientCertificate | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint that it used, "token" or "certificate"."""
        return "certificate" if self.certificate else "token"


def authenticate_certificate(state: State, certificate: ClientCertificate) -> Client | None:
    """Return the client that a certificate belongs to, and invalidate its one-time token.

    Return None if the certificate is revoked, its subject is not a client's, or the client has been deleted.
    """
    client_id = certificate.client_id()
    if client_id is None or state.is_revoked(certificate.fingerprint):
        return None
    auth = state.system_auth(client_id)
    if auth is None:
        return None
    state.drop_token(client_id)
    return Client(client_id, auth["application_id"], certificate)
