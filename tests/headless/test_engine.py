"""The papermill engine: what it refuses before it writes, where it writes, and how much; and that a run has an end."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta

import nbformat
import papermill
import pytest
from command_line import environment
from nbformat.v4 import new_output
from notebook_runs import mode, must_follow_the_schema, printed, write_notebook
from papermill.iorw import load_notebook_node, local_file_io_cwd
from quick_keys import QUICK_BITS
from test_redaction import ONE_TIME, PEM

from ucl_helpers.connection.files import write
from ucl_helpers.errors import SecretFound, UsageError
from ucl_helpers.headless.execution import RedactingManager, local_path
from ucl_helpers.headless.kernel_process import Bounds, cut
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.run import run_notebook
from ucl_helpers.keys import dump_key, make_key
from ucl_helpers.models import OUTCOME_MIME

OURS = {"engine_name": "ucl", "kernel_name": "python3", "language": "python", "progress_bar": False}


def only_the_outcome_is_there(folder):
    """Nothing was run, and what is told of it takes the place of what an earlier run left."""
    told = json.loads((folder / "out.outcome.json").read_text())
    must_follow_the_schema(told)
    assert (told["outcome"], told["notebook"]) == ("failed", None)
    assert "t0k3n" not in str(told)
    return sorted(path.name for path in folder.iterdir()) == ["in.ipynb", "out.outcome.json"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"name": ONE_TIME},
        {"name": "https://ucl.example/graphql?token=s3cr3t-t0k3n"},
        {"passphrase": "s3cr3t-t0k3n"},
        {"name": {"deep": [{"bearer": "s3cr3t-t0k3n"}]}},
        {"name": PEM},
    ],
    ids=["token", "url", "by its name", "deep", "key"],
)
def test_a_secret_among_the_parameters_is_refused_by_any_papermill_before_anything_is_run(tmp_path, parameters):
    write_notebook(tmp_path / "in.ipynb", f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SecretFound, match="Parameter") as caught:
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", parameters, **OURS)
    assert "t0k3n" not in str(caught.value)
    assert only_the_outcome_is_there(tmp_path)


def test_nobody_is_asked_for_a_secret_by_any_papermill(tmp_path):
    write_notebook(tmp_path / "in.ipynb", f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match="a headless run cannot ask you"):
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {"token": "prompt"}, **OURS)
    assert only_the_outcome_is_there(tmp_path)


@pytest.mark.plants_secrets
def test_a_secret_in_a_cell_is_refused_before_anything_is_run(tmp_path):
    write_notebook(tmp_path / "in.ipynb", f"key = {PEM!r}")
    with pytest.raises(SecretFound, match="Cell 2 of the notebook holds a private key"):
        run_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
    assert only_the_outcome_is_there(tmp_path)


def test_papermill_loads_nothing_by_the_engine_in_runs_that_use_another():
    script = "import sys, ucl_helpers.headless.engine\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"papermill", "nbclient", "nbformat", "jupyter_client", "IPython"} & set(loaded)


# -- the end of a run --------------------------------------------------------------------------------------------------


def test_a_run_that_takes_too_long_ends_and_is_recorded(tmp_path):
    """Here it is too late before the first cell begins."""
    notebook = write_notebook(tmp_path / "in.ipynb", "print('never')")
    result = run_notebook(notebook, tmp_path / "out.ipynb", deadline=timedelta(0))
    told = json.loads((tmp_path / "out.outcome.json").read_text())
    must_follow_the_schema(told)
    assert told == result.outcome
    assert (told["exitCode"], told["error"], told["steps"][0]["status"]) == (3, "DeadlineExceeded", "pending")
    assert "ended before its first cell" in told["message"]
    assert (printed(result.output), mode(result.output)) == ("", 0o600)


STANDS_STILL = """
import threading
print("so far")
try:
    open({here!r}, "w").close()
    threading.Event().wait()
finally:
    print("and its last words")
"""


def test_plain_papermill_that_is_told_to_stop_interrupts_the_cell_and_saves_what_it_said(tmp_path):
    os.mkfifo(tmp_path / "here")
    write_notebook(tmp_path / "in.ipynb", STANDS_STILL.format(here=str(tmp_path / "here")))
    options = ["--engine", "ucl", "-k", "python3", "-l", "python", "--no-progress-bar"]
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", *options]
    variables = environment(tmp_path / "home")
    with subprocess.Popen(
        command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        (tmp_path / "here").read_text()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert printed(tmp_path / "out.ipynb") == "so far\nand its last words\n"
    assert json.loads((tmp_path / "out.ipynb").read_text())["metadata"]["papermill"]["end_time"]
    told = json.loads((tmp_path / "out.outcome.json").read_text())
    must_follow_the_schema(told)
    assert (told["outcome"], told["exitCode"]) == ("stopped", 143)
    assert {path.name: mode(path) for path in tmp_path.glob("out.*")} == {"out.ipynb": 0o600, "out.outcome.json": 0o600}


PATIENT = """
import sys
from pathlib import Path
import ucl_helpers.headless.cells as cells
from ucl_helpers.headless.run import run_notebook
cells.GRACE_SECONDS = 1e6
run_notebook(Path("in.ipynb"), Path("out.ipynb"))
"""
UNMOVED = """
import signal, threading
signal.signal(signal.SIGINT, lambda *_: open("asked", "w").close())
open("here", "w").close()
while True:
    threading.Event().wait()
"""


@pytest.mark.timeout(120)
def test_when_a_second_signal_comes_a_cell_gets_no_more_grace(tmp_path):
    for name in ("here", "asked"):
        os.mkfifo(tmp_path / name)
    write_notebook(tmp_path / "in.ipynb", UNMOVED, "print('never')")
    variables = environment(tmp_path / "home")
    with subprocess.Popen([sys.executable, "-c", PATIENT], cwd=tmp_path, env=variables) as process:
        for name in ("here", "asked"):
            (tmp_path / name).read_text()
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    told = json.loads((tmp_path / "out.outcome.json").read_text())
    assert (told["outcome"], told["exitCode"]) == ("stopped", 143)
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    assert [one["metadata"]["papermill"]["status"] for one in cells][-2:] == ["failed", "pending"]


WITHIN_A_LOOP = """
import asyncio, sys
from pathlib import Path
from ucl_helpers.headless.run import run_notebook

async def scene():
    run_notebook(Path("in.ipynb"), Path("out.ipynb"))

asyncio.run(scene())
"""
TELLS_ITS_PARENT = "import os, signal, threading\nos.kill(os.getppid(), signal.{})\nthreading.Event().wait()"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 128 + signal.SIGTERM)])
def test_a_run_that_is_started_where_a_loop_runs_can_be_stopped_too(sent, code, tmp_path):
    """As it is in a notebook; there the loop that waits for the cells is of another thread."""
    write_notebook(tmp_path / "in.ipynb", TELLS_ITS_PARENT.format(sent))
    command = [sys.executable, "-c", WITHIN_A_LOOP]
    variables = environment(tmp_path / "home")
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, "never awaited" in done.stderr) == (code, False)
    assert json.loads((tmp_path / "out.outcome.json").read_text())["outcome"] == "stopped"


TOO_LATE = """
import asyncio, sys
from pathlib import Path
from ucl_helpers.headless.cells import HeadlessClient
from ucl_helpers.headless.run import run_notebook

async def until(client, running, seconds, stops, real=HeadlessClient._until):
    waits.append(seconds)
    if len(waits) == 3:  # for the cell; before it for the process, and for its parameters
        await asyncio.to_thread(Path("here").read_text)
        seconds = 0
    await real(client, running, seconds, stops)

waits = []
HeadlessClient._until = until
run_notebook(Path("in.ipynb"), Path("out.ipynb"))
"""
TELLS_WHEN_INTERRUPTED = """
import os, signal, threading
def interrupted(*_):
    os.kill(os.getppid(), signal.SIGTERM)
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupted)
open("here", "w").close()
threading.Event().wait()
"""


def test_a_run_that_is_told_to_stop_when_its_time_is_up_was_told_to_stop(tmp_path):
    os.mkfifo(tmp_path / "here")
    write_notebook(tmp_path / "in.ipynb", TELLS_WHEN_INTERRUPTED)
    variables = environment(tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", TOO_LATE], cwd=tmp_path, env=variables, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "out.outcome.json").read_text())["exitCode"] == 143


# -- where it is written -----------------------------------------------------------------------------------------------


def test_only_a_file_on_this_machine_is_renamed_into_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.ipynb").symlink_to("file.ipynb")
    os.mkfifo(tmp_path / "fifo.ipynb")
    with local_file_io_cwd(str(tmp_path / "elsewhere")):
        assert local_path("out.ipynb") == tmp_path / "elsewhere" / "out.ipynb"
    with local_file_io_cwd():
        assert local_path("out.ipynb") == tmp_path / "out.ipynb"
        assert local_path(str(tmp_path / "link.ipynb")) == tmp_path / "file.ipynb"
        others = ("s3://bucket/out.ipynb", "https://example/out.ipynb", "-", None, "fifo.ipynb", "/dev/null")
        assert {local_path(other) for other in others} == {None}


@pytest.mark.parametrize("saves_each_cell", [True, False])
def test_a_cell_that_is_over_holds_no_secret_whether_it_is_saved_or_not(tmp_path, saves_each_cell):
    write_notebook(tmp_path / "in.ipynb", "x")
    notebook = load_notebook_node(str(tmp_path / "in.ipynb"))
    notebook.metadata.papermill["output_path"] = str(tmp_path / "out.ipynb")
    manager = RedactingManager(notebook, Redactor(), saves_each_cell=saves_each_cell, progress_bar=False)
    manager.notebook_start()
    manager.cell_start(notebook.cells[1], 1)
    notebook.cells[1].outputs = [new_output("stream", name="stdout", text=ONE_TIME)]
    manager.cell_complete(notebook.cells[1], 1)
    note = "[outputs removed: one-time token in cell 2, stdout]\n"
    assert notebook.cells[1].outputs[0].text == note
    assert (tmp_path / "out.ipynb").exists() == saves_each_cell
    manager.notebook_complete()
    assert (printed(tmp_path / "out.ipynb"), mode(tmp_path / "out.ipynb")) == (note, 0o600)


SHOWS = """
from IPython.display import display
display("before", display_id="one")
"""
CHANGES = f"""
from IPython.display import update_display
print("between")
data = {{"text/plain": "after", "text/html": "".join(reversed({ONE_TIME[::-1]!r}))}}
update_display(data, raw=True, display_id="one")
"""
LOOKS = """
from pathlib import Path
print(*sorted(path.read_text() for path in Path({folder!r}).glob("**/out.ipynb")))
"""


def test_what_is_saved_between_cells_is_the_notebook_as_it_is_then_without_secrets(tmp_path):
    """Also where a cell changed what another had shown."""
    write_notebook(tmp_path / "in.ipynb", SHOWS, CHANGES, LOOKS.format(folder=str(tmp_path)))
    result = run_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
    assert (result.exit_code, result.outcome["exitCode"]) == (14, 14)
    whole = json.loads(result.output.read_text())
    saved = json.loads("".join(whole["cells"][-1]["outputs"][0]["text"]))
    _, shows, changes, looks = saved["cells"]
    assert [output["text"] for output in shows["outputs"]] == ["[outputs removed: one-time token in cell 2, output]\n"]
    assert (changes["outputs"][0]["text"], looks["outputs"]) == ("between\n", [])
    assert [one["metadata"]["papermill"]["status"] for one in saved["cells"]] == [*["completed"] * 3, "pending"]
    nbformat.validate(saved)


MUCH = """
from IPython.display import display
display("word " * 300_000, display_id="much")
"""
INSTEAD = f"""
from IPython.display import update_display
update_display({{"text/plain": "".join(reversed({ONE_TIME[::-1]!r}))}}, raw=True, display_id="much")
"""


def test_what_was_too_much_to_be_shown_is_not_replaced_by_a_secret_either(tmp_path):
    """A note stands in its place, and stays."""
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", MUCH, INSTEAD), tmp_path / "out.ipynb")
    assert ONE_TIME not in result.output.read_text()
    (note,) = json.loads(result.output.read_text())["cells"][1]["outputs"]
    assert sorted(note) == ["name", "output_type", "text"]


def test_what_a_parameter_refers_to_is_known_if_nothing_else_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("A_BEARER", "opaque-bearer-0123456789")
    shows = "import os\nprint('Bearer', os.environ['A_BEARER'])"
    default = 'bearer: str = "env:A_BEARER"'
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", shows, parameters=default), tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (
        14,
        "[outputs removed: secret of env:A_BEARER in cell 2, stdout]\n",
    )


AGAIN = """
from IPython.display import update_display
for name in ("one", "other"):
    update_display({"text/plain": "later"}, raw=True, display_id=name)
"""


def test_what_gave_way_to_a_note_is_not_replaced_by_a_later_cell(tmp_path):
    first = f"{SHOWS}\nprint(''.join(reversed({ONE_TIME[::-1]!r})))"
    other = SHOWS.replace('"one"', '"other"')
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", first, other, AGAIN), tmp_path / "out.ipynb")
    _, condemned, stays, _ = json.loads(result.output.read_text())["cells"]
    assert [output["output_type"] for output in condemned["outputs"]] == ["stream"]
    assert "".join(stays["outputs"][0]["data"]["text/plain"]) == "later"
    assert result.exit_code == 14
    nbformat.validate(json.loads(result.output.read_text()))


READS = """
import subprocess
path = {path!r}
print(subprocess.run(["od", "-An", "-tx1", "-v", path], capture_output=True, text=True, check=True).stdout[2500:4000])
"""


@pytest.mark.parametrize("known", [True, False])
def test_a_key_of_a_connection_is_known_to_a_notebook_that_names_no_connection(tmp_path, monkeypatch, known):
    monkeypatch.setenv("UCL_HOME", str(tmp_path / ("home" if known else "other")))
    path = tmp_path / "home" / "connections" / "prod" / "generations" / "000001-x" / "key.pem"
    path.parent.mkdir(parents=True)
    write(path, dump_key(make_key(QUICK_BITS)))
    notebook = write_notebook(
        tmp_path / "in.ipynb", READS.format(path=str(path)), parameters='connections: str = "re*"'
    )
    result = run_notebook(notebook, tmp_path / "out.ipynb")
    removed = "[outputs removed: private key in cell 2, stdout]\n"
    assert (result.exit_code, printed(result.output) == removed) == ((14, True) if known else (0, False))


def test_a_display_that_no_notebook_can_hold_replaces_nothing(tmp_path):
    instead = "update_display({'text/plain': {'a': 1}}, raw=True, display_id='much')"
    shows = f"{MUCH.replace(' * 300_000', '')}\nfrom IPython.display import update_display\n{instead}"
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", shows), tmp_path / "out.ipynb")
    assert result.exit_code == 0


def test_half_a_surrogate_in_a_notebook_is_told_before_it_is_run(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", "print('never')")
    content = json.loads(notebook.read_text())
    content["cells"].append({"cell_type": "markdown", "id": "x", "metadata": {}, "source": "\ud83d"})
    notebook.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"Cell 3 of .* contains a lone surrogate"):
        run_notebook(notebook, tmp_path / "out.ipynb")


def test_a_number_of_too_many_digits_is_shown_as_a_text(tmp_path):
    """A kernel's own client cannot read it."""
    shows = "import sys\nfrom IPython.display import JSON, display\nsys.set_int_max_str_digits(0)\n"
    shows += "display({'application/json': 10**5000}, raw=True)\nprint('on')"
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", shows), tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "on\n")
    shown = json.loads(result.output.read_text())["cells"][1]["outputs"][0]["data"]["application/json"]
    assert shown == "1" + "0" * 5000


# -- how much of it ----------------------------------------------------------------------------------------------------


def stream(text, name="stdout"):
    return {"header": {}, "msg_type": "stream", "content": {"name": name, "text": text}}


def kept(bounds, *messages, cell=0):
    return [one for message in messages for one in bounds.within(cell, message)]


def texts(messages):
    return "".join(one["content"]["text"] for one in messages)


def test_what_a_cell_prints_above_its_bound_is_not_kept_and_a_note_says_so():
    found = kept(Bounds(cell=10_000), *[stream("word " * 500)] * 100)
    assert len(texts(found)) < 10_200
    assert texts(found).count("was not kept: more than 10,000 characters") == 1
    assert texts(kept(Bounds(cell=10_000), stream("word " * 500))) == "word " * 500


def test_all_cells_together_have_a_bound_too():
    bounds = Bounds(cell=10_000, notebook=25_000)
    found = [texts(kept(bounds, stream("word " * 900), stream("word " * 900), cell=cell)) for cell in range(10)]
    assert len("".join(found)) < 26_000
    assert "was not kept" not in found[0]
    assert all("was not kept" in one for one in found[5:])


def test_no_half_of_a_word_stays_where_it_is_cut_off():
    [found] = kept(Bounds(cell=1_000), stream("word " * 100 + ONE_TIME * 10 + " word" * 100))
    assert ONE_TIME[:10] not in texts([found])
    assert cut("one two", 5) == "one "
    assert cut("one two", 7) == "one two"


def test_what_was_cleared_makes_room():
    bounds = Bounds(cell=1_000)
    assert texts(kept(bounds, stream("x" * 700))) == "x" * 700
    assert "was not kept" in texts(kept(bounds, stream("x" * 700)))
    bounds.forget(0)
    assert texts(kept(bounds, stream("x" * 700))) == "x" * 700


def test_a_run_that_printed_too_much_still_says_how_it_ended():
    bounds = Bounds(cell=1_000)
    kept(bounds, stream("x" * 2_000))
    outcome = {"header": {}, "msg_type": "display_data", "content": {"data": {OUTCOME_MIME: {"outcome": "renewed"}}}}
    other = {"header": {}, "msg_type": "display_data", "content": {"data": {"text/plain": "x" * 900}}}
    error = {"ename": "ValueError", "evalue": "x " * 99_000, "traceback": ["y"] * 10_000}
    assert kept(bounds, outcome) == [outcome]
    assert kept(bounds, other) == []
    [short] = kept(bounds, {"header": {}, "msg_type": "error", "content": error})
    assert (short["content"]["ename"], len(short["content"]["evalue"])) == ("ValueError", 1000)
