"""The processes of a fleet: they finish what they have in hand, or end at once, and never outlive who started them."""

import os
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from command_line import environment
from fleet_tasks import WRONG, ends_its_process, patient, raises
from processes import wait_until

from ucl_helpers.fleet import executors
from ucl_helpers.fleet.executors import Processes

ALONE = "import sys; from fleet_tasks import patient_alone; patient_alone(sys.argv[1])"


@pytest.fixture(autouse=True)
def finds_tasks_of_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.fixture
def one():
    executor = Processes(1)
    yield executor
    executor.shutdown()


def begun(folder):
    wait_until((folder / "begun").exists)
    wait_until((folder / "begun").read_text)
    return Path("/proc") / (folder / "begun").read_text()


def test_to_end_is_to_finish_what_is_in_hand(one, tmp_path):
    future = one.submit(patient, str(tmp_path))
    begun(tmp_path)
    (tmp_path / "may-end").touch()
    one.shutdown(wait=True)
    assert (future.done(), future.result()) == (True, "done")


def test_unless_nobody_waits_for_it(one, tmp_path):
    future = one.submit(patient, str(tmp_path))
    begun(tmp_path)
    one.shutdown(wait=False)
    assert isinstance(future.exception(), BrokenExecutor)
    assert not (tmp_path / "ended").exists()


def test_one_that_is_killed_is_followed_by_another(one, tmp_path):
    (tmp_path / "may-end").touch()
    first = one.submit(patient, str(tmp_path)).result()
    subprocess.run(["kill", "-KILL", begun(tmp_path).name], check=True)
    with pytest.raises(BrokenExecutor):
        one.submit(patient, str(tmp_path)).result()
    assert first == one.submit(patient, str(tmp_path)).result() == "done"


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV", "exit 0", "exit 1", "its socket is closed"])
def test_one_that_is_lost_with_a_task_in_hand_ends_in_a_result(one, how):
    with pytest.raises(BrokenExecutor):
        one.submit(ends_its_process, how).result()
    assert one.submit(len, "abc").result() == 3


def test_one_that_cannot_be_started_is_a_result_too(one, monkeypatch):
    monkeypatch.setattr(executors, "_COMMAND", ("/nowhere/python",))
    with pytest.raises(BrokenExecutor):
        one.submit(len, "abc").result()


def test_an_error_of_the_task_loses_nothing(one):
    before = one.submit(os.getpid).result()
    for error in (OSError("no"), EOFError(), WRONG["refused"]):
        with pytest.raises(type(error)):
            one.submit(raises, error).result()
    assert one.submit(os.getpid).result() == before != os.getpid()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_leaves_what_is_in_hand_to_be_finished(one, tmp_path, number):
    future = one.submit(patient, str(tmp_path))
    os.kill(int(begun(tmp_path).name), number)
    (tmp_path / "may-end").touch()
    assert future.result() == "done"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_they_start_in_safe_path_mode_and_with_nothing_to_tell(one):
    pid = one.submit(os.getpid).result()
    _, *options, descriptor = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    assert options == ["-P", "-c", executors._COMMAND[-1]]
    assert descriptor.isdigit()


def test_they_can_be_ended_twice_and_nothing_is_taken_then(one):
    one.submit(len, "abc").result()
    one.shutdown()
    one.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        one.submit(len, "abc")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_when_its_parent_is_killed_it_finishes_and_ends(tmp_path):
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    path = environment(None, PYTHONPATH=str(Path(__file__).parents[1]))
    with subprocess.Popen(command, env=path) as parent:
        worker = begun(tmp_path)
        parent.kill()
    (tmp_path / "may-end").touch()
    wait_until((tmp_path / "ended").exists)
    wait_until(lambda: not worker.exists())
