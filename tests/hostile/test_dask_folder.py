"""A module planted in the folder that Dask's workers share by default, and the folder that the how-to gives them."""

import json
import re
import subprocess
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from command_line import environment
from dask_cluster import DASK, HOW_TO
from distributed import Client
from processes import wait_until

PLANTED = "planted_for_a_worker"
NAME = "DASK_TEMPORARY_DIRECTORY"


def documented(home):
    """The folder that the commands of the how-to make and name."""
    (block,) = [block for block in re.findall(r"```bash\n(.*?)```", HOW_TO.read_text(), re.DOTALL) if NAME in block]
    commands = f'{block.partition("TLS=")[0]}\nprintf %s "${NAME}"'
    variables = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(["sh", "-ec", commands], env=variables, capture_output=True, text=True, check=True).stdout


@contextmanager
def cluster(folder, **variables):
    """A scheduler and a worker as processes, and a client of theirs."""
    file, running = folder / "scheduler.json", []
    commands = [("scheduler", "--host", "127.0.0.1", "--port", "0"), ("worker", "--nthreads", "1")]
    try:
        for command in commands:
            arguments = [*DASK, *command, "--no-dashboard", "--scheduler-file", str(file)]
            with (folder / f"{command[0]}.log").open("wb") as log:
                env = environment(None, **variables)
                running.append(subprocess.Popen(arguments, cwd=folder, env=env, stdout=log, stderr=log))
            wait_until(lambda: file.is_file() and file.stat().st_size)
        with Client(json.loads(file.read_text())["address"], set_as_default=False) as client:
            yield client
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


@pytest.mark.parametrize("protected", [True, False], ids=["as the how-to says", "by default"])
def test_a_worker_imports_nothing_from_a_folder_of_other_users(tmp_path, protected):
    shared = tmp_path / "shared" / "dask-scratch-space"
    shared.mkdir(parents=True)
    shared.chmod(0o777)  # as another user would have made it
    (shared / f"{PLANTED}.py").write_text("")
    variables = {"TMPDIR": str(shared.parent)}
    if protected:
        variables[NAME] = documented(tmp_path)
        assert (tmp_path / "dask").stat().st_mode & 0o077 == 0
    with cluster(tmp_path, **variables) as client:
        found = client.submit(find_spec, PLANTED).result()
    assert (found is None) is protected
