"""Our notebooks keep the rules of style; and each rule finds the one thing that is wrong with a doctored notebook."""

from pathlib import Path

import nbformat
import pytest

from tools.normalise_notebooks import normalise
from tools.notebook_style import faults

FOLDER = str(Path("/") / "home" / "me")  # a path of a machine, which stands nowhere in this project

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
FENCED = "## Show\n\nWhat it is:\n\n```\n# no title\n```\n"


def prose(text):
    return nbformat.v4.new_markdown_cell(text)


def code(source, *outputs, tags=()):
    metadata = {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def good():
    cells = [
        prose("# Title\n\nAt the end you have a number.\n\n## Set up\n\nThese can be given:"),
        code('number: int = 3  # how many\ntoken: str = "env:TOKEN"  # where it is', tags=["parameters"]),
        code("twice = 2 * number"),
        prose(FENCED),
        code("print(twice)", nbformat.v4.new_output("stream", name="stdout", text="6\n")),
        prose("It is right:"),
        code("assert twice == 6"),
    ]
    return normalise(nbformat.v4.new_notebook(cells=cells))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_the_rules(path):
    assert faults(nbformat.read(path, as_version=4)) == []


def test_there_are_notebooks():
    assert {"00", "01", "02", "03", "04", "06", "07"} <= {path.stem[:2] for path in NOTEBOOKS}


def test_a_good_notebook_has_no_faults():
    assert faults(good()) == []


def of(cell, **changes):
    """A change to one cell."""
    return lambda notebook: notebook["cells"][cell].update(changes)


@pytest.mark.parametrize("name", ["ucl.renew", "views.begin", "views.charts.history(secure)", "ucl_helpers.steps.sign"])
def test_a_name_that_exists_may_be_in_the_prose(name):
    notebook = good()
    of(5, source=f"Use `{name}`:")(notebook)
    assert faults(notebook) == []


def error(name):
    return nbformat.v4.new_output("error", ename=name, evalue="", traceback=[])


def long_tutorial(notebook):
    """Add a step, and further cells before it."""
    more = [[prose("More:"), code("twice")] for _ in range(11)] + [[prose("## Step 1: Ask"), code("twice")]]
    notebook["cells"] += [cell for pair in more for cell in pair]
    notebook.update(normalise(notebook))


DOCTORED = {
    "no title": (of(0, source="## Title\n\nAt the end you have a number."), "does not open with a title"),
    "title alone": (of(0, source="# Title\n\n## Set up"), "does not open with a title"),
    "two titles": (of(5, source="# Another title"), "it has 2 titles"),
    "begins with code": (lambda notebook: notebook["cells"].pop(0), "does not open with a title"),
    "three code cells in a row": (lambda notebook: notebook["cells"].pop(3), "3 code cells in a row"),
    "a long cell": (of(4, source="x = 1\n" * 16), "a code cell of 16 lines"),
    "long cells": (
        lambda notebook: (
            [cell.update(source="x = 1\n" * 4) for cell in notebook["cells"][2:5:2]]
            + [of(6, source="assert 1\n" * 4)(notebook)]
        ),
        "4.0 lines in the median",
    ),
    "parameters not tagged": (of(1, metadata={}), "tagged 'parameters'"),
    "parameters tagged twice": (of(4, metadata={"tags": ["parameters"]}), "tagged 'parameters'"),
    "no type": (of(1, source="number = 3  # how many"), "not a parameter with a type: number = 3"),
    "derived": (of(1, source="number: int = 2 + len('x')  # how many"), "not a literal"),
    "no default": (of(1, source="number: int  # how many"), "not a literal"),
    "no comment": (of(1, source="number: int = 3"), "no comment"),
    "a secret": (of(1, source='token: str = "s3cr3t"  # the token'), "a secret as a parameter: token"),
    "not executed": (of(4, execution_count=None), "not executed from top to bottom"),
    "out of order": (of(4, execution_count=9), "not executed from top to bottom"),
    "an error": (of(4, outputs=[error("ValueError")]), "an error or a warning is shown by: print(twice)"),
    "a warning": (
        of(4, outputs=[nbformat.v4.new_output("stream", name="stderr", text="DeprecationWarning")]),
        "an error or a warning is shown by: print(twice)",
    ),
    "a step of two cells": (of(3, source=FENCED.replace("Show", "Step 1: Ask")), "'Step 1: Ask' has 2 code cells"),
    "a long tutorial": (long_tutorial, "a tutorial of 16 code cells"),
    "a path": (of(5, source=f"It lies in {FOLDER}/x."), f"a path of the machine: {FOLDER}"),
    "a name that is gone": (of(5, source="Use `views.history.history`."), "the prose names views.history.history"),
    "a whole name that is gone": (of(5, source="Use `ucl_helpers.gone()`."), "the prose names ucl_helpers.gone"),
    "a key": (of(5, source="-----BEGIN PRIVATE KEY-----"), "the text of a private key"),
    "not normalised": (of(4, metadata={"papermill": {"duration": 1}}), "not normalised"),
}


@pytest.mark.parametrize(("doctor", "reason"), DOCTORED.values(), ids=DOCTORED)
def test_what_is_wrong_is_found(doctor, reason):
    notebook = good()
    doctor(notebook)
    found = [fault for fault in faults(notebook) if reason in fault or "not normalised" not in fault]
    assert len(found) == 1
    assert reason in found[0]
