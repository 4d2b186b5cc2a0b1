"""Define the toolkit's data as frozen dataclasses. Each shows itself as a table, and never shows a secret."""

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
"""The MIME type by which a notebook's outcome reaches the program that runs the notebook."""


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the DER form, 64 lower-case hex digits. It identifies a certificate; a serial does not."""
    return certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class Configuration(Tabular):
    """The Connector's answer to ``configuration``: the subject to request, and the URLs to call.

    Attributes:
        subject: the subject for the CSR, comma form (``O=Org,OU=OrgUnit,…,CN=…``).
        key_algorithm: always ``rsa2048``, although the server signs longer keys. It is shown and not used.
        director_url: UCL's management API, or None.
        certificate_secured_connector_url: the certificate endpoint, or None.
        token: a new one-time token, or None. No representation shows it.
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
    """The public half of a signing request. Key and CSR are stored on disk before they are used."""

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
    """The Connector's answer to ``signCertificateSigningRequest``: three texts, each base64 of PEM."""

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
    """A check with its expected and its found value. A warning does not stop a renewal."""

    name: str
    status: Status
    expected: str
    found: str


class _CheckTable(Tabular):
    """Mixin that shows ``checks`` as a table, and returns whether none of them failed."""

    checks: Sequence[Check]

    title: ClassVar[str] = "Checked"
    header: ClassVar[Row] = ("check", "status", "expected", "found")

    @property
    def ok(self) -> bool:
        """Whether no check failed. Warnings are allowed."""
        return all(check.status != "failed" for check in self.checks)

    def rows(self) -> list[Row]:
        return [(check.name, check.status, check.expected, check.found) for check in self.checks]


@dataclass(frozen=True)
class Checks(_CheckTable):
    """Checks, and whether none of them failed. Warnings are allowed."""

    checks: Sequence[Check]


@dataclass(frozen=True)
class Identity(_CheckTable):
    """The public half of an identity: the chain, leaf first, and the results of its checks.

    The private key is not part of it. It remains in its file.
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
        """The SHA-256 fingerprint of the client certificate, hex."""
        return fingerprint(self.certificate)

    @property
    def warnings(self) -> str | None:
        """All warnings of the checks in one line, or None."""
        warnings = [check for check in self.checks if check.status == "warning"]
        return "; ".join(f"{check.name}: expected {check.expected}, found {check.found}" for check in warnings) or None


@dataclass(frozen=True)
class Due(Tabular):
    """Whether a renewal is due, its due date (UTC), and the rule that sets this date."""

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
    """The result of a step that was not taken, because no renewal is due."""

    until: datetime
    reason: str

    title: ClassVar[str] = "Not needed"

    def rows(self) -> list[Row]:
        return [("not needed until", moment(self.until)), ("rule", self.reason)]


@dataclass(frozen=True)
class Verification(Tabular):
    """Proof that UCL accepts the new identity: it answered a ``configuration`` call over a new, full handshake."""

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


_LABELS = {"not_before": "valid from", "not_after": "valid to", "due_at": "renewal due", "sandbox": "purpose"}
"""What people read for a fact, where it is not the fact's own name. A status uses the same words."""


@dataclass(frozen=True)
class Outcome(Tabular):
    """The result of a procedure. In a notebook it also reaches the program that runs it, as :data:`OUTCOME_MIME`.

    Attributes:
        outcome: ``renewed``, ``not-due``, ``established``, ``revoked``, ``failed`` …
        connection: the connection's name.
        facts: further facts in the order in which they are shown. Values are texts or numbers, never a secret.
        exit_code: see :mod:`ucl_helpers.errors`; 0 for done or not due.
    """

    outcome: str
    connection: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0

    def caption(self) -> str:
        return f"{self.connection}: {self.outcome}"

    def rows(self) -> list[Row]:
        facts = ((name, str(value)) for name, value in self.facts.items() if value is not None)
        return [(_LABELS.get(name, name.replace("_", " ")), value) for name, value in facts]

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for programs."""
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
    """A one-time token, and its endpoint and expiry (UTC) if they are known. The token itself is never shown."""

    token: str = field(repr=False)
    connector_url: str | None = None
    expires_at: datetime | None = None

    title: ClassVar[str] = "One-time token"

    def rows(self) -> list[Row]:
        return [("token", "kept out of sight"), ("token endpoint", self.connector_url or "(not named)")]


@dataclass(frozen=True)
class CallRecord(Tabular):
    """One call to UCL as it was sent and answered. Tokens are masked, and long texts are shortened.

    Attributes:
        url: the URL that got the POST.
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
    """NotBefore and NotAfter of a certificate (UTC)."""

    not_before: datetime
    not_after: datetime

    title: ClassVar[str] = "Validity"

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Validity":
        """Return the validity of a certificate."""
        return cls(certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    @property
    def lifetime(self) -> timedelta:
        """The time from NotBefore to NotAfter."""
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
