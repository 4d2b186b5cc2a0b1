"""The kernel of a headless run: what its process may import, keeps to itself, sends, and leaves behind."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import BIN, UCL, environment
from notebook_runs import printed, write_notebook

from ucl_helpers.headless.kernel import EncryptedKernelManager
from ucl_helpers.headless.kernel_process import CELL
from ucl_helpers.headless.run import run_notebook

RUN = """
import sys
from pathlib import Path
from ucl_helpers.headless.run import run_notebook
run_notebook(Path(sys.argv[1]), Path("out.ipynb").absolute())
"""


def started(folder, notebook, **options):
    """A run in a process that ipykernel does not take for a test: under pytest it does not collect descriptors."""
    variables = environment(folder / "home")
    variables.pop("PYTEST_CURRENT_TEST", None)
    return subprocess.Popen([sys.executable, "-c", RUN, notebook], cwd=folder, env=variables, **options)


def executed(folder, notebook):
    process = started(folder, notebook)
    assert process.wait() == 0
    return folder / "out.ipynb"


# -- what it imports ---------------------------------------------------------------------------------------------------

PATH = "import sys\nprint(sys.flags.safe_path, '' in sys.path, sys.path[-1] == name)"


@pytest.mark.parametrize(("mode", "last"), [(0o755, True), (0o777, False), (0o1777, False)])
def test_the_notebooks_folder_is_last_on_the_path_unless_others_can_write_to_it(mode, last, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    notebook = write_notebook(folder / "in.ipynb", PATH)
    folder.chmod(mode)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = run_notebook(notebook, tmp_path / "out.ipynb", {"name": str(folder)})
    assert printed(result.output) == f"True False {last}\n"


@pytest.mark.parametrize("is_named", [True, False])
def test_the_current_folder_is_on_the_path_only_if_it_was_put_there(is_named, tmp_path, monkeypatch):
    """As the folder of a checkout is, whose installation is editable."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "here") if is_named else str(tmp_path / "elsewhere"))
    notebook = write_notebook(tmp_path / "folder" / "in.ipynb", "import os, sys\nprint(os.getcwd() in sys.path)")
    assert printed(run_notebook(notebook, tmp_path / "out.ipynb").output) == f"{is_named}\n"


# -- what it keeps to itself -------------------------------------------------------------------------------------------

DUMPABLE = "import ctypes, resource\nprint(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(4)[0])"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_no_other_process_reads_its_memory_and_no_core_is_dumped(tmp_path):
    assert resource.RLIMIT_CORE == 4
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", DUMPABLE), tmp_path / "out.ipynb")
    assert printed(result.output) == "0 0\n"


def test_it_runs_no_start_up_file_and_writes_no_history(tmp_path, monkeypatch):
    start_up = tmp_path / "ipython" / "profile_default" / "startup"
    start_up.mkdir(parents=True)
    (start_up / "first.py").write_text("print('a start-up file ran')")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(start_up / "first.py"))
    before = sorted((tmp_path / "ipython").rglob("*"))
    history = "ip = get_ipython()\nprint(ip.history_manager.hist_file, ip.profile_dir.location)"
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", history), tmp_path / "out.ipynb")
    file, folder = printed(result.output).split()
    assert file == ":memory:"
    assert not Path(folder).exists()
    assert sorted((tmp_path / "ipython").rglob("*")) == before


# -- what it sends -----------------------------------------------------------------------------------------------------

ROOM = 150  # MiB above what a cell that prints nothing takes
AMOUNT = 300_000_000
POURED = {
    "in lines": f"for _ in range({AMOUNT // 10_000}):\n    print('y' * 9_999)",
    "by another program": f"import subprocess\nsubprocess.run('yes | head -c {AMOUNT}', shell=True)",
    "on standard error": f"import sys\nfor _ in range({AMOUNT // 10_000}):\n    print('y' * 9_999, file=sys.stderr)",
    "as displays": f"for _ in range({AMOUNT // 10**7}):\n    display({{'text/plain': 'z' * 10**7}}, raw=True)",
}
MEASURED_RUN = """
import sys
from pathlib import Path
from processes import forget_peak, held
from ucl_helpers.headless.run import run_notebook

def peak(notebook):
    forget_peak("self")
    run_notebook(Path(notebook), Path(notebook).with_name("out.ipynb"))
    return held().peak

quiet, loud = map(peak, sys.argv[1:])
print(loud - quiet)
"""
RETURNED = {  # with the kernel's answer to a cell, not as an output
    "an error": "raise ValueError('x y' * 17_000_000)",
    "a text for IPython's pager": "get_ipython().payload_manager.write_payload("
    "{'source': 'page', 'data': {'text/plain': 'x' * 50_000_000}, 'start': 0})",
}
RETURNED_ROOM = 75  # MiB
HIGH_WATER = """
with open("/proc/self/status") as lines, open(name, "w") as mark:
    mark.write(next(line.split()[1] for line in lines if "VmHWM" in line))
"""


def added_peak(notebooks, folder):
    """By how many MiB the peak memory of a process that runs the second notebook exceeds that for the first."""
    variables = environment(folder / "home", PYTHONPATH=str(Path(__file__).parents[1]))
    variables.pop("PYTEST_CURRENT_TEST", None)
    command = [sys.executable, "-c", MEASURED_RUN, *notebooks]
    return float(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="/proc tells how much memory a process took")
@pytest.mark.parametrize("what", RETURNED)
def test_an_answer_of_50_mb_is_not_sent_to_the_process_that_saves(what, tmp_path):
    notebooks = [
        write_notebook(tmp_path / f"{name}.ipynb", source)
        for name, source in (("quiet", "pass"), ("loud", RETURNED[what]))
    ]
    assert added_peak(notebooks, tmp_path) < RETURNED_ROOM


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="/proc tells how much memory a process took")
@pytest.mark.parametrize("how", POURED)
def test_a_cell_that_prints_300_mb_takes_bounded_memory(how, tmp_path):
    marks = [tmp_path / "quiet.txt", tmp_path / "loud.txt"]
    notebooks = [
        write_notebook(
            tmp_path / f"{mark.stem}.ipynb", f"{source}\n{HIGH_WATER}", parameters=f"name: str = {str(mark)!r}"
        )
        for mark, source in zip(marks, ["pass", POURED[how]], strict=True)
    ]
    assert added_peak(notebooks, tmp_path) < ROOM
    quiet, loud = (int(mark.read_text()) / 1024 for mark in marks)
    assert loud - quiet < ROOM
    text = json.dumps(json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]["outputs"])
    assert "was not kept: more than 1,000,000 characters" in text
    assert len(text) < 4 * CELL  # as JSON


def test_half_a_surrogate_becomes_a_question_mark(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", "print('\\ud800 here')", "'\\ud800 there'")
    result = run_notebook(notebook, tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "? here\n")


def test_what_other_programs_print_is_shown_in_the_notebook_only(tmp_path):
    """IPython's ``!`` waits until all is read; a program that a cell starts otherwise may print too late."""
    process = started(tmp_path, write_notebook(tmp_path / "in.ipynb", "!echo a program"), stderr=subprocess.PIPE)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert printed(tmp_path / "out.ipynb").split() == ["a", "program"]


def test_widgets_are_left_out(tmp_path):
    source = "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider.value = 4\nprint(slider.value)"
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", source), tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "4\n")
    assert "widgets" not in json.loads(result.output.read_text())["metadata"]


CLEARS = "from IPython.display import clear_output\nprint('replaced')\nclear_output({})\nprint('stays')"
FILLS = "from IPython.display import clear_output\nprint('word ' * 300_000)\nprint('lost')\nclear_output({})\n{}"


@pytest.mark.parametrize("wait", ["", "wait=True"])
def test_a_cell_that_clears_its_output_keeps_only_what_it_prints_afterwards(wait, tmp_path):
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", CLEARS.format(wait)), tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "stays\n")


@pytest.mark.parametrize(
    "wait",
    ["", "wait=True"],
)
def test_a_cell_that_clears_more_than_its_bound_can_print_again(wait, tmp_path):
    fills = FILLS.format(wait, "print('stays')")
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", fills), tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "stays\n")


@pytest.mark.parametrize("wait", ["", "wait=True"])
def test_a_cell_that_clears_more_than_its_bound_can_display_again(wait, tmp_path):
    fills = FILLS.format(wait, "display({'text/plain': 'stays'}, raw=True)")
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", fills), tmp_path / "out.ipynb")
    outputs = json.loads(result.output.read_text())["cells"][-1]["outputs"]
    assert ["".join(output["data"]["text/plain"]) for output in outputs] == ["stays"]


def test_the_magic_capture_keeps_output_from_the_notebook(tmp_path):
    captures = "%%capture captured\nprint('printed')\ndisplay('displayed')"
    shows = "print(captured.stdout, len(captured.outputs))"
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", captures, shows), tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "printed\n 1\n")
    assert json.loads(result.output.read_text())["cells"][1]["outputs"] == []


def test_a_task_that_a_cell_starts_can_be_awaited_in_a_later_cell(tmp_path):
    starts = "import asyncio\nready = asyncio.Event()\ntask = asyncio.create_task(ready.wait())\nprint(task.done())"
    awaits = "ready.set()\nprint(await task)"
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", starts, awaits), tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "False\nTrue\n")


# -- that it ends ------------------------------------------------------------------------------------------------------

POURS = "print('first')\nopen({here!r}, 'w').close()\nwhile True:\n    print('on and on ' * 50)\n"


@pytest.mark.parametrize("command", [["papermill", "--engine", "ucl", "--no-progress-bar"], ["ucl", "run", "-o"]])
def test_a_cell_that_prints_without_end_is_interrupted_and_what_it_printed_is_kept(command, tmp_path):
    os.mkfifo(tmp_path / "here")
    write_notebook(tmp_path / "in.ipynb", POURS.format(here=str(tmp_path / "here")))
    words = ["out.ipynb", "in.ipynb"] if command[0] == "ucl" else ["in.ipynb", "out.ipynb"]
    with subprocess.Popen(
        [BIN / command[0], *command[1:], *words],
        cwd=tmp_path,
        env=environment(tmp_path / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        (tmp_path / "here").read_text()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "out.outcome.json").read_text())["outcome"] == "stopped"
    outputs = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]["outputs"]
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["KeyboardInterrupt"]
    assert printed(tmp_path / "out.ipynb").startswith("first\n")


@pytest.mark.parametrize(
    ("source", "outcome", "exit_code", "error"),
    [
        ("raise KeyboardInterrupt", "failed", 1, "KeyboardInterrupt"),
        ("import sys\nsys.exit(0)", "done", 0, None),
        ("import sys\nsys.exit(3)", "failed", 1, "SystemExit"),
    ],
)
def test_a_cell_that_interrupts_itself_or_exits_ends_the_run(source, outcome, exit_code, error, tmp_path):
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", source, "print('never')"), tmp_path / "out.ipynb")
    written = json.loads((tmp_path / "out.outcome.json").read_text())
    assert (written["outcome"], written["exitCode"], written.get("error")) == (outcome, exit_code, error)
    assert result.exit_code == exit_code
    cells = [cell for cell in json.loads(result.output.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["metadata"]["papermill"]["status"] for cell in cells] == ["completed", "failed", "pending"]
    raised = [output["ename"] for output in cells[1]["outputs"] if output["output_type"] == "error"]
    assert raised == [error or "SystemExit"]
    assert cells[2]["outputs"] == []


def test_it_ends_when_the_run_is_killed(tmp_path):
    for fifo in ("here", "life"):
        os.mkfifo(tmp_path / fifo)
    lives = f"import os, threading\nlife = os.open({str(tmp_path / 'life')!r}, os.O_WRONLY)\n"
    waits = f"{lives}open({str(tmp_path / 'here')!r}, 'w').close()\nthreading.Event().wait()"
    process = started(tmp_path, write_notebook(tmp_path / "in.ipynb", waits))
    with (tmp_path / "life").open("rb") as life:
        (tmp_path / "here").read_text()
        process.kill()
        process.wait()
        assert life.read() == b""  # the pipe ends when no process holds it any more


def test_closed_standard_descriptors_do_no_harm(tmp_path):
    write_notebook(tmp_path / "in.ipynb", "print('here')")
    command = 'exec "$0" run in.ipynb -o out.ipynb <&- >&- 2>&-'
    variables = environment(tmp_path / "home")
    done = subprocess.run(["bash", "-c", command, UCL], cwd=tmp_path, env=variables, check=False)
    assert (done.returncode, printed(tmp_path / "out.ipynb")) == (0, "here\n")


def test_the_option_kernel_changes_nothing(tmp_path):
    write_notebook(tmp_path / "in.ipynb", "print('here')")
    command = [UCL, "run", "--kernel", "in.ipynb", "-o", "out.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path / "home"), check=False)
    assert (done.returncode, printed(tmp_path / "out.ipynb")) == (0, "here\n")


def test_it_ends_by_itself_once_it_is_told_to(tmp_path):
    """Left to ipykernel's clean-up, about one of four waited for itself until it was terminated, after 2.5 seconds."""

    async def exit_code():
        manager = EncryptedKernelManager.begun(tmp_path)
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        process = manager.provisioner.process
        await manager.shutdown_kernel()
        client.stop_channels()
        return process.returncode

    assert [asyncio.run(exit_code()) for _ in range(8)] == [0] * 8


@pytest.mark.parametrize(("ending", "left"), [("", "written"), ("import os\nos._exit(0)", "")])
def test_a_file_that_a_cell_leaves_open_is_whole_afterwards(ending, left, tmp_path):
    """The twin ends the kernel at once: then nothing closes the file."""
    opened = f"file = open({str(tmp_path / 'left')!r}, 'w')\nprint('written', file=file, end='')"
    run_notebook(write_notebook(tmp_path / "in.ipynb", opened, ending), tmp_path / "out.ipynb")
    assert (tmp_path / "left").read_text() == left


def test_what_a_cell_registers_for_the_end_still_finds_its_names(tmp_path):
    registered = f"""import atexit, pathlib
file = pathlib.Path({str(tmp_path / "left")!r})
atexit.register(lambda: file.write_text("written"))"""
    run_notebook(write_notebook(tmp_path / "in.ipynb", registered), tmp_path / "out.ipynb")
    assert (tmp_path / "left").read_text() == "written"
