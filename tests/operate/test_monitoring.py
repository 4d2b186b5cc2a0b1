"""What monitoring is told: a word by state, how late and how often failed; and the exit code of ``--check``."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from command_line import Shell
from stored import install

from ucl_helpers.connection.attempts import Attempts, Failure
from ucl_helpers.connection.status import STATES, Status
from ucl_helpers.connection.store import Home
from ucl_helpers.models import Validity
from ucl_helpers.operate import monitoring
from ucl_helpers.operate.monitoring import Report, check_home, verdict
from ucl_helpers.policy import due
from ucl_helpers.policy import state as word_of

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LIFE = Validity(START, START + 90 * DAY)
PERFDATA = re.compile(r"'?[\w.-]+'?=-?\d+(\.\d+)?(;-?\d+(\.\d+)?:){2}")


def at(days, *, failures=0, revoked=False, name="prod"):
    """A connection with a certificate of 90 days, renewed 30 days before its end, at that day of its life."""
    now = START + days * DAY
    when = due(LIFE, seed=name, now=now, renew_before=30 * DAY)
    word = word_of(LIFE, now=now, revoked=revoked, is_due=when.due)
    failed = Failure("Unreachable", "No answer | from\nanywhere", 3, now) if failures else None
    known = Attempts(failures=failures, last_error=failed)
    return Status(name, word, now, generation="000001-ab", validity=LIFE, due=when, attempts=known)


def bare(state, **facts):
    return Status("prod", state, START, **facts)


@pytest.mark.parametrize(
    ("status", "word", "text"),
    [
        (at(0), "OK", "prod: valid, 90 d left, renewal due 2026-04-30T12:00:00Z"),
        (at(59.9, failures=9), "OK", "prod: valid"),  # nothing is due, so nothing is late
        (at(60), "OK", "prod: due since 2026-04-30T12:00:00Z, 30 d left"),
        (at(67.4), "OK", "due since"),
        (at(67.5), "WARNING", "due since"),
        (at(61, failures=2), "OK", "failed 2 in a row, the last: Unreachable: No answer / from"),
        (at(61, failures=3), "WARNING", "failed 3 in a row"),
        (at(82.4, failures=99), "WARNING", "failed 99 in a row"),
        (at(82.5), "CRITICAL", "7 d 12 h left"),
        (at(90), "CRITICAL", "prod: expired, valid to 2026-05-30T12:00:00Z"),
        (at(1, revoked=True), "CRITICAL", "prod: revoked"),
        (at(-1), "WARNING", "not yet valid, from 2026-03-01T12:00:00Z"),
        (bare("refused"), "CRITICAL", "refused"),
        (bare("damaged", problem="key.pem is\nnot whole."), "CRITICAL", "damaged: key.pem is not whole."),
        (bare("not established"), "CRITICAL", "prod: not established"),
        (bare("settings not usable", problem="line 1"), "UNKNOWN", "settings not usable: line 1"),
    ],
)
def test_the_word_for_each_state(status, word, text):
    found = verdict(status)
    assert found.word == word
    assert text in found.text
    assert "\n" not in found.text
    assert "|" not in found.text


def refused(days, *, since, error="PossibleOutage"):
    """At that day of its life, UCL has refused it since another."""
    status = at(days, failures=1)
    failed = Failure(error, "Refused.", 3, status.now)
    return replace(status, attempts=replace(status.attempts, last_error=failed, refused_since=START + since * DAY))


@pytest.mark.kind("outages: what monitoring says")
@pytest.mark.parametrize(
    ("status", "word", "text"),
    [
        (refused(60, since=60), "WARNING", "UCL refuses it, which may be an outage or a loss, since 2026-04-30"),
        (refused(10.5, since=10), "WARNING", "may be an outage"),  # a forced renewal: nothing is due
        (refused(60.9, since=60), "WARNING", "29 d 2 h left"),
        (refused(61, since=60), "CRITICAL", "may be an outage or a loss"),
        (refused(60.9, since=60, error="Outage"), "WARNING", "UCL is down since"),
        (refused(61, since=60, error="Outage"), "CRITICAL", "UCL is down since"),
        (refused(61, since=60, error="AuthenticationFailed"), "CRITICAL", "may be an outage or a loss"),
        (refused(60.5, since=60, error="Unreachable"), "WARNING", "UCL refuses it"),
        (refused(82.5, since=82.5), "CRITICAL", "7 d 12 h left"),
        (refused(90, since=89), "CRITICAL", "expired"),
    ],
)
def test_a_refusal_is_a_warning_first_and_critical_when_it_lasts_or_the_end_is_near(status, word, text):
    assert (verdict(status).word, text in verdict(status).text) == (word, True), verdict(status).text


def test_every_state_is_judged_there():
    judged = {status.state for mark in test_the_word_for_each_state.pytestmark for status, *_ in mark.args[1]}
    assert judged == set(STATES)


def test_hooks_that_wait_are_a_warning(monkeypatch):
    monkeypatch.setattr(monitoring, "hooks_pending", lambda _: 2)
    assert (verdict(at(0)).word, verdict(at(90)).word) == ("WARNING", "CRITICAL")
    assert verdict(at(0)).text.endswith("hooks that still have to run: 2")


@pytest.mark.parametrize("lifetime", [timedelta(minutes=5), timedelta(hours=24), 90 * DAY, 3652 * DAY])
@pytest.mark.parametrize("renew_before", [None, timedelta(seconds=100)])
def test_of_any_lifetime_it_is_well_first_then_late_then_too_late(lifetime, renew_before):
    life = Validity(START, START + lifetime)
    when = due(life, seed="x", now=START, renew_before=renew_before)
    late, too_late = monitoring.limits(life, when)
    assert life.not_before < when.at < late < too_late < life.not_after
    words = [
        verdict(replace(at(60), now=now, validity=life, due=when, state="due")).word
        for now in (when.at, late, too_late)
    ]
    assert words == ["OK", "WARNING", "CRITICAL"]


# -- the output --------------------------------------------------------------------------------------------------------


def report(*statuses):
    return Report({one.name: verdict(one) for one in statuses})


def test_of_one_it_is_a_line_with_what_was_measured():
    said = str(report(at(60)))
    line, measured = said.split(" | ")
    assert line == "UCL OK - prod: due since 2026-04-30T12:00:00Z, 30 d left"
    assert measured == "prod_days_left=30.000;22.500:;7.500:"


def test_of_several_the_worst_comes_first_and_each_has_its_line():
    several = report(at(0, name="a"), at(70, name="b"), at(85, name="c"), at(1, name="d"))
    first, *others = str(several).splitlines()
    assert first.startswith("UCL CRITICAL - 2 of 4 need somebody: c: due since")
    assert [one.partition(" - ")[2][0] for one in others] == ["c", "b", "a", "d"]
    measured = first.split(" | ")[1].split()
    assert [one[0] for one in measured] == ["a", "b", "c", "d"]
    assert all(PERFDATA.fullmatch(one) for one in measured)
    assert several.exit_code == 2
    assert several.as_json()["connections"]["b"]["verdict"] == "WARNING"


@pytest.mark.parametrize(
    ("statuses", "word", "code"),
    [
        ([at(0)], "OK", 0),
        ([at(0), at(70, name="b")], "WARNING", 1),
        ([at(85), at(70, name="b")], "CRITICAL", 2),
        ([bare("settings not usable"), at(0, name="b")], "UNKNOWN", 3),
        ([bare("settings not usable"), at(70, name="b")], "WARNING", 1),
        ([bare("settings not usable"), at(85, name="b")], "CRITICAL", 2),
        ([], "UNKNOWN", 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst(statuses, word, code):
    found = report(*statuses)
    assert (found.whole.word, found.exit_code) == (word, code)
    assert str(found).startswith(f"UCL {word} - ")


def test_all_well_is_said_in_one_line():
    assert str(report(at(0, name="a"), at(1, name="b"))).splitlines()[0].startswith("UCL OK - all 2 are well | a_days")


# -- a home folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path):
    """``prod``, installed with a certificate of long ago; ``practice``, for practice."""
    home = Home(tmp_path / "home")
    install(home.new("prod"), 0)
    home.new("practice").write_settings({"sandbox": "nowhere"})
    return home


def test_those_for_practice_are_judged_only_by_name(home):
    assert set(check_home(home).verdicts) == {"prod"}
    assert check_home(home, "practice").whole.word == "CRITICAL"


def test_what_cannot_be_looked_at_is_unknown_and_no_error(home, tmp_path):
    found = check_home(home, "nobody")
    assert (found.exit_code, "no connection 'nobody'" in str(found)) == (3, True)
    (tmp_path / "file").write_text("")
    assert check_home(Home(tmp_path / "file")).exit_code == 3


def test_check_ends_with_the_exit_code_and_status_with_zero(home):
    shell = Shell(home.path)
    said = shell.ucl("status", "--check")
    assert (said.code, said.err) == (2, "")
    assert said.out.startswith("UCL CRITICAL - prod: expired")
    told = shell.ucl("status", "prod", "--check", "--json")
    assert (told.code, told.json["verdict"], told.json["exitCode"]) == (2, "CRITICAL", 2)
    assert shell.ucl("status", "nobody", "--check").code == 3
    (home.path / "connections/prod/settings.toml").write_text("keep = 0")
    assert shell.ucl("status", "prod", "--check").code == 3
    plain = shell.ucl("status", "prod", "--json")
    assert (plain.code, json.loads(plain.out)["state"]) == (0, "settings not usable")
