"""Files are whole or not there, private from their first moment, and what a killed run left is found again."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from threading import Thread

import pytest

from ucl_helpers.connection import files
from ucl_helpers.errors import Busy, StorageFailed


def mode(path):
    return path.lstat().st_mode & 0o777


def names(folder):
    return sorted(one.name for one in folder.iterdir())


@contextmanager
def umask(value):
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def no_file_beyond(size):
    """The kernel refuses to make a file larger than ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """The modes of all files each time that something is forced to the disk."""
    modes, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: modes.append({mode(one) for one in tmp_path.iterdir()}) or fsync(fd))
    return modes


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_file_is_private_from_its_first_moment(tmp_path, seen, mask):
    with umask(mask):
        files.write(tmp_path / "key.pem", b"secret")
        files.write(tmp_path / "key.pem", b"another")
    assert (tmp_path / "key.pem").read_bytes() == b"another"
    assert seen == [{0o600}] * 4  # file and folder, twice


def test_written_plainly_it_would_not_be(tmp_path):
    with umask(0):
        (tmp_path / "key.pem").write_bytes(b"secret")
    assert mode(tmp_path / "key.pem") == 0o666


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_journal_and_lock_and_folders_are_private(tmp_path, mask):
    with umask(mask):
        files.make_directory(tmp_path / "a" / "b")
        files.append_line(tmp_path / "a" / "journal", "x")
        with files.Lock(tmp_path / "a" / "lock").held():
            pass
    modes = {one.name: mode(one) for one in (tmp_path / "a").iterdir()}
    assert modes == {"b": 0o700, "journal": 0o600, "lock": 0o600}
    assert mode(tmp_path / "a") == 0o700


def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    tmp_path.chmod(0o755)
    files.make_directory(tmp_path)
    assert mode(tmp_path) == 0o755


# -- what fails leaves what was there ----------------------------------------------------------------------------------


def test_a_write_that_the_disk_refuses_changes_nothing(tmp_path):
    path = tmp_path / "state.json"
    files.write(path, b"before")
    with no_file_beyond(10), pytest.raises(StorageFailed, match=r"write .*state\.json: File too large") as caught:
        files.write(path, b"x" * 100_000)
    assert (path.read_bytes(), names(tmp_path)) == (b"before", ["state.json"])
    assert caught.value.data["path"] == str(path)
    files.write(path, b"x" * 100_000)
    assert path.stat().st_size == 100_000


def test_an_interrupted_write_changes_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    files.write(tmp_path / "key.pem", b"before")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "key.pem", b"after")
    assert ((tmp_path / "key.pem").read_bytes(), names(tmp_path)) == (b"before", ["key.pem"])


@pytest.mark.parametrize(
    "act", [lambda path: files.write(path, b"x"), lambda path: files.swap_symlink(path, "elsewhere")]
)
def test_a_folder_in_the_place_stays(tmp_path, act):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "file").touch()
    with pytest.raises(StorageFailed, match="place"):
        act(tmp_path / "place")
    assert (names(tmp_path), names(tmp_path / "place")) == (["place"], ["file"])


@pytest.mark.parametrize(
    "act",
    [
        lambda path: files.write(path / "x", b""),
        lambda path: files.append_line(path / "x", ""),
        lambda path: files.swap_symlink(path / "x", "y"),
        lambda path: files.make_directory(path / "x"),
        lambda path: files.remove_tree(path / "x"),
        files.sweep,
    ],
)
def test_a_file_where_a_folder_should_be_is_an_error_that_names_it(tmp_path, act):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="file"):
        act(tmp_path / "file")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "room"),
        (errno.EACCES, "access"),
        (errno.EROFS, "writable"),
        (errno.EISDIR, "folder"),
        (None, "untouched"),
    ],
)
def test_the_remedy_fits_the_reason(tmp_path, number, remedy):
    with pytest.raises(StorageFailed, match=remedy), files.storage("write", tmp_path):
        raise OSError(number, "no") if number else OSError("no")


# -- journal lines -----------------------------------------------------------------------------------------------------


def test_a_line_after_a_torn_one_begins_anew(tmp_path):
    journal = tmp_path / "journal"
    files.append_line(journal, "one")
    with no_file_beyond(6), pytest.raises(StorageFailed, match="append"):
        files.append_line(journal, "two")
    assert journal.read_text() == "one\ntw"
    files.append_line(journal, "three")
    files.append_line(journal, "four")
    assert journal.read_text() == "one\ntw\nthree\nfour\n"


# -- symlinks ----------------------------------------------------------------------------------------------------------


def test_a_switch_is_one_rename(tmp_path):
    link = tmp_path / "current"
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        files.swap_symlink(link, target)
        assert (link.readlink().name, link.resolve()) == (target, tmp_path / target)
    assert names(tmp_path) == ["current", "one", "two"]


# -- what a killed run leaves ------------------------------------------------------------------------------------------

STUCK = """
import os, shutil, sys, threading
from pathlib import Path
from ucl_helpers.connection import files

def stuck(*_):
    print("here", flush=True)
    threading.Event().wait()

module, name = {"os": os, "shutil": shutil, "Path": Path}[sys.argv[1]], sys.argv[2]
setattr(module, name, stuck)
eval(sys.argv[3])(Path(sys.argv[4]))
"""


def killed_at(module, name, act, path):
    """Run ``act`` on ``path`` in a process that is killed when it comes to a function."""
    command = [sys.executable, "-c", STUCK, module, name, act, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"here\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("module", "name"), [("os", "fsync"), ("Path", "rename")])
def test_a_killed_write_leaves_the_old_file_and_a_private_rest_that_is_swept(tmp_path, module, name):
    files.write(tmp_path / "key.pem", b"before")
    killed_at(module, name, "lambda path: files.write(path, b'after')", tmp_path / "key.pem")
    rest = tmp_path / names(tmp_path)[0]
    assert (tmp_path / "key.pem").read_bytes() == b"before"
    assert (rest.name.startswith(".key.pem."), rest.read_bytes(), mode(rest)) == (True, b"after", 0o600)
    files.sweep(tmp_path)
    assert names(tmp_path) == ["key.pem"]


def test_a_killed_switch_leaves_the_old_target_and_a_rest_that_is_swept(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").touch()
    files.swap_symlink(tmp_path / "current", "one")
    killed_at("Path", "rename", "lambda path: files.swap_symlink(path, 'two')", tmp_path / "current")
    assert ((tmp_path / "current").readlink().name, len(names(tmp_path))) == ("one", 3)
    files.swap_symlink(files.temporary(tmp_path / "current"), "one")  # not its target: only the link
    files.sweep(tmp_path)
    assert (names(tmp_path), names(tmp_path / "one")) == (["current", "one"], ["file"])


def test_a_killed_removal_has_removed_the_name_and_is_finished_by_the_sweep(tmp_path):
    (tmp_path / "pending").mkdir()
    (tmp_path / "pending" / "key.pem").touch()
    killed_at("shutil", "rmtree", "files.remove_tree", tmp_path / "pending")
    assert [names(one) for one in tmp_path.iterdir()] == [["key.pem"]]
    assert not (tmp_path / "pending").exists()
    files.sweep(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        ".gitkeep",
        ".state.json",
        ".state.json.abcd1234",
        ".state.json.20260131.tmp.bak",
        ".state.json.ABCD1234.tmp",
        ".abcd1234.tmp",
        ".x.abcd123.tmp",
        "state.json.abcd1234.tmp",
        ".state.json.tmp",
        ".state.json.abcd1234.tmp~",
        ".current.swp",
    ],
)
def test_what_others_made_is_not_swept(tmp_path, name):
    (tmp_path / name).mkdir()
    files.temporary(tmp_path / "ours").touch()
    files.sweep(tmp_path)
    assert names(tmp_path) == [name]


def test_a_sweep_without_a_lock_leaves_what_is_young(tmp_path):
    files.temporary(tmp_path / "old").mkdir()
    os.utime(tmp_path / names(tmp_path)[0], (0, 0))  # how old its content is does not count
    files.sweep(tmp_path, older_than=3600)
    assert len(names(tmp_path)) == 1
    files.sweep(tmp_path, older_than=0)
    assert names(tmp_path) == []


def test_a_sweep_of_nothing_is_nothing(tmp_path):
    files.sweep(tmp_path / "missing")
    assert names(tmp_path) == []


def test_a_removal_is_not_disturbed_by_another_one(tmp_path, monkeypatch):
    rmtree = shutil.rmtree

    def both(path):
        rmtree(path)  # the other
        rmtree(path)

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(shutil, "rmtree", both)
    files.remove_tree(tmp_path / "folder")
    assert names(tmp_path) == []


def test_a_lock_that_is_kept_stays_when_the_thread_that_took_it_has_ended(tmp_path):
    lock = files.Lock(tmp_path / "lock")
    thread = Thread(target=lock.keep)
    thread.start()
    thread.join()
    assert lock.is_ours
    with pytest.raises(Busy), files.Lock(tmp_path / "lock").held():
        pass


def test_a_lock_that_another_holds_is_not_kept(tmp_path):
    lock = files.Lock(tmp_path / "lock")
    with files.Lock(tmp_path / "lock").held(), pytest.raises(Busy):
        lock.keep()
    assert not lock.is_ours
