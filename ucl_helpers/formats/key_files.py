"""Read keys and certificates from a user's files, in any form of :mod:`ucl_helpers.formats.blocks`. Pure."""

import base64
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12KeyAndCertificates, load_pkcs12

from ucl_helpers.errors import UsageError
from ucl_helpers.formats.blocks import (
    CERTIFICATE,
    DAMAGED,
    KEY,
    PKCS7,
    PKCS12,
    SEALED_KEY,
    UNREADABLE,
    UNUSABLE,
    Block,
    blocks,
    elements,
    end_of,
    wrapped,
    wrong_kind,
)
from ucl_helpers.keys import MIN_BITS

_CERTIFICATE_FORMS = "Give a certificate as PEM, DER, PKCS #7 or PKCS #12."
_BAG_TYPES = bytes.fromhex("060b2a864886f70d010c0a01")  # keyBag 1, pkcs8ShroudedKeyBag 2
_KEY_BAG = re.compile(re.escape(_BAG_TYPES) + rb"[\x01\x02](?=\xa0)")
_SERVER_AUTH, _ANY_USE = bytes.fromhex("06082b06010505070301"), bytes.fromhex("0604551d2500")


# -- certificates ------------------------------------------------------------------------------------------------------


def certificates_in(
    data: bytes, *, where: str, passphrase: bytes | None = None, needed: bool = True
) -> tuple[x509.Certificate, ...]:
    """Return the certificates in a file, in its order, each once.

    Args:
        data: the file.
        where: what an error names.
        passphrase: of PKCS #12.
        needed: False if the file may hold none.

    Raises:
        UsageError: there is none and one is needed; or one is damaged. Says what the file is.
    """
    certificates: dict[x509.Certificate, None] = {}
    for block in blocks(data):
        if block.kind in {CERTIFICATE, PKCS7, PKCS12}:
            certificates |= dict.fromkeys(_certificates_of(block, where, passphrase))
        elif block.kind == DAMAGED and "CERTIFICATE" in block.label and "REQUEST" not in block.label:
            raise _damaged(where)
    if not certificates and needed:
        if containers := [block.kind for block in blocks(data) if block.kind in {PKCS7, PKCS12}]:
            raise UsageError(f"{where} is {containers[0]} without certificates.", remedy=_CERTIFICATE_FORMS)
        raise wrong_kind(data, where, "a certificate", _CERTIFICATE_FORMS)
    return tuple(certificates)


def _certificates_of(block: Block, where: str, passphrase: bytes | None) -> list[x509.Certificate]:
    if block.kind == PKCS12:
        _, certificates = _opened_bundle(block.der, where, passphrase)
        return certificates
    try:
        if block.kind == PKCS7:
            from cryptography.hazmat.primitives.serialization import pkcs7  # loads the email package

            with warnings.catch_warnings(action="ignore"):  # of BER, in which OpenSSL writes it
                certificates = pkcs7.load_der_pkcs7_certificates(block.der)
        else:
            certificates = [x509.load_der_x509_certificate(next(elements(block.der), b""))]
        _parse_names(certificates)
    except UNREADABLE as error:
        if block.kind == PKCS7 and "no certificate" in str(error):  # cryptography has no type of its own for it
            return []
        raise _damaged(where) from None
    return certificates


def _damaged(where: str) -> UsageError:
    return UsageError(
        f"{where} holds a certificate that is damaged or truncated.",
        remedy="Copy the whole certificate again, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----.",
    )


def _parse_names(certificates: Sequence[x509.Certificate]) -> None:
    """Parse the names of certificates, which `cryptography` does on first use; raises ValueError for a damaged one."""
    for certificate in certificates:
        certificate.subject.public_bytes()
        certificate.issuer.public_bytes()


def ca_certificates(data: bytes, *, where: str) -> tuple[bytes, ...]:
    """Return what a CA file trusts to verify servers, as DER.

    A ``TRUSTED CERTIFICATE`` says what it is trusted for; one that is not trusted for servers is left out.

    Raises:
        UsageError: there is none. Says what the file is.
    """
    if not all(map(_opens_without, blocks(data))):
        remedy = f"Convert it: openssl pkcs12 -in {where} -nokeys -out CA.pem. Then give CA.pem."
        raise UsageError(f"{where} is PKCS #12 and needs a passphrase. A CA file must not need one.", remedy=remedy)
    certificates_in(data, where=where)  # for its errors
    encoded: dict[bytes, None] = {}
    for block in blocks(data):
        if block.kind == CERTIFICATE:
            first, *rest = elements(block.der)
            if not rest or _is_for_servers(rest[0]):
                encoded[first] = None
        elif block.kind in {PKCS7, PKCS12}:
            certificates = _certificates_of(block, where, None)
            encoded |= dict.fromkeys(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    if not encoded:
        remedy = "Give a CA that is trusted for servers. `openssl x509 -text` shows what a certificate is trusted for."
        raise UsageError(f"No certificate in {where} is trusted to verify servers.", remedy=remedy)
    return tuple(encoded)


def ca_pem(data: bytes, *, where: str) -> bytes:
    """Return a CA file as plain PEM, which any program can load; see :func:`ca_certificates`."""
    lines = (wrapped(base64.b64encode(der).decode()) for der in ca_certificates(data, where=where))
    return "".join(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n" for body in lines).encode()


def _is_for_servers(trust: bytes) -> bool:
    """Read OpenSSL's X509_CERT_AUX: a SEQUENCE of the uses trusted, and [0] of the uses rejected, both optional."""
    at, uses = _start_of(trust), dict[int, bytes]()
    while at < len(trust) - 1:
        end = end_of(trust, at)
        if end is None:
            return False
        uses[trust[at]] = trust[at:end]
        at = end
    trusted, rejected = uses.get(0x30), uses.get(0xA0, b"")
    is_trusted = trusted is None or _SERVER_AUTH in trusted or _ANY_USE in trusted
    return is_trusted and _SERVER_AUTH not in rejected and _ANY_USE not in rejected


def _start_of(element: bytes) -> int:
    """Return the number of bytes before an element's content."""
    return 2 + (element[1] - 0x80 if element[1] > 0x80 else 0)  # noqa: PLR2004 - X.690, 8.1.3


# -- keys --------------------------------------------------------------------------------------------------------------


def keys_in(data: bytes, *, where: str, passphrase: bytes | None = None, remedy: str) -> tuple[rsa.RSAPrivateKey, ...]:
    """Return the RSA keys in a file.

    Args:
        data: the file.
        where: what an error names.
        passphrase: of an encrypted key or of PKCS #12.
        remedy: what helps when it is a file of another kind.

    Raises:
        UsageError: there is no key that can be used: it is another kind of file or of key, shorter than 2048 bits,
            damaged, or encrypted and the passphrase is missing or wrong. Names ``where``.
    """
    usable, problem = list[rsa.RSAPrivateKey](), None
    for block in blocks(data):
        try:
            if block.kind in {KEY, SEALED_KEY}:
                usable.append(_usable(_opened(block, where, passphrase), where))
            elif block.kind == PKCS12:
                key, _ = _opened_bundle(block.der, where, passphrase)
                keys = [*([key] if key is not None else []), *_keys_of_bundle(block.der, passphrase)]
                usable += _usable_of(keys, where)
            elif block.kind == DAMAGED and "KEY" in block.label:
                raise _damaged_key(where)
        except UsageError as error:
            problem = problem or error
    if usable:
        return tuple({key.public_key().public_numbers(): key for key in usable}.values())
    if problem is None and any(block.kind == PKCS12 for block in blocks(data)):
        opened = " --passphrase prompt" if needs_passphrase(data) else ""
        raise UsageError(
            f"{where} is PKCS #12 without a private key.",
            remedy=f"Give the file that holds the key: --key KEYFILE --certificate {where}{opened}",
        )
    raise problem or wrong_kind(data, where, "a private key", remedy)


def _opened(block: Block, where: str, passphrase: bytes | None) -> object:
    load = load_pem_private_key if block.pem else load_der_private_key
    try:
        return load(block.pem or block.der, passphrase)
    except TypeError:
        if passphrase:  # it is not encrypted; the passphrase may be another file's
            return _opened(block, where, None)
        raise UsageError(f"{where} is an encrypted private key.", remedy=_HOW_TO_OPEN) from None
    except ValueError:
        if block.kind == SEALED_KEY:
            raise _wrong_passphrase(where, "an encrypted private key") from None
        raise _damaged_key(where) from None
    except UNUSABLE:
        raise UsageError(f"{where} is a key of a kind that ucl cannot use.", remedy=_RSA_ONLY) from None


def _usable(key: object, where: str) -> rsa.RSAPrivateKey:
    if not isinstance(key, rsa.RSAPrivateKey):
        name = type(key).__name__.strip("_").removesuffix("PrivateKey")
        kind = {"EllipticCurve": "EC"}.get(name, name)
        raise UsageError(f"{where} is not an RSA key. Its kind is {kind}.", remedy=_RSA_ONLY)
    if key.key_size < MIN_BITS:
        raise UsageError(
            f"{where} is an RSA key of {key.key_size} bits. It must have at least {MIN_BITS} bits.",
            remedy="Establish a connection with a new key instead: ucl establish --help",
        )
    return key


def _usable_of(keys: Sequence[object], where: str) -> list[rsa.RSAPrivateKey]:
    """Return the keys that can be used. Raises UsageError if there are keys and none can be used."""
    usable, problem = list[rsa.RSAPrivateKey](), None
    for key in keys:
        try:
            usable.append(_usable(key, where))
        except UsageError as error:
            problem = problem or error
    if problem and not usable:
        raise problem
    return usable


def _damaged_key(where: str) -> UsageError:
    return UsageError(
        f"{where} is not a readable private key. It is damaged or truncated.",
        remedy="Copy the whole key again, from the BEGIN line to the END line. ucl reads PEM and DER, PKCS #1 and #8.",
    )


def _wrong_passphrase(where: str, what: str) -> UsageError:
    return UsageError(
        f"{where} is {what}, and the passphrase does not open it.",
        remedy="Check the passphrase; --passphrase prompt lets you type it. If it is right, the file is damaged.",
    )


_RSA_ONLY = "UCL signs RSA keys only. Establish a connection with a new key instead: ucl establish --help"
_HOW_TO_OPEN = "Give its passphrase by reference: --passphrase prompt, env:NAME or file:PATH."


def _load_bundle(der: bytes, passphrase: bytes | None) -> PKCS12KeyAndCertificates:
    """Open PKCS #12 with a passphrase, or else without one, because the passphrase may be for another file."""
    try:
        return load_pkcs12(der, passphrase)
    except UNREADABLE:
        if passphrase is None:
            raise
        return load_pkcs12(der, None)


def _keys_of_bundle(der: bytes, passphrase: bytes | None) -> list[object]:
    """Return all keys in PKCS #12. `load_pkcs12` returns only the first, but a Java keystore may hold several.

    The function finds each key by the type of its bag (RFC 7292, 4.2). A bag that does not open is left out.
    """
    keys = list[object]()
    for bag in _KEY_BAG.finditer(der):
        end = end_of(der, at := bag.end())
        begin = at + _start_of(der[at : at + 2])
        if end is None or der[begin : begin + 1] != b"\x30":
            continue
        for secret in dict.fromkeys((passphrase, None)):
            with suppress(*UNREADABLE):
                keys.append(load_der_private_key(der[begin:end], secret))
                break
    return keys


def needs_passphrase(data: bytes) -> bool:
    """Return whether a file holds a key or container that only a passphrase opens, or unreadable PKCS #12."""
    return any(block.kind == SEALED_KEY or not _opens_without(block) for block in blocks(data))


def _opens_without(block: Block) -> bool:
    if block.kind != PKCS12:
        return True
    try:
        load_pkcs12(block.der, None)
    except UNREADABLE:
        return False
    return True


def _opened_bundle(der: bytes, where: str, passphrase: bytes | None) -> tuple[object | None, list[x509.Certificate]]:
    """Return key and certificates in PKCS #12. Either may be missing."""
    try:
        bundle = _load_bundle(der, passphrase)
        certificates = [entry.certificate for entry in (bundle.cert, *bundle.additional_certs) if entry is not None]
        _parse_names(certificates)
    except UNUSABLE:
        remedy = f"Convert it: openssl pkcs12 -legacy -in {where} -out FILE.pem -noenc. Then give FILE.pem."
        raise UsageError(f"{where} is PKCS #12 with an encryption that is not supported.", remedy=remedy) from None
    except UNREADABLE:
        if passphrase is None:
            raise UsageError(f"{where} is PKCS #12 and needs a passphrase.", remedy=_HOW_TO_OPEN) from None
        raise _wrong_passphrase(where, "PKCS #12") from None
    return bundle.key, certificates
