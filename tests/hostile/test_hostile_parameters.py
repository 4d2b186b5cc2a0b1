"""Hostile texts as parameters of a notebook that runs headless: refused in words, and they stay text everywhere.

By `ucl run` and by papermill alone, with real kernels; what came out is rendered by a browser engine.
"""

import subprocess

import nbformat
import pytest
from command_line import BIN, Shell
from hostile_texts import ALL, MARKUP, OWNED, harmful
from nbconvert import HTMLExporter
from steps import install, tree
from test_rendered import browsed, in_a_browser

from ucl_helpers.connection.store import Home
from ucl_helpers.headless.notebooks import find_notebook
from ucl_sandbox import Sandbox

OUTSIDE = "../../victim"
CODE = "x'\"\"\"\n\\\"; __import__('pathlib').Path('owned').touch() #"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a home that has a connection, and what must stay as it is."""
    folder = tmp_path_factory.mktemp("prepared")
    with Sandbox() as ucl:
        install(Home(folder / "home"), ucl, folder)
        (folder / "victim").mkdir()
        yield Shell(folder / "home", folder)


def shown(folder, path):
    """What came out of an executed notebook, as a browser engine leaves it."""
    notebook = nbformat.read(path, as_version=4)
    outputs = [nbformat.v4.new_code_cell("", outputs=cell.get("outputs", [])) for cell in notebook.cells]
    page = nbformat.v4.new_notebook(cells=outputs)
    return browsed(folder, HTMLExporter(template_name="basic").from_notebook_node(page)[0])


@pytest.fixture
def stays(prepared):
    """What a text must not lead to: what lies outside, what is called by it, a connection that is changed."""
    before = tree(prepared.home / "connections")
    yield
    assert list((prepared.folder / "victim").iterdir()) == []
    assert list(prepared.folder.rglob("owned")) == []
    assert tree(prepared.home / "connections") == before


HOSTILE = {"a way out": OUTSIDE, "code and markup": CODE + ALL.replace("\x00", "")}


@in_a_browser
@pytest.mark.usefixtures("stays")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("parameter", ["connection", "home"])
def test_a_hostile_parameter_is_refused_and_stays_text(prepared, tmp_path, parameter, text, proof):
    output, given = tmp_path / "02.ipynb", {"connection": "prod", parameter: text}
    words = [word for pair in given.items() for word in ("-p", *pair)]
    said = prepared.ucl("run", "02", "-o", output, "--json", *words)
    assert (said.code, said.json["error"]) == (2, "UsageError" if parameter == "connection" else "UnknownConnection")
    assert harmful(said.out + said.err) == []
    assert "<title>quiet</title>" in shown(tmp_path, output)
    proof("hostile", "hostile parameters of notebooks that run headless", 1)


@in_a_browser
@pytest.mark.usefixtures("stays")
def test_so_it_does_with_papermill_alone(prepared, tmp_path, proof):
    output, text = tmp_path / "02.ipynb", HOSTILE["code and markup"]
    words = ("-r", "connection", text, "-r", "home", prepared.home)
    done = subprocess.run(
        [BIN / "papermill", find_notebook("02"), output, *words], cwd=prepared.folder, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"cannot name a connection" in done.stderr
    assert "<title>quiet</title>" in shown(tmp_path, output)
    proof("hostile", "hostile parameters of notebooks that run headless", 1)


@in_a_browser
def test_a_title_that_is_changed_would_be_seen(tmp_path):
    output = nbformat.v4.new_output("display_data", data={"text/html": MARKUP[0]})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    nbformat.write(notebook, tmp_path / "owned.ipynb")
    assert f"<title>{OWNED}</title>" in shown(tmp_path, tmp_path / "owned.ipynb")
