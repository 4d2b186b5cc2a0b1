"""The rules by which a certificate signing request (RFC 2986) is accepted, with their order and their texts.

First the signature, by the algorithms that Go's `crypto/x509` knows; then the subject, field by field in the order
CN, C, O, OU, L, ST, where the first failure is reported; then the key, which has to be RSA. Of a repeated field the
first value counts, of a repeated CN the last. Key length and requested extensions are not looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID as Sig

from ucl_sandbox.decoding import decode_base64, first_pem_block
from ucl_sandbox.der import Attribute, elements, read_name

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
    """A CSR is refused; the message is the one a client sees."""


def _refuse(message: str) -> NoReturn:
    raise CsrRefusedError(message)


@dataclass(frozen=True)
class Scheme:
    """How a CSR is signed, and so how its certificate will be: the hash, and whether the padding is PSS."""

    hash: Hash
    pss: bool = False


@dataclass(frozen=True)
class AcceptedCsr:
    """A CSR that passed every check: its key, its subject as (type, value) pairs, its signature scheme."""

    key: rsa.RSAPublicKey
    subject: Subject
    scheme: Scheme


@dataclass(frozen=True)
class ExpectedSubject:
    """What a CSR's subject has to say. `str()` is the comma form that `configuration` gives."""

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
        """Checks the fields in order and refuses at the first that is missing or wrong."""
        names = [value for type_, value in subject if type_ is Attribute.COMMON_NAME]
        if (names[-1] if names else "") != self.common_name:
            _refuse("CSR: Invalid common name provided.")
        for attribute, what, wanted in (
            (Attribute.COUNTRY, "country", self.country),
            (Attribute.ORGANIZATION, "organization", self.organization),
            (Attribute.ORGANIZATIONAL_UNIT, "organizational unit", self.organizational_unit),
            (Attribute.LOCALITY, "locality", self.locality),
            (Attribute.PROVINCE, "province", self.province),
        ):
            values = [value for type_, value in subject if type_ is attribute]
            if not values:
                _refuse(f"CSR: No {what} provided.")
            if values[0] != wanted:
                _refuse(f"CSR: Invalid {what} provided.")

    def matches(self, subject: Subject) -> bool:
        """Whether every field is as it should be."""
        try:
            self.check(subject)
        except CsrRefusedError:
            return False
        return True


def accept(encoded: str, expected: ExpectedSubject) -> AcceptedCsr:
    """Decodes and checks a CSR.

    Args:
        encoded: The CSR as PEM in standard base64.
        expected: What its subject must say.

    Raises:
        CsrRefusedError: With the text that the client gets.
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
    """The CSR's key, or None for a kind that cannot be used."""
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
    """Checks the CSR's own signature; returns its scheme, or None for one that is not RSA's."""
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
    """The family of the signature's algorithm, its hash, and whether it is PSS."""
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
    """The one AlgorithmIdentifier (RFC 4055) that is known: MGF1 of the same hash, and a salt as long as the hash."""
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
