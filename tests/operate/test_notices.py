"""Notices of failure and recovery: what is told when, to a real server, and that URLs are told to nobody else."""

import json
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from certificates import NOW as SIGNED
from notice_server import SECRET, notice_server
from stored import install

from ucl_helpers.cli.main import group
from ucl_helpers.clock import utc_now
from ucl_helpers.connection.attempts import recording_attempt, remembered
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import (
    AuthenticationFailed,
    Busy,
    DeadlineExceeded,
    HookFailed,
    Outage,
    PossibleOutage,
    Refused,
    SecretRedacted,
    StorageFailed,
    UCLError,
    Unavailable,
    Unreachable,
    UsageError,
    Waiting,
)
from ucl_helpers.extras import install_command
from ucl_helpers.models import Outcome
from ucl_helpers.operate import notices
from ucl_helpers.operate.notices import complete_run, kind_to_send, notify, report_failure, report_notebook_run

DOWN = Unreachable("UCL cannot be reached.", remedy="Run it again later.")
NOW = datetime(2026, 1, 31, 6, 25, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def server():
    with notice_server() as server:
        yield server


@pytest.fixture
def received(server):
    server.received, server.seen, server.status = [], [], 200
    return server.received


@pytest.fixture
def connection(tmp_path, server, received, monkeypatch):
    """Established; failure is told to the server from the second one in a row."""
    connection = Home(tmp_path / "home").new("prod")
    install(connection, 1)
    monkeypatch.setenv("NOTICE_URL", f"json://user:{SECRET}@127.0.0.1:{server.server_port}/{SECRET}/")
    configure(connection, "env:NOTICE_URL")
    return connection


def configure(connection, *urls, more=""):
    text = f"[notices]\nurls = {json.dumps(urls)}\nafter_failures = 2\n" if urls else ""
    (connection.path / "settings.toml").write_text(more + text)


def fail(connection, times):
    """So many attempts in a row have failed."""
    for _ in range(times - remembered(connection).failures):
        with suppress(Unreachable), connection.lock.held(), recording_attempt(connection, utc_now):
            raise DOWN


def noted(connection):
    """What the journal has of notices."""
    return [event for event in connection.journal() if event["event"].startswith("notice-")]


def titles(received):
    return [notice["title"] for _, notice in received]


# -- what is told when: pure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "error", "enough", "kind"),
    [
        ({}, None, True, None),
        ({}, DOWN, True, "failure"),
        ({}, DOWN, False, None),
        ({}, Busy("In other hands."), True, None),
        ({}, Waiting("Not yet."), True, None),
        ({"3": NOW}, Busy("In other hands."), True, None),
        ({"3": NOW}, DOWN, True, None),
        ({"3": NOW}, Unavailable("Another way of the same."), True, None),
        ({"3": NOW}, Refused("Another matter."), True, "failure"),
        ({"3": NOW - 22 * HOUR}, DOWN, True, None),
        ({"3": NOW - 23 * HOUR}, DOWN, True, "reminder"),
        ({"3": NOW + 23 * HOUR}, DOWN, True, "reminder"),  # our clock was wrong then, or is now
        ({"3": NOW}, None, False, "recovery"),
        ({"4": NOW - 99 * HOUR, "13": NOW}, None, False, "recovery"),
    ],
)
def test_what_is_told_when(sent, error, enough, kind):
    assert kind_to_send(sent, error, enough=enough, now=NOW) == kind


# -- to a real server --------------------------------------------------------------------------------------------------


def test_a_failure_is_told_once_then_each_day_and_once_that_it_is_over(connection, received):
    for hours, failures in ((0, 1), (1, 2), (2, 3), (25, 4)):
        fail(connection, failures)
        notify(connection, DOWN, clock=lambda hours=hours: NOW + hours * HOUR)
    notify(connection, None, clock=lambda: NOW + 26 * HOUR)  # it was not due, and nothing was tried
    assert len(received) == 2
    install(connection, 2)
    for hours in (27, 28):
        notify(connection, None, clock=lambda hours=hours: NOW + hours * HOUR)
    assert titles(received) == ["prod: failed (Unreachable)", "prod: failed (Unreachable), still", "prod: well again"]
    assert [notice["type"] for _, notice in received] == ["failure", "warning", "success"]
    assert [event["kind"] for event in noted(connection)] == ["failure", "reminder", "recovery"]


@pytest.mark.parametrize("what", [DeadlineExceeded, SecretRedacted, StorageFailed, HookFailed, UsageError, UCLError])
def test_what_is_no_failed_attempt_is_told_at_once(what, connection, received):
    fail(connection, 1)
    notify(connection, DOWN)
    assert received == []
    notify(connection, what("Something else."))
    assert len(received) == 1


@pytest.mark.kind("outages: notices")
@pytest.mark.parametrize("what", [Outage, PossibleOutage])
def test_an_outage_is_a_warning_first_and_a_failure_when_it_lasts(what, connection, received):
    facts = {"outage": "possible", "endpoint": "certificate"}
    down, lost = what("Refused.", **facts), AuthenticationFailed("Refused.", **facts)
    now = SIGNED + HOUR
    for hours, error in ((0, down), (1, down), (2, down), (26, down), (27, down), (28, lost)):
        moment = now + hours * HOUR
        with suppress(UCLError), connection.lock.held(), recording_attempt(connection, lambda moment=moment: moment):
            raise error
        notify(connection, error, clock=lambda moment=moment: moment)
    assert [notice["type"] for _, notice in received] == ["warning", "failure", "failure"]
    assert [title.removeprefix("prod: ") for title in titles(received)] == [
        *[f"failed ({what.__name__})"] * 2,
        "failed (AuthenticationFailed)",
    ]


def test_it_tells_what_has_to_be_known_and_the_url_to_nobody(connection, server, received, capfd):
    fail(connection, 2)
    notify(connection, DOWN)
    [(path, notice)] = received
    assert path.startswith(f"/{SECRET}")
    for text in (DOWN.message, DOWN.remedy, "Failures in a row: 2.", "valid to 20", "ucl doctor prod"):
        assert text in notice["message"]
    assert (capfd.readouterr(), server.seen) == (("", ""), [])
    kept = [path.read_text() for path in connection.path.glob("*.json*")]
    assert len(kept) == 4
    assert not [text for text in kept if SECRET in text]


def test_what_apprise_logs_would_show_it(connection, received):
    script = """
import logging, os, apprise
logging.basicConfig(level=logging.DEBUG)
service = apprise.Apprise()
service.add(os.environ["NOTICE_URL"])
service.notify("text")
"""
    said = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=True).stderr
    assert (SECRET in said, len(received)) == (True, 1)


def test_without_a_url_nothing_is_sent_and_nothing_kept(connection, received):
    configure(connection)
    fail(connection, 9)
    notify(connection, DOWN)
    assert (received, noted(connection), (connection.path / "notices.json").exists()) == ([], [], False)


def test_a_state_that_is_damaged_tells_once_more(connection, received):
    for text in ('{"told"', '{"told": {"3": "2026-01-31T06:25:00"}}', '{"told": [3]}'):
        (connection.path / "notices.json").write_text(text)
        assert notices._sent(connection) == {}
    fail(connection, 2)
    notify(connection, DOWN, clock=lambda: NOW)
    assert titles(received) == ["prod: failed (Unreachable)"]
    assert notices._sent(connection) == {"3": NOW}


def test_what_is_not_taken_is_warned_of_and_told_again(connection, server, received, capfd):
    server.status = 500
    fail(connection, 2)
    notify(connection, DOWN)
    out, err = capfd.readouterr()
    assert (out, err.count("The URL of env:NOTICE_URL did not accept it")) == ("", 1)
    assert [event["event"] for event in noted(connection)] == ["notice-failed"]
    assert SECRET not in err + (connection.path / "journal.jsonl").read_text()
    server.status = 200
    fail(connection, 3)
    notify(connection, DOWN)
    assert titles(received)[1:] == ["prod: failed (Unreachable)"]


def test_one_url_that_leads_nowhere_does_not_stop_the_others(connection, received, monkeypatch, capfd):
    monkeypatch.setenv("NONSENSE", f"no-such-scheme://{SECRET}")
    configure(connection, "env:NOT_SET", "env:NONSENSE", "env:NOTICE_URL")
    fail(connection, 2)
    notify(connection, DOWN)
    out, err = capfd.readouterr()
    assert titles(received) == ["prod: failed (Unreachable)"]
    assert "NOT_SET is empty or not set" in err
    assert "The URL of env:NONSENSE did not accept it" in err
    assert SECRET not in out + err


def test_a_sender_that_takes_too_long_is_given_up(connection, received, monkeypatch, capfd):
    monkeypatch.setattr(notices, "_SENDER", ("sleep", "1000"))
    monkeypatch.setattr(notices, "LIMIT_SECONDS", 0.2)
    fail(connection, 2)
    notify(connection, DOWN)
    assert (received, "did not accept it" in capfd.readouterr().err) == ([], True)


def test_without_apprise_the_extra_is_named_and_nothing_stops(connection, received, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "apprise", None)
    fail(connection, 2)
    notify(connection, DOWN)
    assert (received, f"needs apprise. Install it with: {install_command('notify')}" in capfd.readouterr().err) == (
        [],
        True,
    )
    assert [event["event"] for event in noted(connection)] == ["notice-failed"]


def test_not_while_the_lock_of_the_connection_is_held(connection, received):
    with connection.lock.held(), pytest.raises(UsageError, match="lock is held"):
        notify(connection, DOWN)
    assert received == []


# -- after a procedure -------------------------------------------------------------------------------------------------

HOOK = '[[hooks]]\nname = "one"\ncommand = ["sh", "-c", "test -e {}/ready"]\n'
NOT_DUE = Outcome("not-due", "prod", {"rule": "a rule"})


@pytest.fixture
def notified(monkeypatch):
    """What `notify` is called with, in place of sending."""
    calls = []

    def note(connection, error):
        calls.append(type(error).__name__)

    monkeypatch.setattr("ucl_helpers.operate.notices.notify", note)
    return calls


def test_a_failed_hook_is_told_at_once_and_that_it_succeeded_at_last(connection, received, tmp_path):
    configure(connection, "env:NOTICE_URL", more=HOOK.format(tmp_path))
    assert [complete_run(connection, NOT_DUE).outcome.exit_code for _ in range(2)] == [13, 13]
    (tmp_path / "ready").touch()
    done = complete_run(connection, NOT_DUE)
    assert (done.outcome.exit_code, done.error) == (0, None)
    assert titles(received) == ["prod: a hook failed", "prod: well again"]
    assert "one: exit code 1" in received[0][1]["message"]


def test_hooks_that_cannot_be_run_do_not_hide_the_outcome(connection, notified):
    (connection.path / "settings.toml").write_text("hooks = 5")
    done = complete_run(connection, NOT_DUE)
    assert (done.outcome.outcome, done.outcome.exit_code) == ("not-due", 2)
    assert (done.outcome.facts["error"], done.outcome.facts["rule"]) == ("InvalidSettings", "a rule")
    assert notified == ["InvalidSettings"]


def test_after_an_error_the_hooks_left_over_are_run_and_the_error_is_told(connection, notified, tmp_path):
    configure(connection, more=HOOK.format(tmp_path))
    report_failure(connection, DOWN)
    (tmp_path / "ready").touch()
    report_failure(connection, DOWN)
    assert [event["event"] for event in connection.journal()] == ["hook-failed", "hook-succeeded"]
    assert notified == ["Unreachable", "Unreachable"]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        ({"outcome": "renewed", "exitCode": 0}, "NoneType"),
        ({"outcome": "renewed", "exitCode": 13, "error": "HookFailed", "message": "A hook failed."}, "HookFailed"),
        ({"outcome": "failed", "exitCode": 4, "error": "Refused", "message": "No.", "remedy": None}, "Refused"),
        ({"outcome": "failed", "exitCode": 1, "error": "ZeroDivisionError", "message": "by zero"}, "UCLError"),
        ({"outcome": "failed", "exitCode": 1, "error": "Mapping"}, "UCLError"),
    ],
)
def test_of_a_headless_run_its_outcome_is_told(outcome, error, connection, notified):
    report_notebook_run(connection, outcome)
    assert notified == [error]


@pytest.mark.parametrize(("name", "told_of"), [("prod", ["prod: failed (UsageError)"]), ("other", [])])
def test_a_run_that_does_not_come_about_is_told_too(name, told_of, connection, received):
    configure(connection, "env:NOTICE_URL")
    run = ["--home", str(connection.home.path), "run", "no-such-notebook", "-p", "connection", name]
    with pytest.raises(UsageError, match="no-such-notebook"):
        group.main(run, standalone_mode=False)
    assert titles(received) == told_of


@pytest.mark.parametrize(
    ("outcome", "recovers"),
    [("renewed", True), ("not-due", True), ("exported", False), ("nothing-to-export", False), ("rolled-back", False)],
)
def test_what_does_not_say_that_all_is_well_is_no_recovery(outcome, recovers, connection, notified):
    complete_run(connection, Outcome(outcome, "prod", {}))
    assert notified == ["NoneType"] * recovers


@pytest.mark.parametrize(("error", "event"), [("Unreachable", ["hook-failed"]), ("HookFailed", [])])
def test_a_headless_run_that_failed_before_it_came_to_its_hooks_runs_them_now(
    error, event, connection, notified, tmp_path
):
    configure(connection, more=HOOK.format(tmp_path))
    report_notebook_run(connection, {"outcome": "failed", "exitCode": 3, "error": error, "message": "x"})
    assert ([entry["event"] for entry in connection.journal()], notified) == (event, [error])


def test_that_somebody_stopped_a_run_is_told_to_nobody(connection, notified):
    report_notebook_run(connection, {"outcome": "stopped", "exitCode": 130, "message": "The run was told to stop."})
    assert notified == []
