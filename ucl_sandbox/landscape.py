"""What the endpoints have in common: the state, the client CA, the clock, where each is, the faults and the limit."""

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
    """One small UCL."""

    state: State
    ca: ClientCa
    clock: Callable[[], datetime]
    validity: timedelta
    urls: Urls
    faults: Faults
    limit: "Limit"


@dataclass(frozen=True)
class ClientCertificate:
    """The certificate that a connection was made with; the handshake has verified it against the client CA."""

    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """Its SHA-256 fingerprint: serial numbers are all the same."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def client_id(self) -> str | None:
        """Its CN, if its subject is one that this CA gives to clients."""
        (_, certificate, _), *_ = elements(self.certificate.tbs_certificate_bytes)
        subject = read_name(elements(certificate)[SUBJECT_PLACE][1])
        names = [value for type_, value in subject if type_ is Attribute.COMMON_NAME]
        if not names or not ExpectedSubject(names[-1]).matches(subject):
            return None
        return names[-1]


@dataclass(frozen=True)
class Client:
    """A client of an application: a system auth that was authenticated, by token or by certificate."""

    id: str
    application_id: str
    certificate: ClientCertificate | None = None

    @property
    def endpoint(self) -> str:
        """Where it has come in: "token" or "certificate"."""
        return "certificate" if self.certificate else "token"


def authenticate_certificate(state: State, certificate: ClientCertificate) -> Client | None:
    """Find the client that a certificate belongs to; its one-time token ends with that.

    None for a revoked certificate, another subject, or a client that has been deleted.
    """
    client_id = certificate.client_id()
    if client_id is None or state.is_revoked(certificate.fingerprint):
        return None
    auth = state.system_auth(client_id)
    if auth is None:
        return None
    state.drop_token(client_id)
    return Client(client_id, auth["application_id"], certificate)
