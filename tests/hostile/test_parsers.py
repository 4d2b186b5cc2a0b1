"""Whatever others send: each parser gives what fits its type, or one of our errors; in time that grows with the length,
and no secret in the error."""

import base64
import json
from contextlib import suppress
from types import SimpleNamespace

import fuzz_targets
import pytest
from fuzz_run import CORPUS
from fuzz_targets import CLIENT, TARGETS, LawBrokenError, interpret, request
from hypothesis import strategies as st
from strategies import JUNK
from trying import TOO_DEAR, WHOLE, damaged, dearer, tried

from ucl_helpers.connection.settings import ENTRIES, MAX_CHARACTERS, Settings, parse_settings, toml
from ucl_helpers.crypto import parse_subject, read_certificates
from ucl_helpers.errors import InvalidSettings, UCLError, UsageError
from ucl_helpers.headless.parameters import accept, declared
from ucl_helpers.models import Configuration
from ucl_helpers.operations import read_token
from ucl_helpers.policy import parse_duration
from ucl_helpers.urls import check_url
from ucl_sandbox.csr import AcceptedCsr, CsrRefusedError, ExpectedSubject, Scheme, elements, first_pem_block
from ucl_sandbox.csr import accept as accept_csr

SECRET = "canary-8f2c1d7b4a"


def seeds(target):
    return sorted(one.read_bytes() for one in (CORPUS / target).iterdir())


# -- any bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_and_any_damage_keep_the_law(target, whole, proof):
    number = tried(st.binary() | damaged(seeds(target)), TARGETS[target], 200 * (WHOLE if whole else 1))
    proof("fuzz", "examples tried by hypothesis", number)


def tell(text):
    raise UsageError(f"{text} is no token.")


def wait_for_ever(*_):
    raise UCLError("later", retry_after=1e9)


BREAKS = {
    "another exception": ("token", "read_token", lambda text: {}["token"]),
    "a told secret": ("token", "read_token", tell),
    "a wrong type": ("answers", "configuration_from", lambda result: Configuration(5, "", None, None)),
    "another subject": ("subject", "parse_subject", lambda text: parse_subject("CN=x,O=" + str(len(text)))),
    "another key": ("keys", "load_key", lambda *_, **__: fuzz_targets.own_key.__wrapped__()),
    "an endless wait": ("words", "client", lambda: SimpleNamespace(_interpret=wait_for_ever)),
    "no RSA key": ("csr", "accept", lambda *_: AcceptedCsr(None, (), Scheme(None))),
    "a crash": ("request", "respond", lambda *_: SimpleNamespace(status=500, body=b"{}")),
}


def breaks_the_law(target, data):
    try:
        TARGETS[target](data)
    except (LawBrokenError, KeyError):
        return True
    return False


@pytest.mark.parametrize("breaks", BREAKS)
def test_a_parser_that_breaks_the_law_is_found(breaks, monkeypatch):
    target, name, instead = BREAKS[breaks]
    monkeypatch.setattr(fuzz_targets, name, instead)
    broken = [data for data in seeds(target) if breaks_the_law(target, data)]
    assert broken


# -- JSON of any shape -------------------------------------------------------------------------------------------------

DEEP = [
    "[" * 100_000,
    '{"data":' * 100_000,
    '{"data":{"result":' + "[" * 990 + "]" * 990 + "}}",
    "9" * 5000,
    "1e999",
    "NaN",
]


def test_any_json_is_an_answer_or_one_we_refuse(whole, proof):
    shapes = JUNK | JUNK.map(lambda one: {"data": {"result": one}}) | JUNK.map(lambda one: {"errors": one})
    texts = shapes.map(lambda one: json.dumps(one).encode()) | st.sampled_from(DEEP).map(str.encode)
    proof("fuzz", "examples tried by hypothesis", tried(texts, TARGETS["answers"], 300 * (WHOLE if whole else 1)))


def test_any_json_is_answered_by_the_sandbox_without_a_crash(whole, proof):
    fields = {"query": st.sampled_from(QUERIES) | JUNK, "variables": JUNK, "operationName": JUNK, "Query": JUNK}
    bodies = st.fixed_dictionaries({}, optional=fields) | JUNK
    texts = bodies.map(lambda one: json.dumps(one).encode()) | st.sampled_from(DEEP).map(str.encode)
    proof("fuzz", "examples tried by hypothesis", tried(texts, request, 300 * (WHOLE if whole else 1)))


QUERIES = [
    "{result: configuration{token{token}}}",
    "mutation($csr:String!){result: signCertificateSigningRequest(csr:$csr){caCertificate}}",
    "query a{__typename} query b{__typename}",
    "{" * 100_000,
    "{a(b:" + "[" * 100_000,
]


# -- settings ----------------------------------------------------------------------------------------------------------


def as_toml(value):
    """What JSON may hold, as TOML; there is no null."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {as_toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return toml("" if value is None else value)


def file_of(drawn):
    """Some of the settings, each by its example or by anything."""
    values = {one.key: one.example if right else as_toml(junk) for one, right, junk in drawn}
    hook = {key.partition(".")[2]: value for key, value in values.items() if key.startswith("hooks.")}
    lines = [f"{key} = {value}" for key, value in values.items() if not key.startswith("hooks.")]
    if hook:
        lines.append("hooks = [{" + ", ".join(f"{key} = {value}" for key, value in hook.items()) + "}]")
    return "\n".join(lines).encode("utf-8", "replace")


def test_any_value_in_any_table_is_a_setting_or_is_named(whole, proof):
    entries = st.tuples(st.sampled_from(ENTRIES), st.integers(0, 3).map(bool), JUNK)
    files = st.lists(entries, min_size=1, max_size=8).map(file_of)
    proof("fuzz", "examples tried by hypothesis", tried(files, TARGETS["words"], 150 * (WHOLE if whole else 1)))


def test_settings_that_are_not_shown_as_they_are_would_be_found(monkeypatch):
    monkeypatch.setattr(fuzz_targets, "as_toml", lambda _: "keep = 7")
    with pytest.raises(LawBrokenError, match="not read back"):
        TARGETS["words"](b"keep = 6")


# -- secrets in URLs ---------------------------------------------------------------------------------------------------

PLACES = [
    "//u:{}@host",
    "//u:a/{}@host",
    "u:{}@host",
    "//host?token={}",
    "//host/a&token={}",
    "//host#token={}",
    "//h;token={}",
    "//host/%74oken={}",
]


def test_a_url_with_a_secret_is_refused_and_the_secret_is_not_told(whole, proof):
    parts = st.text(max_size=8) | st.sampled_from(["", "https:", "https://", "http:", "HTTPS:"])

    def check(parts):
        before, place, after = parts
        with pytest.raises(UsageError) as caught:
            check_url(before + place.format(SECRET) + after)
        assert SECRET not in str(caught.value)

    texts = st.tuples(parts, st.sampled_from(PLACES), st.text(max_size=8))
    proof("fuzz", "examples tried by hypothesis", tried(texts, check, 300 * (WHOLE if whole else 1)))


# -- notebook parameters -----------------------------------------------------------------------------------------------

CODE = st.text(st.sampled_from("ab:=|0.5'\"[](){}#\n\0 -\ud800intflosrNoe")) | st.text()
TOO_DEEP = [
    "a = " + "-" * 200_000 + "1",
    "a: " + "-" * 900 + "1 = 1",
    "a: " + "lambda:" * 900 + "x = 1",
    "(" * 300,
    "a = " + "9" * 5000,
]


def cell(source):
    return {"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}]}


def test_any_cell_declares_parameters_or_is_a_usage_error(whole, proof):
    def check(drawn):
        source, values = drawn
        with suppress(UCLError):
            known = declared(cell(source))
            assert all(name.isidentifier() for name in known)
            assert accept(known, dict.fromkeys(known, values)).keys() == known.keys()

    cells = st.tuples(CODE | CODE.map("a: int | None = 5\n{}".format) | st.sampled_from(TOO_DEEP), JUNK)
    proof("fuzz", "examples tried by hypothesis", tried(cells, check, 300 * (WHOLE if whole else 1)))


# -- what takes for ever -----------------------------------------------------------------------------------------------


def certificates(pem):
    return read_certificates(pem, name="this")


def ask(**members):
    return json.dumps({"query": "{__typename}", **members}).encode()


LONGER = {
    "commas": (parse_subject, lambda n: "CN=x," * n),
    "escapes": (parse_subject, lambda n: "CN=" + "\\," * n),
    "hex pairs": (parse_subject, lambda n: "L=" + "\\c3\\a4" * n),
    "backslashes": (parse_subject, lambda n: "CN=" + "\\" * n),
    "plus signs": (parse_subject, lambda n: "L=x" + "+OU=x" * n),
    "OID": (parse_subject, lambda n: "1" + ".1" * n + "=x"),
    "a token's URL": (read_token, lambda n: "https://x/graphql?" + "a=b&" * n),
    "brackets in a token": (read_token, lambda n: base64.b64encode(b"[" * n).decode()),
    "at signs": (check_url, lambda n: "https://" + "@" * n),
    "blanks in a duration": (parse_duration, lambda n: "1" + " " * n),
    "numbers in a duration": (parse_duration, lambda n: "1 " * n),
    "BEGIN lines": (certificates, lambda n: b"-----BEGIN CERTIFICATE-----\n" * n),
    "PEM headers": (certificates, lambda n: b"-----BEGIN CERTIFICATE-----\n" + b"A: b\n" * n),
    "empty certificates": (
        certificates,
        lambda n: b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n" * n,
    ),
    "a date to come back at": (lambda date: interpret(429, b"", **{"Retry-After": date}), lambda n: "Wed, " + "1 " * n),
    "errors": (lambda body: interpret(200, body), lambda n: b'{"errors":[' + b"1," * n + b"1]}"),
    "END lines for the sandbox": (first_pem_block, lambda n: b"\n-----END " * n),
    "blocks for the sandbox": (first_pem_block, lambda n: b"-----BEGIN :-----\n-----END :-----\n" * n),
    "headers for the sandbox": (
        first_pem_block,
        lambda n: b"-----BEGIN X-----\n" + b"a: b\n" * n + b"\n-----END X-----\n",
    ),
    "DER for the sandbox": (elements, lambda n: b"\x30\x00" * n),
    "base64 for the sandbox": (lambda text: accept_csr(text, ExpectedSubject(CLIENT)), lambda n: "AAAA\n" * n),
    "selections for the sandbox": (request, lambda n: ask(query="{" + "a:__typename " * n + "}")),
    "variables for the sandbox": (request, lambda n: ask(variables={f"a{number}": 1 for number in range(n)})),
    "a line of parameters": (lambda source: declared(cell(source)), lambda n: "a:int=1\n" * n),
}


@pytest.mark.parametrize("what", LONGER)
def test_what_is_longer_is_not_much_dearer(what, proof):
    parse, make = LONGER[what]
    assert dearer(lambda data: tolerant(parse, data), make) < TOO_DEAR
    proof("fuzz", "parsers whose time grows with the length of what they are given", 1)


def tolerant(parse, data):
    """Parse; whether it is taken does not matter here."""
    with suppress(UCLError, CsrRefusedError, ValueError):
        parse(data)


def test_settings_that_would_take_for_ever_are_not_read():
    """A key of many parts takes Python's tomllib a time that grows with their square."""
    assert parse_settings("#" * MAX_CHARACTERS) == Settings()
    with pytest.raises(InvalidSettings, match=r"^here\.toml is longer than"):
        parse_settings("a" + ".a" * MAX_CHARACTERS + "=1", where="here.toml")


@pytest.mark.parametrize("key", ["keep", "key_length", "renew_before", "sandbox"])
def test_a_number_that_is_too_long_to_be_shown_is_no_setting(key):
    with pytest.raises(InvalidSettings, match=f"line 1, {key}"):
        parse_settings(f"{key} = 0x{'f' * 4000}")


def test_a_quadratic_parser_is_found():
    def quadratic(data):  # all of it is: copying what is left of the data would be linear for short data
        for _ in data[::10]:
            for _ in data:
                pass

    assert dearer(quadratic, lambda n: b"a" * n) > TOO_DEAR
