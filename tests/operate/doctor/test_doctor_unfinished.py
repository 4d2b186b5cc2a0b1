"""What runs have left is named with how far it came and what the next run does; the next run, typed, ends it."""

import subprocess
import sys
from datetime import timedelta

import pytest
from examined import bad, mended, named, typed, well
from meddler import lost_on_the_way_back, signs
from quick_keys import QUICK_BITS
from steps import Clock, go, install, pending_of, tree

from ucl_helpers import Establishment, Renewal, renew
from ucl_helpers.clock import utc_now
from ucl_helpers.errors import ChecksFailed, Unreachable
from ucl_helpers.operate.doctor import diagnose, diagnose_home, folders
from ucl_helpers.operate.doctor.on_disk import OnDisk

pytest_plugins = ["procedure_fixtures", "doctor_fixtures"]

# -- a renewal ---------------------------------------------------------------------------------------------------------


def stopped(connection, between, upto):
    if upto == "sent":
        between.on("sign", lost_on_the_way_back)
        with pytest.raises(Unreachable):
            renew(connection, key_length=QUICK_BITS)
    else:
        go(Renewal.begin(connection, key_length=QUICK_BITS), upto)


STAGES = {
    "request": ("ok", "nothing was sent; the next run continues with its key and CSR"),
    "sent": ("warning", "no answer; the next run sends the same CSR again"),
    "sign": ("warning", "signed, to be verified"),
    "verify": ("warning", "signed, to be verified"),
}


@pytest.mark.parametrize("upto", STAGES)
def test_a_renewal_is_told_at_each_stage_and_the_next_run_ends_it(secure, between, upto, count):
    status, text = STAGES[upto]
    stopped(secure, between, upto)
    before = tree(secure.path)
    diagnosis = diagnose(secure)
    assert (bad(diagnosis), diagnosis.exit_code) == ({"under way": "warning"} if status == "warning" else {}, 0)
    assert text in diagnosis["under way"].found
    assert pending_of(secure).read_state().created in diagnosis["under way"].found
    assert tree(secure.path) == before
    if status == "warning":
        mended(diagnosis["under way"], secure)
        assert not pending_of(secure)
    count(mended=status == "warning")


def test_an_answer_that_was_cut_off_just_after_the_switch(secure, between, tmp_path, count):
    go(Renewal.begin(secure, key_length=QUICK_BITS), "verify")
    folder = pending_of(secure).path
    kept = {file.name: file.read_bytes() for file in folder.iterdir()}
    renew(secure, key_length=QUICK_BITS)
    folder.mkdir(mode=0o700)
    for name, data in kept.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(data)
    mended(named(secure, "under way", "just after its certificate came into use", status="warning"), secure)
    count(mended=1)


def test_answers_that_failed_their_checks_are_counted(secure, between, count):
    between.on("sign", signs(days=(-3, -2)))
    with pytest.raises(ChecksFailed):
        renew(secure, key_length=QUICK_BITS)
    named(secure, "under way", "(1 answers failed", "sends the same CSR again", status="warning")
    count()


@pytest.mark.parametrize("text", ["{", "", "[]"])
def test_a_state_that_cannot_be_read(secure, text, count):
    go(Renewal.begin(secure, key_length=QUICK_BITS), "request")
    (pending_of(secure).path / "state.json").write_text(text)
    mended(named(secure, "under way", "state.json cannot be read", status="warning"), secure)
    assert "1, kept until" in diagnose(secure)["set aside"].found
    count(mended=1)


def test_what_was_set_aside_and_cannot_be_read_is_named(secure, count):
    (secure.path / "aside" / "20260101T000000-00000000").mkdir(parents=True, mode=0o700)
    (secure.path / "aside").chmod(0o700)
    (secure.path / "aside" / "20260101T000000-00000000" / "state.json").write_text("{")
    mended(named(secure, "set aside", "ucl cannot read it", status="warning"), secure)
    count(mended=1)


# -- an establishment --------------------------------------------------------------------------------------------------


def test_a_connection_that_was_never_established(home, ucl, count):
    finding = named(home.new("prod"), "identity in use", "not established yet", code=2)
    assert "ucl establish prod --token prompt" in finding.remedy
    count()


def begun(home, ucl, token, upto):
    new = home.new("prod")
    go(Establishment.begin(new, token, ca_file=ucl.ca_file, key_length=QUICK_BITS), upto)
    return new


@pytest.mark.parametrize("stage", [("request", "nothing was sent"), ("sign", "signed, to be verified")])
def test_an_establishment_that_can_go_on(home, ucl, token, stage, count):
    upto, text = stage
    new = begun(home, ucl, token, upto)
    new.write_settings({"key_length": QUICK_BITS})
    mended(named(new, "under way", text, code=3), new)
    count(mended=1)


def test_a_one_time_token_that_was_used(home, ucl, token, between, count):
    new = begun(home, ucl, token, "request")
    (pending_of(new).path / "token").unlink()
    new.write_settings({"key_length": QUICK_BITS})
    finding = named(new, "one-time token", "used up", "keeps key and CSR", code=11)
    assert between.connector_url in finding.remedy
    with_ca = finding.remedy.replace("prompt", "env:T") + f" --ca-file {ucl.ca_file}"
    done = typed(with_ca, new, T=ucl.one_time_token())
    assert done.returncode == 0, done
    well(new)
    count(mended=1)


def test_a_one_time_token_that_expired(home, ucl, token, count):
    new = begun(home, ucl, token, "request")
    then = pending_of(new).read_state().created.replace("+00:00", "")
    pending_of(new).update(created=f"{int(then[:4]) - 1}{then[4:]}+00:00")
    named(new, "one-time token", "expired, 5 minutes after", code=11)
    count()


# -- state files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["journal.jsonl", "revoked.json", "attempts.json", "hooks.json"])
def test_a_folder_where_a_file_should_be_is_named(secure, name, count):
    (secure.path / name).unlink(missing_ok=True)
    (secure.path / name).mkdir()
    diagnosis = diagnose(secure, offline=True)
    assert (diagnosis.exit_code, diagnosis.worst.found) == (10, f"{secure.path / name} is not a file")
    assert typed(diagnosis.worst.remedy, secure).returncode == 0
    assert diagnose(secure, offline=True).exit_code == 0
    count(mended=1)


# -- the lock ----------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from ucl_helpers import Home
with Home(sys.argv[1]).connection("prod").lock.held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(secure):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(secure.home.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_process_that_holds_the_lock_is_named_until_it_is_done(secure, holder, count):
    finding = named(secure, "lock", f"process {holder.pid}", "since", "running", status="warning")
    assert finding.remedy == "Wait until it is done."
    holder.communicate()
    well(secure)
    count(mended=1)


def test_a_holder_whose_time_is_not_a_time_is_named_all_the_same(secure, holder, count):
    """Another program may have written the file, or a disk that was full."""
    (secure.path / "lock").write_text(f'{{"pid": {holder.pid}, "since": "noon"}}')
    named(secure, "lock", "held by an unknown process", status="warning")
    count()


def test_a_process_that_holds_it_for_too_long_is_to_be_ended(secure, holder, count):
    later = Clock(minutes=11)
    finding = named(secure, "lock", "no run takes that long", code=8, clock=later, also=["clock"])
    assert typed(finding.remedy, secure).returncode == 0
    holder.wait()
    assert bad(diagnose(secure, clock=later)) == {"clock": "warning"}
    count(mended=1)


LEAVES_A_CHILD = HOLDER.replace('print("held"', 'import os\n    os.fork() and os._exit(0)\n    print("held"')


def test_a_lock_that_a_dead_process_left_to_its_child_is_found_by_its_file(secure, count):
    command = [sys.executable, "-c", LEAVES_A_CHILD, str(secure.home.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        process.wait()
        for minutes in (0, 11):
            also = ["clock"] if minutes else []
            clock = Clock(minutes=minutes)
            finding = named(secure, "lock", "not running any more", status="warning", clock=clock, also=also)
            assert finding.remedy == f"fuser -v {secure.path}/lock"
    well(secure)
    count()


OTHER_LOCKS = """
import fcntl, sys
from pathlib import Path
files = [Path(sys.argv[1], str(number)).open("w") for number in range(150)]  # more than Linux shows in one piece
print("begun", flush=True)
while True:
    for way in fcntl.LOCK_EX, fcntl.LOCK_UN:
        for file in files:
            fcntl.flock(file, way)
"""


def test_a_lock_is_found_while_many_others_come_and_go(secure, holder, tmp_path, count):
    (others := tmp_path / "others").mkdir()
    with subprocess.Popen([sys.executable, "-c", OTHER_LOCKS, str(others)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        found = {folders.lock(OnDisk(secure, utc_now())).status for _ in range(200)}
        process.kill()
    assert found == {"warning"}
    count()


def test_a_holder_that_died_holds_nothing(secure, holder, count):
    holder.kill()
    holder.wait()
    assert str(holder.pid) in (secure.path / "lock").read_text()
    assert well(secure)["lock"].found == "free"


# -- what was killed ---------------------------------------------------------------------------------------------------


def test_a_folder_left_by_a_run_that_was_killed_is_named_after_a_day(secure, monkeypatch, count):
    abandoned = secure.home.path / "connections" / ".new.0123abcd.tmp"
    abandoned.mkdir(mode=0o700)
    well(secure)
    monkeypatch.setattr(folders, "KEEP_YOUNGER", timedelta(0))
    mended(named(secure, "home folder", str(abandoned), status="warning"), secure)
    assert not abandoned.exists()
    count(mended=1)


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_a_hook_that_was_not_run_or_has_failed_is_named(secure, tmp_path, count):
    command = f"test -e {tmp_path}/ready"
    (secure.path / "settings.toml").write_text(f'[[hooks]]\nname = "copy"\ncommand = ["sh", "-c", "{command}"]\n')
    finding = named(secure, "hooks", "not run yet for this generation: copy", status="warning")
    assert typed(finding.remedy, secure).returncode == 13
    finding = named(secure, "hooks", "copy failed: exit code 1", str(secure.path / "hooks"), code=13)
    (tmp_path / "ready").touch()
    mended(finding, secure)
    assert diagnose(secure)["hooks"].found == "1, all have succeeded for this generation"
    count(mended=1)


# -- all at once -------------------------------------------------------------------------------------------------------


def test_all_connections_are_one_line_each_with_the_worst(secure, ucl, tmp_path, count):
    other = install(secure.home, ucl, tmp_path, name="other")
    everything = diagnose_home(secure.home)
    assert [(diagnosis.name, diagnosis.summary()) for diagnosis in everything.diagnoses] == [
        *((str(secure.home.path), "all is well"), ("other", "all is well"), ("prod", "all is well")),
    ]
    (other.current.path / "key.pem").unlink()
    renew(secure, key_length=QUICK_BITS)
    (secure.current.path / "key.pem").chmod(0o644)
    everything = diagnose_home(secure.home)
    assert [diagnosis.exit_code for diagnosis in everything.diagnoses] == [0, 10, 9]
    assert everything.exit_code == 10
    assert "→ ucl import other" in str(everything)
    (secure.current.path / "key.pem").chmod(0o600)
    count()
    count()


def test_a_home_without_connections_is_well(home, count):
    (alone,) = diagnose_home(home).diagnoses
    assert (alone.ok, "creates" in alone.worst.found) == (True, True)
    home.path.write_text("a file")
    assert diagnose_home(home).exit_code == 10
    count()
