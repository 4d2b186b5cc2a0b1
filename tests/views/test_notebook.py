"""What notebooks show: each step as one card; errors as outcomes with an exit code."""

import io
import json
import re
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from quick_keys import QUICK_BITS

from ucl_helpers import Renewal, views
from ucl_helpers.clock import utc_now
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import ChecksFailed, RateLimited, UsageError
from ucl_helpers.models import Check, Checks, Configuration, NotNeeded, OneTimeToken, Outcome, SignedCertificates
from ucl_helpers.operations import CONFIGURATION, SIGN
from ucl_helpers.procedures.establishment import Establishment
from ucl_helpers.steps import sign
from ucl_helpers.views.notebook import broken, failure
from ucl_helpers.views.step_card import source_of
from ucl_helpers.wire.client import Client
from ucl_sandbox import Sandbox

GOOD = Check("subject", "ok", "CN", "CN")
WARNING = Check("clock", "warning", "0 s", "400 s")
BAD = Check("key", "failed", "2048 bits", "1024 <bits>")


CALLS = {"configuration": "certificateSigningRequestInfo", "sign": "signCertificateSigningRequest"}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """What each step of a renewal returns, and the last call then."""
    home = Home(tmp_path_factory.mktemp("home"))
    with Sandbox() as ucl:
        connection = home.new("prod")
        token = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
        Establishment.begin(connection, token, ca_file=ucl.ca_file, key_length=QUICK_BITS).run()
        renewal = Renewal.begin(connection, key_length=QUICK_BITS)
        names = ("configuration", "request", "sign", "decode", "verify", "activate")
        return {name: (getattr(renewal, name)(), renewal.exchange) for name in names}


@pytest.mark.parametrize("name", ["configuration", "request", "sign", "decode", "verify"])
def test_a_step_is_one_card_with_the_call_that_it_made(name, steps):
    result, call = steps[name]
    renewal = SimpleNamespace(exchange=call)
    card = views.step_card(renewal, result)
    shown = card._repr_mimebundle_()
    assert shown["text/plain"].startswith(str(result))
    assert (
        ("Sent and received" in shown["text/plain"]) is (name in CALLS) is ("Sent and received" in shown["text/html"])
    )
    assert CALLS.get(name, "") in str(card)
    assert "PRIVATE KEY" not in str(shown)


@pytest.mark.parametrize("name", CALLS)
def test_a_step_that_had_its_answer_already_says_that_it_sent_nothing(name, steps):
    result, _ = steps[name]
    other = next(call for step, (_, call) in steps.items() if step in CALLS and step != name)
    for call in (None, other):
        assert "Nothing was sent, because an earlier run" in str(
            views.step_card(SimpleNamespace(exchange=call), result)
        )


def test_a_step_that_is_not_needed_shows_no_call(steps):
    card = views.step_card(SimpleNamespace(exchange=steps["sign"][1]), NotNeeded(utc_now(), "two thirds of 90 d"))
    assert "not needed until" in str(card)
    assert "Sent" not in str(card)


PANELS = {
    "configuration": ["Sent and received", "The code of this step (steps.configuration)"],
    "request": ["The CSR, decoded", "The CSR as it is stored (PEM)", "The code of this step (steps.request)"],
    "sign": ["Sent and received", "The code of this step (steps.sign)"],
    "decode": [
        "The client certificate, decoded",
        "The client certificate as it is stored (PEM)",
        "The code of this step (steps.decode)",
    ],
    "verify": [],
}


@pytest.mark.parametrize("name", PANELS)
def test_a_card_has_the_panels_of_its_step(name, steps):
    result, call = steps[name]
    card = views.step_card(SimpleNamespace(exchange=call), result)
    assert [panel.title for panel in card.panels] == PANELS[name]
    html = card._repr_mimebundle_()["text/html"]
    assert html.count("<section") == 1
    assert all(f"<b>{title}</b>" in html for title in PANELS[name])


def test_the_call_is_shown_as_it_went_over_the_wire(steps):
    _, call = steps["sign"]
    facts = dict(call.rows())
    body = json.loads(facts["JSON body"])
    assert body["query"] == SIGN
    assert facts["status"] == "200 OK"
    assert "Content-Type: application/json" in facts["request headers"]
    assert "Date: " in facts["answer headers"]
    assert list(json.loads(facts["JSON answer"])["data"]["result"]) == [
        "certificateChain",
        "caCertificate",
        "clientCertificate",
    ]


def test_a_token_in_a_header_is_masked(tmp_path):
    with Sandbox() as ucl:
        token = ucl.one_time_token()
        with Client(ucl.connector_url, "token", ca_file=ucl.ca_file, headers={"connector-token": token}) as client:
            record = client.call(CONFIGURATION).record
    assert "connector-token: (kept out of sight)" in str(record)
    assert token not in str(record) + repr(record)


def test_the_csr_is_decoded(steps):
    result, call = steps["request"]
    text = str(views.step_card(SimpleNamespace(exchange=call), result))
    assert "RSA, 2048 bits, exponent 65537" in text
    assert "RSA with SHA-256, made with the private key" in text
    assert re.search(r"^\s+OU = OrgUnit$", text, re.MULTILINE)
    assert "extensions  none" in text


def test_the_certificate_is_decoded(steps):
    result, call = steps["decode"]
    text = str(views.step_card(SimpleNamespace(exchange=call), result))
    assert re.search(r"^serial number +2$", text, re.MULTILINE)
    assert "ExtendedKeyUsage: client authentication" in text
    assert "made by the issuer" in text


def test_the_code_of_a_step_is_shown_without_its_docstring():
    source = source_of(sign)
    assert source.startswith("def sign(call: Call, csr: bytes) -> SignedCertificates:\n    return ")
    assert source_of(_without_docstring) == "def _without_docstring():\n    return 1"


def _without_docstring():
    return 1


def test_warnings_are_allowed_and_everything_is_escaped():
    assert Checks((GOOD, WARNING)).ok
    assert not Checks((GOOD, WARNING, BAD)).ok
    shown = Checks((BAD,))._repr_mimebundle_()
    assert "1024 &lt;bits&gt;" in shown["text/html"]
    assert "1024 <bits>" in shown["text/plain"]


def test_no_secret_is_shown_by_a_configuration_or_a_token():
    configuration = Configuration("CN=x", "rsa2048", None, "https://localhost/", token="s3cr3t")
    signed = SignedCertificates("eA==", "eA==", "eA==")
    for shown in (configuration, OneTimeToken("s3cr3t"), signed):
        assert "s3cr3t" not in str(shown) + repr(shown) + str(shown._repr_mimebundle_())


# -- errors in a notebook ----------------------------------------------------------------------------------------------


def test_an_error_is_an_outcome_with_its_exit_code():
    outcome = failure(RateLimited("Too many.", remedy="Wait."), "prod")
    assert outcome.as_json() == {
        "outcome": "failed",
        "connection": "prod",
        "exitCode": 3,
        "error": "RateLimited",
        "message": "Too many.",
        "remedy": "Wait.",
    }
    assert failure(UsageError("x")).connection == "this run"


def test_an_attempt_gives_what_came_of_it_and_lets_what_is_no_error_of_ours_through(tmp_path):
    connection = Home(tmp_path).new("prod")

    def act(connection, error=None):
        if error:
            raise error
        return Outcome("renewed", connection.name)

    assert views.attempt(act, connection) == Outcome("renewed", "prod")
    error = RateLimited("Too many.", remedy="Wait.")
    assert views.attempt(act, connection, error=error) == failure(error, "prod")
    with pytest.raises(KeyError):
        views.attempt(act, connection, error=KeyError("x"))


@pytest.mark.parametrize(
    ("told", "text", "failed"),
    [
        (Checks((GOOD, BAD)), "key: expected 2048 bits, found 1024 <bits>", ["key"]),
        ("two is not three", "two is not three", []),
        ("x" * 1000, "x" * 200, []),
        (None, "None", []),
    ],
)
def test_a_broken_assertion_names_what_failed_and_is_short(told, text, failed):
    error = broken(AssertionError(told))
    assert isinstance(error, ChecksFailed)
    assert error.message == f"An assertion of the notebook failed. {text}"
    assert error.data["failed"] == failed
    assert broken(AssertionError()).message == "An assertion of the notebook failed."


@pytest.fixture
def shell():
    """An IPython shell, as in a kernel; what it shows is collected."""
    shell = InteractiveShell.instance(colors="nocolor")
    shown = []
    shell.display_pub.publish = lambda data, **_: shown.append(data)
    yield shell, shown
    InteractiveShell.clear_instance()


RAISED = {
    "typed": ("raise UsageError('x', remedy='y')", 2),
    "assertion": ("assert 1 == 2", 6),
    "other": ("1 / 0", None),
    "none": ("1 / 1", None),
}


@pytest.mark.parametrize(("cell", "code"), RAISED.values(), ids=RAISED)
def test_in_a_notebook_an_error_shows_itself_before_it_stops(cell, code, shell):
    running, shown = shell
    running.user_ns.update(UsageError=UsageError)
    views.report_errors("prod")
    with redirect_stdout(io.StringIO()) as out:
        result = running.run_cell(cell)
    outcomes = [data["application/vnd.ucl.outcome+json"]["exitCode"] for data in shown if len(data) > 1]
    assert outcomes == ([] if code is None else [code])
    assert result.success is (cell == "1 / 1")
    assert ("Error" in out.getvalue()) is not result.success
