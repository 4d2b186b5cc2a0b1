"""The rules by which a certificate signing request (RFC 2986) is accepted, with their order and their texts.

First the signature, by the algorithms that Go's `crypto/x509` knows; then the subject, field by field in the order
CN, C, O, OU, L, ST, where the first failure is reported; then the key, which has to be RSA. Of a repeated field the
first value counts, of a repeated CN the last. Key length and requested extensions are not looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID as Sig

from ucl_helpers.sandbox.decoding import decode_base64, first_pem_block

_SHA1_WITH_RSA_ISO = ObjectIdentifier("1.3.14.3.2.29")
_RSA_HASHES: dict[ObjectIdentifier, type[hashes.HashAlgorithm]] = {
    Sig.RSA_WITH_SHA1: hashes.SHA1,
    _SHA1_WITH_RSA_ISO: hashes.SHA1,
    Sig.RSA_WITH_SHA256: hashes.SHA256,
    Sig.RSA_WITH_SHA384: hashes.SHA384,
    Sig.RSA_WITH_SHA512: hashes.SHA512,
}
_ECDSA_HASHES: dict[ObjectIdentifier, type[hashes.HashAlgorithm]] = {
    Sig.ECDSA_WITH_SHA1: hashes.SHA1,
    Sig.ECDSA_WITH_SHA256: hashes.SHA256,
    Sig.ECDSA_WITH_SHA384: hashes.SHA384,
    Sig.ECDSA_WITH_SHA512: hashes.SHA512,
}
_Key = TypeVar("_Key", rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)
_UNIMPLEMENTED = "x509: cannot verify signature: algorithm unimplemented"
_INSECURE = "x509: cannot verify signature: insecure algorithm MD5-RSA"
_GO_KEY_TYPES = {
    rsa.RSAPublicKey: ("RSA", "*rsa.PublicKey"),
    ec.EllipticCurvePublicKey: ("ECDSA", "*ecdsa.PublicKey"),
    ed25519.Ed25519PublicKey: ("Ed25519", "ed25519.PublicKey"),
}


class CsrRefusedError(Exception):
    """A CSR is refused; the message is the one a client sees."""


def _refuse(message: str) -> NoReturn:
    raise CsrRefusedError(message)


@dataclass(frozen=True)
class Scheme:
    """How a CSR is signed, and so how its certificate will be: the hash, and whether the padding is PSS."""

    hash: hashes.HashAlgorithm
    pss: bool = False


@dataclass(frozen=True)
class AcceptedCsr:
    """A CSR that passed every check: its key, its subject as (type, value) pairs, its signature scheme."""

    key: rsa.RSAPublicKey
    subject: Sequence[tuple[ObjectIdentifier, str]]
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

    def check(self, subject: Sequence[tuple[ObjectIdentifier, str]]) -> None:
        """Checks the fields in order and refuses at the first that is missing or wrong."""
        names = [value for oid, value in subject if oid == NameOID.COMMON_NAME]
        if (names[-1] if names else "") != self.common_name:
            _refuse("CSR: Invalid common name provided.")
        for oid, what, wanted in (
            (NameOID.COUNTRY_NAME, "country", self.country),
            (NameOID.ORGANIZATION_NAME, "organization", self.organization),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "organizational unit", self.organizational_unit),
            (NameOID.LOCALITY_NAME, "locality", self.locality),
            (NameOID.STATE_OR_PROVINCE_NAME, "province", self.province),
        ):
            values = [value for type_, value in subject if type_ == oid]
            if not values:
                _refuse(f"CSR: No {what} provided.")
            if values[0] != wanted:
                _refuse(f"CSR: Invalid {what} provided.")

    def matches(self, subject: Sequence[tuple[ObjectIdentifier, str]]) -> bool:
        """Whether every field is as it should be."""
        try:
            self.check(subject)
        except CsrRefusedError:
            return False
        return True


def subject_pairs(name: x509.Name) -> list[tuple[ObjectIdentifier, str]]:
    """The attributes of a name whose values are text, in their order."""
    return [(attribute.oid, attribute.value) for attribute in name if isinstance(attribute.value, str)]


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
                "Error while creating certificate: "
                "x509: requested SignatureAlgorithm does not match private key type"
            )
    except CsrRefusedError as error:
        _refuse(f"Error while signing Certificate Signing Request: {error}")
    return AcceptedCsr(key, subject, scheme)


def _parse(pem: bytes) -> tuple[x509.CertificateSigningRequest, list[tuple[ObjectIdentifier, str]], object]:
    der = first_pem_block(pem)
    if der is None:
        _refuse("Error while decoding pem block.")
    try:
        csr = x509.load_der_x509_csr(der)
        subject = subject_pairs(csr.subject)
        list(csr.extensions)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        _refuse(f"Error while parsing CSR: {error}")
    return csr, subject, _public_key(csr)


def _public_key(csr: x509.CertificateSigningRequest) -> object:
    """The CSR's key, or None for a kind that cannot be used."""
    try:
        return csr.public_key()
    except UnsupportedAlgorithm:
        return None
    except ValueError as error:
        _refuse(f"Error while parsing CSR: {error}")


def _check_signature(csr: x509.CertificateSigningRequest, key: object) -> Scheme | None:
    """Checks the CSR's own signature; returns its scheme, or None for one that is not RSA's."""
    oid = csr.signature_algorithm_oid
    if oid == Sig.RSA_WITH_MD5:
        _refuse(f"CSR signature invalid: {_INSECURE}")
    if oid in _RSA_HASHES:
        scheme = Scheme(_RSA_HASHES[oid]())
        _verify_rsa(csr, key, padding.PKCS1v15(), scheme.hash)
        return scheme
    if oid == Sig.RSASSA_PSS:
        scheme = _pss_scheme(csr)
        salt = padding.PSS(padding.MGF1(scheme.hash), salt_length=scheme.hash.digest_size)
        _verify_rsa(csr, key, salt, scheme.hash)
        return scheme
    if oid in _ECDSA_HASHES:
        found = _expect(key, ec.EllipticCurvePublicKey)
        algorithm = ec.ECDSA(_ECDSA_HASHES[oid]())
        _verify(lambda: found.verify(csr.signature, csr.tbs_certrequest_bytes, algorithm), "x509: ECDSA verification failure")
        return None
    if oid == Sig.ED25519:
        edwards = _expect(key, ed25519.Ed25519PublicKey)
        _verify(lambda: edwards.verify(csr.signature, csr.tbs_certrequest_bytes), "x509: Ed25519 verification failure")
        return None
    _refuse(f"CSR signature invalid: {_UNIMPLEMENTED}")


def _pss_scheme(csr: x509.CertificateSigningRequest) -> Scheme:
    """PSS is known with SHA-256, 384 or 512, MGF1 of the same hash, and a salt as long as the hash."""
    try:
        parameters, hash_ = csr.signature_algorithm_parameters, csr.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        _refuse(f"CSR signature invalid: {_UNIMPLEMENTED}")
    if (
        not isinstance(parameters, padding.PSS)
        or not isinstance(hash_, hashes.SHA256 | hashes.SHA384 | hashes.SHA512)
        or parameters._salt_length != hash_.digest_size
        or parameters.mgf._algorithm.name != hash_.name
    ):
        _refuse(f"CSR signature invalid: {_UNIMPLEMENTED}")
    return Scheme(hash_, pss=True)


def _verify_rsa(
    csr: x509.CertificateSigningRequest,
    key: object,
    padding_: padding.PKCS1v15 | padding.PSS,
    hash_: hashes.HashAlgorithm,
) -> None:
    found = _expect(key, rsa.RSAPublicKey)
    _verify(
        lambda: found.verify(csr.signature, csr.tbs_certrequest_bytes, padding_, hash_),
        "crypto/rsa: verification error",
    )


def _expect(key: object, wanted: type[_Key]) -> _Key:
    """Refuses a key of another kind than the signature's."""
    if isinstance(key, wanted):
        return key
    for kind, (_, go_type) in _GO_KEY_TYPES.items():
        if isinstance(key, kind):
            name = _GO_KEY_TYPES[wanted][0]
            _refuse(
                "CSR signature invalid: x509: signature algorithm specifies an "
                f"{name} public key, but have public key of type {go_type}"
            )
    _refuse(f"CSR signature invalid: {_UNIMPLEMENTED}")


def _verify(verify: Callable[[], None], failure: str) -> None:
    try:
        verify()
    except InvalidSignature:
        _refuse(f"CSR signature invalid: {failure}")
    except UnsupportedAlgorithm:
        _refuse(f"CSR signature invalid: {_UNIMPLEMENTED}")
