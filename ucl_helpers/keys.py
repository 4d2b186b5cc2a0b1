"""RSA keys: make, load, dump, and the passphrases that protect them. Pure: bytes and objects in, bytes and objects out.

Follows RFC 5958 (PKCS #8), RFC 7292 (PKCS #12) and RFC 8017 (RSA). Here are the keys that this toolkit made itself or
that a caller has at hand; :mod:`ucl_helpers.formats` reads keys from a user's files, in any form.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
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

from ucl_helpers.errors import KeyLocked, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MIN_BITS, MAX_BITS, DEFAULT_BITS = 2048, 8192, 4096
Passphrase = Callable[[], bytes | None]
"""Returns the passphrase of an encrypted key; called only when it is needed."""
UNUSABLE = (UnsupportedAlgorithm, InternalError)
"""What `cryptography` raises for keys and certificates of a kind that it, or OpenSSL, cannot use."""
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
    except UNUSABLE:
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
    """Return None: a key that is stored unencrypted needs no passphrase."""


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
    except (ValueError, *UNUSABLE):
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
    except (ValueError, *UNUSABLE):
        raise UsageError(
            f"{where} cannot be read as PKCS #12, or the passphrase is wrong.",
            remedy="Try: openssl pkcs12 -info",
        ) from None
    if not isinstance(bundle.key, rsa.RSAPrivateKey) or bundle.cert is None:
        raise UsageError(f"{where} does not hold an RSA key together with its certificate.")
    return bundle.key, [bundle.cert.certificate, *(extra.certificate for extra in bundle.additional_certs)]
