"""The CSRs of the recorded cases, made as their `sent` says."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from contract_replay import csr_pem, ec_key, encoded, fields_of_subject, name_of, rsa_key
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from quick_keys import QUICK_BITS

_SHA1_WITH_RSA = bytes.fromhex("300d06092a864886f70d0101050500")


def plain(client_id: str, bits: int = QUICK_BITS) -> bytes:
    return csr_pem(name_of(fields_of_subject(client_id)), rsa_key(bits))


def changed(**fields: str | None) -> Callable[[str], str]:
    return lambda client_id: encoded(csr_pem(name_of(fields_of_subject(client_id, **fields))))


def hashed(hash_: hashes.HashAlgorithm, **options: Any) -> Callable[[str], str]:
    return lambda client_id: encoded(csr_pem(name_of(fields_of_subject(client_id)), None, hash_, **options))


def wrapped(joint: str) -> Callable[[str], str]:
    """As `openssl base64` prints it, with another joint between its lines."""
    return lambda client_id: joint.join(base64.encodebytes(plain(client_id)).decode().split())


def to_pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    lines = base64.encodebytes(der).decode().replace("\n", "")
    body = "".join(f"{lines[at : at + 64]}\n" for at in range(0, len(lines), 64))
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def to_der(pem: bytes) -> bytes:
    return x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)


def tlv(tag: int, content: bytes) -> bytes:
    """One DER element (X.690)."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(length)]) + length + content


def signed_with(client_id: str, algorithm: bytes, hash_: type[hashes.HashAlgorithm]) -> bytes:
    """A CSR whose signature algorithm is written by hand."""
    tbs = x509.load_pem_x509_csr(plain(client_id)).tbs_certrequest_bytes
    signature = rsa_key().sign(tbs, padding.PKCS1v15(), hash_())
    return to_pem(tlv(0x30, tbs + algorithm + tlv(0x03, b"\0" + signature)))


def broken_signature(client_id: str) -> str:
    der = bytearray(to_der(plain(client_id)))
    der[-1] ^= 1
    return encoded(to_pem(bytes(der)))


def with_extensions(client_id: str) -> str:
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name_of(fields_of_subject(client_id)))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("example.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usage
            ),
            critical=True,
        )
        .sign(rsa_key(), hashes.SHA256())
    )
    return encoded(request.public_bytes(serialization.Encoding.PEM))


def with_more_attributes(client_id: str) -> str:
    extra = [
        x509.NameAttribute(NameOID.EMAIL_ADDRESS, "someone@example.com"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, "4711"),
    ]
    return encoded(csr_pem(x509.Name([*name_of(fields_of_subject(client_id)), *extra])))


def repeated(field: str, value: str, *, last: bool) -> Callable[[str], str]:
    def make(client_id: str) -> str:
        fields = fields_of_subject(client_id)
        return encoded(csr_pem(name_of([*fields, (field, value)] if last else [(field, value), *fields])))

    return make


def a_certificate(client_id: str) -> str:
    name = name_of(fields_of_subject(client_id))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(rsa_key().public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(rsa_key(), hashes.SHA256())
    )
    return encoded(certificate.public_bytes(serialization.Encoding.PEM))


# What takes the place of the recorded CSR, by case; other requests are sent as they were recorded.
CSRS: dict[str, Callable[[str], str]] = {
    **{f"sign-rsa{bits}-variable": (lambda id_, bits=bits: encoded(plain(id_, bits))) for bits in (4096, 3072, 1024)},
    **dict.fromkeys(
        ("sign-rsa2048-variable", "burn-2-good-sign-same-token", "cert-sign-renew", "cert-revoked-sign"),
        lambda id_: encoded(plain(id_)),
    ),
    "sign-rsa4096-inline": lambda id_: encoded(plain(id_, 4096)),
    "sign-intermediate-layout": lambda id_: encoded(plain(id_, 4096)),
    "sign-wrapped-inline-raw-newlines": wrapped("\n"),
    "sign-wrapped-variable": wrapped("\n"),
    "sign-wrapped-inline-escaped": wrapped(r"\n"),
    "sign-wrapped-inline-spaces": wrapped(" "),
    "sign-base64-no-padding": lambda id_: encoded(_unaligned(id_)).rstrip("="),
    "sign-leading-text": lambda id_: encoded(b"Certificate Request:\n    Data:\n" + plain(id_)),
    "sign-two-pem-blocks": lambda id_: encoded(plain(id_) + plain("another")),
    "sign-pem-crlf": lambda id_: encoded(plain(id_).replace(b"\n", b"\r\n")),
    "sign-wrong-CN": changed(CN="wrong-cn"),
    "sign-wrong-O": changed(O="Wrong"),
    "sign-wrong-L": changed(L="Wrong"),
    "sign-wrong-C": changed(C="PL"),
    "sign-missing-O": changed(O=None),
    "sign-missing-OU": changed(OU=None),
    "sign-missing-ST": changed(ST=None),
    "sign-missing-C": changed(C=None),
    "sign-all-wrong": changed(O="a", OU="b", L="c", ST="d", C="PL", CN="e"),
    "sign-subject-other-order": lambda id_: encoded(csr_pem(name_of(fields_of_subject(id_)[::-1]))),
    "sign-subject-extra-OU": repeated("OU", "Another", last=True),
    "sign-subject-two-CN-right-last": repeated("CN", "another", last=False),
    "sign-subject-email-serial": with_more_attributes,
    "sign-san": with_extensions,
    "sign-sha512": hashed(hashes.SHA512()),
    "sign-sha224": hashed(hashes.SHA224()),
    "sign-sha1": lambda id_: encoded(signed_with(id_, _SHA1_WITH_RSA, hashes.SHA1)),
    "sign-pss": hashed(hashes.SHA256(), rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)),
    "sign-ec-p256": lambda id_: encoded(csr_pem(name_of(fields_of_subject(id_)), ec_key())),
    "sign-broken-signature": broken_signature,
    "sign-pem-label-new": lambda id_: encoded(to_pem(to_der(plain(id_)), "NEW CERTIFICATE REQUEST")),
    "sign-pem-is-a-certificate": a_certificate,
    "sign-der-base64": lambda id_: encoded(to_der(plain(id_))),
    "sign-raw-pem": lambda id_: plain(id_).decode(),
    "cert-sign-wrong-cn": changed(CN="wrong-cn"),
}


def _unaligned(client_id: str) -> bytes:
    """A PEM whose length makes its base64 end in padding."""
    pem = plain(client_id)
    return pem if len(pem) % 3 else pem + b"\n"
