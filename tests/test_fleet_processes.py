"""The processes of a fleet: they finish what they have in hand, or end at once, and never outlive who started them."""

import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from command_line import environment
from fleet_tasks import patient
from processes import wait_until

from ucl_helpers.automation.fleet.executors import Processes

ALONE = "import sys; from fleet_tasks import patient_alone; patient_alone(sys.argv[1])"


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
    wait_until(lambda: not begun(tmp_path).exists())
    assert first == one.submit(patient, str(tmp_path)).result() == "done"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_when_its_parent_is_killed_it_finishes_and_ends(tmp_path):
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    path = environment(None, PYTHONPATH=str(Path(__file__).parent))
    with subprocess.Popen(command, env=path) as parent:
        worker = begun(tmp_path)
        parent.kill()
    (tmp_path / "may-end").touch()
    wait_until((tmp_path / "ended").exists)
    wait_until(lambda: not worker.exists())
