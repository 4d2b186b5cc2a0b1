"""Show a step of a renewal as one card: its result, its call to UCL, what it decoded, and its code."""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from pygments.lexers.python import PythonLexer

from ucl_helpers import steps
from ucl_helpers.crypto import public_key_of
from ucl_helpers.models import CallRecord, Configuration, Identity, SignedCertificates, SigningRequest
from ucl_helpers.tables import Row, Tabular, moment, text_table
from ucl_helpers.views.cards import call_lines, code_block, html_of, panel
from ucl_helpers.views.markup import Html, element, table

if TYPE_CHECKING:
    from ucl_helpers.procedures.procedure import Procedure

_STEPS: dict[type, Callable[..., Any]] = {
    Configuration: steps.configuration,
    SigningRequest: steps.request,
    SignedCertificates: steps.sign,
    Identity: steps.decode,
}
_OPERATIONS: dict[type, str] = {Configuration: "configuration", SignedCertificates: "signCertificateSigningRequest"}
_PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "client authentication",
    ExtendedKeyUsageOID.SERVER_AUTH: "server authentication",
}
_NOT_SENT = "Nothing was sent, because an earlier run has received the answer."


@dataclass(frozen=True)
class Panel:
    """A part of a step's card that can be folded: ``text`` for a terminal, ``html`` for a notebook."""

    title: str
    html: Html
    text: str = ""
    is_open: bool = False


@dataclass(frozen=True)
class StepCard:
    """What a step returned, with panels that explain it."""

    result: Tabular
    panels: tuple[Panel, ...] = field(default=())

    def __str__(self) -> str:
        return "\n\n".join([str(self.result), *(f"{part.title}\n{part.text}" for part in self.panels if part.text)])

    @property
    def html(self) -> Html:
        """Return the card."""
        return html_of(self.result, *(panel(part.title, part.html, is_open=part.is_open) for part in self.panels))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        return {"text/plain": str(self), "text/html": self.html}


def step_card(procedure: "Procedure", result: Tabular, earlier: CallRecord | None = None) -> StepCard:
    """Show a step of a procedure as one card: what it returned, the call that it made, what it decoded, and its code.

    Secrets are masked. A step that is not needed has its result alone.

    Args:
        procedure: the procedure, which knows its last call.
        result: what the step returned.
        earlier: the last call before the step, which is not shown as the step's own.
    """
    return StepCard(result, tuple(_panels(procedure, result, earlier)))


def _panels(procedure: "Procedure", result: Tabular, earlier: CallRecord | None) -> Iterator[Panel]:
    if operation := _OPERATIONS.get(type(result)):
        record = procedure.exchange
        if record and record is not earlier and operation in record.operation:
            yield Panel(record.title, element("div", *call_lines(record)), text_table(record.rows()), is_open=True)
        else:
            yield Panel("Sent and received", element("p", _NOT_SENT), _NOT_SENT)
    if isinstance(result, SigningRequest):
        request = x509.load_pem_x509_csr(result.csr.encode())
        yield _decoded("The CSR, decoded", list(_request_rows(request)), is_open=True)
        yield Panel("The CSR as it is stored (PEM)", code_block(result.csr))
    if isinstance(result, Identity):
        certificate = result.certificate
        yield _decoded("The client certificate, decoded", list(_certificate_rows(certificate)))
        pem = certificate.public_bytes(Encoding.PEM).decode()
        yield Panel("The client certificate as it is stored (PEM)", code_block(pem))
    if step := _STEPS.get(type(result)):
        yield Panel(f"The code of this step (steps.{step.__name__})", code_block(source_of(step), PythonLexer()))


def _decoded(title: str, rows: list[Row], *, is_open: bool = False) -> Panel:
    return Panel(title, table(("", ""), rows), text_table(rows), is_open)


def _request_rows(request: x509.CertificateSigningRequest) -> Iterator[Row]:
    yield "subject", _subject(request.subject)
    yield "public key", _key(request.public_key())
    yield "signature", f"{_algorithm(request)}, made with the private key"
    yield "extensions", _extensions(request.extensions) or "none: UCL decides what the certificate may be used for"


def _certificate_rows(certificate: x509.Certificate) -> Iterator[Row]:
    yield "serial number", str(certificate.serial_number)
    yield "subject", _subject(certificate.subject)
    yield "issuer", _subject(certificate.issuer)
    yield "not before", moment(certificate.not_valid_before_utc)
    yield "not after", moment(certificate.not_valid_after_utc)
    yield "public key", _key(public_key_of(certificate))
    yield "signature", f"{_algorithm(certificate)}, made by the issuer"
    yield "extensions", _extensions(certificate.extensions) or "none"


def _subject(name: x509.Name) -> str:
    return "\n".join(f"{attribute.rfc4514_attribute_name} = {attribute.value!s}" for attribute in name)


def _key(key: object) -> str:
    if not isinstance(key, rsa.RSAPublicKey):
        return "not RSA"
    return f"RSA, {key.key_size} bits, exponent {key.public_numbers().e}"


def _algorithm(signed: x509.Certificate | x509.CertificateSigningRequest) -> str:
    digest = signed.signature_hash_algorithm
    return f"RSA with {digest.name.upper().replace('SHA', 'SHA-')}" if digest else "unknown algorithm"


def _extensions(extensions: x509.Extensions) -> str:
    return "\n".join(
        f"{type(each.value).__name__}{_uses(each.value)}{', critical' * each.critical}" for each in extensions
    )


def _uses(extension: x509.ExtensionType) -> str:
    """Return what a certificate may be used for, as far as the extension is about this."""
    match extension:
        case x509.ExtendedKeyUsage():
            return ": " + ", ".join(_PURPOSES.get(use, use.dotted_string) for use in extension)
        case x509.KeyUsage():
            uses = ("digital_signature", "key_encipherment", "key_agreement", "key_cert_sign", "crl_sign")
            return ": " + ", ".join(use for use in uses if getattr(extension, use))
        case x509.BasicConstraints():
            return f": CA {'yes' if extension.ca else 'no'}"
    return ""


def source_of(function: Callable[..., Any]) -> str:
    """Return the source of a function without its docstring."""
    source = inspect.getsource(function)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            docstring = node.body[0]
            del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines)
