"""Read and write subjects, CSRs and chains of certificates. Pure: bytes and objects in, bytes and objects out.

Follows RFC 2986 (CSR), RFC 4514 (subjects as text), RFC 7468 (PEM), RFC 4648 (base64). *Not* checked: whether a
certificate may be used. :mod:`ucl_helpers.checks` decides that.
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
    """Parse a subject in comma form (RFC 4514, with escapes and repeated fields), and keep the order of its fields.

    In RFC 4514, the text has the fields in the reverse order of the encoding. In UCL's texts, both have the same order,
    so this function reverses the parsed fields. Keys are upper case (or OIDs), and there are no blanks around commas,
    as in UCL's texts.

    Raises:
        BadAnswer: the text is not a subject, or a value is not allowed in its field.
    """
    try:
        name = x509.Name.from_rfc4514_string(text, {"E": x509.NameOID.EMAIL_ADDRESS})
        fits = all(re.fullmatch(_ALPHABETS.get(attribute.oid, _ANY), str(attribute.value)) for attribute in name)
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
}  # the types that `cryptography` writes as IA5String and PrintableString
_FORM = "it is not of the form KEY=value,KEY=value"


def subject_text(name: x509.Name) -> str:
    """Return a subject in comma form, in the order of its encoding."""
    return x509.Name(list(reversed(list(name.rdns)))).rfc4514_string()


def subject_fields(name: x509.Name) -> Counter[tuple[str, str]]:
    """Return the fields of a subject as a multiset of (OID, value), because UCL ignores their order."""
    return Counter((field.oid.dotted_string, str(field.value)) for field in name)


def same_subject(subject: x509.Name, other: x509.Name) -> bool:
    """Return whether both subjects have the same fields with the same values, in any order."""
    return subject_fields(subject) == subject_fields(other)


def common_name(name: x509.Name) -> str:
    """Return the last CN, which is the one that UCL reads, or an empty text."""
    names = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""


def make_csr(key: rsa.RSAPrivateKey, subject: x509.Name) -> bytes:
    """Make a CSR (PEM), signed with SHA-256, without extensions (UCL drops them)."""
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def encode(pem: bytes) -> str:
    """Encode a CSR as base64 on one line, as UCL requires. ``openssl base64`` would wrap it."""
    return base64.b64encode(pem).decode("ascii")


def decode_certificates(text: str, *, name: str) -> tuple[x509.Certificate, ...]:
    """Decode base64 of PEM to certificates, in their order.

    Raises:
        BadAnswer: the text is not base64, or holds no certificate, more than ten, or one that cannot be read. The error
            names the field.
    """
    try:
        pem = base64.b64decode(text, validate=True)
    except ValueError:
        raise BadAnswer(f"{name} is not base64.", remedy="Run it again. If it fails again, report it to UCL.") from None
    certificates = read_certificates(pem, name=name)
    if len(certificates) > MAX_CERTIFICATES:
        raise BadAnswer(f"{name} holds {len(certificates)} certificates, more than {MAX_CERTIFICATES}.")
    return certificates


def read_certificates(pem: bytes, *, name: str) -> tuple[x509.Certificate, ...]:
    """Read certificates from PEM, in their order, or one from DER. Text around PEM is skipped.

    Raises:
        BadAnswer: there is no certificate, or one that cannot be read. The error repeats ``name``.
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
    certificates = x509.load_pem_x509_certificates(pem) if is_pem else [x509.load_der_x509_certificate(pem)]
    for certificate in certificates:  # parse the names now: a damaged one must fail here and not later
        certificate.subject.public_bytes()
        certificate.issuer.public_bytes()
    return tuple(certificates)


def public_key_of(signed: x509.Certificate | x509.CertificateSigningRequest) -> object:
    """Return the public key, or None if a key of this kind cannot be read."""
    try:
        return signed.public_key()
    except (ValueError, *UNUSABLE):
        return None


def dump_certificates(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM, one after another."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
