"""The sandbox's two certificate authorities, and the certificates that they issue.

The *client* CA signs the requests that `signCertificateSigningRequest` receives. It is a root, or a root with an
intermediate. The *server* CA signs only the certificates of the sandbox's own listeners, so a client that trusts one CA
does not trust the other. Keys are files in the state folder that only their owner can read.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ucl_private_files import read_regular, write_file
from ucl_sandbox.csr import BIT_STRING, SEQUENCE, AcceptedCsr, element, elements, write_name

CaLayout = Literal["root", "intermediate"]

# The two dates are far apart, because the user decides how long a state folder and certificates are used.
_CA_FROM, _CA_UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC)
_SERVER_ROOT, _SERVER_LIFETIME, _BACKDATED = "server-root.pem", timedelta(days=365), timedelta(days=1)
_LOOPBACK: tuple[x509.GeneralName, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    x509.IPAddress(ipaddress.IPv6Address("::1")),
)
_SERIAL = 2
# Positions among the elements of a TBSCertificate (RFC 5280 section 4.1).
_ALGORITHM_PLACE, SUBJECT_PLACE = 2, 5

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: SigningKey

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, name: str, key: SigningKey, issuer: "Authority | None" = None) -> "Authority":
        """Create a root, or an intermediate if there is an issuer."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "UCL sandbox, for practice only"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        builder = (
            _builder(subject, issuer.certificate.subject if issuer else subject, key, _CA_FROM, _CA_UNTIL)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else None), critical=True)
            .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        )
        return cls(_signed(builder, key, issuer.key if issuer else key), key)

    @classmethod
    def load_or_create(
        cls, path: Path, name: str, issuer: "Authority | None" = None, *, ec_key: bool = False
    ) -> "Authority":
        """Read certificate and key from one file. Create the file first if it is missing."""
        if not path.exists():
            key = _new_ec_key() if ec_key else rsa.generate_private_key(public_exponent=65537, key_size=2048)
            write_file(path, cls.create(name, key, issuer).pem + _key_pem(key))
        content = read_regular(path, follow=False)
        loaded = serialization.load_pem_private_key(content, password=None)
        if not isinstance(loaded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise TypeError(f"{path} holds a key that is neither RSA nor EC")
        return cls(x509.load_pem_x509_certificate(content), loaded)


class ClientCa:
    """The CA that signs clients' requests.

    Args:
        folder: The folder of its keys, which are created if they are missing.
        layout: "root" for one self-signed CA, "intermediate" for a root and an intermediate that signs.

    Attributes:
        authorities: Its CAs. The first one signs.
    """

    def __init__(self, folder: Path, layout: CaLayout) -> None:
        self.authorities = [Authority.load_or_create(folder / "client-root.pem", "Sandbox Client Root")]
        if layout == "intermediate":
            path = folder / "client-intermediate.pem"
            self.authorities.insert(
                0, Authority.load_or_create(path, "Sandbox Client Intermediate", self.authorities[0])
            )

    @property
    def pem(self) -> bytes:
        """The content of `caCertificate`: the CA certificates as PEM, that of the signing CA first."""
        return b"".join(authority.pem for authority in self.authorities)

    def sign(self, csr: AcceptedCsr, not_before: datetime, validity: timedelta) -> x509.Certificate:
        """Issue a certificate as the real Connector does.

        The serial number is always 2. The certificate is valid from `not_before` (an aware datetime, of which whole
        seconds count) without backdating. It has the extensions KeyUsage, ExtendedKeyUsage and AuthorityKeyIdentifier
        and no others. It has the CSR's signature algorithm, except that SHA-256 replaces SHA-1, because `cryptography`
        does not sign with SHA-1.
        """
        issuer = self.authorities[0]
        hash_ = hashes.SHA256() if isinstance(csr.scheme.hash, hashes.SHA1) else csr.scheme.hash
        pss = padding.PSS(padding.MGF1(hash_), salt_length=hash_.digest_size) if csr.scheme.pss else None
        draft = (
            x509.CertificateBuilder(issuer.certificate.subject, x509.Name([]), csr.key, _SERIAL)
            .not_valid_before(not_before)
            .not_valid_after(not_before + validity)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(_authority_key_identifier(issuer.key), critical=False)
            .sign(issuer.key, hash_, rsa_padding=pss)
        )
        # `cryptography` would encode the subject differently, so it is put in and signed here.
        (_, content, _), *_ = elements(draft.tbs_certificate_bytes)
        parts = [whole for _, _, whole in elements(content)]
        parts[SUBJECT_PLACE] = write_name(csr.subject)
        tbs = element(SEQUENCE, b"".join(parts))
        return sign_tbs(tbs, parts[_ALGORITHM_PLACE], issuer.key, hash_, pss or padding.PKCS1v15())


def sign_tbs(
    tbs: bytes,
    algorithm: bytes,
    key: SigningKey,
    hash_: hashes.HashAlgorithm,
    scheme: padding.PSS | padding.PKCS1v15,
) -> x509.Certificate:
    """Sign an encoded TBSCertificate with a CA's RSA key. `algorithm` is its encoded AlgorithmIdentifier."""
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the client CA's key is RSA")
    signature = element(BIT_STRING, b"\0" + key.sign(tbs, scheme, hash_))
    return x509.load_der_x509_certificate(element(SEQUENCE, tbs + algorithm + signature))


def make_server_certificate(folder: Path, *times: datetime) -> tuple[Path, Path]:
    """Create a new certificate for the listeners.

    Args:
        folder: The state folder.
        times: The certificate is valid from a day before the earliest to a year after the latest of them.

    Returns:
        The file with certificate and key, and the file with the CA certificate that a client must trust.
    """
    authority = Authority.load_or_create(folder / _SERVER_ROOT, "Sandbox Server Root", ec_key=True)
    server, ca = folder / "server.pem", folder / "server-ca.pem"
    _issue_server_certificate(server, authority, min(times) - _BACKDATED, max(times) + _SERVER_LIFETIME)
    write_file(ca, authority.pem)
    return server, ca


def change_server_ca(folder: Path) -> None:
    """Remove the server CA, so that a new CA signs the next certificate."""
    (folder / _SERVER_ROOT).unlink(missing_ok=True)


def make_wrong_server_certificate(folder: Path, now: datetime, wrong: str) -> Path:
    """Create a server certificate that no client may accept.

    Args:
        folder: The state folder.
        now: The system's time, which clients use for TLS.
        wrong: "expired", "wrong-host" or "unknown-ca".

    Returns:
        The file with certificate and key.
    """
    authority = Authority.load_or_create(folder / _SERVER_ROOT, "Sandbox Server Root", ec_key=True)
    if wrong == "unknown-ca":
        authority = Authority.create("Unknown Server Root", _new_ec_key())
    since = now - timedelta(days=2)
    until = now - timedelta(days=1) if wrong == "expired" else now + _SERVER_LIFETIME
    names = [x509.DNSName("elsewhere.invalid")] if wrong == "wrong-host" else _LOOPBACK
    path = folder / f"server-{wrong}.pem"
    _issue_server_certificate(path, authority, since, until, names)
    return path


def _issue_server_certificate(
    path: Path,
    authority: Authority,
    since: datetime,
    until: datetime,
    names: Iterable[x509.GeneralName] = _LOOPBACK,
) -> None:
    """Issue a server certificate for a new key, and write both to one file."""
    key = _new_ec_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = (
        _builder(subject, authority.certificate.subject, key, since, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    certificate = _signed(builder, key, authority.key)
    write_file(path, certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: SigningKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(since).not_valid_after(until)


def _signed(builder: x509.CertificateBuilder, key: SigningKey, issuer: SigningKey) -> x509.Certificate:
    """Sign a certificate after adding the identifiers of its own key and of the issuer's key."""
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(subject_key, critical=False)
    return builder.add_extension(_authority_key_identifier(issuer), critical=False).sign(issuer, hashes.SHA256())


def _new_ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: SigningKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _key_usage(*usages: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in usages for usage in _USAGES})


def _authority_key_identifier(issuer: SigningKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
