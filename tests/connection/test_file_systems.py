"""File systems that lack something: the error names what, with a remedy, and so does the doctor; real processes."""

import errno
import os
import subprocess
from unittest.mock import Mock

import pytest
from command_line import BITS, Shell

from ucl_helpers.connection.files import storage
from ucl_helpers.errors import StorageFailed
from ucl_helpers.headless.interruption import hold_locked
from ucl_sandbox import Sandbox

SHIM = """
import errno, fcntl, os, stat
fsync, chmod, fchmod, refused = os.fsync, os.chmod, os.fchmod, getattr(errno, os.environ["REFUSED"])
def refuse(*_, **__): raise OSError(refused, os.strerror(refused))
match os.environ["LACKS"]:
    case "fsync":
        os.fsync = lambda fd: refuse() if stat.S_ISDIR(os.fstat(fd).st_mode) else fsync(fd)
    case "chmod": os.chmod = os.fchmod = refuse
    case "symlinks": os.symlink = refuse
    case "locks": fcntl.flock = refuse
os.umask(0o022)
"""
WRONG = ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]
NAMED = {
    "symlinks": ("symbolic links", [*WRONG, "EPERM"]),
    "locks": ("locks", [*WRONG, "ENOLCK"]),
}


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def shell(tmp_path, ucl):
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "sitecustomize.py").write_text(SHIM)
    shell = Shell(tmp_path / "home", tmp_path)
    shell.establish("prod", ucl)
    return shell


def lacking(shell, what, refused):
    return {"PYTHONPATH": str(shell.folder / "shim"), "LACKS": what, "REFUSED": refused}


@pytest.mark.kind("the right culprit: a feature that a file system lacks")
@pytest.mark.parametrize(("what", "refused"), [(what, code) for what, (_, codes) in NAMED.items() for code in codes])
def test_what_is_refused_is_named_with_a_remedy_and_the_doctor_finds_it(shell, what, refused):
    used = lacking(shell, what, refused)
    said = shell.ucl("renew", "prod", "--force", **used)
    assert said.code == 10, said
    assert f"this file system refuses {NAMED[what][0]}" in said.err
    assert "--home" in said.err
    finding = _finding(shell, used)
    assert finding["status"] == "failed"
    assert f"no {NAMED[what][0]} (" in finding["found"]
    assert "--home" in finding["remedy"]


def by_a_token(shell, ucl):
    where = ("--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file, *BITS)
    return ["establish", "new", "--token", "env:T", *where]


def by_the_director(shell, ucl):
    application = ("--tenant", ucl.tenant, "--application-id", ucl.application_id, "--bearer", "env:BEARER")
    return ["establish", "new", "--director-url", ucl.director_url, *application, "--ca-file", ucl.ca_file, *BITS]


def by_files(shell, ucl):
    current = shell.home / "connections" / "prod" / "current"
    where = ("--connector-url", ucl.certificate_secured_connector_url, "--ca-file", ucl.ca_file)
    return ["import", "new", "--key", current / "key.pem", "--certificate", current / "chain.pem", *where]


@pytest.mark.kind("the right culprit: a feature that a file system lacks")
@pytest.mark.parametrize("begun", [by_a_token, by_the_director, by_files])
def test_symlinks_are_tried_before_anything_is_sent(shell, ucl, begun):
    secrets = {"T": ucl.one_time_token(), "BEARER": ucl.director_token}
    command, sent = begun(shell, ucl), len(ucl.requests)
    said = shell.ucl(*command, **secrets, **lacking(shell, "symlinks", "EPERM"))
    current = shell.home / "connections" / "new" / "current"
    assert said.code == 10, said
    assert f"Could not switch {current}: this file system refuses symbolic links" in said.err
    assert (len(ucl.requests), current.parent.exists()) == (sent, False)
    assert shell.ucl(*command, **secrets).code == 0  # the twin: with symlinks, and the same token
    assert len(ucl.requests) > sent


@pytest.mark.kind("the right culprit: a feature that a file system lacks")
@pytest.mark.parametrize("refused", [*WRONG, "EBADF"])
def test_folders_that_cannot_be_synced_only_warn(shell, refused):
    used = lacking(shell, "fsync", refused)
    assert shell.ucl("renew", "prod", "--force", **used).code == 0
    assert _finding(shell, used)["status"] == "warning"


@pytest.mark.kind("the right culprit: a feature that a file system lacks")
@pytest.mark.parametrize("refused", ["EIO", "ENOSPC", "EDQUOT", "EROFS"])
def test_folders_whose_sync_fails_stop_a_renewal(shell, refused):
    said = shell.ucl("renew", "prod", "--force", **lacking(shell, "fsync", refused))
    assert said.code == 10, said
    assert "this file system refuses" not in said.err


@pytest.mark.kind("the right culprit: a feature that a file system lacks")
@pytest.mark.parametrize("refused", ["EPERM", "ENOTSUP"])
def test_permissions_that_cannot_be_changed_matter_only_where_a_key_would_be_open(shell, refused):
    used = lacking(shell, "chmod", refused)
    assert shell.ucl("renew", "prod", "--force", **used).code == 0  # files are 0600 from their first moment
    assert _finding(shell, used)["status"] == "failed"
    keys = [path for path in shell.home.rglob("key.pem") if path.stat().st_mode & 0o077]
    assert keys == []


def typed(command):
    """How a command ends that is typed into a shell."""
    return subprocess.run(["sh", "-c", command], check=False).returncode


def _finding(shell, used):
    told = shell.ucl("doctor", "prod", "--offline", "--json", **used).json
    return next(one for one in told["findings"] if one["name"] == "file system")


def test_where_nothing_is_lacking_nothing_is_named_and_nothing_stays(shell):
    before = sorted(shell.home.iterdir())
    told = shell.ucl("doctor", "prod", "--offline", "--json")
    assert (told.code, next(one["status"] for one in told.json["findings"] if one["name"] == "file system")) == (
        0,
        "ok",
    )
    assert sorted(shell.home.iterdir()) == before


# -- a home folder that was opened -------------------------------------------------------------------------------------

OPENED = {
    "everything": "chmod -R g+rwX {home}",
    "everything to all": "chmod -R a+rwX {home}",
    "with the folder above": "chmod -R g+rwX {home}/..",
    "from the connections on": "chmod -R g+rwX {home}/connections",
    "one connection": "chmod -R g+rwX {home}/connections/prod",
    "the generations": "chmod -R g+w {home}/connections/prod/generations",
    "the home folder alone": "chmod g+w {home}",
}


@pytest.mark.kind("the right culprit: a feature that a file system lacks")
@pytest.mark.parametrize("refused", ["ENOLCK", "ENOTSUP"])
def test_locks_of_files_of_a_run_are_named_as_well(tmp_path, monkeypatch, refused):
    def make():
        path.mkdir(exist_ok=True)
        return path

    path = tmp_path / "working"
    _, held = hold_locked(make)  # the twin: with locks
    os.close(held)
    error = OSError(getattr(errno, refused), os.strerror(getattr(errno, refused)))
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=error))
    with pytest.raises(StorageFailed, match="this file system refuses locks") as caught, storage("write", path):
        hold_locked(make)
    assert "--home" in caught.value.remedy


@pytest.mark.kind("the right culprit: a feature that a file system lacks")
def test_the_practice_sandbox_names_another_folder_where_locks_are_refused(shell):
    said = shell.ucl("establish", "practice", "--sandbox", **lacking(shell, "locks", "ENOLCK"))
    assert (said.code, "--home" in said.err) == (10, True), said


@pytest.mark.kind("the right culprit: a home folder that was opened")
@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("named_by", ["renew", "doctor"])
def test_one_command_closes_all_of_it(ucl, tmp_path, opened, named_by):
    (tmp_path / "above").mkdir(mode=0o755)
    shell = Shell(tmp_path / "above" / "home", tmp_path)
    shell.establish("prod", ucl)
    assert typed(OPENED[opened].format(home=shell.home)) == 0
    said = shell.ucl("renew", "prod", "--force")
    assert said.code == 10, said
    if named_by == "renew":
        command = said.err.partition("Run: ")[2].partition(";")[0]
    else:
        told = shell.ucl("doctor", "prod", "--offline", "--json").json
        command = next(one["remedy"] for one in told["findings"] if one["status"] == "failed")
        command = command.removeprefix("Run: ").partition(". If")[0]
    assert command.startswith("chmod "), said
    assert typed(command) == 0
    assert shell.ucl("renew", "prod", "--force").code == 0
    assert shell.ucl("doctor", "prod", "--offline").code == 0
    loose = [str(path) for path in shell.home.rglob("*") if path.lstat().st_mode & 0o022 and not path.is_symlink()]
    assert loose == []
    keys = [str(path) for path in shell.home.rglob("key.pem") if path.stat().st_mode & 0o077]
    assert keys == []
