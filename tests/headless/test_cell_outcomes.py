"""A run comes to what its cells came to by the kernel's replies, whatever they show: by ``ucl run`` and by papermill.

Each case has its twin among the cases that succeed.
"""

import json

import papermill
import pytest
from notebook_runs import must_follow_the_schema, write_notebook
from papermill.exceptions import PapermillExecutionError

from ucl_helpers.errors import SecretRedacted, UsageError
from ucl_helpers.headless.run import run_notebook

HANDLED = """
def handle(shell, kind, error, trace, tb_offset=None):
    print("handled", error)
get_ipython().set_custom_exc(({},), handle)
"""
TOKEN = "x" * 86 + "=="

FAILING = {
    "raised": ["raise ValueError('boom')"],
    "shown by a handler": [HANDLED.format("Exception"), "raise ValueError('boom')"],
    "shown by a handler in the same cell": [HANDLED.format("Exception") + "raise ValueError('boom')"],
    "shown by nothing": ["get_ipython().showtraceback = lambda *given, **more: None", "raise ValueError('boom')"],
    "shown as text": ["get_ipython()._showtraceback = lambda kind, *_: print(kind)", "raise ValueError('boom')"],
    "shown and cleared": [
        HANDLED.format("Exception") + "from IPython.display import clear_output\n",
        "print('all is well')\nclear_output()\nraise ValueError('boom')",
    ],
    "an exit shown, then raised": [
        HANDLED.format("Exception"),
        "try:\n    raise SystemExit(0)\nexcept SystemExit:\n    get_ipython().showtraceback()\nraise ValueError('no')",
    ],
    "a group": ["raise ExceptionGroup('several', [ValueError('boom')])"],
    "a group from a task group": [
        "import asyncio\nasync def boom():\n    raise ValueError('boom')",
        "async with asyncio.TaskGroup() as group:\n    group.create_task(boom())",
    ],
    "no such magic": ["%no_such_magic"],
    "a wrong option of a magic": ["%timeit -x"],
    "no Python": ["this is no Python"],
    "raised by a program of %run": ["with open('bad.py', 'w') as f:\n    f.write('1 / 0')", "%run bad.py"],
    "an exit of a program of %run": [
        "with open('bad.py', 'w') as f:\n    f.write('import sys; sys.exit(2)')",
        "%run bad.py",
    ],
    "raised below %%capture": ["%%capture\nraise ValueError('boom')"],
    "no Python below %%capture": ["%%capture\nthis is no Python"],
    "an assertion": ["assert 1 == 2"],
    "an interrupt": ["raise KeyboardInterrupt"],
    "a death": ["import os\nprint('all is well', flush=True)\nos._exit(0)"],
    "a death by a signal": ["import os\nprint('all is well', flush=True)\nos.kill(os.getpid(), 9)"],
    "an exit with 1": ["import sys\nsys.exit(1)"],
    "an exit by IPython with 3": ["exit(3)"],
    "an exit with a text": ["import sys\nsys.exit('no')"],
    "an exit with 1 shown by a handler": [HANDLED.format("SystemExit"), "import sys\nsys.exit(1)"],
    "not executed": ["get_ipython().kernel._aborting = True", "print('never')"],
    "not executed, and tagged": ["get_ipython().kernel._aborting = True", "# tag: raises-exception\n1"],
}
PASSING = {
    "nothing": ["print('well')"],
    "no source": ["", "  "],
    "a handler without an exception": [HANDLED.format("Exception"), "print('well')"],
    "caught and shown": ["try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()"],
    "a group, caught": ["try:\n    raise ExceptionGroup('s', [ValueError('boom')])\nexcept* ValueError:\n    pass"],
    "allowed": ["# tag: raises-exception\nraise ValueError('expected')", "print('well')"],
    "allowed and shown by a handler": [HANDLED.format("Exception"), "# tag: raises-exception\n1 / 0", "print('well')"],
    "skipped": ["# tag: skip-execution\n1 / 0"],
    "a program of %run": ["with open('good.py', 'w') as f:\n    f.write('x = 1')", "%run good.py"],
    "below %%capture": ["%%capture kept\nprint('well')", "assert kept.stdout == 'well\\n'"],
    "a program that fails": ["!false"],
    "an exit": ["import sys\nsys.exit()", "1 / 0"],
    "an exit with 0": ["import sys\nsys.exit(0)", "1 / 0"],
    "an exit by IPython": ["exit", "1 / 0"],
    "a call of quit": ["quit()", "1 / 0"],
    "a call of exit with 0": ["exit(0)", "1 / 0"],
    "an exit shown by a handler": [HANDLED.format("SystemExit"), "import sys\nsys.exit(0)", "1 / 0"],
}


def notebook(tmp_path, sources):
    path = write_notebook(tmp_path / "in.ipynb", *sources)
    content = json.loads(path.read_text())
    for cell in content["cells"][1:]:
        first, _, _ = cell["source"].partition("\n")
        cell["metadata"] = {"tags": [first.removeprefix("# tag: ")]} if first.startswith("# tag: ") else {}
    path.write_text(json.dumps(content))
    return path


def by_papermill(path):
    """What papermill ends with, None for a success, and the outcome that the engine wrote."""
    raised = None
    try:
        papermill.execute_notebook(str(path), str(path.with_name("pm.ipynb")), engine_name="ucl", progress_bar=False)
    except (PapermillExecutionError, RuntimeError, SecretRedacted) as error:
        raised = error
    return raised, json.loads(path.with_name("pm.outcome.json").read_text())


@pytest.mark.kind("success: cells that fail")
@pytest.mark.parametrize("case", FAILING)
def test_a_failed_cell_fails_the_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where cells write files
    path = notebook(tmp_path, [*FAILING[case], "print('after')"])
    result = run_notebook(path, tmp_path / "out.ipynb")
    raised, written = by_papermill(path)
    for told in (result.outcome, written):
        must_follow_the_schema(told)
        assert (told["outcome"], told["exitCode"], bool(told["error"])) == ("failed", 1, True)
        assert "message" in told
    assert raised is not None
    assert "after\n" not in result.output.read_text()


@pytest.mark.kind("success: cells that do not fail")
@pytest.mark.parametrize("case", PASSING)
def test_other_cells_do_not(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where cells write files
    path = notebook(tmp_path, PASSING[case])
    result = run_notebook(path, tmp_path / "out.ipynb")
    raised, written = by_papermill(path)
    for told in (result.outcome, written):
        must_follow_the_schema(told)
        assert (told["outcome"], told["exitCode"]) == ("done", 0), told
    assert raised is None
    saved = json.loads(result.output.read_text())
    ended = [cell for cell in saved["cells"] if cell["metadata"]["papermill"]["status"] == "pending"]
    assert ("ended the run; cells after it were not run: 1" in result.outcome.get("message", "")) == bool(ended)


def test_what_a_notebook_said_before_a_cell_failed_is_not_its_outcome(tmp_path):
    said = "from ucl_helpers.models import Outcome\nOutcome('renewed', name)"
    path = notebook(tmp_path, [said, HANDLED.format("Exception"), "raise ValueError('boom')"])
    result = run_notebook(path, tmp_path / "out.ipynb")
    assert (result.outcome["outcome"], result.outcome["error"], result.outcome["message"]) == (
        "failed",
        "ValueError",
        "boom",
    )


@pytest.mark.kind("success: cells that fail")
def test_a_value_that_cannot_be_shown_fails_by_its_own_exception(tmp_path):
    path = notebook(tmp_path, ["class Odd:\n    def __repr__(self):\n        raise ValueError('boom')\nOdd()"])
    outcome = run_notebook(path, tmp_path / "out.ipynb").outcome
    assert (outcome["outcome"], outcome["error"], outcome["message"]) == ("failed", "ValueError", "boom")


def test_the_text_of_an_exception_that_only_a_handler_saw_holds_no_secret(tmp_path, capfd):
    path = notebook(
        tmp_path, [HANDLED.format("Exception").replace(", error)", ")"), "raise ValueError('x' * 86 + '==')"]
    )
    result = run_notebook(path, tmp_path / "out.ipynb")
    raised, written = by_papermill(path)
    assert isinstance(raised, SecretRedacted)
    for told in (result.outcome, written):
        assert (told["outcome"], told["exitCode"], told["error"]) == ("failed", 14, "SecretRedacted")
        assert "It also failed: ValueError" in told["message"]
    out, err = capfd.readouterr()
    texts = [path.read_text() for path in tmp_path.iterdir() if path.name != "in.ipynb"]
    assert TOKEN not in "".join([out, err, str(raised), *texts])


@pytest.mark.parametrize("language", ["R", "julia"])
def test_a_notebook_of_another_language_is_refused(language, tmp_path):
    path = notebook(tmp_path, ["print(1)"])
    content = json.loads(path.read_text())
    content["metadata"]["kernelspec"] = {"name": "other", "display_name": "other", "language": language}
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"written in {language}"):
        run_notebook(path, tmp_path / "out.ipynb")
