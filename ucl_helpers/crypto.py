"""Key, subject, CSR, and the chain that comes back as base64 of PEM. Pure: bytes and objects in, bytes and objects out.

Follows RFC 2986 (CSR), RFC 4514 (subjects as text), RFC 7468 (PEM), RFC 4648 (base64). Nothing here decides whether a
certificate may be used: that is :mod:`ucl_helpers.checks`.
"""

import base64
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12, serialize_key_and_certificates

from ucl_helpers.errors import BadAnswer, KeyLocked, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MIN_BITS, MAX_BITS, DEFAULT_BITS = 2048, 8192, 4096
MAX_CERTIFICATES = 10
Passphrase = Callable[[], bytes | None]  # gives the one that a key of ours is encrypted with, when it is needed
_UNUSABLE = (UnsupportedAlgorithm, InternalError)  # the second: OpenSSL stumbled over a key of another kind
_CONNECTION = re.compile(r"(?:.*/)?connections/([^/]+)/")  # whose key a file holds


def key_length(bits: object) -> int:
    """Check a wanted RSA key length, in bits.

    Raises:
        UsageError: not a whole number from 2048 to 8192.
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or not MIN_BITS <= bits <= MAX_BITS or bits % 8:
        raise UsageError(
            f"key_length is {bits!r}, but UCL signs RSA keys and this toolkit makes {MIN_BITS} to {MAX_BITS} bits.",
            remedy=f"Give a multiple of 8 in that range; {DEFAULT_BITS} is recommended.",
        )
    return bits


def make_key(bits: int = DEFAULT_BITS) -> rsa.RSAPrivateKey:
    """A new RSA key of ``bits`` bits, public exponent 65537. Takes from 0.1 s to several seconds.

    Raises:
        UsageError: see :func:`key_length`.
    """
    return rsa.generate_private_key(public_exponent=65537, key_size=key_length(bits))


def dump_key(key: rsa.RSAPrivateKey, passphrase: bytes | None = None) -> bytes:
    """The key as PKCS #8 PEM, encrypted if a passphrase is given."""
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def load_key(
    data: bytes, passphrase: bytes | None = None, *, where: str = "the key", ours: bool = False
) -> rsa.RSAPrivateKey:
    """A private RSA key from PEM (PKCS #1 or #8, encrypted or not) or DER.

    Args:
        data: PEM or DER.
        passphrase: if it is encrypted.
        where: what an error names.
        ours: written by this toolkit, after OpenSSL had made the primes or proven them. They are not proven again,
            which takes a quarter of a second; that one of them is damaged is seen by their product.

    Raises:
        UsageError: unreadable, another kind of key, or the passphrase is missing, needless or wrong; names ``where``.
    """
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        key = load(data, passphrase, unsafe_skip_rsa_key_validation=ours)
    except TypeError:
        if passphrase:
            raise UsageError(f"{where} is not encrypted.", remedy="Leave the passphrase out.") from None
        raise UsageError(
            f"{where} is encrypted.", remedy="Give its passphrase: prompt, env:NAME or file:PATH."
        ) from None
    except (ValueError, NotImplementedError):
        key = None
    except _UNUSABLE:
        raise UsageError(f"{where} is of a kind this toolkit cannot use.", remedy="UCL signs RSA keys only.") from None
    if key is not None and not isinstance(key, rsa.RSAPrivateKey):
        raise UsageError(f"{where} is not an RSA key.", remedy="UCL signs RSA keys only.")
    if key is None or (ours and not _is_whole(key.private_numbers())):
        raise UsageError(
            f"{where} cannot be read as a private key, or the passphrase is wrong.",
            remedy="It must be PEM or DER, PKCS #1 or PKCS #8.",
        )
    return key


def _is_whole(numbers: rsa.RSAPrivateNumbers) -> bool:
    """Whether the numbers of a key belong together (RFC 8017 section 3.2); *not* whether its primes are primes."""
    p, q, d = numbers.p, numbers.q, numbers.d
    return (
        min(p, q) > 1
        and p * q == numbers.public_numbers.n
        and d * numbers.public_numbers.e % math.lcm(p - 1, q - 1) == 1
        and (numbers.dmp1, numbers.dmq1) == (d % (p - 1), d % (q - 1))
        and numbers.iqmp * q % p == 1
    )


def no_passphrase() -> None:
    """What a key that lies in plain needs."""


@dataclass(frozen=True)
class Credentials:
    """What is shown to the server in the handshake: PEM files, the chain leaf first, and the leaf itself.

    ``passphrase`` is asked for when the key is encrypted, and kept out of every representation. ``accepted`` says that
    UCL has accepted this certificate before, which decides what a refusal likely means.
    """

    certificate_file: "Path"
    key_file: "Path"
    certificate: x509.Certificate
    passphrase: Passphrase = field(default=no_passphrase, repr=False, compare=False)
    accepted: bool = field(default=False, compare=False)


def is_sealed(pem: bytes) -> bool:
    """Whether this is a whole, encrypted PKCS #8 key, as far as can be told without its passphrase."""
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" not in pem:
        return False
    try:
        load_pem_private_key(pem, None)
    except TypeError:
        return True
    except (ValueError, *_UNUSABLE):
        return False
    return False


def open_key(pem: bytes, *passphrases: Passphrase, where: str) -> rsa.RSAPrivateKey:
    """A key of ours, in plain or encrypted; its passphrases are asked for, and tried in turn, only if it is.

    Raises:
        UsageError: damaged; names ``where``.
        KeyLocked: none of the passphrases opens it, or they are not at hand.
    """
    if not is_sealed(pem):
        return load_key(pem, where=where, ours=True)
    try:
        known = [secret for one in passphrases if (secret := one()) is not None]
    except UsageError as error:
        raise KeyLocked(f"{where} is encrypted. {error.message}", remedy=error.remedy, path=where) from None
    for secret in known:
        try:
            return load_key(pem, secret, where=where, ours=True)
        except UsageError:
            continue
    what = "with another passphrase than key_passphrase" if known else "and key_passphrase is not set"
    connection = found[1] if (found := _CONNECTION.match(where)) else "NAME"
    remedy = f"Nothing is lost. Set key_passphrase to what it was, or give that: ucl export {connection} --from prompt"
    raise KeyLocked(f"{where} is encrypted, {what}.", remedy=remedy, path=where)


def dump_bundle(key: rsa.RSAPrivateKey, chain: Sequence[x509.Certificate], name: str, passphrase: bytes) -> bytes:
    """Key and chain as PKCS #12 under a friendly name: AES-256-CBC, PBKDF2 with HMAC-SHA-256, a MAC by SHA-256."""
    leaf, *above = chain
    return serialize_key_and_certificates(name.encode(), key, leaf, above, BestAvailableEncryption(passphrase))


def load_bundle(
    data: bytes, passphrase: bytes | None, *, where: str
) -> tuple[rsa.RSAPrivateKey, list[x509.Certificate]]:
    """Key and certificates (the key's own first) from PKCS #12.

    Raises:
        UsageError: unreadable, wrong passphrase, or key or certificate is not in there; names ``where``.
    """
    try:
        bundle = load_pkcs12(data, passphrase)
    except (ValueError, *_UNUSABLE):
        raise UsageError(
            f"{where} cannot be read as PKCS #12, or the passphrase is wrong.",
            remedy="Try: openssl pkcs12 -info",
        ) from None
    if not isinstance(bundle.key, rsa.RSAPrivateKey) or bundle.cert is None:
        raise UsageError(f"{where} does not hold an RSA key together with its certificate.")
    return bundle.key, [bundle.cert.certificate, *(extra.certificate for extra in bundle.additional_certs)]


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
    except (ValueError, *_UNUSABLE):
        return None


def dump_certificates(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM, one after another."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
