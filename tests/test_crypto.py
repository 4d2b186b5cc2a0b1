"""Keys, subjects, CSRs and chains: what is read, and that what cannot be read says so by name."""

import base64
import math

import pytest
from certificates import CA, LEAF, certificate, doctored, key
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from quick_keys import QUICK_BITS
from secrets_watch import CANARY

from ucl_helpers.crypto import (
    MAX_CERTIFICATES,
    common_name,
    decode_certificates,
    dump_certificates,
    encode,
    make_csr,
    parse_subject,
    read_certificates,
    same_subject,
    subject_text,
)
from ucl_helpers.errors import BadAnswer, KeyLocked, UsageError
from ucl_helpers.keys import dump_key, key_length, load_bundle, load_key, make_key, open_key
from ucl_sandbox.csr import SEQUENCE, element

CHAIN = (certificate(), *CA)
PEM = dump_certificates(*CHAIN)
PASSPHRASE = BestAvailableEncryption(CANARY.encode())


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 8192])
def test_a_key_length_in_range_is_taken(bits):
    assert key_length(bits) == bits


@pytest.mark.parametrize("bits", [0, -2048, 1024, 2047, 2049, 8200, 2048.0, "2048", None, True])
def test_another_is_an_error_that_names_it(bits):
    with pytest.raises(UsageError, match=f"key_length is {bits!r}"):
        key_length(bits)


def test_a_key_is_made_as_long_as_asked_for():
    made = make_key(QUICK_BITS)
    assert (made.key_size, made.public_key().public_numbers().e) == (QUICK_BITS, 65537)
    with pytest.raises(UsageError, match="1024"):
        make_key(1024)


@pytest.mark.parametrize(
    ("encoding", "form", "protection"),
    [
        (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        (Encoding.PEM, PrivateFormat.PKCS8, PASSPHRASE),
        (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, PASSPHRASE),
        (Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        (Encoding.DER, PrivateFormat.PKCS8, PASSPHRASE),
        (Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    ],
)
def test_a_key_is_read_in_any_form(encoding, form, protection):
    data = key("leaf").private_bytes(encoding, form, protection)
    passphrase = CANARY.encode() if protection is PASSPHRASE else None
    assert load_key(data, passphrase).private_numbers() == key("leaf").private_numbers()


def test_a_key_is_written_encrypted_when_there_is_a_passphrase():
    assert load_pem_private_key(dump_key(key("leaf")), None).key_size == QUICK_BITS
    assert dump_key(key("leaf"), CANARY.encode()).startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("data", "passphrase", "reason"),
    [
        (dump_key(key("leaf"), CANARY.encode()), None, "is encrypted"),
        (dump_key(key("leaf"), CANARY.encode()), b"wrong", "or the passphrase is wrong"),
        (dump_key(key("leaf")), b"needless", "is not encrypted"),
        (b"", None, "cannot be read"),
        (PEM, None, "cannot be read"),
        (key("ec").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), None, "is not an RSA key"),
    ],
)
def test_a_key_that_cannot_be_used_names_the_file_and_the_reason(data, passphrase, reason):
    with pytest.raises(UsageError, match=rf"^here\.pem .*{reason}"):
        load_key(data, passphrase, where="here.pem")


def bundle(of, leaf, *others, name=b"ucl"):
    return pkcs12.serialize_key_and_certificates(name, of, leaf, others or None, PASSPHRASE)


def test_a_key_of_ours_is_read_without_a_proof_of_its_primes():
    one = key("leaf").private_numbers()
    p, q = one.p * 3, one.q  # no prime, and all else belongs together
    d = pow(65537, -1, math.lcm(p - 1, q - 1))
    no_prime = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    ).private_key(unsafe_skip_rsa_key_validation=True)
    assert load_key(dump_key(no_prime), ours=True).private_numbers() == no_prime.private_numbers()
    with pytest.raises(UsageError, match="cannot be read"):
        load_key(dump_key(no_prime))


NUMBERS = ("n", "e", "d", "p", "q", "dmp1", "dmq1", "iqmp")  # in the order of RFC 8017 appendix A.1.2


def pkcs1(numbers):
    """A key as DER, of numbers that need not belong together."""
    integers = [element(0x02, number.to_bytes(number.bit_length() // 8 + 1)) for number in numbers.values()]
    return element(SEQUENCE, b"".join(integers))


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("name", [None, *NUMBERS])
def test_a_key_with_a_number_of_another_is_not_taken(name, ours):
    one, other = ({"version": 0, **numbers_of(key(name))} for name in ("leaf", "other"))
    data = pkcs1(one | ({name: 3 if name == "e" else other[name]} if name else {}))
    if name is None:
        assert load_key(data, ours=ours).private_numbers() == key("leaf").private_numbers()
        return
    with pytest.raises(UsageError, match="cannot be read"):
        load_key(data, ours=ours)


def numbers_of(one):
    private, public = one.private_numbers(), one.public_key().public_numbers()
    return {name: getattr(public if name in "ne" else private, name) for name in NUMBERS}


def test_pkcs12_holds_key_and_chain():
    found, certificates = load_bundle(bundle(key("leaf"), *CHAIN), CANARY.encode(), where="here.p12")
    assert found.private_numbers() == key("leaf").private_numbers()
    assert certificates[0] == CHAIN[0]
    assert set(certificates) == set(CHAIN)


@pytest.mark.parametrize(
    ("data", "passphrase", "reason"),
    [
        (bundle(key("leaf"), *CHAIN), b"wrong", "or the passphrase is wrong"),
        (PEM, CANARY.encode(), "cannot be read"),
        (bundle(None, None, *CA), CANARY.encode(), "does not hold an RSA key"),
        (bundle(key("ec"), certificate(of="ec")), CANARY.encode(), "does not hold an RSA key"),
    ],
)
def test_pkcs12_that_cannot_be_used_names_the_file_and_the_reason(data, passphrase, reason):
    with pytest.raises(UsageError, match=rf"^here\.p12 .*{reason}"):
        load_bundle(data, passphrase, where="here.p12")


# -- subjects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("O=Org,OU=OrgUnit,C=DE,CN=x", [("O", "Org"), ("OU", "OrgUnit"), ("C", "DE"), ("CN", "x")]),
        (r"O=Acme\, Inc.,CN=x", [("O", "Acme, Inc."), ("CN", "x")]),
        (r"O=\ Org\ ,CN=\#1", [("O", " Org "), ("CN", "#1")]),
        (r"O=\41cme \c3\84,CN=x", [("O", "Acme Ä"), ("CN", "x")]),
        ("OU=one,OU=two,OU=one,CN=x", [("OU", "one"), ("OU", "two"), ("OU", "one"), ("CN", "x")]),
        ("O=Org+OU=OrgUnit,CN=x", [("O", "Org"), ("OU", "OrgUnit"), ("CN", "x")]),
        ("O=,CN=x", [("O", ""), ("CN", "x")]),
        ("2.5.4.10=Org,1.2.3.4=?,CN=a=b", [("O", "Org"), ("1.2.3.4", "?"), ("CN", "a=b")]),
        ("E=a@ucl.example,CN=x", [("1.2.840.113549.1.9.1", "a@ucl.example"), ("CN", "x")]),
    ],
)
def test_a_subject_is_read_in_the_order_it_is_written(text, fields):
    name = parse_subject(text)
    assert [(one.rfc4514_attribute_name, one.value) for one in name] == fields
    assert parse_subject(subject_text(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "CN", "=x", ",", "CN=x,", "O=Org;CN=x", 'CN="x"', "CN=x\\", r"CN=\ff", "CN=\ud800", "CN=a+CN=a"),
        *("o=Org,cn=x", "FOO=x,CN=y", "O=Org, CN=x", "O= Org,CN=x", "9.9.9=x"),
        *("CN=", f"CN={'x' * 65}", "C=D,CN=x", "C=DEU,CN=x", "2.5.4.6=DEU,CN=x", "C=ä,CN=x", "E=ä@ucl.example"),
    ],
)
def test_what_is_no_subject_is_named(text):
    with pytest.raises(BadAnswer) as caught:
        parse_subject(text)
    assert caught.value.message.startswith(f"The subject {text!r} cannot be read: ")
    assert not caught.value.message.endswith(": .")


def test_a_subject_without_end_is_named_by_its_beginning():
    with pytest.raises(BadAnswer) as caught:
        parse_subject("x" * 1_000_000)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("CN=x,OU=b,OU=a,O=Org", True),
        ("O=Org+OU=a,OU=b,CN=x", True),
        ("O=Org,OU=a,CN=x", False),
        ("O=Org,OU=a,OU=b,OU=b,CN=x", False),
        ("O=org,OU=a,OU=b,CN=x", False),
    ],
)
def test_subjects_are_the_same_when_their_fields_are(other, same):
    assert same_subject(parse_subject("O=Org,OU=a,OU=b,CN=x"), parse_subject(other)) == same


def test_the_last_common_name_counts():
    assert common_name(parse_subject("CN=first,O=Org,CN=last")) == "last"
    assert common_name(parse_subject("O=Org")) == ""


def test_a_csr_holds_subject_and_signature_and_nothing_else():
    request = x509.load_pem_x509_csr(make_csr(key("leaf"), LEAF))
    assert (request.subject, request.is_signature_valid, list(request.extensions)) == (LEAF, True, [])
    assert (request.signature_hash_algorithm.name, request.public_key()) == ("sha256", key("leaf").public_key())


def test_a_csr_is_encoded_on_one_line():
    text = encode(make_csr(key("leaf"), LEAF))
    assert base64.b64decode(text, validate=True) == make_csr(key("leaf"), LEAF)
    assert "\n" not in text


# -- chains ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pem",
    [
        PEM,
        PEM.replace(b"\n", b"\r\n"),
        b"subject: \xff\n" + PEM + b"the end\n",
        b"0 s:CN=x\n" + PEM,
        dump_key(key("leaf")) + PEM,
    ],
    ids=["plain", "crlf", "text around", "as s_client shows it", "after its key"],
)
def test_a_chain_is_read_whatever_stands_around_it(pem):
    assert decode_certificates(encode(pem), name="certificateChain") == CHAIN


def test_der_is_one_certificate():
    assert read_certificates(CHAIN[0].public_bytes(Encoding.DER), name="this") == CHAIN[:1]


BAD_NAME = doctored(CHAIN[0], b"\x0c\x08province", b"\x0c\x08provin\xff\xff").public_bytes(Encoding.PEM)
VERSION = (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03")
BAD_VERSION = CHAIN[0].public_bytes(Encoding.DER).replace(*VERSION)
LONG_COUNTRY = doctored(CHAIN[0], b"\x55\x04\x07", b"\x55\x04\x06").public_bytes(Encoding.PEM)  # C=locality


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"", "holds no certificate"),
        (dump_key(key("leaf")), "holds no certificate"),
        (make_csr(key("leaf"), LEAF), "holds no certificate"),
        (PEM.replace(b"MII", b"!!!"), "cannot be read"),
        (PEM.replace(b"-----END", b"-----FIN"), "cannot be read"),
        (b"\x30\x82", "cannot be read"),
        (PEM + BAD_NAME, "cannot be read"),
        (LONG_COUNTRY, "cannot be read"),
        (BAD_VERSION, "cannot be read"),
    ],
    ids=["empty", "key", "csr", "not base64", "no end", "not der", "name", "country", "version"],
)
def test_a_chain_that_cannot_be_read_names_the_field(pem, reason):
    with pytest.raises(BadAnswer, match=rf"^certificateChain .*{reason}"):
        decode_certificates(encode(pem), name="certificateChain")


@pytest.mark.parametrize("text", ["YQ", "Y Q==", "ä", "\n".join(encode(PEM)[:76])])
def test_a_chain_that_is_not_base64_names_the_field(text):
    with pytest.raises(BadAnswer, match="certificateChain is not base64"):
        decode_certificates(text, name="certificateChain")


def test_a_chain_without_end_is_refused():
    pem = dump_certificates(CHAIN[0])
    assert len(decode_certificates(encode(pem * MAX_CERTIFICATES), name="this")) == MAX_CERTIFICATES
    with pytest.raises(BadAnswer, match="this holds 11 certificates, more than 10"):
        decode_certificates(encode(pem * (MAX_CERTIFICATES + 1)), name="this")


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("/var/lib/ucl/connections/prod/generations/000007-3fa9c1/key.pem", "prod"),
        ("/srv/connections/all/connections/prod/pending/key.pem", "prod"),
        ("connections/prod/aside/1/key.pem", "prod"),
        ("elsewhere/key.pem", "NAME"),
    ],
)
def test_a_locked_key_names_the_connection_whose_it_is(where, name):
    pem = dump_key(key("locked"), b"right")
    opened = open_key(pem, lambda: b"wrong", lambda: b"right", where=where)
    assert opened.private_numbers() == key("locked").private_numbers()
    with pytest.raises(KeyLocked) as caught:
        open_key(pem, lambda: b"wrong", where=where)
    assert caught.value.remedy.endswith(f"ucl export {name} --from prompt")
