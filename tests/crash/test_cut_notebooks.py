"""Notebook 02 by `ucl run`, cut off between two cells or left open: the old identity works, another process goes on.

The notebook stands still after a cell of the test's choice and says the number of its kernel's process; then the kernel
is killed, papermill is killed, the cell is interrupted, or somebody else renews while it stays open.
"""

import json
import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from command_line import BITS, UCL, Said, Shell, environment
from notebook_runs import write_notebook
from onlookers import Onlookers
from quick_keys import QUICK_BITS
from steps import pending_of, tree

from ucl_helpers.connection.store import Home
from ucl_helpers.headless.notebooks import find_notebook
from ucl_sandbox import Sandbox

STANDS_STILL = """
import os
from pathlib import Path
Path({here!r}).write_text(str(os.getpid()))
go_on = Path({there!r}).read_text()
"""
CELLS = [
    "".join(cell["source"])
    for cell in json.loads(find_notebook("02").read_text())["cells"]
    if cell["cell_type"] == "code"
]  # the first: parameters
BEGUN = next(number for number, cell in enumerate(CELLS) if "Renewal.begin" in cell)


def step(name):
    """The number of the cell with a step of the renewal."""
    return next(number for number, cell in enumerate(CELLS) if f"renewal.{name}()" in cell)


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def readers(ucl):
    with Onlookers(ucl.certificate_secured_connector_url, ucl.ca_file) as looking_on:
        yield looking_on


LIVES_WITH = 2
"""The hidden folder beside the output, and the folder of the kernel's sockets."""


class Standing:
    """A run of the notebook that stands still after one of its cells, with a connection and a temporary folder."""

    def __init__(self, folder, ucl, number):
        self.folder, self.shell = folder, Shell(folder / "home")
        folder.mkdir()
        self.shell.establish("prod", ucl)
        self.connection = Home(folder / "home").connection("prod")
        self._here, self._there = folder / "here", folder / "there"
        for fifo in (self._here, self._there):
            os.mkfifo(fifo)
        still = STANDS_STILL.format(here=str(self._here), there=str(self._there))
        cells = [*CELLS[1 : number + 1], still, *CELLS[number + 1 :]]
        write_notebook(folder / "02.ipynb", *cells, parameters=CELLS[0])

    def __enter__(self):
        self._temporary = TemporaryDirectory()  # a short path: it is to hold sockets
        command = [UCL, "run", self.folder / "02.ipynb", "-o", self.folder / "out" / "02.ipynb", "--json"]
        self.process = subprocess.Popen(
            [*command, "-p", "connection", "prod", "-p", "key_length", str(QUICK_BITS)],
            env=environment(self.shell.home, TMPDIR=self._temporary.name),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.kernel = int(self._here.read_text())
        return self

    def __exit__(self, *_):
        with suppress(ProcessLookupError):
            os.kill(self.kernel, signal.SIGKILL)  # that of a killed run may live on for a second
        self.process.kill()
        self.process.communicate()
        self._temporary.cleanup()

    def ends(self):
        said = Said(None, *self.process.communicate())
        said.code = self.process.returncode
        return said

    def goes_on(self):
        self._there.write_text("")
        return self.ends()

    def another_run(self):
        """Of a notebook that does nothing, to the same folder."""
        notebook = write_notebook(self.folder / "other.ipynb", parameters="")
        output = self.folder / "out" / "other.ipynb"
        assert self.shell.ucl("run", notebook, "-o", output, TMPDIR=self._temporary.name).code == 0

    def left(self):
        """Hidden files beside the output, and what kernels leave in the temporary folder."""
        return [*(self.folder / "out").glob(".*"), *Path(self._temporary.name).iterdir()]


@pytest.fixture
def standing(ucl, readers, tmp_path):
    """``standing(3)``: a run that will stand still after the third cell; the readers follow its connection."""

    def run(number):
        made = Standing(tmp_path / str(number), ucl, number)
        readers.follow(made.connection.path)
        return made

    return run


def kernel_killed(run):
    os.kill(run.kernel, signal.SIGKILL)
    said = run.ends()
    assert (said.code, said.json["error"]) == (1, "DeadKernelError")
    assert run.left() == []


def interrupted(run):
    os.kill(run.kernel, signal.SIGINT)
    said = run.ends()
    assert (said.code, said.json["error"]) == (1, "KeyboardInterrupt")
    assert run.left() == []


def papermill_killed(run):
    run.process.kill()
    assert run.ends().code == -signal.SIGKILL
    assert len(run.left()) == LIVES_WITH
    assert {stat.S_IMODE(one.stat().st_mode) & 0o077 for one in run.left()} == {0}
    run.another_run()
    assert run.left() == []


CUTS = {kernel_killed: "sign", papermill_killed: "request", interrupted: "verify"}


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
def test_a_notebook_that_is_cut_off_loses_nothing(cut, standing, readers, whole, proof):
    numbers = range(1, len(CELLS)) if whole else [step(CUTS[cut])]
    for number in numbers:
        run = standing(number)
        connection, before = run.connection, run.connection.current
        with run:
            cut(run)
        pending = pending_of(connection)
        key = pending.key_path.read_bytes() if pending.has_request else None
        assert (connection.current == before) == (number < step("activate"))
        assert bool(key) == (step("request") <= number < step("activate"))
        assert run.shell.ucl("renew", "prod", "--force", *BITS, "--json").json["outcome"] == "renewed"
        assert key in {None, (connection.current.path / "key.pem").read_bytes()}
        assert not pending
        readers.look()
    assert readers.told(proof, "notebooks were cut off or left open") == []
    proof("crash", "notebooks cut off after a cell; the next run went on", len(numbers))


def test_a_notebook_left_open_holds_nobody_up_and_says_what_was_settled_elsewhere(standing, readers, whole, proof):
    numbers = range(1, len(CELLS)) if whole else [step("sign")]
    for number in numbers:
        with standing(number) as run:
            said = run.shell.ucl("renew", "prod", "--force", *BITS, "--json")
            assert (said.code, said.json["outcome"]) == (0, "renewed")
            run.another_run()
            assert len(run.left()) == LIVES_WITH  # it lives, so nothing of it is swept away
            others = tree(run.connection.path)
            said = run.goes_on()
        if BEGUN <= number < step("activate"):
            assert (said.code, said.json["error"]) == (8, "SettledElsewhere")
            assert tree(run.connection.path) == others
        else:  # it had not begun, or was done
            assert (said.code, said.json["outcome"]) == (0, "renewed")
        readers.look()
    assert readers.told(proof, "notebooks were cut off or left open") == []
    proof("crash", "notebooks left open after a cell while another process renewed", len(numbers))
