"""Subject, CSR, and the chain that comes back as base64 of PEM. Pure: bytes and objects in, bytes and objects out.

Follows RFC 2986 (CSR), RFC 4514 (subjects as text), RFC 7468 (PEM), RFC 4648 (base64). Nothing here decides whether a
certificate may be used: that is :mod:`ucl_helpers.checks`.
"""

import base64
import re
from collections import Counter
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ucl_helpers.errors import BadAnswer
from ucl_helpers.keys import UNUSABLE

MAX_CERTIFICATES = 10


def parse_subject(text: str) -> x509.Name:
    """A subject in comma form (RFC 4514, escapes and repeated fields included), kept in the order it is written.

    RFC 4514 writes the most specific field first and reverses it in the encoding; UCL does not, so this undoes that.
    Keys are upper case (or OIDs), and no blanks stand around commas, as UCL writes it.

    Raises:
        BadAnswer: the text is not a subject, or a value is not one that its field may have.
    """
    try:
        name = x509.Name.from_rfc4514_string(text, {"E": x509.NameOID.EMAIL_ADDRESS})
        fits = all(re.fullmatch(_ALPHABETS.get(one.oid, _ANY), str(one.value)) for one in name)
        problem = "" if fits else "a value has characters that its field cannot hold"
    except ValueError as error:
        problem = str(error) or _FORM
    if problem or not name.rdns:
        raise BadAnswer(
            f"The subject {text[:500]!r} cannot be read: {problem or _FORM}.",
            remedy="Report it to UCL, with the request id.",
        )
    return x509.Name(list(reversed(name.rdns)))


_ANY, _ASCII, _PRINTABLE = r"[^\ud800-\udfff]*", r"[\x00-\x7f]*", r"[A-Za-z0-9 '()+,./:=?-]*"
_ALPHABETS = {
    **dict.fromkeys((x509.NameOID.DOMAIN_COMPONENT, x509.NameOID.EMAIL_ADDRESS), _ASCII),
    **dict.fromkeys((x509.NameOID.COUNTRY_NAME, x509.NameOID.JURISDICTION_COUNTRY_NAME), _PRINTABLE),
    **dict.fromkeys((x509.NameOID.SERIAL_NUMBER, x509.NameOID.DN_QUALIFIER), _PRINTABLE),
}  # what `cryptography` writes as IA5String and PrintableString
_FORM = "it is not of the form KEY=value,KEY=value"


def subject_text(name: x509.Name) -> str:
    """A subject in comma form, in the order it is encoded."""
    return x509.Name(list(reversed(list(name.rdns)))).rfc4514_string()


def subject_fields(name: x509.Name) -> Counter[tuple[str, str]]:
    """A subject as a multiset of (OID, value): the order of fields does not matter to UCL."""
    return Counter((field.oid.dotted_string, str(field.value)) for field in name)


def same_subject(one: x509.Name, other: x509.Name) -> bool:
    """True when both have the same fields with the same values, in any order."""
    return subject_fields(one) == subject_fields(other)


def common_name(name: x509.Name) -> str:
    """The last CN, which is the one UCL reads, or an empty text."""
    names = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""


def make_csr(key: rsa.RSAPrivateKey, subject: x509.Name) -> bytes:
    """A CSR as PEM, signed with SHA-256, without extensions (UCL drops them)."""
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def encode(pem: bytes) -> str:
    """Base64 on one line, as UCL wants the CSR; ``openssl base64`` would wrap it."""
    return base64.b64encode(pem).decode("ascii")


def decode_certificates(text: str, *, name: str) -> tuple[x509.Certificate, ...]:
    """Base64 of PEM → certificates in their order.

    Raises:
        BadAnswer: not base64, no certificate in it, more than ten, or one that cannot be read; names the field.
    """
    try:
        pem = base64.b64decode(text, validate=True)
    except ValueError:
        raise BadAnswer(f"{name} is not base64.", remedy="Run it again; if it stays, report it to UCL.") from None
    certificates = read_certificates(pem, name=name)
    if len(certificates) > MAX_CERTIFICATES:
        raise BadAnswer(f"{name} holds {len(certificates)} certificates, more than {MAX_CERTIFICATES}.")
    return certificates


def read_certificates(pem: bytes, *, name: str) -> tuple[x509.Certificate, ...]:
    """PEM → certificates in their order; text around them is skipped, DER is taken as well.

    Raises:
        BadAnswer: no certificate in it, or one that cannot be read; names where.
    """
    if b"-----BEGIN CERTIFICATE-----" not in pem and pem[:1] != b"\x30":
        raise BadAnswer(f"{name} holds no certificate.", remedy="It must be PEM, one certificate after another.")
    try:
        return _parsed(pem)
    except (ValueError, TypeError, x509.InvalidVersion, UserWarning):  # a warning, where warnings are errors
        raise BadAnswer(f"{name} holds a certificate that cannot be read.", remedy="Look: openssl x509 -text") from None


@lru_cache(maxsize=32)  # a renewal reads three chains fourteen times
def _parsed(pem: bytes) -> tuple[x509.Certificate, ...]:
    is_pem = b"-----BEGIN CERTIFICATE-----" in pem
    found = x509.load_pem_x509_certificates(pem) if is_pem else [x509.load_der_x509_certificate(pem)]
    for one in found:  # names are parsed late: better here than in the midst of something
        one.subject.public_bytes()
        one.issuer.public_bytes()
    return tuple(found)


def public_key_of(signed: x509.Certificate | x509.CertificateSigningRequest) -> object:
    """The public key, or None when it is of a kind that cannot be read."""
    try:
        return signed.public_key()
    except (ValueError, *UNUSABLE):
        return None


def dump_certificates(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM, one after another."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
