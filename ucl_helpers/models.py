"""The things the toolkit speaks of, as frozen dataclasses that show themselves and never show a secret."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ucl_helpers.errors import UCLError
from ucl_helpers.tables import Row, Tabular, moment, span

OUTCOME_MIME = "application/vnd.ucl.outcome+json"
"""How a notebook's outcome reaches the program that runs it."""


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER form, 64 lower-case hex digits: what identifies a certificate (serials do not)."""
    return certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class Configuration(Tabular):
    """The Connector's answer to ``configuration``: what to ask for, and where.

    Attributes:
        subject: the subject for the CSR, comma form (``O=Org,OU=OrgUnit,…,CN=…``).
        key_algorithm: always ``rsa2048``, whatever the server signs; shown, not followed.
        director_url: UCL's management API, or None.
        certificate_secured_connector_url: the certificate endpoint, or None.
        token: a fresh one-time token, or None; kept out of every representation.
    """

    subject: str
    key_algorithm: str
    director_url: str | None
    certificate_secured_connector_url: str | None
    token: str | None = field(default=None, repr=False, compare=False)

    title: ClassVar[str] = "Configuration"

    def rows(self) -> list[Row]:
        return [
            ("subject for the CSR", self.subject),
            ("key algorithm named", self.key_algorithm),
            ("Director", self.director_url or "(none given)"),
            ("certificate endpoint", self.certificate_secured_connector_url or "(none given)"),
            ("one-time token", "received, kept out of sight" if self.token else "not asked for"),
        ]


@dataclass(frozen=True)
class SigningRequest(Tabular):
    """Key and CSR, on disk before they are used; only the public half is here."""

    subject: str
    bits: int
    csr: str
    key_path: str
    reused: bool = False

    title: ClassVar[str] = "Key and CSR"

    def rows(self) -> list[Row]:
        return [
            ("subject", self.subject),
            ("key", f"RSA, {self.bits} bits" + (", kept from an earlier run" if self.reused else "")),
            ("CSR", f"PEM, {len(self.csr)} bytes, signed with SHA-256"),
            ("private key lies at", f"{self.key_path} (0600)"),
        ]


@dataclass(frozen=True)
class SignedCertificates(Tabular):
    """The Connector's answer to ``signCertificateSigningRequest``: three base64 texts of PEM."""

    certificate_chain: str
    ca_certificate: str
    client_certificate: str
    reused: bool = field(default=False, compare=False)

    title: ClassVar[str] = "Signed certificates, as received"

    def rows(self) -> list[Row]:
        def line(text: str) -> str:
            return f"{len(text)} characters of base64: {text[:24]}…"

        source = "an earlier run's answer" if self.reused else "this call"
        return [
            ("certificateChain", line(self.certificate_chain)),
            ("caCertificate", line(self.ca_certificate)),
            ("clientCertificate", line(self.client_certificate)),
            ("received in", source),
        ]


Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was expected, what was found. A warning does not stop a renewal."""

    name: str
    status: Status
    expected: str
    found: str


class _CheckTable(Tabular):
    """Mixin: shows ``checks`` as a table, and says whether all of them hold."""

    checks: Sequence[Check]

    title: ClassVar[str] = "Checked"
    header: ClassVar[Row] = ("check", "status", "expected", "found")

    @property
    def ok(self) -> bool:
        """True when no check failed; warnings are allowed."""
        return all(check.status != "failed" for check in self.checks)

    def rows(self) -> list[Row]:
        return [(check.name, check.status, check.expected, check.found) for check in self.checks]


@dataclass(frozen=True)
class Checks(_CheckTable):
    """Checks and whether all of them hold; warnings are allowed."""

    checks: Sequence[Check]


@dataclass(frozen=True)
class Identity(_CheckTable):
    """The public half of an identity: chain, leaf first, and the checks it went through.

    The private key is not in here; it stays in its file.
    """

    chain: tuple[x509.Certificate, ...]
    client_ca: tuple[x509.Certificate, ...] = ()
    checks: tuple[Check, ...] = ()

    title: ClassVar[str] = "The new identity, checked"

    @property
    def certificate(self) -> x509.Certificate:
        """The client certificate."""
        return self.chain[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256, hex."""
        return fingerprint(self.certificate)

    @property
    def warnings(self) -> str | None:
        """What the checks warn of, in one line, or None."""
        warnings = [check for check in self.checks if check.status == "warning"]
        return "; ".join(f"{check.name}: expected {check.expected}, found {check.found}" for check in warnings) or None


@dataclass(frozen=True)
class Due(Tabular):
    """Whether a renewal is due, since or from when (UTC), and by which rule."""

    due: bool
    at: datetime
    reason: str

    title: ClassVar[str] = "Is a renewal due?"

    def rows(self) -> list[Row]:
        return [
            ("due", "yes" if self.due else "no"),
            ("due date", moment(self.at)),
            ("rule", self.reason),
        ]


@dataclass(frozen=True)
class NotNeeded(Tabular):
    """What a step returns when nothing is due."""

    until: datetime
    reason: str

    title: ClassVar[str] = "Not needed"

    def rows(self) -> list[Row]:
        return [("not needed until", moment(self.until)), ("rule", self.reason)]


@dataclass(frozen=True)
class Verification(Tabular):
    """The new identity answered a ``configuration`` call over a new, full handshake."""

    url: str
    at: datetime
    request_id: str
    clock_difference: float
    note: str = ""

    title: ClassVar[str] = "Verified: UCL accepts the new certificate"

    def rows(self) -> list[Row]:
        rows: list[Row] = [
            ("endpoint", self.url),
            ("answered at", moment(self.at)),
            ("request id", self.request_id),
            ("server's clock minus ours", f"{self.clock_difference:+.0f} s"),
        ]
        return [*rows, ("note", self.note)] if self.note else rows


@dataclass(frozen=True)
class Outcome(Tabular):
    """What a procedure came to. In a notebook it also reaches the program that runs it, as :data:`OUTCOME_MIME`.

    Attributes:
        outcome: ``renewed``, ``not-due``, ``established``, ``revoked``, ``failed`` …
        connection: its name.
        facts: what there is to tell, in order; values are texts or numbers, never a secret.
        exit_code: see :mod:`ucl_helpers.errors`; 0 for done or not due.
    """

    outcome: str
    connection: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0

    def caption(self) -> str:
        return f"{self.connection}: {self.outcome}"

    def rows(self) -> list[Row]:
        return [(label.replace("_", " "), str(value)) for label, value in self.facts.items() if value is not None]

    def as_json(self) -> dict[str, Any]:
        """The outcome for programs."""
        return {
            "outcome": self.outcome,
            "connection": self.connection,
            "exitCode": self.exit_code,
            **{_camel(label): value for label, value in self.facts.items()},
        }

    def with_error(self, error: UCLError) -> "Outcome":
        """Return the same outcome with an error, and with the error's exit code."""
        facts = {**self.facts, **error.as_json()}
        return replace(self, exit_code=facts.pop("exitCode"), facts=facts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {**super()._repr_mimebundle_(include, exclude), OUTCOME_MIME: self.as_json()}


@dataclass(frozen=True)
class OneTimeToken(Tabular):
    """A one-time token and, if they came along, the endpoint it is for and when it expires (UTC).

    The token itself is never shown.
    """

    token: str = field(repr=False)
    connector_url: str | None = None
    expires_at: datetime | None = None

    title: ClassVar[str] = "One-time token"

    def rows(self) -> list[Row]:
        return [("token", "kept out of sight"), ("token endpoint", self.connector_url or "(not named)")]


@dataclass(frozen=True)
class CallRecord(Tabular):
    """One call to UCL as it went over the wire: tokens are masked, and long texts are shortened.

    Attributes:
        url: it went to, by POST.
        request_id: its ``x-request-id``.
        operation: the GraphQL query or mutation.
        variables: of the operation.
        result: ``data.result`` of the answer.
        status: of the answer, for example ``200 OK``; empty if unknown.
        sent: headers of the request that matter, without secrets.
        received: headers of the answer that matter.
    """

    url: str
    request_id: str
    operation: str
    variables: Mapping[str, Any] = field(repr=False)  # may hold tokens
    result: Any = field(repr=False)
    status: str = ""
    sent: Mapping[str, str] = field(default_factory=dict)
    received: Mapping[str, str] = field(default_factory=dict)

    title: ClassVar[str] = "Sent and received"

    def rows(self) -> list[Row]:
        """Return one row for each part of the request, then of the answer."""
        sent = {**self.sent, "x-request-id": self.request_id}
        body = {"query": self.operation, "variables": _masked(self.variables)}
        rows = [
            ("POST", _without_token(self.url)),
            ("request headers", _headers(sent)),
            ("query", self.operation),
            ("JSON body", _readable(body)),
            ("status", self.status),
            ("answer headers", _headers(self.received)),
            ("JSON answer", _readable({"data": {"result": _masked(self.result)}})),
        ]
        return [row for row in rows if row[1]]


@dataclass(frozen=True)
class Validity(Tabular):
    """NotBefore and NotAfter of a certificate (UTC), and what is left of it."""

    not_before: datetime
    not_after: datetime

    title: ClassVar[str] = "Validity"

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Validity":
        """Read from a certificate."""
        return cls(certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    @property
    def lifetime(self) -> timedelta:
        """NotAfter minus NotBefore, a timedelta."""
        return self.not_after - self.not_before

    def rows(self) -> list[Row]:
        return [
            ("from", moment(self.not_before)),
            ("to", moment(self.not_after)),
            ("lifetime", span(self.lifetime)),
        ]


def _camel(label: str) -> str:
    first, *rest = label.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _readable(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _headers(headers: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


def _masked(value: object, key: str = "") -> object:
    match value:
        case dict():
            return {name: _masked(inner, str(name)) for name, inner in value.items()}
        case list():
            return [_masked(inner, key) for inner in value]
        case str() if _NO_LETTER.sub("", key.lower()) in _TOKENS:
            return MASK
        case str() if len(value) > _SHOWN:
            return f"{_without_token(value)[: _SHOWN // 2]}… ({len(value)} characters)"
        case str():
            return _without_token(value)
    return value


def _without_token(text: str) -> str:
    return _IN_URL.sub(MASK, text)


MASK, _SHOWN = "(kept out of sight)", 120
_TOKENS = {"token", "raw", "rawencoded", "connectortoken"}  # keys by their letters alone
_NO_LETTER, _IN_URL = re.compile(r"[^a-z]"), re.compile(r"(?<=[?&]token=)[^&#\s\"']+", re.IGNORECASE)
