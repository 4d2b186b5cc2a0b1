"""What is accepted as a CSR, in depth: the answers were compared with Go's own standard library."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from contract_csrs import plain, signed_with, tlv, to_der, to_pem
from contract_replay import csr_pem, ec_key, encoded, fields_of_subject, name_of, rsa_key
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from quick_keys import QUICK_BITS

from ucl_sandbox.csr import Attribute, CsrRefusedError, ExpectedSubject, accept, elements, read_name, write_name

ID = "0b0e0b9e-7f0c-4a52-9ef5-2f1d0a3c0d11"
PEM = plain(ID)
SIGNING = "Error while signing Certificate Signing Request: "
NO_BASE64 = (
    "Error while decoding Certificate Signing Request: Error while parsing base64 content. Incorrect value provided."
)
UNIMPLEMENTED = SIGNING + "CSR signature invalid: x509: cannot verify signature: algorithm unimplemented"
WRONG_SIGNATURE = SIGNING + "CSR signature invalid: crypto/rsa: verification error"
OTHER_FAMILY = (
    SIGNING + "CSR signature invalid: x509: signature algorithm specifies an {} public key, "
    "but have public key of type *rsa.PublicKey"
)
NOT_RSA = (
    SIGNING + "Error while creating certificate: x509: requested SignatureAlgorithm does not match private key type"
)


def refusal(csr: str | bytes) -> str | None:
    """Why a CSR is refused; None if it is accepted."""
    try:
        accept(csr if isinstance(csr, str) else encoded(csr), ExpectedSubject(ID))
    except CsrRefusedError as error:
        return str(error)
    return None


# -- the subject -------------------------------------------------------------------------------------------------------

FIELDS = {
    "CN": "common name",
    "C": "country",
    "O": "organization",
    "OU": "organizational unit",
    "L": "locality",
    "ST": "province",
}
NUMBERS = {"C": 6, "O": 10, "OU": 11, "L": 7, "ST": 8, "CN": 3}
RIGHT = fields_of_subject(ID)


def by_hand(pairs: list[tuple[str, str | bytes]], tag: int = 0x0C) -> bytes:
    """A CSR whose name is written without `cryptography`, which would not write all of these."""
    rdns = b"".join(
        tlv(
            0x31,
            tlv(
                0x30,
                tlv(6, bytes([0x55, 4, NUMBERS[field]]))
                + tlv(tag, value if isinstance(value, bytes) else value.encode()),
            ),
        )
        for field, value in pairs
    )
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    key = rsa_key().public_key().public_bytes(serialization.Encoding.DER, spki)
    tbs = tlv(0x30, b"\x02\x01\x00" + tlv(0x30, rdns) + key + b"\xa0\x00")
    signature = rsa_key().sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")
    return to_pem(tlv(0x30, tbs + algorithm + tlv(3, b"\0" + signature)))


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_has_to_be_right(field: str) -> None:
    invalid = f"{SIGNING}CSR: Invalid {FIELDS[field]} provided."
    missing = invalid if field == "CN" else f"{SIGNING}CSR: No {FIELDS[field]} provided."
    others = [pair for pair in RIGHT if pair[0] != field]
    assert refusal(by_hand(RIGHT)) is None
    assert refusal(by_hand(others)) == missing
    for wrong in ("", "x", "É", dict(RIGHT)[field].swapcase(), dict(RIGHT)[field] + " "):
        if wrong != dict(RIGHT)[field]:
            assert refusal(by_hand([*others, (field, wrong)])) == invalid


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("other", ["x", "", "É"])
def test_of_a_repeated_field_the_first_counts_but_of_a_repeated_cn_the_last(field: str, other: str) -> None:
    before, after = by_hand([(field, other), *RIGHT]), by_hand([*RIGHT, (field, other)])
    accepted, refused = (before, after) if field == "CN" else (after, before)
    assert refusal(accepted) is None
    assert refusal(refused) == f"{SIGNING}CSR: Invalid {FIELDS[field]} provided."


@pytest.mark.parametrize("first", range(len(FIELDS)))
def test_the_first_failure_is_the_one_that_is_told(first: int) -> None:
    """The order is CN, C, O, OU, L, ST, whatever the CSR's is."""
    names = list(FIELDS)
    wrong = dict.fromkeys(names[first:], "x")
    subject = name_of(fields_of_subject(ID, **{**wrong, **({"C": "PL"} if "C" in wrong else {})})[::-1])
    assert refusal(csr_pem(subject)) == f"{SIGNING}CSR: Invalid {FIELDS[names[first]]} provided."


@pytest.mark.parametrize("tag", [0x0C, 0x13, 0x14, 0x16])
def test_every_kind_of_text_is_read(tag: int) -> None:
    assert refusal(by_hand(RIGHT, tag)) is None


def test_what_is_not_text_is_missing() -> None:
    assert refusal(by_hand(RIGHT, 0x04)) == f"{SIGNING}CSR: Invalid common name provided."


@pytest.mark.parametrize(
    ("pairs", "written"),
    [
        ([(10, "Org"), (6, "DE")], [(6, "DE"), (10, "Org")]),
        ([(11, "b"), (11, "a"), (11, "é")], [(11, "a"), (11, "b"), (11, "é")]),
        ([(3, "first"), (3, "last"), (5, "1"), (5, "2")], [(3, "last"), (5, "2")]),
        ([(3, "x"), (3, "")], []),
        ([(8, ""), (7, "L")], [(8, ""), (7, "L")]),
    ],
)
def test_a_name_is_written_as_go_does(pairs: list[tuple[int, str]], written: list[tuple[int, str]]) -> None:
    der = write_name((Attribute(number), value) for number, value in pairs)
    assert read_name(elements(der)[0][1]) == [(Attribute(number), value) for number, value in written]


@pytest.mark.parametrize("der", [b"\x30", b"\x31\x05\x30", b"\x31\x02\x05\x00", b"\x31\x04\x30\x02\x06\x00"])
def test_what_is_no_name_is_an_error(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"truncated|not enough values"):
        read_name(der)


# -- key and signature -------------------------------------------------------------------------------------------------


def by_key(key: object, hash_: hashes.HashAlgorithm | None = None, client_id: str = ID) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name_of(fields_of_subject(client_id)))
    return builder.sign(key, hash_).public_bytes(serialization.Encoding.PEM)


def pss(hash_: hashes.HashAlgorithm, salt: int) -> bytes:
    scheme = padding.PSS(padding.MGF1(hash_), salt_length=salt)
    return csr_pem(name_of(RIGHT), None, hash_, rsa_padding=scheme)


def resigned(algorithm: str, signature: bytes | None = None) -> bytes:
    csr = x509.load_pem_x509_csr(PEM)
    bits = tlv(3, b"\0" + (csr.signature if signature is None else signature))
    return to_pem(tlv(0x30, csr.tbs_certrequest_bytes + bytes.fromhex(algorithm) + bits))


RSA_SHA256 = "300d06092a864886f70d01010b0500"


@pytest.mark.parametrize("bits", [1024, 2047, 2048, 3072])
def test_rsa_keys_of_any_length(bits: int) -> None:
    assert refusal(plain(ID, bits)) is None


@pytest.mark.parametrize("hash_", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_rsa_signatures(hash_: hashes.HashAlgorithm) -> None:
    csr = csr_pem(name_of(RIGHT), None, hash_)
    assert accept(encoded(csr), ExpectedSubject(ID)).scheme.hash.name == hash_.name
    accepted = accept(encoded(pss(hash_, hash_.digest_size)), ExpectedSubject(ID))
    assert (accepted.scheme.hash.name, accepted.scheme.pss) == (hash_.name, True)
    assert refusal(pss(hash_, 20)) == UNIMPLEMENTED


def test_sha1_is_verified_all_the_same() -> None:
    sha1 = bytes.fromhex("300d06092a864886f70d0101050500")
    assert refusal(signed_with(ID, sha1, hashes.SHA1)) is None
    assert refusal(signed_with(ID, sha1, hashes.SHA256)) == WRONG_SIGNATURE


@pytest.mark.parametrize(
    ("csr", "expected"),
    [
        (lambda: csr_pem(name_of(RIGHT), None, hashes.SHA224()), UNIMPLEMENTED),
        (lambda: csr_pem(name_of(RIGHT), None, hashes.SHA3_256()), UNIMPLEMENTED),
        (
            lambda: resigned("300d06092a864886f70d0101040500"),
            SIGNING + "CSR signature invalid: x509: cannot verify signature: insecure algorithm MD5-RSA",
        ),
        (lambda: resigned("300506032a0304"), UNIMPLEMENTED),
        (lambda: resigned(RSA_SHA256, b""), WRONG_SIGNATURE),
        (lambda: resigned(RSA_SHA256, b"\0" * 256), WRONG_SIGNATURE),
        (
            lambda: resigned("300a06082a8648ce3d040302"),
            OTHER_FAMILY.format("ECDSA"),
        ),
        (
            lambda: resigned("300506032b6570"),
            OTHER_FAMILY.format("Ed25519"),
        ),
        (lambda: by_key(ec_key(), hashes.SHA256()), NOT_RSA),
        (lambda: by_key(ec_key(), hashes.SHA512()), NOT_RSA),
        (lambda: by_key(ec_key(), hashes.SHA224()), UNIMPLEMENTED),
        (lambda: by_key(ed25519.Ed25519PrivateKey.generate()), NOT_RSA),
        (
            lambda: by_key(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
            SIGNING + "Error while parsing CSR: x509: unsupported elliptic curve",
        ),
    ],
)
def test_other_keys_and_signatures(csr: Callable[[], bytes], expected: str) -> None:
    assert refusal(csr()) == expected


def test_a_wrong_subject_is_told_before_a_wrong_kind_of_key() -> None:
    assert refusal(by_key(ec_key(), hashes.SHA256(), "other")) == f"{SIGNING}CSR: Invalid common name provided."


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x00", b"\x05\x00", to_der(PEM)[:-1], to_der(PEM) + b"\0"])
def test_what_is_no_csr(der: bytes) -> None:
    assert (refusal(to_pem(der)) or "").startswith(SIGNING + "Error while parsing CSR:")


def test_what_openssl_makes_by_default(tmp_path: Path) -> None:
    command = [
        "openssl",
        "req",
        "-new",
        "-newkey",
        f"rsa:{QUICK_BITS}",
        "-nodes",
        "-keyout",
        tmp_path / "key",
        "-out",
        tmp_path / "csr",
    ]
    subject = "/" + "/".join(f"{field}={value}" for field, value in RIGHT)
    subprocess.run([*command, "-subj", subject], check=True, capture_output=True)
    csr = (tmp_path / "csr").read_bytes()
    assert refusal(csr) is None
    assert refusal(base64.encodebytes(csr).decode()) is None
    assert refusal(encoded(csr).replace("=", "") + " ") == NO_BASE64
