"""What the search finds in a notebook is removed with its surroundings, and reported; nothing else changes."""

import copy
import json
from html import escape

import nbformat
import pytest
from test_secret_search import KEY_BEGINS, ONE_TIME, OPAQUE, PEM, RSA

from ucl_helpers.errors import SecretFound
from ucl_helpers.headless.notebooks import packaged
from ucl_helpers.headless.redaction import Find, Redactor
from ucl_helpers.headless.redaction.search import KEY, TOKEN, KnownSecrets
from ucl_helpers.models import OUTCOME_MIME

NUMBERS = RSA.private_numbers()
LINE = PEM.splitlines()[15]  # found only if the key is known


def parts_of(pem, length=20):
    """Pieces of the encoded lines of a PEM."""
    return [line[:length] for line in pem.splitlines() if "-----" not in line and len(line) >= length]


def knowing(*pems):
    known = KnownSecrets()
    for pem in pems:
        known.add_key(pem.encode())
    return lambda: known


def notebook_with(*outputs, metadata=None, cell_metadata=None, **more):
    cell = {"cell_type": "code", "metadata": cell_metadata or {}, "source": "x", "outputs": list(outputs), **more}
    return {"metadata": metadata or {}, "cells": [cell]}


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data):
    return {"output_type": "display_data", "data": data, "metadata": {}}


def error(ename="ValueError", evalue="x", traceback=()):
    return {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": list(traceback)}


def redacted(notebook, known=KnownSecrets):
    """The redactor that removed secrets from the notebook, and the text of the notebook then."""
    redactor = Redactor(known)
    redactor.notebook(notebook)
    return redactor, json.dumps(notebook)


HALVES = PEM[:900], PEM[900:]
PLACES = {
    "stdout": (notebook_with(stream("x"), stream(PEM)), "cell 1, stdout"),
    "stderr": (notebook_with(stream("x"), stream(PEM, "stderr")), "cell 1, stderr"),
    "html": (notebook_with(shown(**{"text/html": f"<b>{escape(PEM)}</b>"})), "cell 1, output"),
    "nested": (notebook_with(shown(**{"application/json": {"a": [1, {"b": {"c": PEM}}]}})), "cell 1, output"),
    "lines": (notebook_with(shown(**{"application/json": {"lines": PEM.splitlines()}})), "cell 1, output"),
    "torn by None": (notebook_with(shown(**{"application/json": [*PEM.splitlines(), None]})), "cell 1, output"),
    "key of an object": (notebook_with(shown(**{"application/json": {PEM: 1}})), "cell 1, output"),
    "value of an error": (notebook_with(error(evalue=PEM)), "cell 1, error"),
    "name of an error": (notebook_with(error(ename=PEM)), "cell 1, error"),
    "traceback": (notebook_with(error(traceback=PEM.splitlines())), "cell 1, error"),
    "metadata of an output": (notebook_with({**shown(), "metadata": {"x": PEM}}), "cell 1, output"),
    "beside the text of a stream": (notebook_with({**stream("x"), "data": {"y": PEM}}), "cell 1, stdout"),
    "pieces": (notebook_with(stream(PEM[:500]), stream("y", "stderr"), stream(PEM[500:])), "cell 1, stdout"),
    "two streams": (
        notebook_with(*(stream(PEM[at : at + 7], ("stdout", "stderr")[at % 2]) for at in range(0, len(PEM), 7))),
        "cell 1, outputs",
    ),
    "a display for each line": (
        notebook_with(*(shown(**{"text/plain": line}) for line in PEM.splitlines())),
        "cell 1, output",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_all_outputs_of_the_cell_give_way_to_a_note_wherever_the_secret_is(place):
    notebook, where = copy.deepcopy(PLACES[place])
    notebook["cells"][0]["outputs"] += [stream("also gone"), shown(**{"text/plain": "also gone"})]
    redactor, text = redacted(notebook)
    note, *kept = notebook["cells"][0]["outputs"]
    assert note == stream(f"[outputs removed: private key in {where}]\n", "stderr")
    assert [output["output_type"] for output in kept] == (["error"] if "error" in where else [])
    assert "also gone" not in text
    assert not any(part in text for part in parts_of(PEM))
    assert (redactor.finds, redactor.condemned) == ([Find(KEY, where)], {1})
    assert redactor.error().exit_code == 14
    redactor.notebook(notebook)  # once more changes nothing and finds nothing
    assert (json.dumps(notebook), len(redactor.finds)) == (text, 1)


def test_the_outputs_of_other_cells_stay():
    notebook = notebook_with(stream(PEM))
    notebook["cells"].insert(0, copy.deepcopy(notebook_with(stream("stays"))["cells"][0]))
    redactor, text = redacted(notebook)
    assert "stays" in text
    assert redactor.condemned == {2}


def test_a_clean_outcome_and_the_name_of_an_error_stay():
    outcome = {"outcome": "renewed", "exitCode": 0}
    outputs = [shown(**{OUTCOME_MIME: outcome, "text/plain": "gone"}), error("ZeroDivisionError", "by 0", ["gone"])]
    notebook = notebook_with(stream(PEM), *outputs, error("SystemExit", "7", ["gone"]))
    _, text = redacted(notebook)
    _, kept, first, second = notebook["cells"][0]["outputs"]
    assert kept == shown(**{OUTCOME_MIME: outcome})
    assert (first, second) == (error("ZeroDivisionError", "[removed]"), error("SystemExit", "7"))
    assert "gone" not in text


def test_an_outcome_that_holds_the_secret_does_not_stay():
    notebook = notebook_with(shown(**{OUTCOME_MIME: {"outcome": "renewed", "message": PEM}}), error(ename=PEM))
    _, text = redacted(notebook)
    assert [output.get("ename") for output in notebook["cells"][0]["outputs"]] == [None, "Error"]
    assert "renewed" not in text


def test_a_condemned_cell_is_a_valid_cell():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[])])
    notebook.cells[0].outputs = [
        nbformat.v4.new_output("stream", text=PEM),
        nbformat.v4.new_output("error", ename="E", evalue=""),
    ]
    Redactor().notebook(notebook)
    nbformat.validate(notebook)
    assert [output.output_type for output in notebook.cells[0].outputs] == ["stream", "error"]


@pytest.mark.parametrize(
    ("notebook", "place"),
    [
        (notebook_with(metadata={"papermill": {"parameters": {"x": [PEM]}}}), "metadata of the notebook"),
        (notebook_with(cell_metadata={"tags": [PEM], "status": "stays"}), "cell 1, metadata"),
        (notebook_with(cell_metadata={"tags": PEM.splitlines()}), "cell 1, metadata"),
        (notebook_with(attachments={"a.txt": {"text/plain": PEM}}), "cell 1, attachments"),
    ],
    ids=["notebook", "cell", "torn", "attachments"],
)
def test_metadata_and_attachments_lose_the_texts_that_hold_a_secret(notebook, place):
    notebook = copy.deepcopy(notebook)
    notebook["cells"][0]["outputs"].append(stream("stays"))
    redactor, text = redacted(notebook)
    assert redactor.finds == [Find(KEY, place)]
    assert "[private key removed]" in text
    assert not any(part in text for part in parts_of(PEM))
    assert text.count("stays") == (2 if '"status"' in text else 1)


def test_a_number_that_is_part_of_a_known_key_is_removed():
    redactor = Redactor(knowing(PEM))
    value = redactor.value({"p": NUMBERS.p, "n": NUMBERS.public_numbers.n, "few": 7, "yes": True}, "here")
    assert value == {"p": "[private key removed]", "n": NUMBERS.public_numbers.n, "few": 7, "yes": True}
    assert redactor.value([*NUMBERS.q.to_bytes(128)], "there").count("[private key removed]") == 128


def test_a_text_with_a_secret_is_replaced_as_a_whole():
    redactor = Redactor()
    assert redactor.text(f"before {PEM} after", "the error") == "[private key removed]"
    assert redactor.text("before and after", "the error") == "before and after"
    assert redactor.finds == [Find(KEY, "the error")]


@pytest.mark.parametrize("path", sorted(packaged("notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_key_in_a_notebook_of_ours_is_found_and_nothing_else(path):
    notebook = json.loads(path.read_text())
    before = copy.deepcopy(notebook)
    notebook["cells"][2]["metadata"]["key"] = PEM
    redactor, _ = redacted(notebook)
    assert redactor.finds == [Find(KEY, "cell 3, metadata")]
    del notebook["cells"][2]["metadata"]["key"]
    assert notebook == before


def test_an_error_names_kinds_and_places_and_never_the_text():
    redactor, _ = redacted(notebook_with(stream(PEM), stream(ONE_TIME, "stderr")))
    failure = redactor.error()
    assert "a private key in cell 1, stdout, a one-time token in cell 1, stderr" in failure.message
    expected = [{"kind": KEY, "place": "cell 1, stdout"}, {"kind": TOKEN, "place": "cell 1, stderr"}]
    assert failure.data["redacted"] == expected
    assert not any(part in str(failure) for part in parts_of(PEM))


def test_a_source_that_holds_a_secret_is_refused_not_changed():
    cells = [{"source": "print(1)"}, {"source": f"key = '''{PEM}'''"}]
    with pytest.raises(SecretFound, match="Cell 2 of the notebook holds a private key") as caught:
        Redactor().refuse_sources(cells)
    assert not any(part in str(caught.value) for part in parts_of(PEM))
    Redactor().refuse_sources(cells[:1])


def test_what_becomes_known_later_is_removed_then():
    known = [KnownSecrets()]
    redactor, notebook = Redactor(lambda: known[-1]), notebook_with(stream(LINE))
    redactor.notebook(notebook)
    assert redactor.finds == []
    known.append(knowing(PEM)())
    redactor.notebook(notebook)
    assert [find.kind for find in redactor.finds] == [KEY]


def test_a_cell_that_has_not_changed_is_not_searched_again(monkeypatch):
    searched = []
    monkeypatch.setattr("ucl_helpers.headless.redaction.find_secret", lambda text, _: searched.append(text))
    redactor, notebook = Redactor(), notebook_with(stream("x" * 100))
    redactor.notebook(notebook)
    redactor.notebook(notebook)
    assert searched.count("x" * 100) == 1
    notebook["cells"][0]["outputs"][0]["text"] += "y"
    redactor.notebook(notebook)
    assert searched[-1] == "x" * 100 + "y"


def test_hundred_thousand_rows_with_a_secret_each_end():
    known = KnownSecrets()
    known.add_text("hunter2hunter2", "passphrase")
    rows = [f"row {number:06} hunter2hunter2" for number in range(20_000)]
    assert set(Redactor(lambda: known).value(rows, "here")) == {"[passphrase removed]"}


@pytest.mark.parametrize("word", ["A", "eyJ", "word ", KEY_BEGINS])
def test_a_text_of_a_quarter_of_a_megabyte_is_returned_as_it_is(word):
    text = word * (250_000 // len(word))
    known = KnownSecrets()
    known.add_text(OPAQUE, "secret")
    assert Redactor(lambda: known).text(text, "x") == text
