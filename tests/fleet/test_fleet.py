"""Fleets for real: practice connections, processes that are killed, runs that are stopped and gone on with."""

import json
import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from command_line import UCL, Shell, environment
from fleet_tasks import deadly
from processes import wait_until
from steps import pending_of

from tools.make_fleet import make_fleet
from ucl_helpers.clock import utc_now
from ucl_helpers.connection.attempts import remembered
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Busy, UsageError
from ucl_helpers.fleet.executors import Scheduler, processes
from ucl_helpers.fleet.plan import alone, fleet_status, plan, statuses
from ucl_helpers.fleet.run import ATTEMPTS, renew_fleet
from ucl_helpers.fleet.task import renew_one
from ucl_helpers.operate.hooks import run_hooks
from ucl_helpers.procedures.generations import export
from ucl_helpers.procedures.renewal import Renewal
from ucl_sandbox import Fault, Sandbox

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "fleet-outcome.schema.json"
NAMES = [f"c{number}" for number in range(8)]
FAST = 1000.0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder with connections of which all are due."""
    folder = tmp_path_factory.mktemp("fleet") / "home"
    make_fleet(folder, NAMES, validity=timedelta(hours=24), age=timedelta(hours=13), processes=1, keys=2)
    return Home(folder)


@pytest.fixture(scope="module", autouse=True)
def ucl(home):
    with Sandbox(home.path / "sandbox") as running:
        yield running


@pytest.fixture(autouse=True)
def finds_tasks_of_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.fixture
def shell(home):
    return Shell(home.path)


@pytest.fixture(scope="module")
def schema():
    found = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def renewals(home):
    """Return how many identities each connection made current, by its journal.

    A process that is killed between the record and the end of its renewal leaves both "renewed" and "settled" for the
    same identity.
    """
    return {
        connection.name: len(
            {event["fingerprint"] for event in connection.journal() if event["event"] in ("renewed", "settled")}
        )
        for connection in home.connections()
    }


def pids_of(workers):
    return [one.process.pid for one in list(workers.executor._workers.values()) if one.process.poll() is None]


def generations(home):
    return {one.name: one.current.name for one in home.connections()}


# -- what follows is told in the order in which the fleet lives it: the first run makes all connections new -----------


def test_all_that_is_due_is_renewed_though_workers_are_killed(home):
    """One is killed whenever a renewal is done: the other process has one in hand then, or is about to."""
    killed = []

    def kill(name, _):
        if len(killed) < 3 and (there := pids_of(workers)):  # one that was killed may not be replaced yet
            killed.append(there[len(killed) % len(there)])
            os.kill(killed[-1], signal.SIGKILL)

    workers = processes(2)
    with alone(home), workers.executor:
        outcome = renew_fleet(plan(home), workers, rate=FAST, progress=kill)
    assert (outcome.exit_code, len(killed)) == (0, 3)
    assert outcome.counts["renewed"] + outcome.counts["renewed-before"] == len(NAMES)
    assert renewals(home) == dict.fromkeys(NAMES, 1)
    for connection in home.connections():
        connection.require_current().check_whole()
        assert not pending_of(connection)


def test_what_is_not_due_needs_no_worker(home):
    before, planned = generations(home), plan(home)
    assert (dict(planned.bases), set(planned.settled)) == ({}, set(NAMES))
    assert planned.practice
    outcome = renew_fleet(planned, processes(1), rate=FAST)
    assert outcome.counts["not-due"] == len(NAMES)
    assert generations(home) == before


def test_a_renewal_under_way_is_gone_on_with_though_nothing_is_due(home):
    renewal = Renewal.begin(home.connection("c0"))
    for step in (renewal.configuration, renewal.request, renewal.sign):
        step()
    assert list(plan(home).bases) == ["c0"]
    assert renew_one(str(home.path), "c0", home.connection("c0").current.name).outcome == "renewed"
    assert list(plan(home).bases) == []


def test_a_connection_that_kills_its_worker_stops_nobody_else(home):
    workers = processes(2)
    with workers.executor:
        outcome = renew_fleet(plan(home, ["c1", "c2", "c3"], force=True), workers, rate=FAST, task=deadly)
    assert {name: result.outcome for name, result in outcome.results.items()} == {
        "c1": "failed",
        "c2": "renewed",
        "c3": "renewed",
    }
    assert outcome.lost == ATTEMPTS


def test_429_reaches_the_coordinator_at_once_and_the_renewal_is_begun_again(home, ucl):
    """The client of a single renewal would wait by itself, and the others would go on asking."""
    times = renewals(home)
    ucl.faults.set([Fault("http-429", at="certificate", times=2, value=1)])
    workers = processes(1)
    with workers.executor:
        outcome = renew_fleet(plan(home, ["c6", "c7"], force=True), workers, rate=FAST)
    ucl.faults.clear()
    assert (outcome.limited, outcome.repeated, outcome.counts["renewed"]) == (2, 2, 2)
    assert [renewals(home)[name] - times[name] for name in ("c6", "c7")] == [1, 1]


def test_a_task_that_is_run_twice_renews_once(home):
    base = home.connection("c2").current.name
    first, second = (renew_one(str(home.path), "c2", base, force=True) for _ in range(2))
    assert (first.outcome, second.outcome) == ("renewed", "renewed-before")
    assert first.fingerprint == second.fingerprint == home.connection("c2").current.fingerprint


def test_with_the_generation_of_now_it_would_renew_twice(home):
    told = [renew_one(str(home.path), "c2", home.connection("c2").current.name, force=True) for _ in range(2)]
    assert [result.outcome for result in told] == ["renewed", "renewed"]


def test_what_an_attempt_left_that_was_cut_off_after_its_switch_is_settled(home):
    connection = home.connection("c3")
    base, renewal = connection.current.name, Renewal.begin(connection)
    renewal.pending.discard = lambda: None  # killed just before
    renewal.run()
    assert pending_of(connection)
    assert renew_one(str(home.path), "c3", base, force=True).outcome == "renewed-before"
    assert not pending_of(connection)


def configured(connection, command, more=""):
    sandbox = connection.read_settings().sandbox
    (connection.path / "settings.toml").write_text(
        f'{more}sandbox = "{sandbox}"\n[[hooks]]\nname = "one"\ncommand = {json.dumps(command)}\n'
    )
    return connection


@pytest.fixture
def c5(home):
    connection = home.connection("c5")
    before = (connection.path / "settings.toml").read_bytes()
    yield connection
    (connection.path / "settings.toml").write_bytes(before)


def test_a_second_attempt_renews_nothing_that_is_not_due(c5, home):
    configured(c5, ["true"])
    base = c5.current.name
    assert list(plan(home, ["c5"]).bases) == ["c5"]
    assert renew_one(str(home.path), "c5", base, again=True).outcome == "not-due"
    assert c5.current.name == base


def test_the_same_identity_with_its_files_made_anew_is_not_renewed_yet(c5, home):
    base = c5.current.name
    export(c5, force=True)
    assert c5.current.name != base
    assert renew_one(str(home.path), "c5", base, force=True).outcome == "renewed"


def test_a_hook_that_failed_is_told_beside_what_the_renewal_came_to(c5, home, shell, schema):
    configured(c5, ["false"])
    said = shell.ucl("fleet", "renew", "c5", "--force", "--json")
    schema.validate(said.json)
    told = said.json["connections"]["c5"]
    assert (said.code, told["outcome"], told["exitCode"], told["error"]["class"]) == (13, "renewed", 13, "HookFailed")
    assert told["fingerprint"] == c5.current.fingerprint
    again = shell.ucl("fleet", "renew", "c5")
    assert (again.code, "not due" in again.out, "13 HookFailed" in again.out) == (13, True, True)


def test_hooks_can_be_told_to_end(c5, home, shell, tmp_path):
    """SIGTERM that is ignored by the worker would be ignored by what its hook starts, too."""
    configured(c5, ["sh", "-c", f"grep SigIgn /proc/self/status > {tmp_path / 'told'}"])
    assert shell.ucl("fleet", "renew", "c5").code == 0
    ignored = int((tmp_path / "told").read_text().split()[1], 16)
    assert ignored & (1 << signal.SIGTERM - 1 | 1 << signal.SIGINT - 1) == 0


def test_of_those_that_are_not_due_it_is_remembered_that_somebody_looked(home):
    before = remembered(home.connection("c4")).last_looked
    assert "c4" in plan(home, ["c4"]).settled
    assert remembered(home.connection("c4")).last_looked > before


def test_one_that_is_forgotten_meanwhile_stops_nobody(home):
    there, looks = home.connection("c4").path, []

    def forgets():
        looks.append(there)
        if len(looks) == 2:  # at the second connection
            there.rename(home.path / "gone")
        return utc_now()

    try:
        assert "c6" in plan(home, ["c4", "c6"], clock=forgets).settled
    finally:
        (home.path / "gone").rename(there)


def test_a_key_that_lies_in_plain_and_is_not_to_is_work(c5, home, monkeypatch):
    monkeypatch.setenv("A_KEY", "a passphrase of some length")
    assert list(plan(home, ["c5"]).bases) == []
    configured(c5, ["true"], 'key_passphrase = "env:A_KEY"\n')
    run_hooks(c5)
    assert list(plan(home, ["c5"]).bases) == ["c5"]
    assert renew_one(str(home.path), "c5", c5.current.name).outcome == "not-due"
    assert c5.current.is_sealed
    assert list(plan(home, ["c5"]).bases) == []
    monkeypatch.delenv("A_KEY")  # the next renewal could not read it: a run says so before the due date
    assert list(plan(home, ["c5"]).bases) == ["c5"]
    monkeypatch.setenv("A_KEY", "a passphrase of some length")
    (c5.path / "settings.toml").write_text(f'sandbox = "{c5.read_settings().sandbox}"\n')
    export(c5, former=lambda: b"a passphrase of some length")


@pytest.mark.parametrize("name", ["nowhere", "../c0"])
def test_an_error_comes_back_as_data(home, name):
    result = renew_one(str(home.path), name, None)
    assert (result.outcome, result.exit_code) == ("failed", 2)
    assert result.error["remedy"]
    json.dumps(result.as_json())


def test_two_runs_at_once_are_one_too_many(home):
    with alone(home), pytest.raises(Busy, match="fleet is in use by"), alone(Home(home.path)):
        pass


def test_patterns_choose_by_name(home):
    assert [one.name for one in statuses(home, ["c[12]", "c7"])] == ["c1", "c2", "c7"]
    with pytest.raises(UsageError, match="'d\\*'"):
        statuses(home, ["c1", "d*"])


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_forced_run_that_is_stopped_goes_on_where_it_was(home, shell, schema):
    some = NAMES[:4]
    before, times = generations(home), renewals(home)
    command = [UCL, "fleet", "renew", "c[0-3]", "--force", "--json", "--jobs", "1"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment(home.path)}
    with subprocess.Popen([*command, "--rate", "3"], **streams) as running:
        wait_until(lambda: generations(home) != before)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate()
    stopped, again = json.loads(out), shell.ucl(*command[1:], "--rate", "1000")
    assert (running.returncode, err, stopped["stopped"]) == (130, b"", "interrupted")
    done = stopped["counts"]["renewed"]
    assert 0 < done < len(some) == done + stopped["counts"]["left"]
    assert (again.code, again.json["counts"]["renewed-before"]) == (0, done)
    assert "Going on with" in again.err
    assert {name: renewals(home)[name] - times[name] for name in some} == dict.fromkeys(some, 1)
    assert [list(schema.iter_errors(one)) for one in (stopped, again.json)] == [[], []]


def test_a_forced_run_that_was_over_is_not_gone_on_with(home):
    planned = plan(home, ["c4"], force=True)
    assert plan(home, ["c4"], force=True).continued
    assert not plan(home, ["c5"], force=True).continued
    planned.done()
    assert not plan(home, ["c4"], force=True).continued
    planned.done()


def test_nor_one_that_was_stopped_long_ago(home):
    planned = plan(home, ["c4"], force=True)
    note = home.path / "fleet" / "forced.json"
    told = json.loads(note.read_text())
    note.write_text(json.dumps({**told, "began": "2020-01-01T00:00:00+00:00"}))
    assert not plan(home, ["c4"], force=True).continued
    planned.done()


@pytest.mark.parametrize("damage", ["", "[]", '{"began": 1}', '{"began": "x", "patterns": ["c4"], "bases": {}}'])
def test_nor_one_whose_note_is_damaged(home, damage):
    planned = plan(home, ["c4"], force=True)
    (home.path / "fleet" / "forced.json").write_text(damage)
    assert not plan(home, ["c4"], force=True).continued
    planned.done()


def test_the_outcome_is_a_private_file_that_follows_its_schema(home, shell, schema, tmp_path):
    key = home.connection("c5").current.path / "key.pem"
    key.rename(key.with_name("elsewhere"))
    said = shell.ucl("fleet", "renew", "c5", "c6", "--force", "--jobs", "1", "-o", tmp_path / "told.json")
    key.with_name("elsewhere").rename(key)
    told = json.loads((tmp_path / "told.json").read_text())
    assert list(schema.iter_errors(told)) == []
    assert (said.code, said.err, told["exitCode"]) == (10, "", 10)
    assert (told["counts"]["renewed"], told["counts"]["failed"]) == (1, 1)
    assert told["connections"]["c5"]["error"]["class"] == "StorageFailed"
    assert "10 StorageFailed" in said.out
    assert (tmp_path / "told.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("wrong", [{"schemaVersion": 2}, {"counts": {}}, {"connections": {"c": {}}}, {"more": 1}])
def test_an_outcome_that_does_not_follow_it_is_found(home, schema, wrong):
    told = renew_fleet(plan(home, ["c7"]), processes(1)).as_json()
    assert list(schema.iter_errors(told)) == []
    assert list(schema.iter_errors({**told, **wrong})) != []


def test_the_status_counts_and_names_who_needs_somebody(home, shell):
    home.new("unborn")
    everything = ("fleet", "status", "--practice")
    text, told = shell.ucl(*everything), shell.ucl(*everything, "--json").json
    (home.path / "connections" / "unborn" / "generations").rmdir()
    (home.path / "connections" / "unborn").rmdir()
    assert told["counts"] == {"not established": 1, "valid": len(NAMES)}
    assert [one["name"] for one in told["connections"]] == [*NAMES, "unborn"]
    assert (text.code, text.err) == (0, "")
    assert f"{len(NAMES) + 1} connections, 0 due" in text.out
    assert "unborn" in text.out
    assert "c1" not in text.out
    assert "1 connection, 0 due" in shell.ucl("fleet", "status", "c1").out


def test_the_status_leaves_practice_connections_out_unless_asked_for(home):
    home.new("real")
    try:
        shown = {
            "default": fleet_status(home),
            "asked for": fleet_status(home, practice=True),
            "by pattern": fleet_status(home, ["c*"]),
        }
    finally:
        (home.path / "connections" / "real" / "generations").rmdir()
        (home.path / "connections" / "real").rmdir()
    names = {label: [status.name for status in fleet.statuses] for label, fleet in shown.items()}
    assert names == {"default": ["real"], "asked for": [*NAMES, "real"], "by pattern": NAMES}
    assert f"1 connection, 0 due; {len(NAMES)} for practice left out" in str(shown["default"])
    assert "left out" not in f"{shown['asked for']}{shown['by pattern']}"


@pytest.mark.parametrize("folder", [".", "nothing"])
@pytest.mark.parametrize("command", [("renew",), ("renew", "--force"), ("status",)])
def test_a_home_without_connections_is_likely_a_wrong_one(command, folder, tmp_path):
    said = Shell(tmp_path / folder).ucl("fleet", *command, "--json")
    assert (said.code, "UCL_HOME" in said.json["remedy"]) == (2, True)
    assert str(tmp_path / folder) in said.json["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("--scheduler", "tcp://example.org:8786"), "is another machine"),
        (("--scheduler", "tcp://localhost:8786", "--jobs", "2"), "--jobs"),
        (("--tls-key", "x"), "for a scheduler"),
        (("nobody-*",), "nobody-*"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(shell, given, text):
    said = shell.ucl("fleet", "renew", *given, "--json")
    assert said.code == 2
    assert text in said.json["message"]


@pytest.mark.parametrize(
    ("address", "files", "text"),
    [
        ("tcp://example.org:8786", (), "is another machine"),
        ("tcp://10.0.0.1:8786", (), "is another machine"),
        ("tcp://localhost.example.org:8786", (), "is another machine"),
        ("tls://localhost:8786", (), "needs a CA"),
        ("tls://localhost:8786", (SCHEMA, SCHEMA), "needs a CA"),
        ("tls://localhost:8786", (SCHEMA, SCHEMA, Path("nowhere")), "no file nowhere"),
        ("tcp://localhost:8786", (SCHEMA,), "would not be used"),
        ("localhost:8786", (), "no address"),
        ("tls://localhost", (), "no address"),
        ("tls://localhost:x", (), "no address"),
        ("http://localhost:8786", (), "no address"),
    ],
)
def test_the_way_to_a_scheduler_is_mutual_tls_or_stays_here(address, files, text):
    with pytest.raises(UsageError, match=text):
        Scheduler(address, *files).require_safe()


@pytest.mark.parametrize(
    ("address", "files"),
    [
        ("tls://example.org:8786", (SCHEMA, SCHEMA, SCHEMA)),
        ("tcp://localhost:8786", ()),
        ("tcp://127.0.0.1:8786", ()),
        ("tcp://[::1]:8786", ()),
    ],
)
def test_and_then_it_is_taken(address, files):
    Scheduler(address, *files).require_safe()


@pytest.mark.parametrize("command", ["status", "renew"])
def test_the_examples_in_the_help_can_be_typed(shell, command):
    from ucl_helpers.cli.fleet import fleet_command

    said = shell.ucl("fleet", command, "--help")
    lines = [line.strip() for line in said.out.splitlines() if line.strip().startswith("ucl ")]
    assert lines
    for line in lines:
        _, group, name, *arguments = line.replace("'", "").split()
        assert (group, name) == ("fleet", command)
        fleet_command.commands[command].make_context(command, arguments)
