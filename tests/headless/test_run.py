"""Notebooks run headless: by this interpreter, saved 0600 however they end; a kernel over an encrypted connection."""

import json
import os
import subprocess
import sys

import papermill
import pytest
from nbclient.exceptions import DeadKernelError
from notebook_runs import mode, outcome, printed, write_notebook

from ucl_helpers.errors import SecretFound, UsageError
from ucl_helpers.headless import notebooks
from ucl_helpers.headless.notebooks import copy_notebooks, find_notebook
from ucl_helpers.headless.run import run_notebook

CONNECTION = """
import json
from pathlib import Path
from ipykernel.connect import get_connection_file
print("curve" if "curve_secretkey" in json.loads(Path(get_connection_file()).read_text()) else "plain")
"""


def test_the_kernel_connection_is_encrypted(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", CONNECTION)
    result = run_notebook(notebook, tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (0, "curve\n")


def test_without_our_kernel_manager_it_would_not_be(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", CONNECTION)
    papermill.execute_notebook(
        notebook, tmp_path / "out.ipynb", kernel_name="python3", language="python", progress_bar=False
    )
    assert printed(tmp_path / "out.ipynb") == "plain\n"


@pytest.fixture
def foreign_kernel(tmp_path, monkeypatch):
    """A kernel specification of the same name that comes first and starts something else."""
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    specification = {"argv": ["false", "{connection_file}"], "display_name": "other", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(specification))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")


@pytest.mark.usefixtures("foreign_kernel")
def test_the_kernel_is_this_interpreter_in_the_folder_of_the_caller(tmp_path, monkeypatch):
    notebook = write_notebook(
        tmp_path / "in.ipynb", "import os, sys\nprint(sys.executable, os.getcwd(), name, number + 1)"
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = run_notebook(notebook, tmp_path / "out.ipynb", {"name": "1e5", "number": "41"})
    assert printed(result.output) == f"{sys.executable} {tmp_path / 'here'} 1e5 42\n"


@pytest.mark.usefixtures("foreign_kernel")
def test_where_kernels_are_looked_up_by_name_another_is_started(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb")
    with pytest.raises((DeadKernelError, RuntimeError)):
        papermill.execute_notebook(notebook, None, kernel_name="python3", language="python", progress_bar=False)


def test_the_executed_notebook_is_private_from_its_first_moment(tmp_path):
    look = (
        "from pathlib import Path\n"
        "print([oct(p.stat().st_mode & 0o777) for p in Path(name).rglob('*') if p != Path(name, 'out.ipynb')])\n"
        "print(Path(name, 'out.ipynb').read_text())"
    )
    notebook = write_notebook(tmp_path / "in.ipynb", look)
    folder = tmp_path / "runs{of}" / "today"  # papermill would fill in the braces
    folder.mkdir(parents=True)
    (folder / "out.ipynb").write_text("the run before")
    (folder / "out.ipynb").chmod(0o644)
    umask = os.umask(0)
    try:
        result = run_notebook(notebook, folder / "out.ipynb", {"name": str(folder)})
    finally:
        os.umask(umask)
    assert printed(result.output) == "['0o700', '0o600']\nthe run before\n"
    assert {path.name: mode(path) for path in folder.iterdir()} == {"out.ipynb": 0o600, "out.outcome.json": 0o600}
    assert json.loads(result.output.read_text())["metadata"]["papermill"]["output_path"] == str(result.output)


def test_a_notebook_that_fails_is_saved_and_ends_with_the_code_of_its_outcome(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", outcome(0), outcome(6), "1 / 0", "print('never')")
    result = run_notebook(notebook, tmp_path / "out.ipynb")
    assert (result.exit_code, result.error) == (6, "ZeroDivisionError: division by zero")
    assert {**result.outcome, "outcome": "said", "connection": "practice", "exitCode": 6} == result.outcome
    assert mode(result.output) == 0o600
    assert "ZeroDivisionError" in result.output.read_text()


def test_a_kernel_that_dies_is_an_error_and_what_it_did_is_saved(tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", "print('so far')", "import os\nos._exit(1)")
    result = run_notebook(notebook, tmp_path / "out.ipynb")
    assert (result.exit_code, printed(result.output)) == (1, "so far\n")
    assert result.error.startswith("DeadKernelError: ")


RUN = """
import sys
from pathlib import Path
from ucl_helpers.headless.run import run_notebook
run_notebook(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_of_a_run_that_is_killed_what_it_did_lies_in_a_hidden_folder(tmp_path):
    fifo = tmp_path / "here"
    os.mkfifo(fifo)
    waits = f"import threading\nopen({str(fifo)!r}, 'w').close()\nthreading.Event().wait()"
    notebook = write_notebook(tmp_path / "in.ipynb", "print('so far')", waits)
    command = [sys.executable, "-c", RUN, notebook, tmp_path / "out.ipynb"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        fifo.read_text()  # the notebook has come to its second cell
        process.kill()
    [saved] = tmp_path.rglob("out.ipynb")
    assert (printed(saved), mode(saved)) == ("so far\n", 0o600)
    assert (saved.parent.name[0], mode(saved.parent)) == (".", 0o700)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [({"nmae": "x"}, UsageError), ({"number": "many"}, UsageError), ({"name": "x?token=y"}, SecretFound)],
)
def test_parameters_that_cannot_be_taken_run_nothing(tmp_path, parameters, error):
    notebook = write_notebook(tmp_path / "in.ipynb")
    with pytest.raises(error):
        run_notebook(notebook, tmp_path / "runs" / "out.ipynb", parameters)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"nbformat": 3, "worksheets": 5}', '{"nbformat": 4}'])
def test_a_file_that_is_no_notebook_is_a_clear_error(tmp_path, text):
    (tmp_path / "in.ipynb").write_text(text)
    with pytest.raises(UsageError, match="is not a Jupyter notebook"):
        run_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb")


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A checkout with two notebooks."""
    monkeypatch.setattr(notebooks, "PACKAGE", tmp_path / "checkout" / "ucl_helpers")
    for name in ("01_establish", "02_maintain"):
        write_notebook(tmp_path / "checkout" / "notebooks" / f"{name}.ipynb")
    return tmp_path / "checkout" / "notebooks"


def test_a_notebook_is_found_by_its_name_its_beginning_or_its_path(ours, tmp_path):
    mine = write_notebook(tmp_path / "mine.ipynb")
    assert (
        find_notebook("02_maintain")
        == find_notebook("02")
        == find_notebook("02_maintain.ipynb")
        == ours / "02_maintain.ipynb"
    )
    assert find_notebook(str(mine)) == mine


def test_the_installed_notebooks_come_first(ours):
    installed = write_notebook(ours.parent / "ucl_helpers" / "_notebooks" / "02_maintain.ipynb")
    assert find_notebook("02") == installed


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("name", "reason"), [("0", "more than one"), ("03", "no notebook"), ("", "no notebook")])
def test_a_name_that_fits_none_or_several_is_an_error_that_lists_them(name, reason):
    with pytest.raises(UsageError, match=rf"{reason}.*01_establish, 02_maintain"):
        find_notebook(name)


def test_notebooks_are_copied_once_and_again(ours, tmp_path):
    copies = copy_notebooks(tmp_path / "copies")
    assert [copy.read_text() for copy in copies] == [path.read_text() for path in sorted(ours.iterdir())]
    assert copy_notebooks(tmp_path / "copies") == copies


def test_the_pages_are_copied_below_the_notebooks_and_the_links_follow(ours, tmp_path):
    page = ours.parent / "docs" / "how-to" / "cron.md"
    page.parent.mkdir(parents=True)
    page.write_text("[here](../../notebooks/01_establish.ipynb) and [there](../reference/due.md)")
    (ours.parent / "docs" / "_static").mkdir()
    (ours.parent / "docs" / "_static" / "no-page.svg").touch()
    text = (ours / "01_establish.ipynb").read_text()
    (ours / "01_establish.ipynb").write_text(
        text.replace('"cells"', '"x": "[cron](../docs/how-to/cron.md)", "cells"', 1)
    )
    first, _ = copy_notebooks(tmp_path / "copies")
    assert "[cron](docs/how-to/cron.md)" in first.read_text()
    copy = tmp_path / "copies" / "docs" / "how-to" / "cron.md"
    assert copy.read_text() == "[here](../../01_establish.ipynb) and [there](../reference/due.md)"
    assert [path.name for path in (tmp_path / "copies" / "docs").iterdir()] == ["how-to"]
    copy.write_text("my own")
    with pytest.raises(UsageError, match=r"docs/how-to/cron\.md"):
        copy_notebooks(tmp_path / "copies")


def test_a_copy_that_was_changed_is_never_overwritten(ours, tmp_path):
    first, second = copy_notebooks(tmp_path / "copies")
    (ours.parent / "docs" / "how-to").mkdir(parents=True)
    (ours.parent / "docs" / "how-to" / "cron.md").touch()
    first.unlink()
    second.write_text("my own")
    with pytest.raises(UsageError, match=r"02_maintain\.ipynb"):
        copy_notebooks(tmp_path / "copies")
    assert (second.read_text(), first.exists()) == ("my own", False)
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [second.name]
