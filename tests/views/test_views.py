"""What notebooks show: checks as tables, looked at anew for each step; errors as outcomes with an exit code."""

import base64
import errno
import io
import os
from contextlib import redirect_stdout
from datetime import timedelta

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from IPython.core.interactiveshell import InteractiveShell
from stored import locked_out

from ucl_helpers import Renewal, status_of, views
from ucl_helpers.clock import utc_now
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import ChecksFailed, RateLimited, UsageError
from ucl_helpers.models import Check, Configuration, NotNeeded, OneTimeToken, Outcome, SignedCertificates
from ucl_helpers.operate.hooks import HookResult, HookResults
from ucl_helpers.procedures.establishment import Establishment
from ucl_helpers.views import setup
from ucl_helpers.views.checked import Checks, checked
from ucl_helpers.views.errors import broken, failure
from ucl_sandbox import Sandbox

GOOD = Check("subject", "ok", "CN", "CN")
WARNING = Check("clock", "warning", "0 s", "400 s")
BAD = Check("key", "failed", "2048 bits", "1024 <bits>")


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Everything that the steps of a renewal return, in their order."""
    home = Home(tmp_path_factory.mktemp("home"))
    with Sandbox() as ucl:
        connection = home.new("prod")
        token = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
        Establishment.begin(connection, token, ca_file=ucl.ca_file, key_length=2048).run()
        renewal = Renewal.begin(connection, key_length=2048)
        names = ("configuration", "request", "sign", "decode", "verify", "activate")
        found = {name: getattr(renewal, name)() for name in names}
        return {"due": renewal.due, "begun": renewal, "status": status_of(connection), **found}


@pytest.mark.parametrize(
    "name", ["due", "begun", "status", "configuration", "request", "sign", "decode", "verify", "activate"]
)
def test_each_step_is_looked_at_once_more(name, steps):
    checks = checked(steps[name])
    assert checks.ok
    assert checks.rows()
    assert "PRIVATE KEY" not in str(checks)


def changed(value, **facts):
    return type(value)(**{**vars(value), **facts})


NO_PEM = base64.b64encode(b"nothing").decode()
WRONG = {
    "configuration, no CN": ("configuration", {"subject": "O=Org,C=DE"}, ["subject"]),
    "configuration, http": (
        "configuration",
        {"certificate_secured_connector_url": "http://localhost/"},
        ["certificate endpoint"],
    ),
    "configuration, no URL": ("configuration", {"certificate_secured_connector_url": None}, ["certificate endpoint"]),
    "request, subject": ("request", {"subject": "CN=somebody else"}, ["subject"]),
    "request, bits": ("request", {"bits": 4096}, ["key length"]),
    "signed": ("sign", {"ca_certificate": NO_PEM}, ["ca_certificate"]),
    "identity": ("decode", {"checks": (GOOD, BAD)}, ["key"]),
    "status": ("status", {"state": "revoked"}, ["state"]),
    "outcome": ("activate", {"exit_code": 6}, ["outcome"]),
}


@pytest.mark.parametrize(("step", "facts", "names"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_fails_its_check_and_no_other(step, facts, names, steps):
    checks = checked(changed(steps[step], **facts))
    assert [one.name for one in checks.checks if one.status == "failed"] == names
    assert not checks.ok


def test_a_failed_hook_is_a_warning_since_the_certificate_is_in_place():
    results = (HookResult("a", "done"), HookResult("b", "failed", "exit code 3"), HookResult("c", "not needed"))
    found = checked(HookResults("prod", "000001-abc", results))
    assert [(one.name, one.status, one.found) for one in found.checks] == [
        ("hook a", "ok", "done"),
        ("hook b", "warning", "exit code 3"),
        ("hook c", "ok", "not needed"),
    ]
    assert [one.found for one in checked(HookResults("prod")).checks] == ["none to run here"]


def test_expired_by_our_clock_is_a_warning(steps):
    (state, _) = checked(changed(steps["status"], state="expired")).checks
    assert (state.status, state.found) == ("warning", "expired")


def test_a_key_that_others_can_read_fails_its_check(steps, tmp_path):
    key = tmp_path / "key.pem"
    key.write_text("")
    for mode, ok in ((0o600, True), (0o640, False)):
        key.chmod(mode)
        assert checked(changed(steps["request"], key_path=str(key))).ok is ok


def test_what_is_not_needed_says_until_when():
    until = utc_now() + timedelta(days=3)
    assert f"{until:%Y-%m-%d}" in str(checked(NotNeeded(until, "two thirds of 90 d")))


def test_what_cannot_be_checked_is_a_type_error():
    with pytest.raises(TypeError, match="nothing to check in str"):
        checked("text")


def test_warnings_are_allowed_and_everything_is_escaped():
    assert Checks((GOOD, WARNING)).ok
    assert not Checks((GOOD, WARNING, BAD)).ok
    shown = Checks((BAD,))._repr_mimebundle_()
    assert "1024 &lt;bits&gt;" in shown["text/html"]
    assert "1024 <bits>" in shown["text/plain"]


def test_no_secret_is_shown_by_a_configuration_or_a_token():
    configuration = Configuration("CN=x", "rsa2048", None, "https://localhost/", token="s3cr3t")
    signed = SignedCertificates(NO_PEM, NO_PEM, NO_PEM)
    for shown in (configuration, OneTimeToken("s3cr3t"), checked(configuration), signed):
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
    assert error.message == f"What the notebook asserts does not hold. {text}"
    assert error.data["failed"] == failed
    assert broken(AssertionError()).message == "What the notebook asserts does not hold."


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


# -- the set-up --------------------------------------------------------------------------------------------------------


PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture
def no_proxy(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def row(checks, name):
    """Status and finding of one check."""
    (found,) = ((one.status, one.found) for one in checks.checks if one.name == name)
    return found


def not_ok(checks):
    return [(one.name, one.status) for one in checks.checks if one.status != "ok"]


@pytest.mark.usefixtures("no_proxy")
def test_the_set_up_here_is_complete(tmp_path):
    checks = views.check_setup(tmp_path / "not" / "there" / "yet")
    assert checks.ok
    assert ("proxy", "ok", "used for UCL if set", "none") in checks.rows()
    names = [one.name for one in checks.checks]
    assert names == ["Python", "clock", "OpenSSL", *setup.NEEDED, "home folder", "proxy"]
    assert row(checks, "OpenSSL")[1].endswith(f", cryptography {backend.openssl_version_text().split()[1]}")
    assert not_ok(views.check_setup(tmp_path)) == []


@pytest.mark.usefixtures("no_proxy")
def test_a_home_that_is_a_file_fails_and_a_missing_package_warns(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert not_ok(views.check_setup(place)) == [("home folder", "failed")]
    monkeypatch.setattr("ucl_helpers.views.setup.NEEDED", ("cryptography", "no-such-package"))
    assert not_ok(views.check_setup(tmp_path)) == [("no-such-package", "warning")]


@pytest.mark.usefixtures("no_proxy")
def test_a_home_that_may_not_be_looked_for_fails(tmp_path):
    (tmp_path / "closed" / "home").mkdir(parents=True)
    with locked_out(tmp_path / "closed"):
        assert not_ok(views.check_setup(tmp_path / "closed" / "home" / "below")) == [("home folder", "failed")]


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(("years", "status"), [(-1, "failed"), (0, "ok"), (20, "ok"), (31, "failed")])
def test_a_clock_that_cannot_be_right_fails(years, status, tmp_path):
    then = setup.WRITTEN + timedelta(days=366 * years)
    assert row(views.check_setup(tmp_path, lambda: then), "clock") == (status, f"{then:%Y-%m-%dT%H:%M:%SZ}")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(("mode", "looked"), [(0o777, []), (0o700, ["ok"])])
def test_no_file_is_opened_in_a_home_that_others_can_change(tmp_path, monkeypatch, mode, looked):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    if mode == 0o777:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: pytest.fail("a file was opened in the home folder"))
    assert [check.status for check in views.check_setup(home).checks if check.name == "locks"] == looked


@pytest.mark.usefixtures("no_proxy")
def test_locks_are_tried_where_there_is_a_home_and_nothing_is_left(tmp_path, monkeypatch):
    assert row(views.check_setup(tmp_path), "locks") == ("ok", "they do")
    assert list(tmp_path.iterdir()) == []

    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("ucl_helpers.views.setup.fcntl.flock", refused)  # a file system without locks is not at hand
    assert row(views.check_setup(tmp_path), "locks") == ("failed", "No locks available")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("variable", PROXIES[:4])
def test_a_proxy_is_told_by_its_variable_with_the_hosts_that_are_excepted(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "http://user:s3cr3t@proxy.example")
    monkeypatch.setenv("NO_PROXY", "ucl.internal, .example")
    found = f"{variable}, but for this machine, ucl.internal, .example"
    assert row(views.check_setup(tmp_path), "proxy") == ("ok", found)
    monkeypatch.delenv("NO_PROXY")
    checks = views.check_setup(tmp_path)
    assert row(checks, "proxy") == ("ok", f"{variable}, but for this machine")
    assert checks.ok
    assert "s3cr3t" not in str(checks)
