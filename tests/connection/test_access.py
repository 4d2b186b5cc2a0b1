"""Consumers of a generation, as processes of another user: who is named in `[files]` may read it, and nobody else."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from secrets_watch import CANARY
from stored import install

from ucl_helpers.connection.store import Home
from ucl_helpers.errors import InvalidSettings
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.procedures.generations import export

pytestmark = pytest.mark.needs_root("only root becomes another user, and gives files away")

OWNER, GROUP, STRANGER = "daemon", "mail", "nobody"
READ = 'for one; do if cat "$one" >/dev/null 2>&1; then echo read; else echo denied; fi; done'


@pytest.fixture
def mine():
    """A connection in a home that others may come as far as."""
    folder = Path(tempfile.mkdtemp(prefix="access-"))
    folder.chmod(0o755)
    connection = Home(folder / "home").new("mine")
    yield connection
    shutil.rmtree(folder)


def choose(connection, files, more=""):
    (connection.path / "settings.toml").write_text(f"{more}[files]\n{files}\n")


def read(user, *paths, group=None):
    """What a process of this user can read of paths; it is in this group alone."""
    told = pwd.getpwnam(user)
    gid = grp.getgrnam(group).gr_gid if group else told.pw_gid
    command = ["/bin/sh", "-c", READ, "sh", *map(str, paths)]
    options = {"user": told.pw_uid, "group": gid, "extra_groups": [], "cwd": "/"}
    return subprocess.run(command, **options, capture_output=True, text=True, check=True).stdout.split()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


NAMED = {
    f'group = "{GROUP}"\nmode = "0640"': [(STRANGER, GROUP)],
    f'owner = "{OWNER}"\nmode = "0400"': [(OWNER, None)],
    f'owner = "{OWNER}"\ngroup = "{GROUP}"\nmode = "0440"': [(OWNER, GROUP), (STRANGER, GROUP)],
}


@pytest.mark.parametrize("files", NAMED, ids=["group", "owner", "both"])
def test_who_is_named_reads_every_generation_and_nobody_else_does(mine, files):
    choose(mine, files, more='key_passphrase = "env:KEY"\n' if "both" in files else "")
    for number in range(2):
        install(mine, number)
        wanted = [mine.path / "current" / name for name in ("key.pem", "identity.pem", "chain.pem", "connection.json")]
        for user, group in NAMED[files]:
            assert read(user, *wanted, group=group) == ["read"] * 4
        assert read(STRANGER, *wanted) == ["denied"] * 4
    mine.record("looked at")
    begun = mine.pending
    begun.path.mkdir(mode=0o700)
    begun.keep_token("token")
    private = [mine.path / name for name in ("settings.toml", "journal.jsonl", "pending/token")]
    private[0].chmod(0o600)
    for user, group in NAMED[files]:
        assert read(user, *private, group=group) == ["denied"] * 3


def test_the_folders_on_the_way_let_pass_and_list_nothing(mine):
    choose(mine, f'group = "{GROUP}"\nmode = "0640"')
    install(mine, 0)
    group = grp.getgrnam(GROUP).gr_gid
    assert [mode(one) for one in mine.folders[:4]] == [0o711, 0o711, 0o710, 0o710]
    assert (mine.path.stat().st_gid, mine.current.path.stat().st_gid, mode(mine.current.path)) == (group, group, 0o750)
    assert {mode(one) for one in mine.current.path.iterdir()} == {0o640}
    assert {one.stat().st_gid for one in mine.current.path.iterdir()} == {group}


def test_nobody_named_nothing_is_opened(mine):
    install(mine, 0)
    assert {mode(one) for one in mine.folders[:4]} == {0o700}
    assert {mode(one) for one in mine.current.path.iterdir()} == {0o600}


def test_others_are_named_and_what_is_there_already_is_made_anew(mine):
    install(mine, 0)
    choose(mine, f'group = "{GROUP}"\nmode = "0640"')
    assert export(mine).outcome == "exported"
    assert read(STRANGER, mine.path / "current" / "key.pem", group=GROUP) == ["read"]
    assert export(mine).outcome == "nothing-to-export"
    choose(mine, "")
    assert export(mine).outcome == "exported"
    assert read(STRANGER, mine.path / "current" / "key.pem", group=GROUP) == ["denied"]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ('owner = "no-such-user"', "files.owner of mine: this machine has no user 'no-such-user'"),
        ('group = "no-such-group"\nmode = "0640"', "files.group of mine: this machine has no group 'no-such-group'"),
    ],
)
def test_who_does_not_exist_is_named_and_nothing_changes(mine, files, told):
    install(mine, 0)
    before = mine.current
    choose(mine, files)
    with pytest.raises(InvalidSettings, match=told):
        install(mine, 1)
    assert (mine.current, len(mine.generations())) == (before, 1)


@pytest.mark.parametrize("files", [f'owner = "{OWNER}"', f'group = "{GROUP}"\nmode = "0640"'], ids=["owner", "group"])
def test_an_ordinary_user_gives_nothing_away_to_whom_it_may_not(mine, files):
    choose(mine, files)
    nobody = pwd.getpwnam(STRANGER)
    for one in mine.home.path.rglob("*"):
        os.chown(one, nobody.pw_uid, nobody.pw_gid)
    os.chown(mine.home.path, nobody.pw_uid, nobody.pw_gid)
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    try:
        with pytest.raises(InvalidSettings, match="files of mine: we may not give files to that owner or group"):
            mine.generation_spec()
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert not [one for one in mine.path.iterdir() if one.name.startswith(".")]


# -- the doctor agrees -------------------------------------------------------------------------------------------------


def findings(connection):
    return {
        one.name: one.status for one in diagnose(connection, offline=True) if one.name in {"access", "secrecy", "files"}
    }


WELL = {"access": "ok", "secrecy": "ok", "files": "ok"}


def test_who_is_named_is_no_fault_to_the_doctor_and_more_is(mine):
    choose(mine, list(NAMED)[-1])
    install(mine, 0)
    assert findings(mine) == WELL
    (mine.current.path / "key.pem").chmod(0o644)
    assert findings(mine) == {**WELL, "secrecy": "failed", "files": "warning"}
    export(mine)
    assert findings(mine)["secrecy"] == "failed"  # it lies there still, one revision before
    (mine.generations()[0].path / "key.pem").chmod(0o600)
    os.chown(mine.current.path / "key.pem", -1, 0)
    choose(mine, 'group = "daemon"\nmode = "0640"')
    assert findings(mine)["files"] == "warning"


def test_the_group_of_yesterday_is_a_fault(mine):
    choose(mine, f'group = "{GROUP}"\nmode = "0640"')
    install(mine, 0)
    choose(mine, "")
    assert findings(mine)["secrecy"] == "failed"


def test_a_folder_in_the_way_is_named(mine):
    choose(mine, f'group = "{GROUP}"\nmode = "0640"')
    install(mine, 0)
    mine.home.path.parent.chmod(0o700)
    finding = diagnose(mine, offline=True)["files"]
    assert (finding.status, finding.remedy) == ("failed", f"chmod o+x {mine.home.path.parent}")
    mine.home.path.parent.chmod(0o701)
    assert findings(mine) == WELL


def test_of_a_folder_of_the_readers_own_group_the_group_bits_decide(mine):
    choose(mine, f'group = "{GROUP}"\nmode = "0640"')
    install(mine, 0)
    os.chown(mine.home.path.parent, -1, mine.current.path.stat().st_gid)
    mine.home.path.parent.chmod(0o701)
    finding = diagnose(mine, offline=True)["files"]
    assert (finding.status, finding.remedy) == ("failed", f"chmod g+x {mine.home.path.parent}")
    mine.home.path.parent.chmod(0o710)
    assert findings(mine) == WELL


def test_encrypted_and_for_a_group(mine, monkeypatch):
    monkeypatch.setenv("KEY", CANARY)
    install(mine, 0)
    choose(mine, f'group = "{GROUP}"\nmode = "0640"', more='key_passphrase = "env:KEY"\n')
    assert export(mine).facts["key"] == "encrypted"
    assert findings(mine) == WELL
    assert len(mine.generations()) == 1
