"""What can go wrong around a headless run is a typed error or an outcome, and leaves no hidden file behind."""

import asyncio
import gc
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import nbformat
import papermill
import pytest
import zmq
from notebook_runs import outcome, printed, write_notebook
from papermill.iorw import LocalHandler

from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.headless.execution import RedactingManager
from ucl_helpers.headless.kernel import EncryptedKernelManager
from ucl_helpers.headless.run import parameters_of, run_notebook

LAUNCHER = "import sys\nsys.exit('the kernel cannot start')\n"


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def first_loaded(tmp_path, monkeypatch):
    """A module that the kernel's process loads when it starts, from then on."""
    (tmp_path / "first").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "first"))
    return tmp_path / "first" / "IPython.py"


def test_a_kernel_that_does_not_start_is_an_error_and_the_notebook_is_saved(first_loaded, tmp_path, capfd):
    notebook = write_notebook(tmp_path / "in.ipynb", "print('never')")
    assert run_notebook(notebook, tmp_path / "runs" / "out.ipynb").exit_code == 0
    first_loaded.write_text(LAUNCHER)
    result = run_notebook(notebook, tmp_path / "runs" / "out.ipynb")
    assert result.exit_code == 1
    assert result.outcome["outcome"] == "failed"
    assert "Kernel died" in result.outcome["message"]
    assert printed(result.output) == ""
    assert hidden(tmp_path / "runs") == []
    assert "the kernel cannot start" in capfd.readouterr().err


STOPS = """
import os, signal, threading
from pathlib import Path
while not [*Path({runs!r}).glob(".*.run/out.ipynb")]:  # until the run is begun
    os.sched_yield()
with open({here!r}, "w") as file:
    file.write(str(os.getpid()))
os.kill(os.getppid(), signal.{sent})
threading.Event().wait()
"""


@pytest.mark.parametrize(("sent", "error"), [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit)])
def test_of_a_run_that_is_stopped_while_its_kernel_starts_no_kernel_stays(first_loaded, sent, error, monkeypatch):
    tmp_path = first_loaded.parent.parent
    notebook, here = write_notebook(tmp_path / "in.ipynb", "print('never')"), tmp_path / "pid"
    first_loaded.write_text(STOPS.format(runs=str(tmp_path / "runs"), here=str(here), sent=sent))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "first"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(error):
        run_notebook(notebook, tmp_path / "runs" / "out.ipynb")
    assert not Path(f"/proc/{here.read_text()}").exists()
    told = json.loads((tmp_path / "runs" / "out.outcome.json").read_text())
    assert (told["outcome"], [step["status"] for step in told["steps"]]) == ("stopped", ["pending"])
    assert (hidden(tmp_path / "runs"), list((tmp_path / "first").glob("ucl-kernel-*"))) == ([], [])


@pytest.fixture
def struck(monkeypatch, request):
    """A signal comes when so many sockets were made, and nobody but their maker knows of the last."""
    made, real = [], zmq.Socket.__init__

    def make(socket, *given, **options):
        real(socket, *given, **options)
        made.append(socket)
        if len(made) == request.param:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(zmq.Socket, "__init__", make)
    yield request.param
    assert len(made) >= request.param


@pytest.mark.timeout(120)
@pytest.mark.parametrize("struck", range(1, 6), indirect=True)
@pytest.mark.usefixtures("struck")
def test_a_signal_amid_the_making_of_a_socket_ends_the_run(tmp_path, monkeypatch):
    """Were it raised there, ZeroMQ would wait for that socket without end. The first is made before papermill loads."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    notebook, output = write_notebook(tmp_path / "in.ipynb", "print('never')"), tmp_path / "runs" / "out.ipynb"
    with pytest.raises(KeyboardInterrupt):
        run_notebook(notebook, output)
    assert list(tmp_path.glob("ucl-kernel-*")) == []
    told = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*.json")]
    assert [(one["outcome"], one["exitCode"]) for one in told] == [("stopped", 130)]


@pytest.mark.parametrize("source", ["print('here')", "1 / 0"])
def test_a_signal_amid_the_last_save_comes_too_late(source, tmp_path, monkeypatch):
    """Papermill writes in place once more when all is done and on record."""

    def write(handler, text, path, real=LocalHandler.write):
        with Path(path).open("w") as file:
            file.write(text[:9])
            file.flush()
            signal.raise_signal(signal.SIGINT)
        real(handler, text, path)

    monkeypatch.setattr(LocalHandler, "write", write)
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", source), tmp_path / "out.ipynb")
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].source == source
    assert (result.outcome["outcome"], result.exit_code) == (("failed", 1) if "0" in source else ("done", 0))
    assert hidden(tmp_path) == []


STRIKES_AT_THE_END = """
import os, signal, threading
with open({here!r}, "w") as file:
    file.write(str(os.getpid()))
signal.signal(signal.SIGINT, lambda *_: os.kill(os.getppid(), signal.SIGINT))
while True:
    threading.Event().wait()
"""


def test_a_signal_while_a_kernel_that_did_not_answer_is_ended_leaves_none(tmp_path, monkeypatch):
    """That of plain papermill, where nobody else would end it; it gets SIGINT first."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "IPython.py").write_text(STRIKES_AT_THE_END.format(here=str(tmp_path / "pid")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "first"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_notebook(tmp_path / "in.ipynb", "print('never')")
    with pytest.raises(KeyboardInterrupt):
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", engine_name="ucl", start_timeout=3)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
    assert json.loads((tmp_path / "out.outcome.json").read_text())["outcome"] == "stopped"
    assert list(tmp_path.glob("ucl-kernel-*")) == []


def test_a_signal_before_a_run_has_begun_stops_it_and_it_is_told(tmp_path, monkeypatch):
    def begin(manager, real=RedactingManager.notebook_start):
        signal.raise_signal(signal.SIGINT)
        real(manager)

    monkeypatch.setattr(RedactingManager, "notebook_start", begin)
    write_notebook(tmp_path / "in.ipynb", "print('never')")
    with pytest.raises(KeyboardInterrupt):
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", engine_name="ucl")
    told = json.loads((tmp_path / "out.outcome.json").read_text())
    assert (told["outcome"], [step["status"] for step in told["steps"]]) == ("stopped", ["pending"])


def test_what_a_kernel_prints_while_it_is_torn_down_is_not_passed_on(tmp_path, capfd):
    lines = "import atexit, os\natexit.register(os.write, 2, b'torn down\\n')\nos.write(2, b'still running\\n')"
    notebook = write_notebook(tmp_path / "in.ipynb", lines)
    assert run_notebook(notebook, tmp_path / "out.ipynb").exit_code == 0
    assert capfd.readouterr().err == "still running\n"  # ipykernel leaves descriptors alone where it sees pytest


def test_a_kernel_that_dies_has_its_last_words_passed_on(tmp_path, capfd):
    crash = "import faulthandler, os\nfaulthandler.enable()\nos.abort()"
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", crash), tmp_path / "out.ipynb")
    assert (result.exit_code, result.outcome["error"]) == (1, "DeadKernelError")
    assert capfd.readouterr().err.startswith("Fatal Python error: Aborted\n")


async def late(process):
    """What waits for an answer of a kernel, as nbclient does."""
    await asyncio.to_thread(process.wait)
    raise RuntimeError("it died")


@pytest.mark.parametrize(
    ("end", "news"), [("shutdown_kernel", []), ("_async_kill_kernel", ["Task exception was never retrieved"])]
)
def test_what_a_stopped_run_still_waited_for_is_no_news_but_a_death_is(end, news):
    told = []

    async def scene():
        asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about["message"]))
        kernel = EncryptedKernelManager()
        await kernel.start_kernel()
        waiting = [asyncio.ensure_future(late(kernel.provisioner.process))]
        await getattr(kernel, end)()
        await asyncio.wait(waiting)
        await kernel.cleanup_resources()

    asyncio.run(scene())
    gc.collect()
    assert told == news


SOCKETS = """
import json
from pathlib import Path
from ipykernel.connect import get_connection_file
told = json.loads(Path(get_connection_file()).read_text())
folder = Path(told["ip"]).parent
print(told["transport"], oct(folder.stat().st_mode & 0o777), folder)
"""


def test_the_kernel_is_reached_by_sockets_that_nobody_else_can_reach_and_that_go_away(tmp_path):
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", SOCKETS), tmp_path / "out.ipynb")
    transport, access, folder = printed(result.output).split()
    assert (transport, access) == ("ipc", "0o700")
    assert not Path(folder).exists()
    assert Path(folder).parent.exists()


def test_an_output_that_is_a_folder_is_told_before_anything_runs(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    (tmp_path / "runs").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        run_notebook(notebook, tmp_path / "runs")
    assert not (tmp_path / "ran").exists()
    assert run_notebook(notebook, tmp_path / "runs" / "out.ipynb").exit_code == 0
    assert (tmp_path / "ran").exists()


def test_an_output_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="file"):
        run_notebook(notebook, tmp_path / "file" / "out.ipynb")


@pytest.mark.parametrize(
    "spoil",
    [
        "shutil.rmtree(folder)",  # what papermill saves into is gone
        "Path(folder, 'out.ipynb').mkdir()",  # the place of the executed notebook is taken
    ],
)
def test_an_output_that_is_lost_during_the_run_is_a_storage_error(spoil, tmp_path):
    (tmp_path / "runs").mkdir()
    lines = f"import shutil\nfrom pathlib import Path\nfolder = {str(tmp_path / 'runs')!r}\n{spoil}"
    notebook = write_notebook(tmp_path / "in.ipynb", lines)
    with pytest.raises(StorageFailed):
        run_notebook(notebook, tmp_path / "runs" / "out.ipynb")
    assert not (tmp_path / "runs").exists() or hidden(tmp_path / "runs") == []


@pytest.mark.parametrize(
    "cell", [{}, {"cell_type": "code"}, {"cell_type": "code", "metadata": [], "source": 1, "outputs": []}, "text"]
)
def test_cells_that_are_none_are_a_usage_error(cell, tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb")
    assert set(parameters_of(notebook)) == {"name", "number"}
    content = json.loads(notebook.read_text())
    content["cells"].append(cell)
    notebook.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is not a Jupyter notebook"):
        run_notebook(notebook, tmp_path / "out.ipynb")
    assert hidden(tmp_path) == []


def children():
    """The processes that this one has started and that are still there."""
    found = set[str]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            number, _, rest = stat.read_text().partition(" ")
            if rest.rpartition(")")[2].split()[1] == str(os.getpid()):
                found.add(number)
    return found


def test_of_a_notebook_that_is_none_nothing_stays_that_was_started_for_it(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    notebook, before = write_notebook(tmp_path / "in.ipynb"), children()
    content = json.loads(notebook.read_text())
    del content["cells"][0]["source"]
    notebook.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is not a Jupyter notebook"):
        run_notebook(notebook, tmp_path / "out.ipynb")
    assert (children() - before, list((tmp_path / "tmp").iterdir())) == (set(), [])


def test_a_success_that_was_told_before_a_failure_is_not_the_outcome(tmp_path):
    failed = run_notebook(write_notebook(tmp_path / "in.ipynb", outcome(0), "1 / 0"), tmp_path / "out.ipynb").outcome
    told = ("failed", "ZeroDivisionError", "division by zero", 1, str(tmp_path / "out.ipynb"))
    assert tuple(failed[name] for name in ("outcome", "error", "message", "exitCode", "notebook")) == told
    done = run_notebook(write_notebook(tmp_path / "in.ipynb", outcome(0)), tmp_path / "out.ipynb").outcome
    assert (done["outcome"], done["exitCode"]) == ("said", 0)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_process_that_cannot_be_started_is_a_storage_error_and_leaves_nothing_open(tmp_path, monkeypatch):
    notebook = write_notebook(tmp_path / "in.ipynb", "print('now')")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    for _ in range(2):  # the first loads what keeps files open for good
        before = open_files()
        with pytest.raises(StorageFailed, match="No such file"):
            run_notebook(notebook, tmp_path / "out.ipynb")
    outcome = tmp_path / "out.outcome.json"
    assert (open_files(), sorted(tmp_path.iterdir())) == (before, sorted([notebook, outcome]))
    monkeypatch.undo()
    assert printed(run_notebook(notebook, tmp_path / "out.ipynb").output) == "now\n"
    assert open_files() == before
