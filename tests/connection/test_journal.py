"""A home folder of the previous version: read as it is, and taken over under the lock, whatever is cut off in between.

`data/home-of-the-previous-version.tar.gz` was made by that version at its own sandbox, on 2026-12-01: established,
renewed, the second certificate revoked, rolled back to the first; its hooks run, one in vain; then, with the sandbox
stopped, a renewal failed, and so did a revocation of the first. Its keys are throw-away.
"""

import json
import os
import signal
import sys
import tarfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import Shell
from stored import KilledError, killed_after
from tracing import UNFIT, record, strike

from ucl_helpers import status_of, valid_identities
from ucl_helpers.connection import journal
from ucl_helpers.connection.attempts import remembered
from ucl_helpers.connection.files import Lock
from ucl_helpers.connection.state import Activation
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Busy, StorageFailed
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.operate.hooks import run_hooks

PREVIOUS = Path(__file__).parents[1] / "data" / "home-of-the-previous-version.tar.gz"
NOW = datetime(2026, 12, 2, tzinfo=UTC)
FIRST, SECOND = "000001-3fdf7fffc653", "000002-889da76eeb50"
STATE_FILES = ("revoked.json", "activation.json")


def now():
    return NOW


def unpacked(path):
    with tarfile.open(PREVIOUS) as archive:
        # Python 3.11.2, which Debian 12 has, knows no argument `filter`.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(path)  # noqa: S202  # made by this project
    for folder, _, _ in os.walk(path):
        Path(folder).chmod(0o700)
    return Home(path).connection("prod")


@pytest.fixture
def prod(tmp_path):
    return unpacked(tmp_path / "home")


def known(connection):
    """What the previous version knew, with the words of this one."""
    first, second = connection.generations()
    return {
        "revoked": connection.revoked().get(second.fingerprint),
        "verdicts": {mark[:12]: one.status for mark, one in connection.verdicts().items()},
        "valid": [one.fingerprint for one in valid_identities(connection, now)],
        "activation": connection.activation_of(first),
        "hooks": status_of(connection, now).pending_hooks,
        "problems": connection.hook_failures(first),
        "attempts": remembered(connection),
        "state": status_of(connection, now).state,
        "usable": connection.usable(NOW),
    }


def require_known(connection):
    told, (first, second) = known(connection), connection.generations()
    assert told["revoked"] == datetime(2026, 12, 1, 15, 59, 26, 567000, UTC)
    assert told["verdicts"] == {FIRST[-12:]: "asked", SECOND[-12:]: "revoked"}
    assert told["valid"] == [first.fingerprint]
    assert told["activation"] == Activation(FIRST, "rolled-back", second.fingerprint)
    assert (told["hooks"], told["problems"]) == (("reload",), {"reload": "exit code 3"})
    assert (told["attempts"].failures, told["state"], told["usable"]) == (1, "valid", [])


def test_readers_answer_right_before_it_is_taken_over_and_change_nothing(prod):
    require_known(prod)
    assert "hooks" in {one.name for one in diagnose(prod, offline=True) if one.status == "failed"}
    shell = Shell(prod.home.path)
    assert shell.ucl("status", "prod", "--json").json["unusable"].keys() == {FIRST, SECOND}
    assert shell.ucl("metrics").code == 0
    assert not [one for one in STATE_FILES if (prod.path / one).exists()]


LATER = {
    "kept": lambda path: None,
    "emptied": lambda path: path.write_text(""),
    "removed": lambda path: path.unlink(),
    "rubbish": lambda path: path.write_bytes(bytes(range(256))),
    "forged": lambda path: path.write_text(json.dumps({"event": "rolled-back", "generation": FIRST, "previous": "x"})),
}


@pytest.mark.kind("state is not a log: homes of the previous version that are taken over")
@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_the_first_who_takes_the_lock_moves_what_the_journal_knew(prod, later):
    with prod.lock.held():
        pass
    later(prod.path / "journal.jsonl")
    require_known(prod)
    assert run_hooks(prod).failed == {"reload": "exit code 3"}
    assert (prod.path / "hooks" / "reload.log").exists()


def test_without_that_a_journal_that_is_lost_is_lost(prod):
    """The twin."""
    (prod.path / "journal.jsonl").unlink()
    with prod.lock.held():
        assert (prod.revoked(), prod.activation_of(prod.current)) == ({}, None)
    assert "is empty or gone" in prod.lost_events()


def rotated(path, name):
    path.rename(path.with_name(name))
    path.touch()


BEFORE = {
    "rotated": lambda path: rotated(path, "journal.jsonl.1"),
    "rotated by date": lambda path: rotated(path, "journal.jsonl-20261201"),
    "half of it rotated": lambda path: (
        path.with_name("journal.jsonl.1").write_text("".join(path.read_text().splitlines(keepends=True)[:6])),
        path.write_text("".join(path.read_text().splitlines(keepends=True)[6:])),
        os.utime(path.with_name("journal.jsonl.1"), (0, 0)),
    ),
    "rubbish in between": lambda path: path.write_bytes(b"\xff\0{\n" + path.read_bytes().replace(b"\n", b"\n[]\n\0\n")),
    "other things in it": lambda path: path.write_text(
        '{"event": [], "fingerprint": {}}\n{"event": "revoked"}\n{"hook": [], "generation": {}}\n' + path.read_text()
    ),
}


@pytest.mark.kind("state is not a log: homes of the previous version that are taken over")
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_a_journal_that_was_rotated_or_damaged_before_is_taken_over_as_far_as_it_goes(prod, before):
    before(prod.path / "journal.jsonl")
    require_known(prod)
    with prod.lock.held():
        require_known(prod)
    for path in prod.path.glob("journal.jsonl*"):
        path.unlink()
    require_known(prod)


def test_it_is_taken_over_once(prod):
    with prod.lock.held():
        prod.judge(prod.generations()[1].fingerprint, None)
    with prod.lock.held():
        pass
    assert prod.revoked() == {}


def test_a_new_connection_asks_no_journal(tmp_path):
    new = Home(tmp_path).new("new")
    with new.lock.held():
        pass
    new.record("revoked", fingerprint="0" * 64)
    assert new.revoked() == {}


def test_hooks_that_run_meanwhile_note_what_becomes_of_them(prod):
    with Lock(prod.path / "hooks.lock").held(), prod.lock.held():
        assert prod.revoked()
    assert prod.hook_failures(prod.current) == {}
    assert status_of(prod, now).pending_hooks == ("reload",)


def test_where_it_cannot_be_written_nothing_is_half_taken_over(prod, monkeypatch):
    monkeypatch.setattr(journal.state, "write_verdicts", lambda *_: (_ for _ in ()).throw(StorageFailed("full")))
    with pytest.raises(StorageFailed, match="full"), prod.lock.held():
        pytest.fail("it went on")
    monkeypatch.undo()
    require_known(prod)
    with prod.lock.held():  # it was released
        require_known(prod)


@pytest.mark.parametrize("changes", range(12))
def test_cut_off_at_any_change_of_the_disk_it_is_finished_by_the_next(prod, changes):
    with suppress(KilledError), killed_after(changes), prod.lock.held():
        pass
    again = Home(prod.home.path).connection("prod")
    require_known(again)
    with suppress(Busy), again.lock.held():
        again.sweep()
    require_known(again)


@pytest.mark.skipif(bool(UNFIT), reason=UNFIT)
def test_killed_before_any_system_call_it_is_finished_by_the_next(tmp_path, whole, proof):
    """By the real program: SIGKILL at each call that makes or changes one of the files."""
    script = (
        "import sys; from ucl_helpers.connection.store import *\n"
        "with Home(sys.argv[1]).connection('prod').lock.held(): pass"
    )
    command, home = [sys.executable, "-P", "-c", script], tmp_path / "recorded"
    unpacked(home)
    calls = record([*command, str(home)], {}, home)
    wanted = [one for one in calls if one.on == "file" and "connections/prod" in one.role]
    assert {name for name in (*STATE_FILES, "hooks.json") if any(name in one.role for one in wanted)} == {
        *STATE_FILES,
        "hooks.json",
    }
    for number, call in enumerate(wanted if whole else {one.kind: one for one in wanted}.values()):
        home = tmp_path / f"home-{number}"
        connection = unpacked(home)
        run = strike(call, "SIGKILL", [*command, str(home)], {}, home)
        assert run.code == -signal.SIGKILL, (call, run)
        require_known(connection)
        with connection.lock.held():
            connection.sweep()
        (connection.path / "journal.jsonl").unlink()
        require_known(connection)
        proof("crash", "system calls of a takeover killed at", 1)
