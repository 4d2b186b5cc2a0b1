"""Notebooks show the same without a kernel: the project's own, and one of all that a cell can show."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from command_line import BIN, environment
from test_runner import printed, write_notebook

from tools.normalise_notebooks import normalise
from ucl_helpers.automation.notebooks import notebooks_directory
from ucl_helpers.automation.runner import run_notebook

OURS = sorted(notebooks_directory().glob("*.ipynb"))
WAYS = ("shell", "kernel")
RUN = """
import sys
from pathlib import Path
from ucl_helpers.automation.runner import run_notebook
way, *notebooks = sys.argv[1:]
for one in map(Path, notebooks):
    run_notebook(one, Path(one.name).absolute(), kernel=way == "kernel")
"""


def started(way, folder, *notebooks):
    """Notebooks run one after the other in a folder of their own, by a process that looks like no test."""
    (folder / way).mkdir()
    variables = environment(folder / way / "home")
    variables.pop("PYTEST_CURRENT_TEST", None)  # ipykernel leaves file descriptors alone where it finds that
    return subprocess.Popen([sys.executable, "-c", RUN, way, *notebooks], cwd=folder / way, env=variables)


def ended(processes):
    assert [one.wait() for one in processes] == [0] * len(processes)


# -- the project's own -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_both_ways(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    ended([started(way, folder, *OURS) for way in WAYS])
    return folder


def told(folder, way, name):
    outcome = json.loads((folder / way / f"{name}.outcome.json").read_text())
    steps = [(one["name"], one["status"]) for one in outcome["steps"]]
    same = ("outcome", "exitCode", "error", "connection", "redacted", "schemaVersion", "kind", "source")
    return {key: outcome.get(key) for key in same}, sorted(outcome), steps


def shown(folder, way, name):
    """The executed notebook without what is peculiar to a run: widths of bars and columns and ages are of moments."""
    literal = {str(folder / way / "home"): "HOME", str(folder / way): "~"}
    notebook = normalise(nbformat.read(folder / way / f"{name}.ipynb", as_version=4), literal)
    return [re.sub(r"flex:\d+ 0 0|\b\d+ s\b| {2,}", " ", json.dumps(cell["outputs"])) for cell in codes(notebook)]


def codes(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", [path.stem for path in OURS])
def test_each_notebook_shows_the_same_both_ways_and_comes_to_the_same(name, run_both_ways):
    assert told(run_both_ways, "shell", name) == told(run_both_ways, "kernel", name)
    assert shown(run_both_ways, "shell", name) == shown(run_both_ways, "kernel", name)


# -- all that a cell can show ------------------------------------------------------------------------------------------

CELLS = {
    "streams": "import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')",
    "a value": "[1, 'two', {3: None}]",
    "displayed": "from IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))\nprint('y')\nHTML('<i>z</i>')",
    "a picture": "import base64\nfrom IPython.display import Image\n"
    "Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='))",
    "updated": "shown = display({'text/plain': 'before'}, raw=True, display_id='one')\nprint('between')\n"
    "shown.update({'text/plain': 'after'}, raw=True)",
    "cleared": "from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('stays')",
    "cleared when something comes": "print('gone')\nclear_output(wait=True)\nprint('stays')",
    "awaited": "import asyncio\nawait asyncio.sleep(0)\n'slept'",
    "begun": "task = asyncio.get_running_loop().create_task(asyncio.sleep(0, 'done'))\ntask.done()",
    "gone on with": "await task",
    "the shell's": "print('before', flush=True)\n!echo within\nprint('after')",
    "magic": "%%capture kept\nprint('not shown')",
    "of magic": "kept.stdout",
    "drawn": "from ucl_helpers import views\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])",
    "a widget": "import ipywidgets\nipywidgets.IntSlider(3)",
    "a secret": "'x' * 86 + '=='",
    "much": "print('word ' * 300_000)",
    "odd": "print('\\x00 \\N{SNOWMAN} \\x1b[31mred\\x1b[0m')",
    "nothing": "",
    "the shell itself": "type(get_ipython()).__name__, __name__, In[1], _, [p for p in sys.path if 'bin' not in p]",
    "environment": "import os\n[os.environ.get(n) for n in ('TERM', 'CLICOLOR', 'FORCE_COLOR', 'PAGER', 'MPLBACKEND')]",
    "help": "len?",
    "a name again": "x = 1\nx: int = x + 1\nx",
}
FAILURES = {
    "raised": "def f():\n    raise ValueError('no', 1)\n\n\nf()",
    "caused": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('k') from error",
    "noted": "error = ValueError('x')\nerror.add_note('look there')\nraise error",
    "written wrong": "print('a'\nx = = 2",
    "unknown magic": "%nosuchmagic",
    "awaited in vain": "import asyncio\nawait asyncio.wait_for(asyncio.sleep(9), 0.01)",
    "interrupted": "raise KeyboardInterrupt",
    "ended": "import sys\nsys.exit(3)",
    "ended well": "import sys\nsys.exit(0)",
    "cannot be shown": "class Odd:\n    def __repr__(self):\n        raise RuntimeError('unshown')\n\n\nOdd()",
    "of a module": "import json\njson.loads('{')",
    "ours": "from ucl_helpers.errors import NotEstablished\nraise NotEstablished('It is not there.', remedy='Look.')",
}
PECULIAR = re.compile(r"ipykernel_\d+|0x[0-9a-f]+|[0-9a-f]{32}")


def outputs(path):
    notebook = json.loads(path.read_text())
    cells = codes(notebook)
    left = {key: notebook["metadata"][key] for key in ("kernelspec", "language_info") if key in notebook["metadata"]}
    found = [[one["execution_count"], *map(json.dumps, joined(one["outputs"]))] for one in cells]
    return left, [[PECULIAR.sub("", str(part)) for part in one] for one in found]


def joined(shown):
    """Streams told apart, since it is a matter of chance which of two that are written at once comes first."""
    streams = {name: "".join("".join(one["text"]) for one in shown if one.get("name") == name) for name in NAMES}
    return [streams, *[one for one in shown if one["output_type"] != "stream"]]


NAMES = ("stdout", "stderr")


@pytest.fixture(scope="module")
def all_both_ways(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    shows = write_notebook(folder / "shows.ipynb", *CELLS.values())
    fails = [write_notebook(folder / f"{number}.ipynb", one) for number, one in enumerate(FAILURES.values())]
    ended([started(way, folder, shows, *fails) for way in WAYS])
    return folder


@pytest.mark.plants_secrets
@pytest.mark.parametrize("number", range(len(CELLS)), ids=list(CELLS))
def test_each_thing_a_cell_can_show_looks_the_same(number, all_both_ways):
    (left, shell), (other, kernel) = (outputs(all_both_ways / way / "shows.ipynb") for way in WAYS)
    assert shell[number + 1] == kernel[number + 1]
    assert left == other


@pytest.mark.parametrize("number", range(len(FAILURES)), ids=list(FAILURES))
def test_each_way_to_fail_looks_the_same_and_ends_with_the_same_code(number, all_both_ways):
    shell, kernel = (outputs(all_both_ways / way / f"{number}.ipynb") for way in WAYS)
    assert shell == kernel
    assert told(all_both_ways, "shell", str(number)) == told(all_both_ways, "kernel", str(number))


def test_what_was_compared_is_there(all_both_ways):
    _, [_, streams, *others] = outputs(all_both_ways / "shell" / "shows.ipynb")
    assert [one[0] for one in others if one[0] == "None"] == ["None"]  # the cell that is empty was not run
    assert streams[1:] == ['{"stdout": "one\\nthree\\n", "stderr": "two\\n"}']
    codes = [told(all_both_ways, "shell", str(number))[0]["exitCode"] for number in range(len(FAILURES))]
    assert set(codes) == {0, 1}


# -- what is different -------------------------------------------------------------------------------------------------

LISTENS = """
import os
from pathlib import Path
held = {os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()}
tcp = [line.split() for kind in ("tcp", "tcp6") for line in Path("/proc/net", kind).read_text().splitlines()[1:]]
unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
listening = {one[9] for one in tcp if one[3] == "0A"} | {one[6] for one in unix if one[3] == "00010000"}
print(sum(f"socket:[{inode}]" in held for inode in listening))
"""


@pytest.mark.parametrize(("kernel", "listens"), [(False, False), (True, True)], ids=WAYS)
def test_without_a_kernel_nothing_listens(kernel, listens, tmp_path):
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", LISTENS), tmp_path / "out.ipynb", kernel=kernel)
    assert (int(printed(result.output)) > 0) == listens


FROM_BELOW = """
import os, subprocess
print("before", flush=True)
subprocess.run(["echo", "a program"])
os.write(1, b"a descriptor\\n")
if not (fork := os.fork()):
    print("a fork", flush=True)
    os._exit(0)
os.waitpid(fork, 0)[1]
"""


def test_what_comes_by_a_descriptor_is_all_shown_where_a_kernel_may_read_it_too_late(tmp_path):
    """A thread of the kernel reads it, and what it reads when the cell is over does not count any more."""
    notebook = write_notebook(tmp_path / "in.ipynb", FROM_BELOW)
    ended([started(way, tmp_path, notebook) for way in WAYS])
    shell, kernel = (printed(tmp_path / way / "in.ipynb").splitlines() for way in WAYS)
    assert shell == ["before", "a program", "a descriptor", "a fork"]
    assert set(kernel[:1]) == {"before"}
    assert set(kernel) <= set(shell)


def test_what_no_file_can_hold_is_replaced(tmp_path):
    """A kernel loses all of it."""
    notebook = write_notebook(tmp_path / "in.ipynb", "print('\\ud800 here')", "'\\ud800 there'")
    result = run_notebook(notebook, tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "? here\n")


STOPPED = """
import threading
open({here!r}, "w").close()
while True:
    print("on and on " * 50)
"""


@pytest.mark.parametrize("engine", ["ucl", "ucl-shell"])
def test_a_cell_that_prints_without_end_is_interrupted_and_what_it_printed_is_kept(engine, tmp_path):
    os.mkfifo(tmp_path / "here")
    write_notebook(tmp_path / "in.ipynb", STOPPED.format(here=str(tmp_path / "here")))
    options = ["--engine", engine, "-k", "python3", "-l", "python", "--no-progress-bar"]
    command = [BIN / "papermill", "in.ipynb", "out.ipynb", *options]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        (tmp_path / "here").read_text()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "out.outcome.json").read_text())["outcome"] == "stopped"
    cell = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]
    assert [one["ename"] for one in cell["outputs"] if one["output_type"] == "error"] == ["KeyboardInterrupt"]


def test_whoever_started_it_is_gone_and_so_is_the_process(tmp_path):
    os.mkfifo(tmp_path / "here")
    os.mkfifo(tmp_path / "life")
    lives = f"import os\nlife = os.open({str(tmp_path / 'life')!r}, os.O_WRONLY)\n"
    waits = f"{lives}open({str(tmp_path / 'here')!r}, 'w').close()\nimport threading\nthreading.Event().wait()"
    process = started("shell", tmp_path, write_notebook(tmp_path / "in.ipynb", waits))
    with Path(tmp_path / "life").open("rb") as life:
        (tmp_path / "here").read_text()
        process.kill()
        process.wait()
        assert life.read() == b""  # comes to its end when nobody holds it any more
