"""What monitoring is told: a word by state, how late and how often failed; and the exit code of ``--check``."""

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from command_line import Shell
from prometheus_client.parser import text_string_to_metric_families
from stored import install

from ucl_helpers.connection.attempts import Attempts, Failure
from ucl_helpers.connection.status import STATES, Status
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.models import Due, Validity
from ucl_helpers.operate import monitoring
from ucl_helpers.operate.monitoring import Report, check_home, render, verdict, write_textfile
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
    attempts = Attempts(failures=failures, last_error=failed)
    return Status(name, word, now, generation="000001-ab", validity=LIFE, due=when, attempts=attempts)


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
    judgement = verdict(status)
    assert judgement.word == word
    assert text in judgement.text
    assert "\n" not in judgement.text
    assert "|" not in judgement.text


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


def test_hooks_that_wait_are_a_warning():
    waiting = {"pending_hooks": ("reload", "copy")}
    well, expired = replace(at(0), **waiting), replace(at(90), **waiting)
    assert (verdict(well).word, verdict(expired).word) == ("WARNING", "CRITICAL")
    assert verdict(well).text.endswith("hooks that still have to run: 2")


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
    return Report({status.name: verdict(status) for status in statuses})


def test_of_one_it_is_a_line_with_what_was_measured():
    said = str(report(at(60)))
    line, measured = said.split(" | ")
    assert line == "UCL OK - prod: due since 2026-04-30T12:00:00Z, 30 d left"
    assert measured == "prod_days_left=30.000;22.500:;7.500:"


def test_of_several_the_worst_comes_first_and_each_has_its_line():
    several = report(at(0, name="a"), at(70, name="b"), at(85, name="c"), at(1, name="d"))
    first, *others = str(several).splitlines()
    assert first.startswith("UCL CRITICAL - 2 of 4 need attention: c: due since")
    assert [line.partition(" - ")[2][0] for line in others] == ["c", "b", "a", "d"]
    measured = first.split(" | ")[1].split()
    assert [value[0] for value in measured] == ["a", "b", "c", "d"]
    assert all(PERFDATA.fullmatch(value) for value in measured)
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
    judged = report(*statuses)
    assert (judged.whole.word, judged.exit_code) == (word, code)
    assert str(judged).startswith(f"UCL {word} - ")


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
    judged = check_home(home, "unknown")
    assert (judged.exit_code, "no connection 'unknown'" in str(judged)) == (3, True)
    (tmp_path / "file").write_text("")
    assert check_home(Home(tmp_path / "file")).exit_code == 3


def test_check_ends_with_the_exit_code_and_status_with_zero(home):
    shell = Shell(home.path)
    said = shell.ucl("status", "--check")
    assert (said.code, said.err) == (2, "")
    assert said.out.startswith("UCL CRITICAL - prod: expired")
    said = shell.ucl("status", "prod", "--check", "--json")
    assert (said.code, said.json["verdict"], said.json["exitCode"]) == (2, "CRITICAL", 2)
    assert shell.ucl("status", "nobody", "--check").code == 3
    (home.path / "connections/prod/settings.toml").write_text("keep = 0")
    assert shell.ucl("status", "prod", "--check").code == 3
    plain = shell.ucl("status", "prod", "--json")
    assert (plain.code, json.loads(plain.out)["state"]) == (0, "settings not usable")


# -- metrics -----------------------------------------------------------------------------------------------------------

WHOLE = Status(
    "prod",
    "due",
    START + 61 * DAY,
    generation="000042-3fa9c1",
    validity=Validity(START, START + 90 * DAY),
    due=Due(due=True, at=START + 60 * DAY, reason=""),
    attempts=Attempts(START + 61 * DAY, START + 60 * DAY, START, failures=2, refused_since=START + 60 * DAY),
)


def samples(text):
    """Each sample by name and labels; it has a help text and is a gauge."""
    values = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        for sample in family.samples:
            values[sample.name, *sample.labels.values()] = sample.value
    return values


def test_every_gauge_has_its_value():
    values = samples(render([WHOLE], START + 61 * DAY))
    day = 86_400
    assert {name: value for (name, *_), value in values.items() if name != "ucl_state"} == {
        "ucl_certificate_not_before_timestamp_seconds": START.timestamp(),
        "ucl_certificate_not_after_timestamp_seconds": START.timestamp() + 90 * day,
        "ucl_renewal_due_timestamp_seconds": START.timestamp() + 60 * day,
        "ucl_last_looked_timestamp_seconds": START.timestamp() + 61 * day,
        "ucl_last_attempt_timestamp_seconds": START.timestamp() + 60 * day,
        "ucl_last_success_timestamp_seconds": START.timestamp(),
        "ucl_renewal_failures": 2,
        "ucl_refused_since_timestamp_seconds": START.timestamp() + 60 * day,
        "ucl_refusal_ends_timestamp_seconds": START.timestamp() + 61 * day,
        "ucl_generation_number": 42,
        "ucl_hooks_pending": 0,
        "ucl_metrics_written_timestamp_seconds": START.timestamp() + 61 * day,
    }
    assert all(("prod" in key) == (key[0] != "ucl_metrics_written_timestamp_seconds") for key in values)


@pytest.mark.parametrize("state", STATES)
def test_of_all_states_one_is_1(state):
    values = samples(render([replace(WHOLE, state=state)], START))
    assert {key[2]: value for key, value in values.items() if key[0] == "ucl_state"} == {
        **dict.fromkeys(STATES, 0),
        state: 1,
    }


def test_what_is_not_known_has_no_sample_but_for_the_dead_mans_switch():
    values = samples(render([Status("new", "not established", START)], START))
    assert {name: value for (name, *_), value in values.items() if name != "ucl_state"} == {
        "ucl_last_looked_timestamp_seconds": 0,
        "ucl_renewal_failures": 0,
        "ucl_hooks_pending": 0,
        "ucl_metrics_written_timestamp_seconds": START.timestamp(),
    }
    assert ("ucl_generation_number", "odd") not in samples(render([replace(WHOLE, name="odd", generation="x")], START))


def test_hooks_that_wait_are_counted():
    status = replace(WHOLE, pending_hooks=("reload", "copy", "tell"))
    assert samples(render([status], START))["ucl_hooks_pending", "prod"] == 3


def test_a_name_of_any_kind_is_escaped():
    name = 'a"b\\c\nd'
    assert samples(render([replace(WHOLE, name=name)], START))["ucl_generation_number", name] == 42


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_can_be_read_by_others_and_is_replaced_whole(tmp_path):
    path, before = tmp_path / "ucl.prom", os.umask(0o077)
    try:
        write_textfile(path, b"old\n")
        held = path.open("rb")
        write_textfile(path, b"new\n")
    finally:
        os.umask(before)
    with held:
        assert (held.read(), path.read_bytes()) == (b"old\n", b"new\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["ucl.prom"]


def test_a_name_that_node_exporter_passes_over_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"does not end in \.prom"):
        write_textfile(tmp_path / "ucl.txt", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StorageFailed, match="No such file"):
        write_textfile(tmp_path / "missing" / "ucl.prom", b"")


def test_the_command_writes_what_it_prints(tmp_path):
    home = Home(tmp_path / "home")
    install(home.new("prod"), 0)
    home.new("practice").write_settings({"sandbox": "nowhere"})
    shell, path = Shell(home.path), tmp_path / "ucl.prom"
    printed, written = shell.ucl("metrics"), shell.ucl("metrics", "--textfile", path)
    assert (printed.code, printed.err, written.code, written.out) == (0, "", 0, "")
    values = samples(path.read_bytes())
    assert {key[1] for key in values if len(key) > 1} == {"prod"}
    assert values["ucl_state", "prod", "expired"] == 1
    assert samples(printed.out.encode()).keys() == values.keys()
    assert ("ucl_state", "practice", "not established") in samples(shell.ucl("metrics", "--practice").out.encode())
    assert shell.ucl("metrics", "--textfile", tmp_path / "ucl.txt").code == 2
