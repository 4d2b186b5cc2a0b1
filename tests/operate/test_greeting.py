"""``ucl`` by itself: where things stand and what to do next, whatever lies in the home folder."""

import os
import re
import shlex
import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from command_line import BITS, BOUNDED, Shell, needs_bounds
from steps import Clock, install

from ucl_helpers.cli.main import group
from ucl_helpers.clock import utc_now
from ucl_helpers.connection.attempts import Attempts, Failure, recording_attempt
from ucl_helpers.connection.status import BEGUN, SENT, SIGNED, STAGES, STATES, Status, UnderWay
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Busy, ChecksFailed, Refused, RetryLater, Unreachable
from ucl_helpers.models import Due, Validity
from ucl_helpers.operate.greeting import MOST, greeting, next_step, urgency
from ucl_sandbox import Sandbox

NOT_OURS = {"make", "cd", "jupyter"}


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def installed(ucl, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    return install(Home(folder / "home"), ucl, folder).path


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def add(home, installed):
    """Puts a connection into the home folder: a copy of one that is well."""

    def copied(name="prod"):
        path = home.new(name).path
        shutil.rmtree(path)
        shutil.copytree(installed, path, symlinks=True)
        return home.connection(name)

    return copied


def commands(text):
    """What is to be pasted: the lines that are set in; each is a command that there is, with options that there are."""
    found = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    for line in found:
        program, *words = shlex.split(line)
        if program not in NOT_OURS:
            assert program == "ucl"
            command = group.commands[words[0]]
            while hasattr(command, "commands"):
                words = words[1:]
                command = command.commands[words[0]]
            command.make_context(words[0], words[1:])
    return found


def test_at_the_beginning_it_names_the_ways_in_and_makes_nothing(tmp_path):
    shell = Shell(tmp_path / "home")
    said = shell.ucl()
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Home folder: {shell.home}\nConnections: none yet\n")
    found = commands(said.out)
    assert found[0] == "ucl establish practice --sandbox"
    assert [line.split()[1] for line in found[1:3]] == ["import", "establish"]
    assert found[3].startswith("make -C ")
    assert not shell.home.exists()


def test_the_first_of_its_commands_can_be_pasted_and_then_it_knows_more(tmp_path):
    shell = Shell(tmp_path / "home")
    first = commands(shell.ucl().out)[0]
    assert shell.ucl(*shlex.split(first)[1:], *BITS).code == 0
    said = shell.ucl()
    assert "Connections: 1 valid" in said.out
    assert "practice (sandbox)  valid  " in said.out
    assert "Nothing is to be done before " in said.out
    assert commands(said.out)[0] == "ucl renew practice --force"
    assert shell.ucl(*shlex.split(commands(said.out)[0])[1:], *BITS, "--json").json["outcome"] == "renewed"


def test_what_is_well_is_left_alone(home, add):
    add()
    text = greeting(home)
    due = home.connection("prod").due(utc_now())
    assert f"Nothing is to be done before {due.at:%Y-%m-%dT%H:%M:%SZ}, when prod is due." in text
    assert commands(text) == []


@pytest.mark.parametrize(
    ("days", "told", "command"),
    [
        (80, "prod: due since ", "ucl renew prod"),
        (91, "prod: expired ", 'ucl establish prod --token prompt --connector-url "$CONNECTOR_URL" --ca-file '),
        (-2, "prod: not yet valid", "ucl doctor prod"),
    ],
)
def test_what_time_does_has_its_command(days, told, command, home, add):
    add()
    text = greeting(home, Clock(days=days))
    assert told in text
    assert [line.startswith(command) for line in commands(text)] == [True]


def test_each_connection_has_what_it_needs(home, add, monkeypatch):
    monkeypatch.setenv("UCL_HOME", str(home.path))
    (add("damaged").path / "current").unlink()
    (add("settings").path / "settings.toml").write_text("keep = 0")
    add("revoked").record("revoked", fingerprint=home.connection("revoked").current.fingerprint)
    (add("hooks").path / "settings.toml").write_text('[[hooks]]\nname = "tell"\ncommand = ["true"]\n')
    failing = add("failing")
    (failing.path / "settings.toml").write_text('renew_before = "2000d"\n')
    with suppress(Unreachable), failing.lock.held(), recording_attempt(failing, Clock(days=46)):
        raise Unreachable("UCL cannot be reached.")
    home.new("new")
    found = commands(greeting(home, Clock(days=47)))
    assert [line.split(" --connector-url")[0] for line in found] == [
        "ucl doctor damaged",
        "ucl settings settings --edit",
        "ucl establish new --token prompt",
        "ucl establish revoked --token prompt",
        "ucl renew failing",
        "ucl hooks hooks",
    ]
    assert "ucl renew failing --force" in commands(greeting(home, Clock(days=46, seconds=2)))
    assert not [line for line in found if "--home" in line]


def test_another_home_folder_than_the_usual_stands_in_every_command(home, add, tmp_path):
    add()
    chosen = home.path.rename(tmp_path / "with a space")
    said = Shell(tmp_path / "usual").ucl("--home", chosen)
    assert f"Home folder: {chosen}" in said.out
    found = commands(greeting(Home(chosen), Clock(days=80)))
    assert [shlex.split(line)[-2:] for line in found] == [["--home", str(chosen)]]


def test_of_many_those_are_named_that_need_something(home, add):
    for number in range(MOST + 2):
        add(f"well-{number}")
        (add(f"ill-{number:02}").path / "settings.toml").write_text("keep = 0")
    text = greeting(home)
    assert "Connections: 12 settings not usable, 12 valid" in text
    assert "well" not in text
    assert [line.split()[2] for line in commands(text)[:MOST]] == [f"ill-{number:02}" for number in range(MOST)]
    assert "And 2 more:\n  ucl status" in text
    assert len(text.splitlines()) < 3 * MOST
    text = greeting(home, Clock(days=80))
    assert "Connections: 12 settings not usable, 12 due" in text
    assert "ucl fleet renew --home" in commands(text)[-1]


def test_no_more_than_that_are_shown_each(home, add):
    for number in range(MOST):
        add(f"well-{number}")
    shown = [line.split()[:2] for line in greeting(home).splitlines()]
    assert all([f"well-{number}", "valid"] in shown for number in range(MOST))
    add("one-too-many")
    assert "well-0" not in greeting(home).partition("Nothing")[0]


# -- whatever lies there -----------------------------------------------------------------------------------------------

BINARY = bytes(range(256))


def a_folder(path):
    with suppress(FileNotFoundError):
        path.unlink()
    path.mkdir()


def a_loop(path):
    with suppress(FileNotFoundError):
        path.unlink()
    path.symlink_to(path.name)


PLACES = ("settings.toml", "journal.jsonl", "attempts.json", "hooks.json", "current", "generations", "pending", "aside")
WITHIN = ("current/chain.pem", "current/connection.json", "pending/state.json", "pending/answer.json")
DAMAGES = {
    "a folder": a_folder,
    "a loop": a_loop,
    "bytes": lambda path: path.write_bytes(BINARY),
    "nothing": lambda path: path.write_bytes(b""),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "gone": lambda path: path.unlink(missing_ok=True),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", PLACES + WITHIN)
def test_one_that_is_damaged_keeps_nothing_from_being_said(place, damage, home, add):
    add("well")
    path = add().path / place
    path.parent.mkdir(exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink():
        path.unlink()
    DAMAGES[damage](path)
    text = greeting(home)
    assert "well" in text
    assert "prod" in text
    commands(text)


@needs_bounds
def test_one_that_may_not_be_looked_into_keeps_nothing_from_being_said(home, add):
    add("well")
    closed = add().path
    closed.chmod(0)
    said = Shell(home.path, started_by=BOUNDED).ucl()
    closed.chmod(0o700)
    assert (said.code, said.err, "1 damaged, 1 valid" in said.out) == (0, "", True)
    assert commands(said.out) == ["ucl doctor prod"]


def test_a_home_that_is_a_file_is_told_and_how_to_choose_another(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        for arguments in ((), ("status",), ("renew", "x"), ("fleet", "status"), ("establish", "practice", "--sandbox")):
            said = Shell(place).ucl(*arguments)
            assert (said.code, said.out, "Traceback" in said.err) == (10, "", False), arguments
            assert str(place) in said.err
            assert "with --home or UCL_HOME" in said.err


@needs_bounds
def test_a_home_that_may_not_be_looked_into_is_told(home, add):
    add()
    home.path.chmod(0)
    said = Shell(home.path, started_by=BOUNDED).ucl()
    home.path.chmod(0o700)
    assert (said.code, said.out) == (10, "")
    assert re.search(r"Permission denied\.\n.*--home or UCL_HOME", said.err)
    assert Shell(home.path, started_by=BOUNDED).ucl().code == 0


def test_it_takes_no_lock_and_changes_nothing(home, add):
    connection = add()
    before = sorted((path, os.lstat(path).st_mtime_ns) for path in home.path.rglob("*"))
    with connection.lock.held():
        held = sorted((path, os.lstat(path).st_mtime_ns) for path in home.path.rglob("*"))
        text = greeting(home)
        assert sorted((path, os.lstat(path).st_mtime_ns) for path in home.path.rglob("*")) == held
    assert "1 valid" in text
    assert {path for path, _ in before} <= {path for path, _ in held}


def test_it_is_told_of_the_moment_it_is_given(home, add):
    add()
    assert "1 valid" in greeting(home, Clock(days=1))
    assert "1 due" in greeting(home, lambda: utc_now() + timedelta(days=70))


# -- the next step of one connection ----------------------------------------------------------------------------------

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DAY = timedelta(days=1)
VALID = Status(
    "prod", "valid", NOW, validity=Validity(NOW - DAY, NOW + 89 * DAY), due=Due(False, NOW + 59 * DAY, "a rule")
)
DUE = replace(
    VALID, state="due", validity=Validity(NOW - 61 * DAY, NOW + 29 * DAY), due=Due(True, NOW - DAY, "two thirds")
)
EXPIRED = replace(DUE, state="expired", validity=Validity(NOW - 91 * DAY, NOW - DAY))
OTHERS = {state: Status("prod", state, NOW, problem="told") for state in STATES[3:]}
EVERY = {"valid": VALID, "due": DUE, "expired": EXPIRED, **OTHERS}
WANTED = {
    "valid": None,
    "due": "renew",
    "expired": "establish",
    "not yet valid": "doctor",
    "revoked": "establish",
    "refused": "doctor",
    "not established": "establish",
    "settings not usable": "settings",
    "damaged": "doctor",
}


def action(status):
    step = next_step(status)
    return step and step.action


def left(procedure, stage):
    return UnderWay(procedure, "2026-11-23T00:00:00Z", stage)


def failed(kind, *, waits):
    again = NOW + timedelta(minutes=5) if waits else NOW - timedelta(minutes=5)
    last = Failure(kind.__name__, "why", kind.exit_code, NOW - timedelta(minutes=10))
    return Attempts(failures=3, failing_since=NOW - DAY, last_error=last, not_before=again, generation="000001-x")


def test_every_state_has_its_step():
    assert {state: action(status) for state, status in EVERY.items()} == WANTED
    assert set(WANTED) == set(STATES)


@pytest.mark.parametrize(
    ("state", "told"),
    [("due", "due since 2026-11-23T00:00:00Z"), ("expired", "expired 2026-11-23T00:00:00Z"), ("damaged", "told")],
)
def test_it_says_why(state, told):
    assert next_step(EVERY[state]).why == told


@pytest.mark.parametrize("stage", STAGES)
def test_a_renewal_that_was_sent_goes_on_and_one_that_was_begun_waits(stage):
    seen = next_step(replace(VALID, under_way=left("renew", stage)))
    assert (seen is None) == (stage == BEGUN)
    assert seen is None or (seen.action == "renew" and seen.why.endswith(stage))
    assert action(replace(DUE, under_way=left("renew", stage))) == "renew"


@pytest.mark.parametrize("state", ["valid", "due", "expired", "revoked", "not established"])
def test_an_establishment_that_is_signed_is_finished_and_no_other(state):
    status = EVERY[state]
    assert action(replace(status, under_way=left("establish", SIGNED))) == "finish"
    for stage in (BEGUN, SENT):
        assert action(replace(status, under_way=left("establish", stage))) == WANTED[state]


def test_a_renewal_that_is_under_way_brings_nothing_back():
    assert action(replace(EXPIRED, under_way=left("renew", SIGNED))) == "establish"


def test_what_is_under_way_and_cannot_be_read_is_for_the_doctor():
    assert action(replace(VALID, under_way=left("damaged", SENT))) == "doctor"


@pytest.mark.parametrize(
    ("kind", "wanted"), [(RetryLater, "renew"), (Busy, "renew"), (Refused, "doctor"), (ChecksFailed, "doctor")]
)
@pytest.mark.parametrize("waits", [True, False])
def test_what_failed_is_tried_again_if_that_can_help(kind, wanted, waits):
    seen = next_step(replace(DUE, attempts=failed(kind, waits=waits)))
    assert seen.action == wanted
    assert f"failed 3 in a row, the last: {kind.__name__}: why" in seen.why
    assert ("next try not before 2026-11-24T00:05:00Z" in seen.why) == waits


def test_what_failed_and_is_not_due_needs_nobody():
    assert next_step(replace(VALID, attempts=failed(Refused, waits=True))) is None


def test_hooks_are_run_when_there_is_nothing_else_to_do():
    waiting = ("reload", "tell")
    assert next_step(replace(VALID, pending_hooks=waiting)).action == "hooks"
    assert next_step(replace(VALID, pending_hooks=waiting)).why == "hooks still have to run: reload, tell"
    assert action(replace(DUE, pending_hooks=waiting)) == "renew"
    assert action(replace(EXPIRED, pending_hooks=waiting)) == "establish"


def test_what_works_the_least_comes_first():
    ranked = sorted(EVERY.values(), key=urgency)
    assert [one.state for one in ranked] == list(reversed(STATES))
    assert min([replace(DUE, name="b"), replace(DUE, name="a")], key=urgency).name == "a"
