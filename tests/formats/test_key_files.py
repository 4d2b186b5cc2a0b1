"""Keys and certificates in the forms that other tools write: read, or named for what they are."""

import base64
import itertools
import json
import ssl
import subprocess
import warnings
from contextlib import suppress
from datetime import timedelta

import pytest
from certificates import DAY, LEAF, NOW, certificate, intermediate, key, root
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from secrets_watch import CANARY

from ucl_helpers.crypto import dump_certificates, make_csr
from ucl_helpers.errors import UsageError
from ucl_helpers.formats.blocks import blocks, end_of, identify
from ucl_helpers.formats.key_files import ca_certificates, ca_pem, certificates_in, keys_in
from ucl_helpers.keys import dump_key
from ucl_helpers.procedures.importing import read_identity, usable_ca
from ucl_helpers.wire.tls import tls_context

CHAIN = (certificate(), intermediate(), root())
PEM = dump_certificates(*CHAIN)
TEXT = PEM.decode()
KEY = dump_key(key("leaf"))
SECRET = CANARY.encode()
B64 = base64.b64encode(PEM).decode()
RED = {"remedy": "another file"}


def bundle(of, leaf, *others, secret=None):
    protection = BestAvailableEncryption(secret) if secret else NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"app", of, leaf, others or None, protection)


def wrapped(text, width):
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def header_of_nginx(pem):
    return pem.replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def trusted(one, aux=b"\x30\x00"):
    body = base64.b64encode(one.public_bytes(Encoding.DER) + aux).decode()
    return f"-----BEGIN TRUSTED CERTIFICATE-----\n{wrapped(body, 64)}\n-----END TRUSTED CERTIFICATE-----\n"


def service_key(certificate_text, key_text=""):
    return json.dumps({"clientid": "sb-x", "certificate": certificate_text, "key": key_text, "certurl": "https://x"})


CERTIFICATES = {
    "PEM": PEM,
    "CR LF": PEM.replace(b"\n", b"\r\n"),
    "CR alone": PEM.replace(b"\n", b"\r"),
    "byte order mark": b"\xef\xbb\xbf" + PEM,
    "UTF-16 with a mark": TEXT.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "written line breaks": TEXT.replace("\n", "\\n").encode(),
    "written twice over": TEXT.replace("\n", "\\\\n").encode(),
    "written CR LF": TEXT.replace("\n", "\\r\\n").encode(),
    "written and quoted": json.dumps(TEXT).encode(),
    "escaped slashes": json.dumps(TEXT).replace("/", "\\/").encode(),
    "escaped plus": json.dumps(TEXT).replace("+", "\\u002b").encode(),
    "service key": service_key(TEXT).encode(),
    "service key, indented": json.dumps({"credentials": json.loads(service_key(TEXT))}, indent=4).encode(),
    "base64 of PEM": B64.encode(),
    "base64 of PEM, wrapped": wrapped(B64, 76).encode() + b"\n",
    "base64 of PEM, quoted": f'"{B64}"'.encode(),
    "base64 of PEM, URL-safe": base64.urlsafe_b64encode(PEM),
    "long dashes": TEXT.replace("-----", "\u2013\u2013\u2013").encode(),
    "base64 twice": base64.b64encode(B64.encode()),
    # Depending on what precedes it, one or another BEGIN line is aligned with base64's groups of three bytes.
    **{f"base64 of {n} bytes and PEM": base64.b64encode(b"subject="[:n] + b"\n" + PEM) for n in range(3)},
    "UCL's answer": json.dumps({"data": {"result": {"certificateChain": B64}}}).encode(),
    "Kubernetes Secret": f"data:\n  tls.crt: {B64}\n  other: eHl6\nkind: Secret\n".encode(),
    "YAML block": ("tls: |\n" + "".join(f"    {line}\n" for line in TEXT.splitlines())).encode(),
    "reply to a mail": "".join(f"> {line}\n" for line in TEXT.splitlines()).encode(),
    "a line each in quotes": "".join(f'"{line}"\n' for line in TEXT.splitlines()).encode(),
    "on one line": TEXT.replace("\n", "").encode(),
    "on one line with blanks": TEXT.replace("\n", " ").encode(),
    "glued": TEXT.replace("-----\n-----", "----------").encode(),
    "header of a proxy": header_of_nginx(TEXT).encode(),
    "Bag Attributes": b"".join(
        b"Bag Attributes\n    friendlyName: x\nsubject=CN=x\n" + dump_certificates(one) for one in CHAIN
    ),
    "text in Latin-1": b"subject=\xe4\n" + PEM,
    "X509 CERTIFICATE": PEM.replace(b" CERTIFICATE", b" X509 CERTIFICATE"),
    "TRUSTED CERTIFICATE": "".join(map(trusted, CHAIN)).encode(),
    "PKCS #7, PEM": pkcs7.serialize_certificates(list(CHAIN), Encoding.PEM),
    "PKCS #7, DER": pkcs7.serialize_certificates(list(CHAIN), Encoding.DER),
    "PKCS #7 labelled as a certificate": pkcs7.serialize_certificates(list(CHAIN), Encoding.PEM).replace(
        b"PKCS7", b"CERTIFICATE"
    ),
    "PKCS #7, base64": base64.b64encode(pkcs7.serialize_certificates(list(CHAIN), Encoding.DER)),
    "DER, one after another": b"".join(one.public_bytes(Encoding.DER) for one in CHAIN),
    "base64 of DER": base64.b64encode(b"".join(one.public_bytes(Encoding.DER) for one in CHAIN)),
    "XML": "".join(
        f"<X509Certificate>{base64.b64encode(one.public_bytes(Encoding.DER)).decode()}</X509Certificate>"
        for one in CHAIN
    ).encode(),
    "PKCS #12 without a passphrase": bundle(key("leaf"), *CHAIN),
    "PKCS #12 of certificates alone": bundle(None, None, *CHAIN),
    "base64 of PKCS #12": base64.b64encode(bundle(key("leaf"), *CHAIN)),
    "beside its key": KEY + PEM,
    "beside a request": make_csr(key("leaf"), LEAF) + PEM,
}


@pytest.mark.kind("foreign files: forms of a certificate")
@pytest.mark.parametrize("data", CERTIFICATES.values(), ids=CERTIFICATES)
def test_certificates_are_found_in_every_form(data):
    assert set(certificates_in(data, where="here")) == set(CHAIN)


@pytest.mark.kind("foreign files: forms of a CA file")
@pytest.mark.parametrize("data", CERTIFICATES.values(), ids=CERTIFICATES)
def test_the_same_forms_are_read_as_a_ca_file(data, tmp_path):
    (tmp_path / "ca").write_bytes(data)
    trusted_ones = {one.public_bytes(Encoding.DER) for one in CHAIN}
    assert set(ca_certificates(data, where="here")) == trusted_ones
    context = tls_context(usable_ca(tmp_path / "ca"), None)
    assert len(context.get_ca_certs()) == len(CHAIN) - 1  # it lists CAs alone
    plain = ssl.create_default_context(cadata=ca_pem(data, where="here").decode())  # as any other program loads it
    assert len(plain.get_ca_certs()) >= len(CHAIN) - 1


EC = key("ec").private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
TRADITIONAL = key("leaf").private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
LOCKED = key("leaf").private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(SECRET))
KEYS = {
    "PKCS #8": (KEY, None),
    "PKCS #1": (TRADITIONAL, None),
    "encrypted": (dump_key(key("leaf"), SECRET), SECRET),
    "encrypted, PKCS #1": (LOCKED, SECRET),
    "encrypted, on one line": (LOCKED.replace(b"\n", b" "), SECRET),
    "encrypted, written line breaks": (LOCKED.replace(b"\n", b"\\n"), SECRET),
    "encrypted, CR LF": (LOCKED.replace(b"\n", b"\r\n"), SECRET),
    "CR LF": (KEY.replace(b"\n", b"\r\n"), None),
    "UTF-16": (KEY.decode().encode("utf-16"), None),
    "written line breaks": (KEY.replace(b"\n", b"\\n"), None),
    "on one line": (KEY.replace(b"\n", b""), None),
    "service key": (service_key(TEXT, TRADITIONAL.decode()).encode(), None),
    "Kubernetes Secret": (f"tls.key: {base64.b64encode(KEY).decode()}\ntls.crt: {B64}\n".encode(), None),
    "Bag Attributes": (b"Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n" + KEY, None),
    "base64 of PEM": (base64.b64encode(KEY), None),
    "base64 of DER": (
        base64.b64encode(key("leaf").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
        None,
    ),
    "DER": (key("leaf").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), None),
    "DER, encrypted": (
        key("leaf").private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET)),
        SECRET,
    ),
    "PKCS #12": (bundle(key("leaf"), *CHAIN, secret=SECRET), SECRET),
    "PKCS #12 without a passphrase": (bundle(key("leaf"), *CHAIN), None),
    "PKCS #12 of a key alone": (bundle(key("leaf"), None), None),
    "glued to its certificate": ((KEY + PEM).replace(b"-----\n-----", b"----------"), None),
    "after EC parameters": (
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + KEY,
        None,
    ),
    "after a key of another kind": (EC + KEY, None),
}


@pytest.mark.kind("foreign files: forms of a key")
@pytest.mark.parametrize(("data", "passphrase"), KEYS.values(), ids=KEYS)
def test_a_key_is_found_in_every_form(data, passphrase):
    (found,) = keys_in(data, where="here", passphrase=passphrase, **RED)
    assert found.private_numbers() == key("leaf").private_numbers()


SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
NO_KEYS = {
    "short": (dump_key(SMALL), None, "is an RSA key of 1024 bits"),
    "short, PKCS #12": (bundle(SMALL, None), None, "is an RSA key of 1024 bits"),
    "encrypted": (dump_key(key("leaf"), SECRET), None, "is an encrypted private key"),
    "encrypted, PKCS #1": (LOCKED, None, "is an encrypted private key"),
    "encrypted, another passphrase": (dump_key(key("leaf"), SECRET), b"other", "passphrase does not open it"),
    "encrypted PKCS #1, another passphrase": (LOCKED, b"other", "passphrase does not open it"),
    "PKCS #12, no passphrase": (bundle(key("leaf"), *CHAIN, secret=SECRET), None, "is PKCS #12 and needs a passphrase"),
    "PKCS #12, another passphrase": (
        bundle(key("leaf"), *CHAIN, secret=SECRET),
        b"other",
        "passphrase does not open it",
    ),
    "PKCS #12 of certificates": (bundle(None, None, *CHAIN), None, "is PKCS #12 without a private key"),
    "sealed PKCS #12 of certificates": (
        bundle(None, None, *CHAIN, secret=SECRET),
        SECRET,
        "is PKCS #12 without a private key",
    ),
    "EC": (EC, None, "is not an RSA key. Its kind is EC"),
    "Ed25519": (
        ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        None,
        "is not an RSA key. Its kind is Ed25519",
    ),
    "certificate": (PEM, None, "is a certificate, but a private key is needed"),
    "request": (make_csr(key("leaf"), LEAF), None, "is a certificate signing request"),
    "public key": (
        key("leaf").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        None,
        "is a public key",
    ),
    "OpenSSH key": (
        key("leaf").private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        None,
        "is a private key in the format of OpenSSH",
    ),
    "cut off": (KEY[:-100], None, "is damaged or truncated"),
    "changed": (KEY.replace(b"MII", b"!!!"), None, "is damaged or truncated"),
    "empty": (b" \n", None, "here is empty"),
    "JKS": (b"\xfe\xed\xfe\xed\0\0\0\2", None, "is a Java keystore"),
    "HTML": (b"<!DOCTYPE html><html></html>", None, "is an HTML page"),
    "PuTTY": (b"PuTTY-User-Key-File-3: ssh-rsa\n", None, "is a PuTTY key"),
    "ZIP": (b"PK\x03\x04\0\xff", None, "is a ZIP archive"),
    "zero bytes": (b"\0" * 2000, None, "is binary data"),
    "binary": (b"\x00\xff\xfe\x93" * 20, None, "is binary data"),
    "JSON": (b'{"clientid": "x", "clientsecret": "y"}', None, "is JSON without a key"),
}


@pytest.mark.kind("foreign files: what is no usable key")
@pytest.mark.parametrize(("data", "passphrase", "says"), NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_usable_key_is_named(data, passphrase, says):
    with pytest.raises(UsageError) as caught:
        keys_in(data, where="here", passphrase=passphrase, **RED)
    assert caught.value.message.startswith("here ")
    assert says in caught.value.message
    assert caught.value.remedy
    assert not any(secret in str(caught.value) for secret in (CANARY, "other key", KEY.decode()[60:100]))


NO_PKCS7 = bytes.fromhex("302306092a864886f70d010702a01630140201013100300b06092a864886f70d0107013100")
NO_CERTIFICATES = {
    "key": (KEY, "is a private key, but a certificate is needed"),
    "encrypted key": (dump_key(key("leaf"), SECRET), "is an encrypted private key"),
    "request": (make_csr(key("leaf"), LEAF), "is a certificate signing request"),
    "request in base64": (base64.b64encode(make_csr(key("leaf"), LEAF)), "is a certificate signing request"),
    "public key": (
        key("leaf").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "is a public key",
    ),
    "PKCS #12 of a key": (bundle(key("leaf"), None), "is PKCS #12 without certificates"),
    "PKCS #12 with a passphrase": (bundle(None, None, *CHAIN, secret=SECRET), "needs a passphrase"),
    "revocation list": (b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n", "is PEM of the kind X509 CRL"),
    "cut off": (PEM[:-100], "is damaged or truncated"),
    "cut off before the end line": (PEM.replace(b"-----END", b"-----FIN"), "is damaged or truncated"),
    "changed": (PEM.replace(b"MII", b"!!!"), "is damaged or truncated"),
    "no DER": (b"-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n", "is damaged or truncated"),
    "empty": (b"", "here is empty"),
    "empty PKCS #7": (NO_PKCS7, "is PKCS #7 without certificates"),
    "PKCS #7, cut off": (pkcs7.serialize_certificates(list(CHAIN), Encoding.DER)[:-100], "is damaged or truncated"),
    "SSH": (b"ssh-rsa AAAAB3NzaC1yc2E me@there\n", "is an OpenSSH public key"),
    "text": (b"see the attachment\n", "is text without"),
}


@pytest.mark.kind("foreign files: what is no certificate")
@pytest.mark.parametrize(("data", "says"), NO_CERTIFICATES.values(), ids=NO_CERTIFICATES)
def test_what_is_no_certificate_is_named(data, says):
    for read in (certificates_in, ca_certificates):
        with pytest.raises(UsageError) as caught:
            read(data, where="here")
        assert caught.value.message.startswith("here ")
        assert says in caught.value.message
        assert "no certificate" not in caught.value.message
        assert caught.value.remedy


@pytest.mark.kind("foreign files: what is no certificate")
@pytest.mark.parametrize(("read", "says"), [(certificates_in, "--passphrase"), (ca_certificates, "-nokeys")])
def test_sealed_pkcs12_is_refused_with_what_helps_there(read, says):
    with pytest.raises(UsageError) as caught:
        read(bundle(None, None, *CHAIN, secret=SECRET), where="here")
    assert says in caught.value.remedy
    assert read(bundle(None, None, *CHAIN), where="here")


USES = {
    "trusted for servers": (b"\x30\x0c\x30\x0a" + bytes.fromhex("06082b06010505070301"), True),
    "trusted for anything": (b"\x30\x08\x30\x06" + bytes.fromhex("0604551d2500"), True),
    "trusted for clients": (b"\x30\x0c\x30\x0a" + bytes.fromhex("06082b06010505070302"), False),
    "rejected for servers": (b"\x30\x0c\xa0\x0a" + bytes.fromhex("06082b06010505070301"), False),
    "rejected for clients": (b"\x30\x0c\xa0\x0a" + bytes.fromhex("06082b06010505070302"), True),
    "named only": (b"\x30\x05\x0c\x03abc", True),
    "cut off": (b"\x30\x0c\x30\x80", False),
}


@pytest.mark.kind("foreign files: forms of a CA file")
@pytest.mark.parametrize(("aux", "is_trusted"), USES.values(), ids=USES)
def test_a_trusted_certificate_is_trusted_for_what_it_says(aux, is_trusted):
    data = trusted(CHAIN[2], aux).encode()
    assert certificates_in(data, where="here") == CHAIN[2:]
    if is_trusted:
        assert ca_certificates(data, where="here") == (CHAIN[2].public_bytes(Encoding.DER),)
    else:
        with pytest.raises(UsageError, match="No certificate in here is trusted to verify servers"):
            ca_certificates(data, where="here")


# -- which of several --------------------------------------------------------------------------------------------------

OLD = certificate(not_before=NOW - 80 * DAY, not_after=NOW - DAY)
NEWER = certificate(not_before=NOW - timedelta(seconds=5))
AHEAD = certificate(not_before=NOW + DAY, not_after=NOW + 90 * DAY)
OWN = certificate(issuer=LEAF, by="leaf", not_before=NOW - timedelta(seconds=1))
STRANGER = certificate(of="other")
REKEYED = (intermediate(of="other", by="other"), root(of="other", by="other"))
EXPIRED_CA = intermediate(not_before=NOW - 900 * DAY, not_after=NOW - 5 * DAY)
CHOICES = {
    "the expired one first": ([OLD, *CHAIN], CHAIN),
    "the expired one last": ([*CHAIN, OLD], CHAIN),
    "one that is not valid yet": ([AHEAD, *CHAIN], CHAIN),
    "an older one": ([*CHAIN, NEWER], (NEWER, *CHAIN[1:])),
    "one of another key": ([STRANGER, *CHAIN], CHAIN),
    "one that it signed itself": ([OWN, *CHAIN], CHAIN),
    "CAs of the same names": ([CHAIN[0], *REKEYED, *CHAIN[1:]], CHAIN),
    "only CAs of the same names": ([CHAIN[0], *REKEYED], CHAIN[:1]),
    "an expired CA": ([CHAIN[0], EXPIRED_CA, *CHAIN[1:]], CHAIN),
    "no other than the expired one": ([OLD, *CHAIN[1:]], (OLD, *CHAIN[1:])),
    "the CA's certificate first": ([*reversed(CHAIN)], CHAIN),
}


@pytest.mark.kind("foreign files: which of several certificates")
@pytest.mark.parametrize(("given_", "chain"), CHOICES.values(), ids=CHOICES)
def test_of_several_certificates_the_one_that_fits_and_is_valid_is_taken(given_, chain, tmp_path):
    (tmp_path / "key.pem").write_bytes(KEY)
    (tmp_path / "all.pem").write_bytes(dump_certificates(*given_))
    identity = read_identity(tmp_path / "key.pem", tmp_path / "all.pem", clock=lambda: NOW)
    assert identity.chain == tuple(chain)


@pytest.mark.kind("foreign files: which of several certificates")
@pytest.mark.parametrize("order", list(itertools.permutations(["leaf", "other", "intermediate"])))
def test_of_several_keys_the_one_that_has_a_certificate_is_taken(order, tmp_path):
    (tmp_path / "all.pem").write_bytes(b"".join(dump_key(key(name)) for name in order) + PEM)
    identity = read_identity(tmp_path / "all.pem", clock=lambda: NOW)
    assert identity.chain[0].public_key() == identity.key.public_key()
    assert identity.key.private_numbers() in [key(name).private_numbers() for name in ("leaf", "intermediate")]


def contents(der):
    """What is in a DER element: its parts."""
    return list(elements_of(der[2 if der[1] < 0x80 else der[1] - 0x80 + 2 :]))


def elements_of(data):
    at = 0
    while at < len(data):
        end = end_of(data, at)
        yield data[at:end]
        at = end


def element(tag, *parts):
    content = b"".join(parts)
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([tag]) + (size if len(content) < 0x80 else bytes([0x80 | len(size)]) + size) + content


def merged(*bundles):
    """PKCS #12 with what several hold, without a MAC (RFC 7292, 4): `openssl pkcs12 -export` writes only one key."""
    safes = []
    for one in bundles:
        version, safe, *_ = contents(one)
        kind, wrapped_safe = contents(safe)
        (octets,) = contents(wrapped_safe)
        (sequence,) = contents(octets)
        safes += contents(sequence)
    safe = element(0x30, kind, element(0xA0, element(0x04, element(0x30, *safes))))
    return element(0x30, version, safe)


OTHERS = (certificate(of="other", not_before=NOW - 2 * DAY), intermediate(), root())


@pytest.mark.kind("foreign files: which of several keys")
@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "encrypted"])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("chain", [CHAIN, OTHERS], ids=["leaf", "other"])
def test_of_several_keys_in_pkcs12_the_one_that_fits_the_certificate_is_taken(chain, order, secret, tmp_path):
    both = [bundle(key("leaf"), *CHAIN, secret=secret), bundle(key("other"), *OTHERS, secret=secret)]
    (tmp_path / "all.p12").write_bytes(merged(*both[::order]))
    (tmp_path / "one.pem").write_bytes(dump_certificates(chain[0]))
    how = {"passphrase": secret and secret.decode(), "clock": lambda: NOW}
    identity = read_identity(tmp_path / "all.p12", tmp_path / "one.pem", **how)
    assert identity.chain == chain
    assert identity.key.public_key() == chain[0].public_key()
    newest = read_identity(tmp_path / "all.p12", **how).chain[0]
    assert newest == max(CHAIN[0], OTHERS[0], key=lambda one: one.not_valid_before_utc)


def test_where_no_key_fits_the_file_is_named_with_what_it_holds(tmp_path):
    """The twin."""
    (tmp_path / "keys.pem").write_bytes(KEY + dump_key(key("other")))
    (tmp_path / "one.pem").write_bytes(dump_certificates(intermediate()))
    with pytest.raises(UsageError, match=r"No certificate in .*one\.pem belongs to any of the 2 keys in .*keys\.pem"):
        read_identity(tmp_path / "keys.pem", tmp_path / "one.pem", clock=lambda: NOW)


WHOLE = {
    "PEM": KEY + PEM,
    "service key": service_key(TEXT, KEY.decode()).encode(),
    "PKCS #12": bundle(key("leaf"), *CHAIN),
    "Kubernetes Secret": f"tls.crt: {B64}\ntls.key: {base64.b64encode(KEY).decode()}\n".encode(),
}


@pytest.mark.kind("foreign files: key and certificate in one file")
@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_one_file_may_hold_it_all(data, tmp_path):
    (tmp_path / "all").write_bytes(data)
    for more in ([], [tmp_path / "all"]):
        identity = read_identity(tmp_path / "all", *more, clock=lambda: NOW)
        assert identity.chain == CHAIN


def write(folder, **contents):
    for name, data in contents.items():
        (folder / name).write_bytes(data)


WRONG_FILES = {
    "swapped": ({"key": PEM, "certificate": KEY}, "key is a certificate, but a private key is needed", "Did you swap"),
    "a certificate as the key": ({"key": PEM}, "key is a certificate", "--key"),
    "a key alone": ({"key": KEY}, "key is a private key without a certificate", "--certificate"),
    "a PKCS #12 of a key alone": (
        {"key": bundle(key("leaf"), None)},
        "key is PKCS #12 without a certificate",
        "--certificate",
    ),
    "a key twice": ({"key": KEY, "certificate": KEY}, "certificate is a private key", "certificate"),
    "a request": (
        {"key": KEY, "certificate": make_csr(key("leaf"), LEAF)},
        "certificate is a certificate signing request",
        "signed",
    ),
    "another key": ({"key": dump_key(key("other")), "certificate": PEM}, "belongs to the key in", "this very key"),
    "empty": ({"key": b"", "certificate": PEM}, "key is empty", "the private key with --key"),
    "JSON": (
        {"key": b'{"clientsecret": "y"}', "certificate": PEM},
        "key is JSON without",
        "the private key with --key",
    ),
    "a request as the key": (
        {"key": make_csr(key("leaf"), LEAF), "certificate": PEM},
        "key is a certificate signing",
        "the private key that",
    ),
    "PKCS #12 of certificates": (
        {"key": bundle(None, None, *CHAIN)},
        "key is PKCS #12 without a private key",
        "--key KEYFILE --certificate ",
    ),
}


@pytest.mark.kind("foreign files: files that do not belong together")
@pytest.mark.parametrize(("contents", "says", "remedy"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_files_that_do_not_belong_together_are_named(contents, says, remedy, tmp_path):
    write(tmp_path, **contents)
    paths = [tmp_path / name for name in ("key", "certificate") if name in contents]
    with pytest.raises(UsageError) as caught:
        read_identity(*paths, clock=lambda: NOW)
    assert says in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


SEALED = {
    "certificate": {"key": KEY, "certificate": bundle(None, None, *CHAIN, secret=SECRET)},
    "certificate and its key": {"key": KEY, "certificate": bundle(key("leaf"), *CHAIN, secret=SECRET)},
    "key": {"key": dump_key(key("leaf"), SECRET), "certificate": bundle(None, None, *CHAIN)},
}
OPEN = {
    "key and certificate": {"key": KEY, "certificate": PEM},
    "key and PKCS #12": {"key": KEY, "certificate": bundle(None, None, *CHAIN)},
    "PKCS #12": {"key": bundle(key("leaf"), *CHAIN)},
}


@pytest.mark.kind("foreign files: a passphrase for one of two files")
@pytest.mark.parametrize("contents", SEALED.values(), ids=SEALED)
def test_a_passphrase_may_be_for_either_file(contents, tmp_path):
    write(tmp_path, **contents)
    paths = [tmp_path / name for name in contents]
    assert read_identity(*paths, passphrase=CANARY, clock=lambda: NOW).chain == CHAIN
    with pytest.raises(UsageError, match="--passphrase prompt"):
        read_identity(*paths, clock=lambda: NOW)


@pytest.mark.kind("foreign files: a passphrase for one of two files")
@pytest.mark.parametrize("contents", OPEN.values(), ids=OPEN)
def test_a_passphrase_that_no_file_needs_is_refused(contents, tmp_path):
    write(tmp_path, **contents)
    paths = [tmp_path / name for name in contents]
    assert read_identity(*paths, clock=lambda: NOW).chain == CHAIN
    with pytest.raises(UsageError, match="without a passphrase") as caught:
        read_identity(*paths, passphrase=CANARY, clock=lambda: NOW)
    assert "Leave the passphrase out" in caught.value.remedy


@pytest.mark.parametrize("name", ["folder", "missing", "folder/../missing"])
def test_a_path_that_is_no_file_is_named(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"cannot be read: (Is a directory|No such file)"):
        read_identity(tmp_path / name)


def test_a_sha1_certificate_is_told_apart_from_a_damaged_store():
    assert identify(PEM) == "a certificate"
    assert identify(KEY + PEM) == "a private key and a certificate"


# -- any mix of forms --------------------------------------------------------------------------------------------------

MARKS = {"UTF-8": ("utf-8", b""), "mark": ("utf-8", b"\xef\xbb\xbf"), "UTF-16": ("utf-16", b"")}
STEPS = {
    "CR LF": lambda text: text.replace("\n", "\r\n"),
    "glued": lambda text: text.replace("-----\n-----", "----------"),
    "one line": lambda text: text.replace("\n", " "),
    "written": lambda text: text.replace("\n", "\\n"),
    "text around": lambda text: f"Subject: x\n{text}\nthe end\n",
    "indented": lambda text: "".join(f"    {line}\n" for line in text.split("\n")),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "label": lambda text: text.replace("N CERTIFICATE-----", "N X509 CERTIFICATE-----").replace(
        "D CERTIFICATE-----", "D X509 CERTIFICATE-----"
    ),
}


@settings(max_examples=300)
@given(st.lists(st.sampled_from(list(STEPS)), max_size=4), st.sampled_from(list(MARKS)), st.permutations(range(3)))
def test_any_mix_of_forms_yields_the_same_certificates(steps, mark, order):
    text = dump_certificates(*(CHAIN[place] for place in order)).decode()
    coded = 0
    for step in steps:
        if step == "base64":
            coded += 1
        if coded < 3 and not (step == "label" and coded):
            text = STEPS[step](text)
    encoding, prefix = MARKS[mark]
    found = certificates_in(prefix + text.encode(encoding), where="here")
    assert found == tuple(CHAIN[place] for place in order)


@given(st.lists(st.sampled_from(list(STEPS)), max_size=4))
def test_of_another_text_no_mix_of_forms_yields_any(steps):
    text = TEXT.replace("MII", "AAA")
    for step in steps:
        text = STEPS[step](text)
    with pytest.raises(UsageError):
        certificates_in(text.encode(), where="here")


@settings(max_examples=300)
@given(st.binary(max_size=300) | st.text(st.sampled_from('-BEGINDRTFCA \nMI0=\\"{}LS0tLS1CRUdJTi')).map(str.encode))
def test_any_bytes_are_read_or_named(data):
    for read in (certificates_in, ca_certificates, lambda data, **k: keys_in(data, **k, **RED)):
        with warnings.catch_warnings(action="ignore"), suppress(UsageError):
            read(data, where="here")
    assert identify(data)


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN CERTIFICATE-----\n" * 100_000,
        b"LS0tLS1CRUdJTi" * 100_000,
        b"MI" * 1_000_000,
        base64.b64encode(base64.b64encode(base64.b64encode(base64.b64encode(PEM)))),
        b"\\" * 1_000_000,
        PEM * 3000,
    ],
    ids=["beginnings", "base64", "MI", "base64 of base64", "backslashes", "the same"],
)
def test_a_file_that_is_made_to_cost_time_is_read_in_one_pass(data):
    assert len(blocks(data)) <= 2000


def test_pkcs7_as_openssl_writes_it_gives_no_warning(tmp_path):
    """It is BER, of which cryptography warns."""
    (tmp_path / "chain.pem").write_bytes(dump_certificates(*CHAIN))
    command = ["openssl", "crl2pkcs7", "-nocrl", "-certfile", tmp_path / "chain.pem"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(certificates_in(data, where="here")) == set(CHAIN)
