"""Defective answers to `signCertificateSigningRequest`, each with exactly one defect.

`Answer.leaf` is the certificate that was signed last. If it is for the key in the CSR, valid, and for client
authentication, the sandbox accepts it from then on, even if the answer does not contain it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ucl_sandbox.ca import Authority, ClientCa, SigningKey, sign_tbs
from ucl_sandbox.csr import AcceptedCsr, Attribute, Scheme, elements

_DAY = timedelta(days=1)
_BITS, _WEAK_BITS = 2048, 1024
# Object identifiers as DER: clientAuth and serverAuth; RSA with SHA-256 and with SHA-1. Each pair has one length.
_CLIENT_AUTH, _SERVER_AUTH = bytes.fromhex("2b06010505070302"), bytes.fromhex("2b06010505070301")
_WITH_SHA256, _WITH_SHA1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")


@dataclass(frozen=True)
class Asked:
    """The data from which an answer is made.

    Attributes:
        ca: The client CA.
        csr: The accepted CSR.
        since: The start of the right certificate's validity.
        validity: The length of its validity.
        old: The client's current certificate. None if the client used a token.
        value: `Fault.value`.
    """

    ca: ClientCa
    csr: AcceptedCsr
    since: datetime
    validity: timedelta
    old: x509.Certificate | None = None
    value: str | float | None = None

    def sign(self) -> x509.Certificate:
        """Issue the right certificate."""
        return self.ca.sign(self.csr, self.since, self.validity)

    def seconds(self, otherwise: timedelta) -> timedelta:
        """Return the value as a duration, or a default if there is no value."""
        return otherwise if self.value is None else timedelta(seconds=float(self.value))


@dataclass(frozen=True)
class Answer:
    """The three fields of an answer before base64 encoding, and the certificate that was signed."""

    chain: bytes
    client: bytes
    ca: bytes
    leaf: x509.Certificate

    def each(self, change: Callable[[bytes], bytes]) -> "Answer":
        """Return this answer with a change applied to each of the three fields."""
        return replace(self, chain=change(self.chain), client=change(self.client), ca=change(self.ca))


def right(asked: Asked, leaf: x509.Certificate | None = None) -> Answer:
    """Return the right answer, or the same answer for another leaf certificate."""
    leaf = leaf or asked.sign()
    return Answer(_pem(leaf) + asked.ca.pem, _pem(leaf), asked.ca.pem, leaf)


def _another_subject(asked: Asked) -> Answer:
    others = [pair for pair in asked.csr.subject if pair[0] is not Attribute.LOCALITY]
    return right(replace(asked, csr=replace(asked.csr, subject=[*others, (Attribute.LOCALITY, "elsewhere")])))


def _chain_reordered(asked: Asked) -> Answer:
    answer = right(asked)
    return replace(answer, chain=answer.ca + answer.client)


def _missing_intermediate(asked: Asked) -> Answer:
    """Remove the signing CA from the chain, and from the list of CAs unless the list would be empty."""
    answer, above = right(asked), b"".join(authority.pem for authority in asked.ca.authorities[1:])
    return replace(answer, chain=answer.client + above, ca=above or answer.ca)


def _extra_certificate(asked: Asked) -> Answer:
    answer = right(asked)
    return replace(answer, chain=answer.chain + Authority.create("Unrelated", _key()).pem)


def _self_signed(asked: Asked) -> Answer:
    """Sign with another key, because the sandbox does not have the client's key."""
    like = asked.sign()
    builder = x509.CertificateBuilder(like.subject, like.subject, _key().public_key(), like.serial_number)
    builder = builder.not_valid_before(like.not_valid_before_utc).not_valid_after(like.not_valid_after_utc)
    for extension in like.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    return right(asked, builder.sign(_key(), hashes.SHA256()))


def _sha1(asked: Asked) -> Answer:
    """Sign with SHA-1, which `cryptography` does not do when it issues a certificate."""
    signer = asked.ca.authorities[0].key
    return right(asked, _rewritten(asked, signer, (_WITH_SHA256, _WITH_SHA1), hashes.SHA1))


def _wrong_eku(asked: Asked) -> Answer:
    signer = asked.ca.authorities[0].key
    return right(asked, _rewritten(asked, signer, (_CLIENT_AUTH, _SERVER_AUTH)))


def _text_around_pem(asked: Asked) -> Answer:
    begin = b"-----BEGIN"
    return right(asked).each(lambda pem: pem.replace(begin, b"subject: C = DE\n" + begin) + b"\nThat is all.\n")


def _two_leaves(asked: Asked) -> Answer:
    """Return two certificates for the key in the CSR. The second is valid one second earlier."""
    answer, other = right(asked), _pem(replace(asked, since=asked.since - timedelta(seconds=1)).sign())
    return replace(answer, chain=answer.client + other + answer.ca, client=answer.client + other)


def _garbage(asked: Asked) -> Answer:
    """Return PEM markers with no certificate between them."""
    answer = right(asked)
    garbage = b"-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n"
    return replace(answer, chain=garbage + answer.ca, client=garbage)


def _old_certificate(asked: Asked) -> Answer:
    """Return the old certificate. A client that used a token has none, and gets the right answer."""
    answer = right(asked)
    return replace(right(asked, asked.old or answer.leaf), leaf=answer.leaf)


def _rewritten(
    asked: Asked,
    signer: SigningKey,
    change: tuple[bytes, bytes] = (b"", b""),
    hash_: type[hashes.SHA1 | hashes.SHA256] = hashes.SHA256,
) -> x509.Certificate:
    """Replace a part of the right certificate's DER by another of the same length, and sign the result."""
    certificate = replace(asked, csr=replace(asked.csr, scheme=Scheme(hashes.SHA256()))).sign()
    ((_, content, _),) = elements(certificate.public_bytes(serialization.Encoding.DER))
    tbs, algorithm, _ = (whole.replace(*change) for _, _, whole in elements(content))
    return sign_tbs(tbs, algorithm, signer, hash_(), padding.PKCS1v15())


@cache
def _key(bits: int = _BITS) -> rsa.RSAPrivateKey:
    """Return a key that no client has."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


DEFECTS: Mapping[str, Callable[[Asked], Answer]] = {
    "another-key": lambda asked: right(replace(asked, csr=replace(asked.csr, key=_key().public_key()))),
    "another-subject": _another_subject,
    "expired": lambda asked: right(replace(asked, since=asked.since - asked.seconds(_DAY) - asked.validity)),
    "not-yet-valid": lambda asked: right(replace(asked, since=asked.since + asked.seconds(_DAY))),
    # Nine tenths of its lifetime have passed.
    "already-due": lambda asked: right(replace(asked, since=asked.since - asked.validity * 0.9)),
    "chain-reordered": _chain_reordered,
    "missing-intermediate": _missing_intermediate,
    "extra-certificate": _extra_certificate,
    "self-signed": _self_signed,
    "foreign-ca": lambda asked: right(asked, _rewritten(asked, _key())),
    "sha1": _sha1,
    "rsa-1024": lambda asked: right(replace(asked, csr=replace(asked.csr, key=_key(_WEAK_BITS).public_key()))),
    "wrong-eku": _wrong_eku,
    "text-around-pem": _text_around_pem,
    "der": lambda asked: right(asked).each(
        lambda pem: b"".join(
            certificate.public_bytes(serialization.Encoding.DER) for certificate in x509.load_pem_x509_certificates(pem)
        )
    ),
    "crlf": lambda asked: right(asked).each(lambda pem: pem.replace(b"\n", b"\r\n")),
    "two-leaves": _two_leaves,
    "garbage": _garbage,
    "old-certificate": _old_certificate,
}
