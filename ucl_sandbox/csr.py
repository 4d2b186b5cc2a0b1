"""The reading and the acceptance of a certificate signing request (RFC 2986), as in the real Connector.

*Reading* follows Go's standard library: base64 (`StdEncoding`, RFC 4648 section 4), PEM, and the part of DER (X.690)
that a distinguished name needs. Go is more lenient than Python in some cases and stricter in others. It accepts line
ends anywhere in base64, but no blanks and no missing padding. It accepts text around a PEM block, and any label. It
reads only the first PEM block. In a name, only attribute types below 2.5.4 (X.520) with a text count, as in Go's
`pkix.Name`.

*Acceptance* checks the signature first, with the algorithms of Go's `crypto/x509`. It then checks the fields of the
subject in the order CN, C, O, OU, L, ST, and reports the first failure. Last it checks that the key is RSA. If a field
is repeated, its first value counts, but the last one of CN. Key length and requested extensions are ignored.
"""

import base64
import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID as Sig

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_BEGIN, _END, _DASHES = b"-----BEGIN ", b"\n-----END ", b"-----"


def decode_base64(data: bytes) -> bytes | None:
    """Decode standard base64, or return None if Go's `base64.StdEncoding` would refuse it."""
    joined = data.replace(b"\r", b"").replace(b"\n", b"")
    return base64.b64decode(joined) if _BASE64.fullmatch(joined) else None


def first_pem_block(data: bytes) -> bytes | None:
    """Return the content of the first block that is well-formed for Go's `pem.Decode`, or None."""
    start = 0
    while (end := data.find(_END, start)) >= 0:
        begin = data.rfind(_BEGIN, start, end)
        if begin >= 0 and (begin == start or data[begin - 1 : begin] == b"\n"):
            line_end = data.find(b"\n", end + len(_END))
            content = _block(data[begin + len(_BEGIN) : line_end if line_end >= 0 else len(data)])
            if content is not None:
                return content
        start = end + len(_END)
    return None


def _block(data: bytes) -> bytes | None:
    """Decode a block that begins after its `-----BEGIN ` and ends with its END line. None if it is not well-formed."""
    label, *lines = (line.rstrip(b" \t\r") for line in data.split(b"\n"))
    headers = next((at for at, line in enumerate(lines) if b":" not in line), len(lines))  # Key: value (RFC 1421)
    *body, last = lines[headers:] or [b""]
    # An empty block may end right after its first line, but not right after a header.
    if not label.endswith(_DASHES) or last != _END[1:] + label or (headers and not body):
        return None
    return decode_base64(b"".join(body).replace(b" ", b"").replace(b"\t", b""))


SEQUENCE, BIT_STRING = 0x30, 0x03
_SET, _OID = 0x31, 0x06
_UTF8, _NUMERIC, _PRINTABLE, _T61, _IA5, _BMP = 0x0C, 0x12, 0x13, 0x14, 0x16, 0x1E
_HEAD, _LONG_FORM = 2, 0x80
_PRINTABLE_TO_WRITE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
# The codec and the allowed text of each tag.
_READABLE = {
    _UTF8: ("utf-8", re.compile(r".*", re.DOTALL)),
    _NUMERIC: ("ascii", re.compile(r"[0-9 ]*")),
    _PRINTABLE: ("ascii", re.compile(r"[A-Za-z0-9 '()+,./:=?*&-]*")),
    _T61: ("latin-1", re.compile(r".*", re.DOTALL)),
    _IA5: ("ascii", re.compile(r".*", re.DOTALL)),
    _BMP: ("utf-16-be", re.compile(r".*", re.DOTALL)),
}


class Attribute(enum.IntEnum):
    """The supported attribute types, in the order in which a name is written."""

    COUNTRY = 6
    PROVINCE = 8
    LOCALITY = 7
    STREET = 9
    POSTAL_CODE = 17
    ORGANIZATION = 10
    ORGANIZATIONAL_UNIT = 11
    COMMON_NAME = 3
    SERIAL_NUMBER = 5


def _object_identifier(type_: Attribute) -> bytes:
    """Return the encoded content of the object identifier 2.5.4.x."""
    return bytes([0x55, 0x04, type_])


_TYPES = {_object_identifier(type_): type_ for type_ in Attribute}


def element(tag: int, content: bytes) -> bytes:
    """Encode one DER element."""
    size = len(content)
    if size < _LONG_FORM:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG_FORM | len(length)]) + length + content


def elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Split the content of a DER sequence. Return the tag, the content and the whole encoding of each element.

    Raises:
        ValueError: The data is truncated.
    """
    result, at = [], 0
    while at < len(data):
        start, size = at + _HEAD, int.from_bytes(data[at + 1 : at + _HEAD])
        if size & _LONG_FORM:
            start += size ^ _LONG_FORM
            size = int.from_bytes(data[at + _HEAD : start])
        end = start + size
        if end > len(data):
            raise ValueError("syntax error: data truncated")
        result.append((data[at], data[start:end], data[at:end]))
        at = end
    return result


def read_name(name: bytes) -> list[tuple[Attribute, str]]:
    """Return the attributes in the content of a Name, in their order.

    Raises:
        ValueError: It is not a Name, or a text has characters that its type does not allow.
    """
    pairs = []
    for _, rdn, _ in elements(name):
        for _, attribute, _ in elements(rdn):
            parts = elements(attribute)
            (_, type_, _), (tag, value, _) = parts  # raises ValueError if there are not two
            text, attribute_type = _read_text(tag, value), _TYPES.get(type_)
            if text is not None and attribute_type is not None:
                pairs.append((attribute_type, text))
    return pairs


def _read_text(tag: int, value: bytes) -> str | None:
    if tag not in _READABLE:
        return None
    codec, allowed = _READABLE[tag]
    text = value.decode(codec)
    if not allowed.fullmatch(text):
        raise ValueError("syntax error: a string contains an invalid character")
    return text


def write_name(pairs: Iterable[tuple[Attribute, str]]) -> bytes:
    """Encode a Name as Go does.

    The types have a fixed order, and all values of one type are in one RDN. Of CN and serialNumber only the last value
    is written.
    """
    attributes = list(pairs)
    rdns = b""
    for type_ in Attribute:
        values = [value for attribute, value in attributes if attribute is type_]
        if type_ in {Attribute.COMMON_NAME, Attribute.SERIAL_NUMBER}:
            values = [value for value in values[-1:] if value]
        if values:
            rdns += element(_SET, b"".join(sorted(_attribute(type_, value) for value in values)))
    return element(SEQUENCE, rdns)


def _attribute(type_: Attribute, value: str) -> bytes:
    """Encode a value as PrintableString, or as UTF8String if it has other characters."""
    tag = _PRINTABLE if _PRINTABLE_TO_WRITE.fullmatch(value) else _UTF8
    return element(SEQUENCE, element(_OID, _object_identifier(type_)) + element(tag, value.encode()))


Subject = Sequence[tuple[Attribute, str]]
_SHA1_WITH_RSA_ISO = ObjectIdentifier("1.3.14.3.2.29")
Hash = hashes.SHA1 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_ALGORITHMS: dict[ObjectIdentifier, tuple[str, type[Hash]]] = {
    Sig.RSA_WITH_SHA1: ("RSA", hashes.SHA1),
    _SHA1_WITH_RSA_ISO: ("RSA", hashes.SHA1),
    Sig.RSA_WITH_SHA256: ("RSA", hashes.SHA256),
    Sig.RSA_WITH_SHA384: ("RSA", hashes.SHA384),
    Sig.RSA_WITH_SHA512: ("RSA", hashes.SHA512),
    Sig.ECDSA_WITH_SHA1: ("ECDSA", hashes.SHA1),
    Sig.ECDSA_WITH_SHA256: ("ECDSA", hashes.SHA256),
    Sig.ECDSA_WITH_SHA384: ("ECDSA", hashes.SHA384),
    Sig.ECDSA_WITH_SHA512: ("ECDSA", hashes.SHA512),
    Sig.ED25519: ("Ed25519", hashes.SHA512),
}
_CURVES = {"secp224r1", "secp256r1", "secp384r1", "secp521r1"}
_UNIMPLEMENTED = "x509: cannot verify signature: algorithm unimplemented"
_FAILURES = {
    "RSA": "crypto/rsa: verification error",
    "ECDSA": "x509: ECDSA verification failure",
    "Ed25519": "x509: Ed25519 verification failure",
}


class CsrRefusedError(Exception):
    """A refused CSR. Its message is the one that a client sees."""


def _refuse(message: str) -> NoReturn:
    raise CsrRefusedError(message)


@dataclass(frozen=True)
class Scheme:
    """The signature scheme of a CSR and of its certificate: the hash, and whether the padding is PSS."""

    hash: Hash
    pss: bool = False


@dataclass(frozen=True)
class AcceptedCsr:
    """A CSR that passed every check, with its key, its subject as (type, value) pairs and its signature scheme."""

    key: rsa.RSAPublicKey
    subject: Subject
    scheme: Scheme


@dataclass(frozen=True)
class ExpectedSubject:
    """The subject that a CSR must have. `str()` is the comma form in the answer to `configuration`."""

    common_name: str
    country: str = "DE"
    organization: str = "Org"
    organizational_unit: str = "OrgUnit"
    locality: str = "locality"
    province: str = "province"

    def __str__(self) -> str:
        return (
            f"O={self.organization},OU={self.organizational_unit},L={self.locality},"
            f"ST={self.province},C={self.country},CN={self.common_name}"
        )

    def check(self, subject: Subject) -> None:
        """Check the fields in order, and raise `CsrRefusedError` for the first that is missing or wrong."""
        names = [value for type_, value in subject if type_ is Attribute.COMMON_NAME]
        if (names[-1] if names else "") != self.common_name:
            _refuse("CSR: Invalid common name provided.")
        for attribute, name, expected in (
            (Attribute.COUNTRY, "country", self.country),
            (Attribute.ORGANIZATION, "organization", self.organization),
            (Attribute.ORGANIZATIONAL_UNIT, "organizational unit", self.organizational_unit),
            (Attribute.LOCALITY, "locality", self.locality),
            (Attribute.PROVINCE, "province", self.province),
        ):
            values = [value for type_, value in subject if type_ is attribute]
            if not values:
                _refuse(f"CSR: No {name} provided.")
            if values[0] != expected:
                _refuse(f"CSR: Invalid {name} provided.")

    def matches(self, subject: Subject) -> bool:
        """Return whether every field has its expected value."""
        try:
            self.check(subject)
        except CsrRefusedError:
            return False
        return True


def accept(encoded: str, expected: ExpectedSubject) -> AcceptedCsr:
    """Decode and check a CSR.

    Args:
        encoded: The CSR as PEM in standard base64.
        expected: The subject that it must have.

    Raises:
        CsrRefusedError: The CSR is refused. The message is for the client.
    """
    pem = decode_base64(encoded.encode())
    if pem is None:
        _refuse(
            "Error while decoding Certificate Signing Request: "
            "Error while parsing base64 content. Incorrect value provided."
        )
    try:
        csr, subject, key = _parse(pem)
        scheme = _check_signature(csr, key)
        expected.check(subject)
        if not isinstance(key, rsa.RSAPublicKey) or scheme is None:
            _refuse(
                "Error while creating certificate: x509: requested SignatureAlgorithm does not match private key type"
            )
    except CsrRefusedError as error:
        _refuse(f"Error while signing Certificate Signing Request: {error}")
    return AcceptedCsr(key, subject, scheme)


def _parse(pem: bytes) -> tuple[x509.CertificateSigningRequest, Subject, object]:
    der = first_pem_block(pem)
    if der is None:
        _refuse("Error while decoding pem block.")
    try:
        csr = x509.load_der_x509_csr(der)
        (_, request, _), *_ = elements(csr.tbs_certrequest_bytes)
        subject = read_name(elements(request)[1][1])
        list(csr.extensions)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        _refuse(f"Error while parsing CSR: {error}")
    return csr, subject, _public_key(csr)


def _public_key(csr: x509.CertificateSigningRequest) -> object:
    """Return the CSR's key, or None if `cryptography` does not support its type."""
    try:
        key = csr.public_key()
    except UnsupportedAlgorithm:
        return None
    except ValueError as error:
        _refuse(f"Error while parsing CSR: {error}")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        _refuse("Error while parsing CSR: x509: unsupported elliptic curve")
    return key


def _check_signature(csr: x509.CertificateSigningRequest, key: object) -> Scheme | None:
    """Check the CSR's own signature. Return its scheme, or None if the key is not RSA."""
    family, hash_, pss = _algorithm(csr)
    signature, signed = csr.signature, csr.tbs_certrequest_bytes
    try:
        if isinstance(key, rsa.RSAPublicKey):
            _same_family(family, "RSA", "*rsa.PublicKey")
            salt = padding.PSS(padding.MGF1(hash_), salt_length=hash_.digest_size) if pss else padding.PKCS1v15()
            key.verify(signature, signed, salt, hash_)
            return Scheme(hash_, pss)
        if isinstance(key, ec.EllipticCurvePublicKey):
            _same_family(family, "ECDSA", "*ecdsa.PublicKey")
            key.verify(signature, signed, ec.ECDSA(hash_))
            return None
        if isinstance(key, ed25519.Ed25519PublicKey):
            _same_family(family, "Ed25519", "ed25519.PublicKey")
            key.verify(signature, signed)
            return None
    except InvalidSignature:
        _refuse(f"CSR signature invalid: {_FAILURES[family]}")
    _refuse(f"CSR signature invalid: {_UNIMPLEMENTED}")


def _algorithm(csr: x509.CertificateSigningRequest) -> tuple[str, Hash, bool]:
    """Return the signature's algorithm as its family, its hash, and whether it uses PSS."""
    oid = csr.signature_algorithm_oid
    if oid == Sig.RSA_WITH_MD5:
        _refuse("CSR signature invalid: x509: cannot verify signature: insecure algorithm MD5-RSA")
    if oid == Sig.RSASSA_PSS:
        _, _, identifier = csr.public_bytes(serialization.Encoding.DER).partition(csr.tbs_certrequest_bytes)
        for hash_ in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
            if identifier.startswith(_pss_identifier(hash_)):
                return "RSA", hash_, True
    elif oid in _ALGORITHMS:
        family, hash_type = _ALGORITHMS[oid]
        return family, hash_type(), False
    _refuse(f"CSR signature invalid: {_UNIMPLEMENTED}")


def _pss_identifier(hash_: hashes.HashAlgorithm) -> bytes:
    """Return the AlgorithmIdentifier (RFC 4055) that Go knows: MGF1 with the same hash, a salt as long as the hash."""
    number = {"sha256": "01", "sha384": "02", "sha512": "03"}[hash_.name]
    hash_identifier = f"300d06096086480165030402{number}0500"
    mask = f"301a06092a864886f70d010108{hash_identifier}"
    parameters = f"3034a00f{hash_identifier}a11c{mask}a2030201{hash_.digest_size:02x}"
    return bytes.fromhex(f"304106092a864886f70d01010a{parameters}")


def _same_family(signature: str, key: str, go_type: str) -> None:
    if signature != key:
        _refuse(
            f"CSR signature invalid: x509: signature algorithm specifies an {signature} public key, "
            f"but have public key of type {go_type}"
        )
