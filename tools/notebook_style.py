"""The rules for notebooks, as pure functions of a notebook's JSON that yield a sentence for each problem.

``faults`` applies all rules. A notebook is as nbformat reads it, with sources and texts as strings.
"""

import ast
import json
import pkgutil
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from tools.normalise_notebooks import normalise
from ucl_helpers.errors import SecretFound
from ucl_helpers.headless.parameters import PRIVATE_KEY, refuse_secret

Notebook = Mapping[str, Any]
Cell = Mapping[str, Any]

MEDIAN_LINES, MOST_LINES, MOST_IN_A_ROW, MOST_CELLS = 3, 15, 2, 14
NAMED = re.compile(r"`(?:ucl|(views|ucl_helpers))((?:\.[A-Za-z_]\w*)+)")  # in prose; `ucl` is the package
MACHINE_PATH = re.compile(r"/(?:home|root|tmp|Users|work|private|var/folders)/[\w.]+")


def opens_with_a_title(notebook: Notebook) -> Iterator[str]:
    """Require one H1, followed by a sentence on what the reader will have at the end."""
    first = notebook["cells"][0] if notebook["cells"] else {"cell_type": "", "source": ""}
    if not re.match(r"# \S.*\n\s*\n?[^#\s]", first["source"]) or first["cell_type"] != "markdown":
        yield "it does not open with a title and a sentence of what the reader will have"
    titles = [line for cell in _prose(notebook) for line in _outside_fences(cell["source"]) if line.startswith("# ")]
    if len(titles) > 1:
        yield f"it has {len(titles)} titles"


def prose_leads(notebook: Notebook) -> Iterator[str]:
    """Refuse three code cells in a row."""
    kinds = [cell["cell_type"] for cell in notebook["cells"] if not _injected(cell)]
    runs = [(kind, len(list(cells))) for kind, cells in groupby(kinds)]
    yield from (f"{size} code cells in a row" for kind, size in runs if kind == "code" and size > MOST_IN_A_ROW)


def code_is_short(notebook: Notebook) -> Iterator[str]:
    """Require few lines in each code cell. Blank lines do not count."""
    sizes = [sum(bool(line.strip()) for line in cell["source"].splitlines()) for cell in _code(notebook)]
    yield from (f"a code cell of {size} lines" for size in sizes if size > MOST_LINES)
    if sizes and statistics.median(sizes) > MEDIAN_LINES:
        yield f"its code cells have {statistics.median(sizes)} lines in the median"


def parameters_are_declared(notebook: Notebook) -> Iterator[str]:
    """Require that only the first code cell is tagged ``parameters``, and has literals with a type and a comment."""
    tagged = ["parameters" in cell["metadata"].get("tags", ()) for cell in _code(notebook)]
    if tagged != [True] + [False] * (len(tagged) - 1):
        yield "not its first code cell, and that alone, is tagged 'parameters'"
        return
    source = _code(notebook)[0]["source"]
    lines = source.splitlines()
    for statement in ast.parse(source).body:
        shown = ast.unparse(statement)
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            yield f"not a parameter with a type: {shown}"
        elif not _literal(statement.value):
            yield f"not a literal: {shown}"
        elif not re.search(r"  # \w", lines[(statement.end_lineno or 1) - 1]):
            yield f"no comment: {shown}"
        elif _secret(statement.target.id, statement.value):
            yield f"a secret as a parameter: {statement.target.id}"


def every_cell_ran(notebook: Notebook) -> Iterator[str]:
    """Require that all cells ran from top to bottom, without an error or a warning."""
    counts = [cell["execution_count"] for cell in _code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not executed from top to bottom: {counts}"
    for cell in _code(notebook):
        kinds = {output["output_type"] for output in cell["outputs"]}
        kinds |= {output.get("name", "") for output in cell["outputs"]}
        if kinds & {"error", "stderr"}:
            yield f"an error or a warning is shown by: {cell['source'].splitlines()[0]}"


def each_step_is_one_cell(notebook: Notebook) -> Iterator[str]:
    """Require one code cell in each section ``Step N``, and few in a notebook with such sections."""
    steps = [(title, len(_code({"cells": cells}))) for title, cells in _sections(notebook) if title.startswith("Step ")]
    yield from (f"the section {title!r} has {size} code cells" for title, size in steps if size != 1)
    size = len(_code(notebook))
    if steps and size > MOST_CELLS:
        yield f"a tutorial of {size} code cells"


def nothing_of_the_machine(notebook: Notebook) -> Iterator[str]:
    """Refuse paths of the machine and private keys anywhere in the notebook."""
    text = json.dumps(notebook, ensure_ascii=False)
    yield from (f"a path of the machine: {path}" for path in sorted(set(MACHINE_PATH.findall(text))))
    if PRIVATE_KEY.search(text):
        yield "the text of a private key"


def names_exist(notebook: Notebook) -> Iterator[str]:
    """Require that each dotted name of the toolkit in the prose exists, for example ``views.begin``."""
    for cell in _prose(notebook):
        for found in NAMED.finditer(cell["source"]):
            name = f"ucl_helpers{'.views' if found[1] == 'views' else ''}{found[2]}"
            try:
                pkgutil.resolve_name(name)
            except (AttributeError, ImportError):
                yield f"the prose names {found[0][1:]}, which does not exist"


def is_normalised(notebook: Notebook) -> Iterator[str]:
    """Require the form that ``make notebooks`` writes."""
    if normalise(notebook) != notebook:
        yield "it is not normalised: run make notebooks"


RULES: tuple[Callable[[Notebook], Iterator[str]], ...] = (
    opens_with_a_title,
    prose_leads,
    code_is_short,
    parameters_are_declared,
    every_cell_ran,
    each_step_is_one_cell,
    nothing_of_the_machine,
    names_exist,
    is_normalised,
)


def faults(notebook: Notebook) -> list[str]:
    """Return all problems of a notebook."""
    return [fault for rule in RULES for fault in rule(notebook)]


def _code(notebook: Notebook) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _prose(notebook: Notebook) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def _injected(cell: Cell) -> bool:
    return "injected-parameters" in cell["metadata"].get("tags", ())


def _outside_fences(source: str) -> list[str]:
    return re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.MULTILINE | re.DOTALL).splitlines()


def _sections(notebook: Notebook) -> Iterator[tuple[str, list[Cell]]]:
    title, cells = "(before the first section)", []
    for cell in notebook["cells"]:
        headings = [line for line in _outside_fences(cell["source"]) if line.startswith("## ")]
        if cell["cell_type"] == "markdown" and headings:
            yield title, cells
            title, cells = headings[-1].removeprefix("## "), []
        cells = [*cells, cell]
    yield title, cells


def _literal(value: ast.expr | None) -> bool:
    try:
        ast.literal_eval(value or ast.Name("missing"))
    except ValueError:
        return False
    return True


def _secret(name: str, value: ast.expr | None) -> bool:
    try:
        refuse_secret(name, ast.literal_eval(value or ast.Constant(None)))
    except SecretFound:
        return True
    return False
