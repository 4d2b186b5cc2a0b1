"""The answers to the exercises in the notebooks run, each after the notebook that asks."""

import re
from pathlib import Path

import nbformat
import pytest

from ucl_helpers.headless.run import parameters_of, run_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ANSWER = re.compile(r"<details><summary>Answer</summary>\n(.*?)</details>", re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = ["01_establish_connection", "02_maintain_connection", "03_revoke_connection", "04_fleet", "06_break_it_safely"]


def is_exercises(cell):
    return cell.cell_type == "markdown" and cell.source.startswith("## Exercises")


def answers(notebook):
    """Return the answers to a notebook's exercises."""
    return [text for cell in notebook.cells if is_exercises(cell) for text in ANSWER.findall(cell.source)]


def with_answers(name, change=str):
    """Return a notebook with each answer that is code as a cell below the exercises, and the number of these."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [change(block) for text in answers(notebook) for block in CODE.findall(text)]
    place = next(index for index, cell in enumerate(notebook.cells) if is_exercises(cell)) + 1
    notebook.cells[place:place] = [nbformat.v4.new_code_cell(block) for block in code]
    return notebook, len(code)


def run(name, folder, change=str):
    notebook, number = with_answers(name, change)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    given = {"practice": True} if "practice" in parameters_of(path) else {}
    given |= {"simulated": 500} if "simulated" in parameters_of(path) else {}
    return run_notebook(path, folder / "out.ipynb", given), number


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("UCL_HOME", str(tmp_path / "home"))
    result, number = run(name, tmp_path)
    assert result.exit_code == 0, result.error
    assert number


def test_a_wrong_answer_would_be_found(tmp_path, monkeypatch):
    monkeypatch.setenv("UCL_HOME", str(tmp_path / "home"))
    result, _ = run(NAMES[0], tmp_path, lambda code: code.replace("serial_number", "serial"))
    assert result.exit_code
    assert "serial" in str(result.error)


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_an_answer(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    [exercises] = [cell.source for cell in notebook.cells if is_exercises(cell)]
    assert len(re.findall(r"^\*\*\d+\.\*\*", exercises, re.MULTILINE)) == len(answers(notebook))
