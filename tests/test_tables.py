"""Objects show themselves as aligned text and as escaped HTML, without secrets and without harm."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from certificates import CA, NOW, certificate, checks, key

from ucl_helpers.connection.exports import generation_files
from ucl_helpers.crypto import dump_certificates, read_certificates
from ucl_helpers.errors import printable
from ucl_helpers.keys import dump_key, load_key
from ucl_helpers.models import (
    OUTCOME_MIME,
    CallRecord,
    Configuration,
    Due,
    Identity,
    NotNeeded,
    OneTimeToken,
    Outcome,
    SignedCertificates,
    SigningRequest,
    Validity,
    Verification,
)
from ucl_helpers.operate.hooks import HookResult, HookResults
from ucl_helpers.tables import html_table, moment, span, text_table

TOKEN = "2ClhTW-dMgEWl9yb7j3XqzqHBCS4yvQsTPMfL94PIRu4viPgy0HroCo9BHzSIHzel0DWp67uZbB3QfcDX7__Pg=="
URL = "https://ucl.example/connector/graphql"
HOSTILE = '<script>alert("1")</script>\x1b[2J\ud800&'
VALIDITY = Validity(NOW, NOW + timedelta(days=90))
MODELS = [
    Configuration(HOSTILE, HOSTILE, HOSTILE, None, TOKEN),
    SigningRequest(HOSTILE, 4096, HOSTILE, HOSTILE, reused=True),
    SignedCertificates(HOSTILE, HOSTILE, HOSTILE),
    Identity((certificate(), *CA), CA, checks()),
    Due(True, NOW, HOSTILE),
    NotNeeded(NOW, HOSTILE),
    Verification(HOSTILE, NOW, HOSTILE, -3.2, HOSTILE),
    Outcome(HOSTILE, HOSTILE, {"next_due": HOSTILE, "nothing": None}),
    OneTimeToken(TOKEN, HOSTILE),
    VALIDITY,
    HookResults(HOSTILE, HOSTILE, (HookResult(HOSTILE, "failed", HOSTILE, output=HOSTILE),), HOSTILE, HOSTILE),
    CallRecord(HOSTILE, HOSTILE, HOSTILE, {"csr": HOSTILE}, {"token": {"token": TOKEN}}),
]


class Tags(HTMLParser):
    """The tags of a text, and each cell's text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data


# -- tables ------------------------------------------------------------------------------------------------------------


def test_text_is_aligned_and_has_no_blanks_at_the_end():
    assert (
        text_table([("a", "b"), ("longer", ""), ("c", "two\nlines")]) == "a       b\nlonger\nc       two\n        lines"
    )
    assert text_table([]) == ""


def test_text_shows_what_would_move_the_cursor():
    assert text_table([("\x1b[2Ja", "b"), ("\rx", "\ud800")]) == "\\x1b[2Ja  b\n\\rx       \\ud800"


def test_html_is_escaped():
    html = html_table(HOSTILE, ("<b>", "&"), [(HOSTILE, "a\nb")])
    shown = Tags(html)
    assert "<script" not in html
    assert shown.tags == {"table", "caption", "b", "thead", "tr", "th", "tbody", "td"}
    assert [text for text in shown.texts if text] == [printable(HOSTILE), "<b>", "&", printable(HOSTILE), "a\nb"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("ä漢🙂 \u00a0", "ä漢🙂 \u00a0"),
        ("\x00\x1b\x7f\x9b\r\x0b", r"\x00\x1b\x7f\x9b\r\x0b"),
        ("\ud800x\udfff", r"\ud800x\udfff"),
        ("\u202e\u2066", r"\u202e\u2066"),
        (r"\x1b", r"\x1b"),
    ],
)
def test_what_can_be_printed_stays_and_the_rest_is_shown(text, shown):
    assert printable(text) == printable(printable(text)) == shown


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=0.4), "0 s"),
        (timedelta(seconds=59.6), "1 min"),
        (timedelta(minutes=4, seconds=10), "4 min 10 s"),
        (timedelta(days=89, hours=23, minutes=59), "89 d 23 h"),
        (timedelta(days=1, seconds=1), "1 d 1 s"),
        (-timedelta(hours=2), "-2 h"),
    ],
)
def test_a_length_of_time_is_told_in_two_units(length, text):
    assert span(length) == text


def test_a_moment_is_told_to_the_second():
    assert moment(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)) == "2026-01-02T03:04:05Z"


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_model_shows_itself_without_harm_and_without_a_token(model):
    shown = model._repr_mimebundle_()
    assert str(model) == shown["text/plain"]
    assert {len(row) for row in model.rows()} == {len(model.header)}
    for text in (shown["text/plain"], shown["text/html"]):
        assert not set("\x1b\ud800") & set(text)
        assert "<script" not in shown["text/html"]
        assert TOKEN not in text
    assert TOKEN not in repr(model)


def test_a_model_that_shows_a_token_would_be_noticed():
    assert TOKEN in str(Configuration(TOKEN, "rsa2048", None, None, TOKEN))


def test_an_identity_is_ok_unless_a_check_failed():
    for status, ok in [("ok", True), ("warning", True), ("failed", False)]:
        assert Identity((certificate(),), checks=(*checks(), replace(checks()[0], status=status))).ok == ok


def test_an_outcome_reaches_programs_as_json():
    outcome = Outcome("renewed", "prod", {"next_due": "2026", "previous_fingerprint": None}, exit_code=3)
    expected = {
        "outcome": "renewed",
        "connection": "prod",
        "exitCode": 3,
        "nextDue": "2026",
        "previousFingerprint": None,
    }
    assert outcome._repr_mimebundle_()[OUTCOME_MIME] == outcome.as_json() == expected
    assert outcome.rows() == [("next due", "2026")]
    assert str(outcome) == "prod: renewed\nnext due  2026"


# -- exchanges ---------------------------------------------------------------------------------------------------------


def shown(*, result=None, url=URL, **variables):
    return str(CallRecord(url, "id", "query", variables, result))


@pytest.mark.parametrize(
    "name", ["token", "Token", "rawEncoded", "raw", "connectorToken", "connector-token", "raw_encoded"]
)
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [{"x": one}], lambda one: {"data": {"y": [[one]]}}])
def test_a_token_is_masked_wherever_it_stands(name, wrap):
    text = shown(result=wrap({name: TOKEN, "other": "kept"}), **{name: TOKEN})
    assert TOKEN not in text
    assert '"other": "kept"' in text
    assert TOKEN in shown(result={"name": TOKEN})
    assert TOKEN not in shown(result={name: [TOKEN]})


@pytest.mark.parametrize("before", ["?token=", "?a=b&token=", "?TOKEN="])
def test_a_token_in_a_url_is_masked_and_the_rest_of_it_is_not(before):
    url, masked = f"{URL[:24]}{before}{{}}&c=d", "(kept out of sight)"
    assert url.format(masked) in shown(url=url.format(TOKEN))
    assert url.format(masked)[:60] in shown(result={"x": url.format(TOKEN)})
    assert url.format(masked) in shown(result={"x": url.format("short")})


def test_a_csr_is_shortened_and_not_masked():
    text = shown(csr="A" * 1000, result={"tokens": 5, "token": None})
    assert f'"{"A" * 60}… (1000 characters)"' in text
    assert '"tokens": 5' in text
    assert '"token": null' in text


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_generation_is_one_identity_and_its_parts():
    chain = (certificate(), *CA)
    files = generation_files(key("leaf"), chain, CA, b"server ca")
    assert files["identity.pem"] == files["key.pem"] + files["chain.pem"]
    assert load_key(files["identity.pem"]).private_numbers() == key("leaf").private_numbers()
    assert read_certificates(files["identity.pem"], name="identity.pem") == chain
    assert read_certificates(files["certificate.pem"], name="certificate.pem") == chain[:1]
    assert (files["client-ca.pem"], files["server-ca.pem"]) == (dump_certificates(*CA), b"server ca")


def test_what_there_is_not_is_no_file():
    files = generation_files(key("leaf"), (certificate(),), (), None)
    assert set(files) == {"identity.pem", "key.pem", "certificate.pem", "chain.pem"}
    assert {name for name, data in files.items() if dump_key(key("leaf")) in data} == {"identity.pem", "key.pem"}
