"""What is taken out of a notebook: keys, tokens and bearers in every form they are written in, and nothing else."""

import base64
import copy
import hashlib
import json
import re
import textwrap
import urllib.parse
from html import escape

import pytest
from certificates import certificate, intermediate, key, root
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from ucl_helpers.automation.known import PART, KnownSecrets
from ucl_helpers.automation.looks import BEARER, KEY, TOKEN
from ucl_helpers.automation.notebooks import notebooks_directory
from ucl_helpers.automation.redaction import Find, Redactor
from ucl_helpers.crypto import dump_certificates, dump_key, encode, make_csr, parse_subject
from ucl_helpers.errors import SecretFound


def some_bytes(count):
    """The same ones in each run."""
    return hashlib.shake_256(b"redaction").digest(count)


CHAIN = (certificate(), intermediate(), root())
RSA, EC = key("leaf"), key("ec")
PEM = dump_key(RSA).decode()
KEY_BEGINS = "-----BEGIN PRIVATE KEY-----\n"
ONE_TIME = base64.urlsafe_b64encode(some_bytes(64)).decode()
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().strip("=") for part in (b'{"alg":"x"}', b'{"sub":"y"}', b"z" * 32)
)
OPAQUE = 'opaque-bearer/with+all & <odd> "characters" 0123456789'


def private(kind, encoding=Encoding.PEM, of=RSA, protection=None):
    return of.private_bytes(encoding, kind, protection or NoEncryption())


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
    "encrypted": private(PrivateFormat.PKCS8, Encoding.DER, protection=PROTECTED),
    "PKCS #12": pkcs12.serialize_key_and_certificates(b"x", RSA, CHAIN[0], None, PROTECTED),
}
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
}


def told(text, known=None):
    """A text between two words, without its secrets; and what was found."""
    redactor = Redactor(lambda: known or KnownSecrets())
    return redactor.text(f"before: {text} (after)", "here"), [find.kind for find in redactor.finds]


def parts_of(pem, length=20):
    """Pieces of the encoded lines of a PEM."""
    lines = [line for line in pem.splitlines() if "-----" not in line and ":" not in line]
    return [line[:length] for line in lines if len(line) >= length]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_in_pem_is_taken_out_however_it_is_written(kind, written):
    text, kinds = told(WRITTEN[written](KEYS[kind].decode()))
    assert kinds == [KEY]
    assert "[private key removed]" in text
    assert text.startswith("before: ")
    assert text.endswith(" (after)")
    assert not [part for part in parts_of(KEYS[kind].decode()) if part in text]
    assert not re.search("[A-Za-z0-9+/]{20}", text)


@pytest.mark.parametrize("cut", ["head", "tail", "both", "mid-line"])
def test_a_key_that_is_cut_off_is_taken_out(cut):
    lines = PEM.splitlines()
    kept = {"head": lines[2:], "tail": lines[:9], "both": lines[1:9], "mid-line": [*lines[:9], lines[9][:30]]}[cut]
    text, kinds = told("\n".join(kept))
    assert (text, kinds) == ("before: [private key removed] (after)", [KEY])


@pytest.mark.parametrize("kind", DERS)
def test_a_key_in_der_is_taken_out_in_base64(kind):
    for text in (base64.b64encode(DERS[kind]), base64.encodebytes(DERS[kind]), base64.urlsafe_b64encode(DERS[kind])):
        assert told(text.decode())[1] == [KEY]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize(("secret", "kind"), [(ONE_TIME, TOKEN), (JWT, BEARER)], ids=[TOKEN, BEARER])
def test_a_token_is_taken_out_however_it_is_written(secret, kind, written):
    text, kinds = told(WRITTEN[written](secret))
    assert kinds == [kind]
    assert secret.strip("=") not in text


IN_BASE64 = [base64.b64encode(PEM.encode() + b"\n" * more).decode() for more in range(3)]
BESIDE = {
    "a word below": "{}\nFinished",
    "a field below": "tls.key: {}\ntype: kubernetes.io/tls",
    "fields of JSON": '{{"key": "{}", "name": "x"}}',
    "a long word above": "abcdefghijklmnopqrstuvwxyz\n{}",
}


@pytest.mark.parametrize("encoded", IN_BASE64, ids=range(3))
@pytest.mark.parametrize("beside", BESIDE)
def test_a_key_in_base64_is_taken_out_whatever_stands_beside_it(beside, encoded):
    text, kinds = told(BESIDE[beside].format(encoded))
    assert kinds == [KEY]
    assert encoded[40:80] not in text


@pytest.mark.parametrize("before", ["\\n", "\\t", "\\x00", "\\u0041", "%3D", "%0a"])
@pytest.mark.parametrize(("secret", "kind"), [(ONE_TIME, TOKEN), (JWT, BEARER)], ids=[TOKEN, BEARER])
def test_a_token_is_taken_out_behind_an_escape(before, secret, kind):
    text, kinds = told(f"token:{before}{secret}")
    assert (kinds, secret[:40] in text) == ([kind], False)


TORN = {
    "None": lambda lines: [*lines, None],
    "a list": lambda lines: [lines[0], ["x"], *lines[1:]],
    "breaks of HTML": "<br/>".join,
    "blanks of HTML": lambda lines: "\n".join(lines).replace(" ", "&nbsp;"),
    "Python's bytes": lambda lines: "\n ".join(repr(line.encode()) for line in lines),
}


@pytest.mark.parametrize("torn", TORN)
def test_a_key_is_taken_out_that_is_torn_apart_by(torn):
    value = Redactor().value({"x": TORN[torn](PEM.splitlines())}, "here")
    assert "private key removed" in json.dumps(value)
    assert not [part for part in parts_of(PEM) if part in json.dumps(value)]


def test_a_known_key_is_taken_out_of_a_list_of_its_bytes():
    known = KnownSecrets()
    known.add_key(PEM.encode())
    redactor = Redactor(lambda: known)
    der = list(DERS["PKCS #8"])
    value = redactor.value({"key": list(der), "other": [1, 2, 3]}, "here")
    assert ([find.kind for find in redactor.finds], value["other"]) == ([KEY], [1, 2, 3])
    assert len(value["key"]) == 1
    assert ",".join(map(str, der[-100:])) not in value["key"][0]


@pytest.mark.parametrize("prefix", ["", "u:", "user:"])
def test_a_known_secret_of_eight_characters_is_taken_out_in_base64(prefix):
    known = KnownSecrets()
    known.add_text("pa55-w0r", "passphrase")
    encoded = base64.b64encode(f"{prefix}pa55-w0r".encode()).decode()
    assert told(encoded, known)[1] == ["passphrase"]


def test_a_secret_that_is_no_utf_8_is_known():
    known = KnownSecrets()
    known.add_text("secret-\udcff-of-bytes", "secret")
    assert told("secret-\udcff-of-bytes", known)[1] == ["secret"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [KEY_BEGINS + "Name: web-1 Role: api Port: 443 Zone: a\n" * 200, KEY_BEGINS + "Name: x " * 2000],
    ids=["lines", "one line"],
)
def test_what_looks_like_the_headers_of_a_key_takes_no_time(text):
    """There were exponentially many ways to read them."""
    assert told(text)[1] == []


@pytest.mark.timeout(60)
def test_many_pieces_with_a_secret_each_take_no_time():
    known = KnownSecrets()
    known.add_text("hunter2hunter2", "passphrase")
    rows = [f"row {number:06} hunter2hunter2" for number in range(40_000)]
    rows = Redactor(lambda: known).value(rows, "here")
    assert rows == [f"row {number:06} [passphrase removed]" for number in range(40_000)]


HARMLESS = {
    "certificate": dump_certificates(CHAIN[0]).decode(),
    "chain": dump_certificates(*CHAIN).decode(),
    "certificateChain": encode(dump_certificates(*CHAIN)),
    "DER": base64.encodebytes(CHAIN[0].public_bytes(Encoding.DER)).decode(),
    "CSR": make_csr(RSA, parse_subject("O=Org,CN=x")).decode(),
    "encoded CSR": encode(make_csr(RSA, parse_subject("O=Org,CN=x"))),
    "modulus": str(RSA.public_key().public_numbers().n),
    "fingerprint": "3fa9c1" * 10 + "beef",
    "subject": "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=07070cc0-6a8e-4fc9-b718-51aef536bb40",
    "markers": "A file from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY----- is a key.",
    "marker": "assert '-----BEGIN PRIVATE KEY-----' not in text",
    "shortened": "-----BEGIN PRIVATE KEY-----\nMIIEvQ…",
    "digest": "sha512-" + base64.b64encode(b"x" * 64).decode(),
    "picture": base64.b64encode(b"\x89PNG\r\n\x1a\n" + some_bytes(30_000)).decode(),
    "header of a JWT": JWT.rpartition(".")[0],
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_no_secret_stays(what):
    known = KnownSecrets()
    known.add_key(PEM.encode())
    text = HARMLESS[what]
    assert told(text, known) == (f"before: {text} (after)", [])


@pytest.mark.parametrize("path", sorted(notebooks_directory().glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebooks_as_they_are_committed_pass_untouched(path):
    notebook = json.loads(path.read_text())
    before, redactor = copy.deepcopy(notebook), Redactor()
    redactor.refuse_sources(notebook["cells"])
    redactor.notebook(notebook)
    assert notebook == before
    assert redactor.error() is None
    notebook["cells"][2]["metadata"]["key"] = PEM
    redactor.notebook(notebook)
    assert redactor.finds == [Find(KEY, "cell 3, metadata")]


# -- what is known -----------------------------------------------------------------------------------------------------

NUMBERS = RSA.private_numbers()
FORMS = {
    "midst of the PEM": "\n".join(PEM.splitlines()[12:17]),
    "one line": PEM.splitlines()[15],
    "midst of the PEM in base64": base64.b64encode("\n".join(PEM.splitlines()[12:17]).encode()).decode(),
    "hex": DERS["PKCS #8"].hex(),
    "HEX": DERS["PKCS #1"].hex(":").upper(),
    "Python's bytes": repr(DERS["PKCS #1"][300:]),
    "list of bytes": str(list(DERS["PKCS #1"][300:])),
    "a prime": str(NUMBERS.p),
    "a prime in hex": hex(NUMBERS.q),
    "the exponent": f"d = {NUMBERS.d}",
    "ten characters a line": "\n".join(textwrap.wrap(DERS["PKCS #1"][600:].hex(), 10)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_that_is_known_is_found_in_forms_that_have_no_mark(form):
    known = KnownSecrets()
    known.add_key(PEM.encode())
    text, kinds = told(FORMS[form], known)
    assert kinds == [KEY]
    secret = DERS["PKCS #1"][320:]
    assert not any(secret.hex()[at : at + 32] in text.lower() for at in range(0, len(secret.hex()) - 32, 8))
    assert told(FORMS[form]) == (f"before: {FORMS[form]} (after)", [])  # unknown, it has no mark


def test_each_part_of_a_known_key_is_found_wherever_it_begins():
    known, body = KnownSecrets(), "".join(PEM.splitlines()[1:-1])
    known.add_key(PEM.encode())
    secret = body[400:-4]  # what of it is secret, but for the last three bytes
    for at in range(len(secret) - PART):
        assert known.find(f"({secret[at : at + PART]})") == [(1, 1 + PART, KEY)], at


@pytest.mark.parametrize("written", sorted(WRITTEN.keys() - {"in base64 twice"}))  # without a mark: one layer
def test_a_known_text_is_found_however_it_is_written(written):
    known = KnownSecrets()
    known.add_text(OPAQUE, "secret of 'bearer'")
    text, kinds = told(WRITTEN[written](OPAQUE), known)
    assert kinds == ["secret of 'bearer'"]
    assert "opaque-bearer" not in text
    assert told(WRITTEN[written]("something else that is not secret at all, 12345"), known)[1] == []


def test_a_short_secret_is_found_as_a_word_only():
    known = KnownSecrets()
    known.add_text("pr0d", "secret")
    known.add_text("abc", "too short to be looked for")
    assert known.find("pr0d, pr0duct, a-pr0d abc") == [(0, 4, "secret"), (17, 21, "secret")]


# -- where it stands ---------------------------------------------------------------------------------------------------


def notebook_with(*outputs, metadata=None, cell_metadata=None):
    cell = {"cell_type": "code", "metadata": cell_metadata or {}, "source": "x", "outputs": list(outputs)}
    return {"metadata": metadata or {}, "cells": [cell]}


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data):
    return {"output_type": "display_data", "data": data, "metadata": {}}


PLACES = {
    "stdout": notebook_with(stream(PEM)),
    "stderr": notebook_with(stream("x"), stream(PEM, "stderr")),
    "html": notebook_with(shown(**{"text/html": f"<b>{escape(PEM)}</b>"})),
    "nested": notebook_with(shown(**{"application/json": {"a": [1, {"b": {"c": PEM}}]}})),
    "lines": notebook_with(shown(**{"application/json": {"lines": PEM.splitlines()}})),
    "key of an object": notebook_with(shown(**{"application/json": {PEM: 1}})),
    "value of an error": notebook_with({"output_type": "error", "ename": "E", "evalue": PEM, "traceback": []}),
    "name of an error": notebook_with({"output_type": "error", "ename": PEM, "evalue": "", "traceback": []}),
    "traceback": notebook_with({"output_type": "error", "ename": "", "evalue": "", "traceback": PEM.splitlines()}),
    "metadata": notebook_with(metadata={"papermill": {"parameters": {"x": [PEM]}}}),
    "metadata of a cell": notebook_with(cell_metadata={"tags": [PEM]}),
    "metadata of an output": notebook_with({**shown(), "metadata": {"x": PEM}}),
    "several outputs": notebook_with(stream(PEM[:500]), stream("y", "stderr"), stream(PEM[500:900]), stream(PEM[900:])),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_taken_out_wherever_it_stands(place):
    notebook, redactor = copy.deepcopy(PLACES[place]), Redactor()
    redactor.notebook(notebook)
    text = json.dumps(notebook)
    assert text.count("[private key removed]") == 1
    assert not any(part in text for part in parts_of(PEM))
    assert [find.kind for find in redactor.finds] == [KEY]
    assert redactor.error().exit_code == 14
    redactor.notebook(notebook)  # once more changes nothing and finds nothing
    assert (json.dumps(notebook), len(redactor.finds)) == (text, 1)


def test_a_number_that_is_part_of_a_known_key_is_taken_out():
    known = KnownSecrets()
    known.add_key(PEM.encode())
    notebook = notebook_with(shown(**{"application/json": {"p": NUMBERS.p, "n": NUMBERS.public_numbers.n, "few": 7}}))
    Redactor(lambda: known).notebook(notebook)
    data = notebook["cells"][0]["outputs"][0]["data"]["application/json"]
    assert data == {"p": "[number removed]", "n": NUMBERS.public_numbers.n, "few": 7}


def test_what_a_stream_has_beside_its_text_is_searched_too():
    redactor, notebook = Redactor(), notebook_with({**stream("x"), "data": {"text/plain": PEM}})
    redactor.notebook(notebook)
    assert [find.kind for find in redactor.finds] == [KEY]
    assert not any(part in json.dumps(notebook) for part in parts_of(PEM))


def test_an_error_names_kinds_and_places_and_never_the_text():
    redactor = Redactor()
    redactor.notebook(notebook_with(stream(f"{PEM} {ONE_TIME}")))
    error = redactor.error()
    assert "a private key in cell 1, stdout, a one-time token in cell 1, stdout" in error.message
    assert error.data["redacted"] == [{"kind": kind, "place": "cell 1, stdout"} for kind in (KEY, TOKEN)]


def test_a_source_that_holds_a_secret_is_refused_not_changed():
    cells = [{"source": "print(1)"}, {"source": f"key = '''{PEM}'''"}]
    with pytest.raises(SecretFound, match="Cell 2 of the notebook holds a private key") as caught:
        Redactor().refuse_sources(cells)
    assert not any(part in str(caught.value) for part in parts_of(PEM))
    Redactor().refuse_sources(cells[:1])


def test_what_becomes_known_later_is_taken_out_then():
    known = [KnownSecrets()]
    redactor, notebook = Redactor(lambda: known[-1]), notebook_with(stream(FORMS["one line"]))
    redactor.notebook(notebook)
    assert redactor.finds == []
    known.append(KnownSecrets())
    known[-1].add_key(PEM.encode())
    redactor.notebook(notebook)
    assert [find.kind for find in redactor.finds] == [KEY]


def test_cells_that_are_not_named_are_let_be_until_more_is_known():
    known = [KnownSecrets()]
    redactor, notebook = Redactor(lambda: known[-1]), notebook_with()
    notebook["cells"] = [*notebook_with(stream(PEM))["cells"], *notebook_with(stream(ONE_TIME))["cells"]]
    assert redactor.notebook(notebook, [2]) == [2]
    assert [find.place for find in redactor.finds] == ["cell 2, stdout"]
    known.append(KnownSecrets())
    known[-1].add_key(PEM.encode())
    assert list(redactor.notebook(notebook, [2])) == [1, 2]
    assert [find.place for find in redactor.finds] == ["cell 2, stdout", "cell 1, stdout"]
    assert not any(part in json.dumps(notebook) for part in parts_of(PEM))


def test_a_key_that_was_added_before_is_known_once():
    known = KnownSecrets()
    for _ in range(2):
        known.add_key(PEM.encode())
    assert known.count == 1
    known.add_key(PEM.encode(), [b"what may open it"])
    assert known.count == 2


@pytest.mark.parametrize(
    "word", ["A", "eyJ", "word ", "\\n", "\\", "<a ", "\n", KEY_BEGINS, KEY_BEGINS.replace("BEGIN", "END")]
)
def test_searching_takes_time_in_proportion(word):
    """A quarter of a megabyte of what looks like something everywhere; the test's limit of time is what fails it."""
    text = word * (250_000 // len(word))
    known = KnownSecrets()
    known.add_text(OPAQUE, "secret")
    assert Redactor(lambda: known).text(text, "x") == text
