"""The sandbox's two certificate authorities, and the certificates that they issue.

The *client* CA signs what `signCertificateSigningRequest` is given; it is a root, or a root with an intermediate.
The *server* CA signs only the certificate of the sandbox's own listeners: trusting one never means trusting the
other. Keys are files of the state folder, readable by their owner only.
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

# Far apart: how old a state folder gets and how long certificates are valid is the user's choice.
_CA_FROM, _CA_UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC)
_SERVER_ROOT, _SERVER_LIFETIME, _BACKDATED = "server-root.pem", timedelta(days=365), timedelta(days=1)
_LOOPBACK: tuple[x509.GeneralName, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    x509.IPAddress(ipaddress.IPv6Address("::1")),
)
_SERIAL = 2
# Among the elements of a TBSCertificate, RFC 5280 section 4.1.
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
        """Make a root, or an intermediate if there is an issuer."""
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
        """Read certificate and key from one file, which is made first if it is not there."""
        if not path.exists():
            key = _new_ec_key() if ec_key else rsa.generate_private_key(public_exponent=65537, key_size=2048)
            made = cls.create(name, key, issuer)
            write_file(path, made.pem + _key_pem(key))
        content = read_regular(path, follow=False)
        loaded = serialization.load_pem_private_key(content, password=None)
        if not isinstance(loaded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise TypeError(f"{path} holds a key that is neither RSA nor EC")
        return cls(x509.load_pem_x509_certificate(content), loaded)


class ClientCa:
    """The CA that signs clients' requests.

    Args:
        folder: Where its keys are, or will be.
        layout: "root" for one self-signed CA, "intermediate" for a root and an intermediate that signs.

    Attributes:
        authorities: The signing one first.
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
        """The CA certificates, the signing one first: what `caCertificate` carries."""
        return b"".join(authority.pem for authority in self.authorities)

    def sign(self, csr: AcceptedCsr, not_before: datetime, validity: timedelta) -> x509.Certificate:
        """Issue a certificate as the real Connector does.

        Serial number 2 every time; valid from `not_before` (an aware datetime, whole seconds count) without
        backdating; KeyUsage, ExtendedKeyUsage and AuthorityKeyIdentifier and no other extension. The signature
        algorithm is the CSR's, but SHA-256 for SHA-1, which `cryptography` does not sign with.
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
        return _with_subject(draft, write_name(csr.subject), issuer.key, pss or padding.PKCS1v15(), hash_)


def _with_subject(
    draft: x509.Certificate,
    subject: bytes,
    key: SigningKey,
    padding_: padding.PSS | padding.PKCS1v15,
    hash_: hashes.HashAlgorithm,
) -> x509.Certificate:
    """Put a subject in that is written already, and sign again: `cryptography` would write it its own way."""
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the client CA's key is RSA")
    (_, content, _), *_ = elements(draft.tbs_certificate_bytes)
    parts = [whole for _, _, whole in elements(content)]
    parts[SUBJECT_PLACE] = subject
    tbs = element(SEQUENCE, b"".join(parts))
    signature = element(BIT_STRING, b"\0" + key.sign(tbs, padding_, hash_))
    return x509.load_der_x509_certificate(element(SEQUENCE, tbs + parts[_ALGORITHM_PLACE] + signature))


def make_server_certificate(folder: Path, *times: datetime) -> tuple[Path, Path]:
    """Make a new certificate for the listeners.

    Args:
        folder: The state folder.
        times: All of them are within its validity, the first day of it and the last year of it aside.

    Returns:
        The file with certificate and key, and the file with the CA certificate that a client has to trust.
    """
    authority = Authority.load_or_create(folder / _SERVER_ROOT, "Sandbox Server Root", ec_key=True)
    server, ca = folder / "server.pem", folder / "server-ca.pem"
    _issue_server_certificate(server, authority, min(times) - _BACKDATED, max(times) + _SERVER_LIFETIME)
    write_file(ca, authority.pem)
    return server, ca


def change_server_ca(folder: Path) -> None:
    """Remove the server CA: the next certificate is of a new one, and the folder has no other."""
    (folder / _SERVER_ROOT).unlink(missing_ok=True)


def make_wrong_server_certificate(folder: Path, now: datetime, wrong: str) -> Path:
    """Make a server certificate that no client may accept.

    Args:
        folder: The state folder.
        now: The system's time, by which TLS goes.
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
    """Write a server's certificate and its key into one file."""
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
    """Sign a certificate for a key, with the identifiers of both keys."""
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
