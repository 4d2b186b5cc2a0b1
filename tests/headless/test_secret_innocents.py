"""What is public is never taken for a secret: certificates, requests, revocation lists and notebooks, in many forms."""

import base64
import json
import re
import shutil
import site
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import certifi
import pytest
from certificates import certificate, intermediate, key, root
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7
from cryptography.x509 import ocsp

from ucl_helpers.crypto import dump_certificates, encode, make_csr, parse_subject
from ucl_helpers.errors import SecretFound
from ucl_helpers.headless.notebooks import packaged
from ucl_helpers.headless.parameters import refuse_secret
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.redaction.search import KnownSecrets, find_secret
from ucl_helpers.keys import dump_key

NOW, DAY = datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=1)
ALL = 99  # forms
AT_LEAST = {
    "roots of certifi": 100,  # certifi 2026.10.18 has 117
    "roots in the style of AD CS": 150,
    "revocation lists": 150,
    "certificate requests": 150,
    "certificates of known keys": 152,
    "PKCS #7": 59,
    "questions and answers of OCSP": 238,
    "public keys": 3,
}
"""How many innocents of each kind the tests search at least.

The roots of the system, the notebooks and the other texts come on top. A system may have no roots.
"""
TEXT_DUMPS = {"CERTIFICATE": "x509", "X509 CRL": "crl", "CERTIFICATE REQUEST": "req", "PKCS7": "pkcs7"}


@cache
def known():
    """The keys of the certificates that are shown."""
    secrets = KnownSecrets()
    for name in ("leaf", "intermediate", "root"):
        secrets.add_key(dump_key(key(name)))
    return secrets


def armoured(label, der):
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def forms_of(label, der):
    """How tools and Python show it."""
    pem, numbers = armoured(label, der), str(list(der))
    yield from (pem, json.dumps(pem), base64.b64encode(pem.encode()).decode(), base64.b64encode(der).decode())
    yield from (
        der.hex(),
        der.hex(":").upper(),
        repr(der),
        numbers,
        der.decode("latin-1"),
        der.decode(errors="replace"),
    )
    if label in TEXT_DUMPS and shutil.which("openssl"):
        command = ["openssl", TEXT_DUMPS[label], "-inform", "DER", "-text"]
        yield subprocess.run(command, input=der, capture_output=True, check=False).stdout.decode(errors="replace")


def must_be_clean(items, proof, what, forms=2):
    """None of the items holds a secret in its forms: each item in the next few, so that many items show all forms."""
    items, texts = list(items), []
    for number, item in enumerate(items):
        shown = list(forms_of(*item))
        texts += [shown[(number * forms + more) % len(shown)] for more in range(min(forms, len(shown)))]
    assert texts
    assert len(items) >= AT_LEAST.get(what, 1)
    assert [text[:80] for text in texts if find_secret(text, known())] == []
    proof("search", f"innocents, 0 taken for a secret: {what}", len(items))
    proof("search", "innocents, 0 taken for a secret, in all", len(items))
    proof("search", "texts that show these innocents", len(texts))


def test_at_least_1000_innocents_are_searched_without_the_roots_of_the_system():
    assert sum(AT_LEAST.values()) >= 1000


def of_bundle(text):
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.DOTALL)
    return [("CERTIFICATE", base64.b64decode(block)) for block in blocks]


def test_the_roots_of_certifi_are_no_secrets(proof):
    text = Path(certifi.where()).read_text()
    must_be_clean(of_bundle(text), proof, "roots of certifi", forms=ALL)
    assert find_secret(text, known()) is None


def test_the_roots_of_the_system_are_no_secrets(proof):
    bundle = Path(ssl.get_default_verify_paths().openssl_cafile)
    if not bundle.is_file():
        pytest.skip("this system has no bundle of roots where OpenSSL looks for it")
    must_be_clean(of_bundle(bundle.read_text()), proof, "roots of the system")


def active_directory_root(number):
    """A root as AD CS makes it: the template's name in UTF-16, and a "CA Version", which looks like PKCS #8's."""
    version = bytes([2, 1, 0]) if not number else b"\x02\x03" + number.to_bytes(1) + b"\0" + number.to_bytes(1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Contoso Root CA {number}")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key("root").public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(NOW).not_valid_after(NOW + 3650 * DAY)
    for oid, value in (("20.2", b"\x1e\x04\0C\0A"), ("21.1", version), ("21.2", b"\x04\x14" + bytes(range(20)))):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.311.{oid}"), value)
        builder = builder.add_extension(extension, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return "CERTIFICATE", builder.sign(key("root"), SHA256()).public_bytes(Encoding.DER)


def test_roots_of_active_directory_are_no_secrets(proof):
    must_be_clean(map(active_directory_root, range(150)), proof, "roots in the style of AD CS")


def revocation_list(count):
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(root().subject).last_update(NOW).next_update(NOW + DAY)
    )
    for _ in range(count):
        revoked = x509.RevokedCertificateBuilder().serial_number(x509.random_serial_number()).revocation_date(NOW)
        builder = builder.add_revoked_certificate(revoked.build())
    return "X509 CRL", builder.sign(key("root"), SHA256()).public_bytes(Encoding.DER)


def test_revocation_lists_are_no_secrets(proof):
    must_be_clean(map(revocation_list, range(150)), proof, "revocation lists")


def test_requests_are_no_secrets(proof):
    made = (make_csr(key("leaf"), parse_subject(f"O=Org {number},CN=x{number}")) for number in range(150))
    requests = [("CERTIFICATE REQUEST", x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER)) for pem in made]
    must_be_clean(requests, proof, "certificate requests")


def test_certificates_of_known_keys_are_no_secrets(proof):
    made = [certificate(not_after=NOW + number * DAY) for number in range(1, 151)] + [intermediate(), root()]
    must_be_clean(
        [("CERTIFICATE", one.public_bytes(Encoding.DER)) for one in made], proof, "certificates of known keys"
    )


def test_bags_of_certificates_are_no_secrets(proof):
    made = [pkcs7.serialize_certificates([certificate()] * number, Encoding.DER) for number in range(1, 60)]
    must_be_clean([("PKCS7", der) for der in made], proof, "PKCS #7")


def test_questions_and_answers_about_revocation_are_no_secrets(proof):
    items = []
    for number in range(1, 120):
        leaf, issuer = certificate(not_after=NOW + number * DAY), intermediate()
        asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, SHA256()).build()
        answered = ocsp.OCSPResponseBuilder().add_response(
            leaf, issuer, SHA256(), ocsp.OCSPCertStatus.GOOD, NOW, NOW + DAY, None, None
        )
        answered = answered.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer).sign(key("intermediate"), SHA256())
        items += [("OCSP", one.public_bytes(Encoding.DER)) for one in (asked, answered)]
    must_be_clean(items, proof, "questions and answers of OCSP")


def test_public_keys_are_no_secrets(proof):
    public = [key(name).public_key() for name in ("leaf", "root", "ec")]
    ders = [("PUBLIC KEY", one.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)) for one in public]
    must_be_clean(ders, proof, "public keys")
    assert find_secret(str(key("leaf").public_key().public_numbers().n), known()) is None


NOTEBOOKS = sorted({*packaged("notebooks").glob("*.ipynb"), *Path(site.getsitepackages()[0]).rglob("*.ipynb")})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_that_others_wrote_and_ours_pass_untouched(path, proof):
    text = path.read_text(encoding="utf-8", errors="replace")
    assert find_secret(text, known()) is None
    notebook = json.loads(text)
    if "cells" in notebook:
        before, redactor = json.dumps(notebook), Redactor(known)
        redactor.refuse_sources(notebook["cells"])
        redactor.notebook(notebook)
        assert (json.dumps(notebook), redactor.error()) == (before, None)
    proof("search", "innocents, 0 taken for a secret: notebooks", 1)
    proof("search", "innocents, 0 taken for a secret, in all", 1)


CHAIN = (certificate(), intermediate(), root())
HARMLESS = {
    "chain": dump_certificates(*CHAIN).decode(),
    "certificateChain": encode(dump_certificates(*CHAIN)),
    "fingerprint": "3fa9c1" * 10 + "beef",
    "subject": "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=07070cc0-6a8e-4fc9-b718-51aef536bb40",
    "markers": "A file from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY----- is a key. "
    + "Prose follows. " * 9,
    "marker": "assert '-----BEGIN PRIVATE KEY-----' not in text",
    "shortened": "-----BEGIN PRIVATE KEY-----\nMIIEvQ…\n-----END PRIVATE KEY-----",
    "shortened too": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC...\n-----END PRIVATE KEY-----",
    "digest": "sha512-" + base64.b64encode(b"x" * 64).decode(),
    "picture": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 120).decode(),
    "header of a JWT": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ5In0",
    "zeros": "00 " * 400,
    "source": Path(__file__).read_text(),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_no_secret_stays(what, proof):
    assert find_secret(f"before: {HARMLESS[what]} (after)", known()) is None
    proof("search", "innocents, 0 taken for a secret: other texts", 1)
    proof("search", "innocents, 0 taken for a secret, in all", 1)


def public_texts():
    request = make_csr(key("leaf"), parse_subject("O=Org,CN=x")).decode()
    return [Path(certifi.where()).read_text(), dump_certificates(*CHAIN).decode(), request]


def test_certificates_and_requests_in_cells_and_parameters_are_not_refused():
    for text in public_texts():
        Redactor(known).refuse_sources([{"source": f"ca = {text!r}"}])
        refuse_secret("ca", text)


def test_a_key_among_them_is_refused():
    for text in public_texts():
        mixed = text + dump_key(key("ec")).decode()
        with pytest.raises(SecretFound):
            Redactor(known).refuse_sources([{"source": f"ca = {mixed!r}"}])
        with pytest.raises(SecretFound):
            refuse_secret("ca", mixed)
