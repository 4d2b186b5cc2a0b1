"""What others wrote stays text: no element, attribute, script or formula comes out of it, however it is shown.

Rendered with hostile texts, every model has to have the very structure that it has with harmless ones: to a parser, and
to a browser engine, which runs scripts.
"""

import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
from datetime import timedelta
from html.parser import HTMLParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
import pytest
from certificates import NOW, certificate
from hostile_texts import ALL, MARKUP, OWNED, TEXTS, harmful
from nbconvert import HTMLExporter
from quick_keys import QUICK_BITS

import ucl_helpers
from ucl_helpers import models
from ucl_helpers.connection.status import Status
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UCLError
from ucl_helpers.keys import Credentials
from ucl_helpers.models import CallRecord, Check, Checks, OneTimeToken, Outcome, Validity
from ucl_helpers.procedures.establishment import DirectorAccess, Enrolment
from ucl_helpers.procedures.revocation import ValidIdentities, ValidIdentity
from ucl_helpers.tables import Tabular, html_table
from ucl_helpers.views.cards import html_of as card_of
from ucl_helpers.views.charts import Picture
from ucl_helpers.views.explorer import Explorer
from ucl_helpers.views.markup import breakable
from ucl_helpers.views.notebook import Wait, broken, failure
from ucl_helpers.views.step_card import StepCard

CHROMIUM = shutil.which("chromium")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to render in")
HARMLESS = "harmless"


def every_model(text, home):
    """One of each that shows itself, with a text wherever others may have written."""
    checks = (Check(text, "failed", text, text), Check(text, "warning", text, text))
    identity = ValidIdentity(text, text, NOW, True, Credentials(Path("x"), Path("x"), certificate()))
    director, token = DirectorAccess(text, text, text, text), OneTimeToken(text, text)
    error = UCLError(text, remedy=text, errors=[text])
    assertion = AssertionError(Checks(checks))
    validity = Validity(NOW, NOW + timedelta(90))
    return [
        models.Configuration(text, text, text, text, text),
        models.SigningRequest(text, QUICK_BITS, text, text),
        models.SignedCertificates(text, text, text),
        models.Identity((certificate(),), checks=checks),
        models.Due(True, NOW, text),
        models.NotNeeded(NOW, text),
        models.Verification(text, NOW, text, 1.0, text),
        Outcome(text, text, {text: text, "list": [text]}),
        token,
        validity,
        CallRecord(text, text, text, {"csr": text, "x": [text]}, {"subject": text}),
        Status(text, text, NOW, True, text, text, text, validity, models.Due(False, NOW, text), text, text, text),
        ValidIdentities((identity, identity)),
        *(Enrolment(home.new("mine"), way) for way in (director, token)),
        Checks(checks),
        *(failure(one, text) for one in (error, broken(assertion), broken(AssertionError(text)))),
    ]


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


class Structure(HTMLParser):
    """Every tag with its attributes, comments and declarations, in order; not the text between them."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.seen, self.text = [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, *attrs))

    def handle_endtag(self, tag):
        self.seen.append(f"/{tag}")

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.seen.append("comment")

    handle_decl = handle_pi = unknown_decl = handle_comment


def structure(html):
    return Structure(html).seen


def html_of(model):
    return model._repr_mimebundle_()["text/html"]


def without_escape(text):
    """The same table by someone who forgot."""
    return html_table(HARMLESS, ("x",), [(HARMLESS,)]).replace(HARMLESS, text)


# -- to a parser -------------------------------------------------------------------------------------------------------


def test_a_model_has_the_same_structure_whatever_its_texts_say(home, proof):
    harmless = [structure(html_of(one)) for one in every_model(HARMLESS, home)]
    for text in TEXTS:
        for model, expected in zip(every_model(text, home), harmless, strict=True):
            shown = model._repr_mimebundle_()
            assert structure(shown["text/html"]) == expected, (model, text)
            assert not harmful(shown["text/plain"] + shown["text/html"])
    proof("hostile", "hostile texts rendered in models and errors", len(TEXTS) * len(harmless))


def test_a_card_has_no_element_and_no_attribute_that_its_texts_brought(home, proof):
    """Its label is an attribute that holds a text, and the words of a call are coloured by what they are."""
    long_word = kinds(breakable("x" * 40 + ",x"))  # a text's own length brings these
    harmless = [kinds(card_of(one)) | long_word for one in every_model(HARMLESS, home)]
    for text in TEXTS:
        for model, expected in zip(every_model(text, home), harmless, strict=True):
            shown = card_of(model)
            assert kinds(shown) <= expected, (model, text)
            assert not harmful(shown)
        assert kinds(Wait(text)._repr_mimebundle_()["text/html"]) == {("div", "role", "style"), "/div"}
    proof("hostile", "hostile texts rendered in cards", len(TEXTS) * len(harmless))


def kinds(html):
    """Its elements, each with the names of its attributes, and what else is no text."""
    return {one if isinstance(one, str) else (one[0], *(name for name, _ in one[1:])) for one in structure(html)}


@pytest.mark.parametrize("text", [one for one in MARKUP if "<" in one and "\x00" not in one])
def test_without_escape_they_would_have_another(text):
    assert structure(without_escape(text)) != structure(without_escape(HARMLESS))
    assert not kinds(without_escape(text)) <= kinds(without_escape(HARMLESS))


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_of_a_text_is_lost_and_what_cannot_be_printed_is_shown_as_escapes(text):
    found = Structure(html_table("", ("",), [(text,)])).text
    assert found == "".join(ascii(one)[1:-1] if harmful(one) else one for one in text)


def modules():
    for one in pkgutil.walk_packages(ucl_helpers.__path__, "ucl_helpers."):
        if not one.name.endswith("__main__"):
            yield importlib.import_module(one.name)


def own_representations(namespaces):
    """Classes that bring a way of their own to be shown by a notebook."""
    classes = [one for space in namespaces for one in vars(space).values() if inspect.isclass(one)]
    return {one for one in classes if any(re.fullmatch(r"_repr_\w+_", name) for name in vars(one))}


def test_nothing_is_shown_by_other_ways_than_these():
    assert {one for one in own_representations(modules()) if one.__module__.startswith("ucl_helpers")} == {
        Tabular,
        Outcome,
        ValidIdentities,  # the text of its table
        Picture,  # names of connections, dates and numbers only
        StepCard,  # the cards of its parts
        Wait,
        Explorer,  # a status' card beside its widgets, which show cards only
    }


def test_another_way_would_be_found():
    class Other:
        class Own:
            def _repr_html_(self):
                return "<b>"

    assert own_representations([Other]) == {Other.Own}


# -- formulas ----------------------------------------------------------------------------------------------------------


def test_a_table_is_marked_as_no_formula_by_the_class_that_jupyterlab_heeds():
    marks = dict(structure(html_table("", ("x",), [("$x$",)]))[0][1:])["class"].split()
    assert "tex2jax_ignore" in marks  # nbconvert's
    try:
        files = [one.locate() for one in distribution("jupyterlab").files if "/static/" in str(one)]
    except PackageNotFoundError:
        pytest.skip("JupyterLab is not installed")
    named = [
        found
        for one in files
        if one.suffix == ".js"
        for found in re.findall(rb'ignoreHtmlClass:"(\w+)"', one.read_bytes())
    ]
    assert named
    assert {name.decode() for name in named} <= set(marks)


# -- to a browser engine -----------------------------------------------------------------------------------------------


def browsed(folder, html):
    """The document after a browser engine has loaded it and has run what it found to run."""
    page = folder / "page.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><title>quiet</title>\n{html}", "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")


@in_a_browser
def test_nothing_runs_in_a_browser_and_nothing_else_comes_out_of_it(home, tmp_path, proof):
    def page(texts):
        return "\n".join(html_of(model) for text in texts for model in every_model(text, home))

    hostile, harmless = browsed(tmp_path, page(TEXTS)), browsed(tmp_path, page([HARMLESS] * len(TEXTS)))
    assert "<title>quiet</title>" in hostile
    assert structure(hostile) == structure(harmless)
    proof("hostile", "tables with hostile texts rendered by a browser engine", hostile.count("<table"))


@in_a_browser
def test_without_escape_it_would_run(tmp_path):
    assert f"<title>{OWNED}</title>" in browsed(tmp_path, without_escape(MARKUP[0]))


def executed(output):
    """As HTML by nbconvert: a notebook with an output and an error in it."""
    told = str(UCLError(ALL, remedy=ALL))
    error = nbformat.v4.new_output("error", ename="UCLError", evalue=told, traceback=[f"UCLError: {told}"])
    cell = nbformat.v4.new_code_cell("1", outputs=[output, error])
    return HTMLExporter(template_name="basic").from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))[0]


@in_a_browser
def test_nothing_runs_in_an_executed_notebook(home, tmp_path):
    shown = every_model(ALL, home)[0]._repr_mimebundle_()
    page = executed(nbformat.v4.new_output("display_data", data=shown))
    assert "<title>quiet</title>" in browsed(tmp_path, page)
    raw = nbformat.v4.new_output("display_data", data={"text/html": MARKUP[0]})
    assert f"<title>{OWNED}</title>" in browsed(tmp_path, executed(raw))
