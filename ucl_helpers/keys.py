"""Make, load, dump and encrypt RSA keys. Pure: bytes and objects in, bytes and objects out.

Follows RFC 5958 (PKCS #8), RFC 7292 (PKCS #12) and RFC 8017 (RSA). This module reads keys that this toolkit wrote, or
that a caller passes as plain PEM, DER or PKCS #12. :mod:`ucl_helpers.formats` reads keys in any form from a user's
files.
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
"""A function that returns the passphrase of an encrypted key. It is called only when the passphrase is needed."""
UNUSABLE = (UnsupportedAlgorithm, InternalError)
"""The exceptions of `cryptography` for a kind of key or certificate that it, or OpenSSL, cannot use."""
_CONNECTION = re.compile(r"(?:.*/)?connections/([^/]+)/")  # whose key a file holds


def key_length(bits: object) -> int:
    """Check a requested RSA key length in bits, and return it.

    Raises:
        UsageError: it is not a multiple of 8 from 2048 to 8192.
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or not MIN_BITS <= bits <= MAX_BITS or bits % 8:
        raise UsageError(
            f"key_length is {bits!r}, but UCL signs RSA keys and this toolkit makes {MIN_BITS} to {MAX_BITS} bits.",
            remedy=f"Give a multiple of 8 in that range; {DEFAULT_BITS} is recommended.",
        )
    return bits


def make_key(bits: int = DEFAULT_BITS) -> rsa.RSAPrivateKey:
    """Make an RSA key of ``bits`` bits with the public exponent 65537. This takes from 0.1 s to several seconds.

    Raises:
        UsageError: see :func:`key_length`.
    """
    return rsa.generate_private_key(public_exponent=65537, key_size=key_length(bits))


def dump_key(key: rsa.RSAPrivateKey, passphrase: bytes | None = None) -> bytes:
    """Return the key as PKCS #8 PEM, encrypted if there is a passphrase."""
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def load_key(
    data: bytes, passphrase: bytes | None = None, *, where: str = "the key", ours: bool = False
) -> rsa.RSAPrivateKey:
    """Load a private RSA key from PEM (PKCS #1 or #8, encrypted or not) or DER.

    Args:
        data: PEM or DER.
        passphrase: of an encrypted key; None if the key is not encrypted.
        where: the name of the key in errors.
        ours: this toolkit wrote the key, after OpenSSL had made its primes or tested them. They are not tested again,
            because that takes a quarter of a second. If one of them is damaged, their product shows it.

    Raises:
        UsageError: the key is unreadable or of another kind, or the passphrase is missing, needless or wrong. The error
            names ``where``.
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
    """Return whether the numbers of a key belong together (RFC 8017, section 3.2). Primality is *not* checked."""
    p, q, d = numbers.p, numbers.q, numbers.d
    return (
        min(p, q) > 1
        and p * q == numbers.public_numbers.n
        and d * numbers.public_numbers.e % math.lcm(p - 1, q - 1) == 1
        and (numbers.dmp1, numbers.dmq1) == (d % (p - 1), d % (q - 1))
        and numbers.iqmp * q % p == 1
    )


def no_passphrase() -> None:
    """Return None, because a key that is stored unencrypted needs no passphrase."""


@dataclass(frozen=True)
class Credentials:
    """Client certificate and key for a handshake: two PEM files, and the leaf itself. The chain begins with the leaf.

    ``passphrase`` is called if the key is encrypted. No representation shows it. ``accepted`` says that UCL has
    accepted this certificate before; the likely causes of a refusal depend on that.
    """

    certificate_file: "Path"
    key_file: "Path"
    certificate: x509.Certificate
    passphrase: Passphrase = field(default=no_passphrase, repr=False, compare=False)
    accepted: bool = field(default=False, compare=False)


def is_sealed(pem: bytes) -> bool:
    """Return whether this is a whole, encrypted PKCS #8 key, as far as this shows without its passphrase."""
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
    """Load a key that this toolkit wrote. If it is encrypted, call the passphrases and try them in turn.

    Raises:
        UsageError: the key is damaged. The error names ``where``.
        KeyLocked: no passphrase opens the key, or a passphrase cannot be read.
    """
    if not is_sealed(pem):
        return load_key(pem, where=where, ours=True)
    try:
        secrets = [secret for passphrase in passphrases if (secret := passphrase()) is not None]
    except UsageError as error:
        raise KeyLocked(f"{where} is encrypted. {error.message}", remedy=error.remedy, path=where) from None
    for secret in secrets:
        try:
            return load_key(pem, secret, where=where, ours=True)
        except UsageError:
            continue
    what = "with another passphrase than key_passphrase" if secrets else "and key_passphrase is not set"
    connection = match[1] if (match := _CONNECTION.match(where)) else "NAME"
    remedy = f"Nothing is lost. Set key_passphrase to what it was, or give that: ucl export {connection} --from prompt"
    raise KeyLocked(f"{where} is encrypted, {what}.", remedy=remedy, path=where)


def dump_bundle(key: rsa.RSAPrivateKey, chain: Sequence[x509.Certificate], name: str, passphrase: bytes) -> bytes:
    """Return key and chain as PKCS #12 with a friendly name (AES-256-CBC, PBKDF2 with HMAC-SHA-256, SHA-256 MAC)."""
    leaf, *above = chain
    return serialize_key_and_certificates(name.encode(), key, leaf, above, BestAvailableEncryption(passphrase))


def load_bundle(
    data: bytes, passphrase: bytes | None, *, where: str
) -> tuple[rsa.RSAPrivateKey, list[x509.Certificate]]:
    """Load key and certificates from PKCS #12. The key's own certificate comes first.

    Raises:
        UsageError: the file is unreadable, the passphrase is wrong, or key or certificate is missing. The error names
            ``where``.
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
