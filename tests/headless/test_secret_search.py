"""The search for secrets: known and unknown ones are found in each form of display, and nothing else is."""

import ast
import base64
import hashlib
import io
import json
import textwrap
import tokenize
import urllib.parse
import zlib
from contextlib import suppress
from html import escape
from pathlib import Path

import pytest
from certificates import certificate, key
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from display_forms import FORMS, Key, NotInstalled
from trying import TOO_DEAR, dearer

import ucl_helpers.headless.redaction
from ucl_helpers.headless.redaction.search import BEARER, KEY, TOKEN, KnownSecrets, find_secret
from ucl_helpers.keys import dump_key

RSA, EC = key("leaf"), key("ec")
PEM = dump_key(RSA).decode()
ONE_TIME = base64.urlsafe_b64encode(hashlib.shake_256(b"token").digest(64)).decode()
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().strip("=") for part in (b'{"alg":"x"}', b'{"sub":"y"}', b"z" * 32)
)
OPAQUE = 'opaque-bearer/with+all & <odd> "characters" 0123456789'
FEWEST_FORMS = 40
CODE_BEFORE = 449
"""What ``lines_of`` counts as code in the search of commit 476826d: ``redaction.py`` (119), ``known.py`` (144),
``looks.py`` (102) and ``watching.py`` (84) in a folder ``automation``. With comments, docstrings and blank lines,
these four files had 636 lines."""


def private(kind, encoding=Encoding.PEM, of=RSA, protection=None):
    return of.private_bytes(encoding, kind, protection or NoEncryption())


@pytest.fixture(scope="module")
def shown():
    return Key(RSA)


@pytest.fixture(scope="module")
def known():
    secrets = KnownSecrets()
    secrets.add_key(PEM.encode())
    return secrets


def displayed(name, key):
    """Return a form of a key; skip the test if the program that displays this form is not installed."""
    try:
        return FORMS[name](key)
    except NotInstalled as error:
        pytest.skip(str(error))


# -- known keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_a_known_key_is_found_in_the_form(name, shown, known, proof):
    kind = find_secret(f"before: {displayed(name, shown)} (after)\n", known)
    assert kind == KEY
    proof("search", f"forms of display of a key, found in all of {len(FORMS)}", 1)


def test_a_known_key_is_found_in_at_least_40_forms_on_this_machine(shown, known):
    found = []
    for name in FORMS:
        with suppress(NotInstalled):
            found += [name] if find_secret(FORMS[name](shown), known) == KEY else []
    assert len(found) >= FEWEST_FORMS


@pytest.mark.parametrize(
    "name",
    [
        *("half of the PEM", "DER by hexdump", "numbers", "DER by od c", "DER as damaged UTF 8", "DER by cat v"),
        *("DER in base32 in groups in lower case", "numbers in bits"),
    ],
)
def test_another_key_is_not_taken_for_the_known_one(name, shown, known):
    other = Key(key("other"))
    assert find_secret(displayed(name, shown), known) == KEY
    assert find_secret(displayed(name, other), known) is None


def slices(data, length):
    return [data[at : at + length] for at in range(len(data) - length + 1)]


@pytest.mark.parametrize(
    ("notation", "length"),
    [(bytes.hex, 10), (lambda data: base64.b64encode(b"x" + data).decode(), 10), (lambda data: str(list(data)), 10)],
    ids=["hex", "base64", "list"],
)
def test_ten_bytes_of_each_secret_number_are_found_wherever_they_begin(notation, length, known):
    numbers = RSA.private_numbers()
    for number in (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp):
        data = number.to_bytes((number.bit_length() + 7) // 8)
        for part in slices(data, length)[::7]:
            assert find_secret(f"({notation(part)})", known) == KEY
    assert find_secret(notation(data[:7]), known) is None


def test_31_decimal_digits_of_a_secret_number_are_found(known):
    digits = str(RSA.private_numbers().p)
    assert all(find_secret(part, known) == KEY for part in slices(digits[:200], 31))
    assert find_secret(str(RSA.public_key().public_numbers().n), known) is None


@pytest.mark.parametrize("of", ["EC", "Ed25519"])
def test_other_keys_are_known_by_their_numbers(of):
    made = EC if of == "EC" else ed25519.Ed25519PrivateKey.generate()
    secrets = KnownSecrets()
    secrets.add_key(private(PrivateFormat.PKCS8, of=made))
    der = private(PrivateFormat.PKCS8, Encoding.DER, made)
    number = made.private_numbers().private_value.to_bytes(32) if of == "EC" else made.private_bytes_raw()
    assert find_secret(number.hex()[8:40], secrets) == KEY
    public = made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert find_secret(public.hex() + der[:12].hex(), secrets) is None


def test_a_part_of_an_encrypted_key_that_nothing_opens_is_found():
    secrets, sealed = KnownSecrets(), dump_key(RSA, b"a passphrase of some length").decode()
    secrets.add_key(sealed.encode(), [b"another"])
    assert find_secret(sealed.splitlines()[15], secrets) == KEY
    assert find_secret(PEM.splitlines()[15], secrets) is None
    secrets.add_key(sealed.encode(), [b"a passphrase of some length"])
    assert find_secret(PEM.splitlines()[15], secrets) == KEY


def test_a_key_that_was_added_before_is_known_once():
    secrets = KnownSecrets()
    for _ in range(2):
        secrets.add_key(PEM.encode())
    assert len(secrets.added) == 1
    secrets.add_key(PEM.encode(), [b"what may open it"])
    assert len(secrets.added) == 2


# -- known texts -------------------------------------------------------------------------------------------------------

WRITTEN = {
    "as it is": str,
    "indented": lambda text: textwrap.indent(text, "    "),
    "with CRLF": lambda text: text.replace("\n", "\r\n"),
    "as Python": repr,
    "as JSON": json.dumps,
    "as JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "as lines": lambda text: json.dumps(text.splitlines(), indent=1),
    "in a URL": urllib.parse.quote,
    "in a form": urllib.parse.quote_plus,
    "in HTML": lambda text: f"<pre>{escape(text)}</pre>",
    "coloured": lambda text: "\x1b[0;31m" + text.replace("\n", "\x1b[0m\n\x1b[1;32m"),
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in base64, wrapped": lambda text: base64.encodebytes(text.encode()).decode(),
    "in base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "in base64 of more": lambda text: base64.b64encode(f'{{"key": "{text}"}}'.encode()).decode(),
    "in base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "in hex": lambda text: text.encode().hex(" "),
    "as codes": lambda text: str(list(text.encode())),
    "compressed": lambda text: base64.b64encode(zlib.compress(text.encode())).decode(),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_known_text_is_found_however_it_is_written(written):
    secrets = KnownSecrets()
    secrets.add_text(OPAQUE, "secret of 'bearer'")
    assert find_secret(WRITTEN[written](OPAQUE), secrets) == "secret of 'bearer'"
    assert find_secret(WRITTEN[written]("something else that is no secret at all, 123"), secrets) is None


@pytest.mark.parametrize("secret", ["five%41\nsix", "five=41\nsix", "five&#65;\nsix"])
def test_escapes_of_one_kind_are_read_without_those_of_another(secret):
    secrets = KnownSecrets()
    secrets.add_text(secret, "secret")
    assert find_secret(repr(secret), secrets) == "secret"
    assert find_secret(repr(secret.replace("41", "42").replace("65", "66")), secrets) is None


def test_each_part_of_a_known_text_of_31_characters_is_found():
    secrets = KnownSecrets()
    secrets.add_text(ONE_TIME, TOKEN)
    assert all(find_secret(part, secrets) == TOKEN for part in slices(ONE_TIME, 31))
    assert find_secret(ONE_TIME[:20], secrets) is None


def test_a_short_known_text_is_found_whole_only():
    secrets = KnownSecrets()
    secrets.add_text("a passphrase of some length", "passphrase")
    assert find_secret("it was a\npassphrase of some length", secrets) == "passphrase"
    assert find_secret("this is a passphrase of another length", secrets) is None


@pytest.mark.parametrize("prefix", ["", "u:", "user:"])
def test_a_known_secret_of_eight_characters_is_found_in_base64(prefix):
    secrets = KnownSecrets()
    secrets.add_text("pa55-w0r", "passphrase")
    assert find_secret(base64.b64encode(f"{prefix}pa55-w0r".encode()).decode(), secrets) == "passphrase"
    assert find_secret(base64.b64encode(f"{prefix}pa55-w0".encode()).decode(), secrets) is None


def test_a_secret_that_is_no_utf_8_is_known():
    secrets = KnownSecrets()
    secrets.add_text("secret-\udcff-of-bytes", "secret")
    assert find_secret("it is secret-\udcff-of-bytes", secrets) == "secret"


def test_a_short_secret_is_found_as_a_word_only():
    secrets = KnownSecrets()
    secrets.add_text("pr0d", "secret")
    secrets.add_text("abc", "too short to be looked for")
    assert [find_secret(text, secrets) for text in ("(pr0d)", "pr0duct", "abc", "a-pr0d")] == [
        "secret",
        None,
        None,
        "secret",
    ]


# -- unknown secrets ---------------------------------------------------------------------------------------------------

PROTECTED = BestAvailableEncryption(b"canary-passphrase-of-tests")
KEYS = {
    "PKCS #8": private(PrivateFormat.PKCS8),
    "PKCS #1": private(PrivateFormat.TraditionalOpenSSL),
    "encrypted": private(PrivateFormat.PKCS8, protection=PROTECTED),
    "encrypted, old": private(PrivateFormat.TraditionalOpenSSL, protection=PROTECTED),
    "OpenSSH": private(PrivateFormat.OpenSSH),
    "EC": private(PrivateFormat.TraditionalOpenSSL, of=EC),
    "EC, PKCS #8": private(PrivateFormat.PKCS8, of=EC),
}
DERS = {
    "PKCS #8": private(PrivateFormat.PKCS8, Encoding.DER),
    "PKCS #1": private(PrivateFormat.TraditionalOpenSSL, Encoding.DER),
    "EC": private(PrivateFormat.TraditionalOpenSSL, Encoding.DER, EC),
    "EC, PKCS #8": private(PrivateFormat.PKCS8, Encoding.DER, EC),
    "encrypted": private(PrivateFormat.PKCS8, Encoding.DER, protection=PROTECTED),
    "PKCS #12": pkcs12.serialize_key_and_certificates(b"x", RSA, certificate(), None, PROTECTED),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("kind", KEYS)
def test_an_unknown_key_in_pem_is_found_however_it_is_written(kind, written):
    assert find_secret(WRITTEN[written](KEYS[kind].decode())) == KEY


@pytest.mark.parametrize(
    "name",
    [
        *("PEM with line numbers", "PEM as a quotation", "PEM as a diff", "PEM coloured", "PEM in a traceback"),
        *("PEM highlighted in HTML", "PEM with br", "PEM as Python bytes", "PEM one character a line", "PEM by od c"),
        *("PEM as UTF 16", "PEM in hex", "PEM gzipped in base64", "DER by od tx1", "DER as a list", "DER in base32"),
        *("DER by xxd", "DER by hexdump C", "DER in base32 in groups of 4", "DER in base32 in groups of 8"),
    ],
)
def test_an_unknown_key_is_found_in_forms_too_that_leave_its_marker_or_all_of_it(name, shown):
    assert find_secret(displayed(name, shown)) == KEY


@pytest.mark.parametrize("kind", DERS)
def test_an_unknown_key_in_der_is_found_and_not_if_its_last_byte_is_missing(kind):
    for notation in (base64.b64encode, base64.encodebytes, base64.urlsafe_b64encode, lambda der: der.hex(" ").encode()):
        assert find_secret(f"it is: {notation(DERS[kind]).decode()} and more") == KEY
    missing = 1 if kind != "PKCS #12" else 1500  # in which a whole PKCS #8 is
    assert find_secret(f"it is: {DERS[kind][:-missing].hex(' ')}") is None


RSA_TEXT = "    00:d3:" + ":".join(["5a"] * 40)
JWK = {"kty": "RSA", "n": "u" * 64, "e": "AQAB", "d": "Zm9v" * 16}
FIELDS = {
    "openssl rsa -text": f"Private-Key: (2048 bit, 2 primes)\nprivateExponent:\n{RSA_TEXT}",
    "openssl ec -text": f"Private-Key: (256 bit)\npriv:\n{RSA_TEXT}\npub:\n",
    "PuTTY": "PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 14\n" + "AAABAQ" * 10,
    "JWK": json.dumps(JWK),
    "JWK, in another order": json.dumps(dict(reversed(JWK.items()))),
    "JWK in Python": repr(JWK),
    "JWK within a text": json.dumps([json.dumps(JWK)]),
}
PUBLIC_FIELDS = {
    "openssl rsa -pubin -text": f"Public-Key: (2048 bit)\nModulus:\n{RSA_TEXT}\nExponent: 65537",
    "an explanation": "privateExponent: the number d; prime1: p; priv: see RFC 5915; Private-Lines: 14 follow",
    "a public JWK": json.dumps({name: value for name, value in JWK.items() if name != "d"}),
    "another JSON": json.dumps({"d": "Zm9v" * 16}),
}


@pytest.mark.parametrize(("texts", "kind"), [(FIELDS, "private key"), (PUBLIC_FIELDS, None)], ids=["private", "public"])
def test_an_unknown_key_is_found_by_the_names_of_its_secret_fields(texts, kind):
    assert {name: find_secret(text) for name, text in texts.items()} == dict.fromkeys(texts, kind)


def test_a_store_of_certificates_is_no_key():
    store = pkcs12.serialize_key_and_certificates(b"x", None, certificate(), None, PROTECTED)
    assert find_secret(base64.b64encode(store).decode()) is None
    assert find_secret(base64.b64encode(DERS["PKCS #12"]).decode()) == KEY


@pytest.mark.parametrize("cut", ["head", "tail", "mid-line"])
def test_an_unknown_key_that_is_cut_off_is_found_by_the_marker_that_is_left(cut):
    lines = PEM.splitlines()
    kept = {"head": lines[2:], "tail": lines[:9], "mid-line": [*lines[:9], lines[9][:30]]}[cut]
    assert find_secret("\n".join(kept)) == KEY
    assert find_secret("\n".join(line for line in kept if "-----" not in line)) is None


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize(("secret", "kind"), [(ONE_TIME, TOKEN), (JWT, BEARER)], ids=[TOKEN, BEARER])
def test_an_unknown_token_is_found_however_it_is_written(secret, kind, written):
    assert find_secret(f"token: {WRITTEN[written](secret)}") == kind


@pytest.mark.parametrize("before", ["\\n", "\\t", "\\x00", "\\u0041 ", "%3D", "%0a"])
@pytest.mark.parametrize(("secret", "kind"), [(ONE_TIME, TOKEN), (JWT, BEARER)], ids=[TOKEN, BEARER])
def test_an_unknown_token_is_found_behind_an_escape(before, secret, kind):
    assert find_secret(f"token:{before}{secret}") == kind
    assert find_secret(f"token:{before}{secret[:-44]}") is None


IN_BASE64 = [base64.b64encode(PEM.encode() + b"\n" * more).decode() for more in range(3)]
BESIDE = {
    "a word below": "{}\nFinished",
    "a field below": "tls.key: {}\ntype: kubernetes.io/tls",
    "fields of JSON": '{{"key": "{}", "name": "x"}}',
    "a long word above": "abcdefghijklmnopqrstuvwxyz\n{}",
}


@pytest.mark.parametrize("encoded", IN_BASE64, ids=range(3))
@pytest.mark.parametrize("beside", BESIDE)
def test_an_unknown_key_in_base64_is_found_whatever_is_beside_it(beside, encoded):
    assert find_secret(BESIDE[beside].format(encoded)) == KEY


# -- work --------------------------------------------------------------------------------------------------------------

KEY_BEGINS = "-----BEGIN PRIVATE KEY-----\n"
HOSTILE = {
    "one letter": "A",
    "base64 with padding": "a=",
    "JWT": "eyJ",
    "prose": "word ",
    "escapes": "\\n",
    "backslashes": "\\",
    "tags": "<a ",
    "whole tags": "<b>x</b>",
    "entities": "&amp;&#65;&#9999999;",
    "percent signs": "%41=41 %=\n",
    "lines": "\n",
    "markers": KEY_BEGINS,
    "ends": KEY_BEGINS.replace("BEGIN", "END"),
    "headers": KEY_BEGINS + "Name: web-1 Role: api Port: 443 Zone: a\n" * 9,
    "base32": "MFRGG ",
    "base32 in lower case": "mfrgg2 ",
    "bits": "0110 ",
    "carets": "M-^@^A",
    "base85": "9jqo^BlbD-BleB1DJ+*+F(f,q/0JhKF<GL>Cj@.4Gp$d7F!,L7@<6@)/0JDEF<G%<+EV:2F!,",
    "ASN.1": "MBACAQAwCwYJKoZIhvcNAQEB",
    "compressed": base64.b64encode(zlib.compress(bytes(300))).decode() + "\n",
    "numbers": "48, 130, -4, 0x12, ",
    "colours": "\x1b[0;31mx\x1b[0m",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_longer_text_takes_as_much_longer(what, known):
    def search(text):
        assert find_secret(text, known) is None

    unit = HOSTILE[what]
    assert dearer(search, lambda times: unit * times, 4_000 // len(unit)) < TOO_DEAR


def test_an_archive_that_expands_without_end_is_read_to_a_bound_only(known):
    """A gigabyte of zeros, compressed twice, is 4 kB."""
    squeeze = zlib.compressobj()
    once = b"".join([*(squeeze.compress(bytes(2**20)) for _ in range(1024)), squeeze.flush()])
    assert find_secret(base64.b64encode(once).decode(), known) is None
    assert find_secret(base64.b64encode(zlib.compress(once)).decode(), known) is None
    beside = base64.b64encode(zlib.compress(once) + zlib.compress(PEM.encode())).decode()
    assert find_secret(f"{beside} {PEM}", known) == KEY


LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of(source):
    """Return how many lines hold code, and how many hold a comment or a part of a docstring.

    A line with code and a comment counts in both numbers. Blank lines count in neither.
    """
    code, explained = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            (explained if token.type == tokenize.COMMENT else code).update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstring = {*range(node.lineno, node.end_lineno + 1)}
            code -= docstring
            explained |= docstring
    return len(code), len(explained)


def test_only_lines_of_code_are_counted_as_code():
    docstring = '"""Docstring.\n\nOf four lines.\n"""\n\n'
    source = f'{docstring}# comment\ndef f():\n    """Docstring."""\n    return """a\n\nb"""  # why\n'
    assert lines_of(source) == (4, 7)


def test_the_search_has_fewer_lines_of_code_than_before_and_its_matching_is_explained(proof):
    files = Path(ucl_helpers.headless.redaction.__file__).parent.glob("*.py")
    code, explained = map(sum, zip(*(lines_of(path.read_text()) for path in files), strict=True))
    proof("search", "lines of code of the search (no comments, docstrings or blank lines)", code)
    proof("search", "lines of code of the search at commit 476826d, before", CODE_BEFORE)
    assert code < CODE_BEFORE
    assert explained * 10 > code


@pytest.mark.parametrize("word", ["changeit", "Connection", "PASSWORD", "passphrase"])
def test_a_passphrase_that_may_be_a_word_is_found_as_a_word_only(word):
    secrets = KnownSecrets()
    secrets.add_text(word, "secret")
    assert find_secret(f"the passphrase is '{word}', said the cell", secrets) == "secret"
    for text in (f"{word}s", " ".join((word[:6], word[6:])), base64.b64encode(word.encode()).decode()):
        assert find_secret(f"prose: {text}.", secrets) is None


@pytest.mark.parametrize("secret", ["change1t", "changeItNow", "correct horse", "abcdefghijklmnopqr"])
def test_a_passphrase_that_is_no_word_is_found_in_other_notations(secret):
    """The twin."""
    secrets = KnownSecrets()
    secrets.add_text(secret, "secret")
    assert find_secret(base64.b64encode(secret.encode()).decode(), secrets) == "secret"
