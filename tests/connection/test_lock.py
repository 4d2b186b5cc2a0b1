"""The lock of a connection, held by real processes and threads."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from held_locks import holding, let_go

from ucl_helpers.connection import files
from ucl_helpers.connection.files import Lock
from ucl_helpers.errors import Busy, StorageFailed, UnknownConnection

COUNT = """
import sys
from pathlib import Path
from ucl_helpers.connection.files import Lock
lock, counter = Lock(Path(sys.argv[1])), Path(sys.argv[2])
for _ in range(40):
    with lock.held(wait=60):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine" / "lock"


def is_free(path):
    try:
        with Lock(path).held():
            return True
    except Busy:
        return False


def test_one_process_writes_at_a_time(path, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, path, counter]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "160"


def test_who_holds_it_is_named(path):
    with holding(path) as process:
        with pytest.raises(Busy, match=rf"^mine is in use by process {process.pid} on ") as caught:
            Lock(path).held().__enter__()
        assert f"process {process.pid}" in caught.value.data["holder"]
        let_go(process)
    assert is_free(path)


def test_a_holder_that_is_killed_frees_it(path):
    with holding(path) as process:
        assert not is_free(path)
        process.kill()
        process.wait()
        assert is_free(path)


def test_who_waits_gets_it_once_it_is_free(path, monkeypatch):
    with holding(path) as process:
        monkeypatch.setattr(files.time, "sleep", lambda _: let_go(process))
        with Lock(path).held(wait=60):
            assert not is_free(path)
    assert is_free(path)


def test_who_waited_in_vain_is_told(path):
    with Lock(path).held(), pytest.raises(Busy):
        Lock(path).held(wait=0.1).__enter__()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", "\x00", '{"pid": 1'])
def test_a_holder_that_left_no_word_is_unknown(path, content):
    with path.open("w+") as file:
        file.write(content)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="an unknown process"):
            Lock(path).held().__enter__()


def test_a_holder_that_has_not_written_its_name_yet_is_waited_for(path, monkeypatch):
    about = {"pid": 7, "host": "h", "program": "ucl", "since": "2026-01-15T09:00:00Z"}
    with path.open("w+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(files.time, "sleep", lambda _: path.write_text(json.dumps(about)))
        with pytest.raises(Busy, match=r"process 7 on h \(ucl\), since 2026-01-15T09:00:00Z"):
            Lock(path).held().__enter__()


def test_whoever_released_it_is_not_named_as_its_holder(path):
    with Lock(path).held():
        assert str(os.getpid()) in path.read_text()
    assert path.read_text() == ""


def test_a_lock_may_be_nested_and_is_free_after_the_last_block(path):
    lock = Lock(path)
    with lock.held():
        with lock.held(), lock.held():
            pass
        assert not is_free(path)
    assert is_free(path)


def test_another_thread_of_the_same_process_is_kept_out(path):
    lock, found = Lock(path), []

    def other():
        for one in (lock, Lock(path)):
            with pytest.raises(Busy), one.held(wait=0.01):
                pass
            found.append(one)

    with lock.held():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(found) == 2


def test_a_failure_inside_frees_it(path):
    with pytest.raises(ZeroDivisionError), Lock(path).held():
        raise ZeroDivisionError
    assert is_free(path)


def test_the_file_stays(path):
    with Lock(path).held():
        number = path.stat().st_ino
    assert path.stat().st_ino == number
    assert is_free(path)
    assert path.stat().st_ino == number


# -- the folder goes away ----------------------------------------------------------------------------------------------


@pytest.fixture
def just_before_locking(monkeypatch):
    """Do something once between the opening of the file and its locking."""

    def plan(act):
        flock, acts = fcntl.flock, [act]

        def patched(descriptor, operation):
            if acts:
                acts.pop()()
            flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", patched)

    return plan


def test_a_lock_that_was_removed_with_its_folder_is_not_one(path, just_before_locking):
    just_before_locking(lambda: shutil.rmtree(path.parent))
    with pytest.raises(UnknownConnection, match="mine is not there"):
        Lock(path).held(wait=60).__enter__()


def test_a_lock_that_was_replaced_is_taken_anew(path, just_before_locking):
    def replace():
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        path.touch()

    just_before_locking(replace)
    with Lock(path).held(wait=60):
        assert not is_free(path)
    assert is_free(path)


def test_a_folder_that_is_removed_while_one_waits_ends_the_wait(path, monkeypatch):
    with holding(path) as process:
        monkeypatch.setattr(files.time, "sleep", lambda _: files.remove_tree(path.parent))
        with pytest.raises(UnknownConnection):
            Lock(path).held(wait=60).__enter__()
        let_go(process)


def test_what_is_no_file_cannot_be_locked(path):
    path.mkdir()
    with pytest.raises(StorageFailed, match="lock"):
        Lock(path).held().__enter__()
