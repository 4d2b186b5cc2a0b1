"""Every notebook as people use it: opened in a browser and run whole, with a home folder and a server of its own."""

import json
import re

import pytest
from accessibility import barriers
from jupyter_servers import ROOT
from opened import errors_in
from playwright.sync_api import expect

NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
FIRST = "00_start_here.ipynb"
FONTS = "https://cdn.jsdelivr.net/npm/@fortawesome/"  # Voilà's own templates ask for them; nothing of ours needs them
FAILED_IN_VOILA = "There was an error when executing cell"
OWN_FAULT = "reading 'schema'"  # of Notebook 7, at its start, whatever the notebook
DRAWN = re.compile(r"ucl-card|<figure|vnd\.jupyter\.widget-view")  # in what a cell shows, as nbformat has it
SEEN = ".ucl-card, figure, .jupyter-widgets"  # the same on the page
PICTURES = {  # kept: name → what the cell shows
    "01_establish_connection.ipynb": {"connection": "renewal due from"},
    "02_maintain_connection.ipynb": {"chain": "Certificate chain", "exchange": "Sent and received"},
    "04_fleet.ipynb": {"timeline": "Validity of 3 connections"},
}


def as_committed(workplace):
    return json.loads((workplace / "notebooks" / FIRST).read_text("utf-8"))


def drawing(cells):
    """The numbers of the cells that show a card, a picture or widgets."""
    return [number for number, cell in enumerate(cells) if DRAWN.search(json.dumps(cell.get("outputs", "")))]


def showing(cells, text):
    """The number of the last cell that shows a text."""
    return max(number for number, cell in enumerate(cells) if text in json.dumps(cell.get("outputs", "")))


def all_is_seen(opened, cells):
    """Scroll to each cell that draws something, until it is seen; and nothing of it is a barrier."""
    assert drawing(cells)
    for number in drawing(cells):
        expect(opened.output(number).locator(SEEN).first).to_be_visible()
    assert barriers(opened.page, within=SEEN) == []


IS_TRUSTED = "() => Array.from(jupyterapp.shell.currentWidget.content.model.cells, cell => cell.trusted).some(Boolean)"
IS_DRAWN = "image => image.complete && image.naturalWidth > 0"


def test_as_committed_an_untrusted_notebook_shows_all_its_pictures(jupyter, keep):
    """JupyterLab removes inline SVG and styles from the outputs of a notebook that it does not trust."""
    opened = jupyter("lab", "04_fleet.ipynb")
    cells = opened.cells()
    shown = [number for number in drawing(cells) if "<img" in json.dumps(cells[number]["outputs"])]
    assert len(shown) == 5
    for number in shown:
        image = opened.output(number).locator("figure img")
        expect(image).to_be_visible()
        assert image.evaluate(IS_DRAWN)
        keep(image, f"committed-{number}")
    assert not opened.page.evaluate(IS_TRUSTED)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_whole_in_jupyterlab(jupyter, keep, name):
    opened = jupyter("lab", name)
    cells = opened.run_all()
    assert errors_in(cells) == []
    all_is_seen(opened, cells)
    assert (opened.watched.errors, opened.watched.elsewhere) == ([], [])
    for picture, text in PICTURES.get(name, {}).items():
        keep(opened.output(showing(cells, text)).locator(SEEN).first, picture)


def test_it_runs_whole_in_notebook_7(jupyter):
    opened = jupyter("notebook", FIRST)
    cells = opened.run_all()
    assert errors_in(cells) == []
    all_is_seen(opened, cells)
    assert [error for error in opened.watched.errors if OWN_FAULT not in error] == []
    assert opened.watched.elsewhere == []


def test_voila_shows_it(voila, workplace):
    page, watched = voila(FIRST)
    cards = page.locator(".ucl-card")
    expect(cards).to_have_count(len(drawing(as_committed(workplace)["cells"])))
    for card in cards.all():
        expect(card).to_be_visible()
    assert page.get_by_text(FAILED_IN_VOILA).count() == 0
    assert barriers(page, within=".ucl-card") == []
    assert watched.errors == []
    assert [address for address in watched.elsewhere if not address.startswith(FONTS)] == []


# -- and a notebook that fails -----------------------------------------------------------------------------------------


@pytest.fixture
def broken(workplace):
    """The first notebook with a second code cell that raises; the numbers of its code cells."""
    notebook = as_committed(workplace)
    code = [number for number, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"]
    notebook["cells"][code[1]]["source"] = "1 / 0"
    (workplace / "notebooks" / FIRST).write_text(json.dumps(notebook), "utf-8")
    return code


@pytest.mark.parametrize("program", ["lab", "notebook"])
def test_a_cell_that_raises_and_those_it_keeps_from_running_are_found(jupyter, broken, program):
    cells = jupyter(program, FIRST).run_all()
    assert drawing(cells) == []
    first, *others = errors_in(cells)
    assert first == f"cell {broken[1]}: ZeroDivisionError: division by zero"
    # A cell that comes just after the kernel has thrown away what waited is run, and lacks what the first made.
    told = [re.fullmatch(r"cell (\d+)( did not run|: NameError: .*)", one) for one in others]
    assert [int(one[1]) for one in told] == broken[2:]


def test_in_voila_a_cell_that_raises_is_found(voila, broken):
    page, _ = voila(FIRST)
    expect(page.get_by_text(f"{FAILED_IN_VOILA} [2]")).to_be_visible()
    expect(page.locator(".ucl-card")).to_have_count(0)
