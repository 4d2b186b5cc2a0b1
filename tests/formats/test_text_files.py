"""Text files as Windows saves them: settings and references with byte order marks, CR LF or UTF-16; notebooks too."""

import json

import pytest
from notebook_runs import printed, write_notebook

from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import InvalidSettings, UsageError
from ucl_helpers.formats.texts import text_of
from ucl_helpers.headless.notebooks import read_notebook
from ucl_helpers.headless.parameters import declared
from ucl_helpers.headless.run import run_notebook

ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "mark and CR LF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16 without a mark, big end first": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
}
READ_AS_A_NOTEBOOK = ("UTF-8", "byte order mark", "CR LF", "mark and CR LF")


@pytest.mark.kind("foreign files: text files from Windows")
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_settings_are_read(encode, tmp_path):
    connection = Home(tmp_path / "home").new("prod")
    text = 'keep = 7  # ä\n[[hooks]]\nname = "reload"\ncommand = ["true"]\n'
    (connection.path / "settings.toml").write_bytes(encode(text))
    settings = connection.read_settings()
    assert (settings.keep, settings.hooks[0].name) == (7, "reload")


@pytest.mark.parametrize("data", [b"keep = 7 # \xe4\n", b"\xff\xfe\x00"])
def test_what_is_no_text_is_named(data, tmp_path):
    connection = Home(tmp_path / "home").new("prod")
    (connection.path / "settings.toml").write_bytes(data)
    with pytest.raises(InvalidSettings, match=r"settings\.toml is not UTF-8"):
        connection.read_settings()


@pytest.mark.kind("foreign files: text files from Windows")
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("secret", ["hunter2", "pass word", "päss"])
def test_a_secret_in_a_file_is_read(encode, secret, tmp_path):
    (tmp_path / "secret").write_bytes(encode(f"{secret}\n"))
    assert resolve(f"file:{tmp_path}/secret", what="passphrase") == secret


def test_a_text_without_a_mark_stays_as_it_is():
    assert text_of("\n ä \ufeff".encode()) == "\n ä \ufeff"


@pytest.mark.kind("foreign files: text files from Windows")
@pytest.mark.parametrize("name", ENCODINGS)
def test_a_notebook_is_read_or_named(name, tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", "print(name)")
    before = read_notebook(notebook)
    notebook.write_bytes(ENCODINGS[name](notebook.read_text()))
    if name in READ_AS_A_NOTEBOOK:
        assert read_notebook(notebook) == before
        return
    with pytest.raises(UsageError, match=r"is saved as UTF-(16|32), not as UTF-8"):
        read_notebook(notebook)


# -- notebooks that Jupyter and papermill run --------------------------------------------------------------------------


def code(source, **more):
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None, **more}


def notebook_of(*cells, minor=4, metadata=None):
    content = {"nbformat": 4, "nbformat_minor": minor, "metadata": {} if metadata is None else metadata}
    return {**content, "cells": list(cells)}


PARAMETERS = code('name: str = "practice"', metadata={"tags": ["parameters"]})
SAYS = code("print('ran', name)")
NOTEBOOKS = {
    **{f"4.{minor}": notebook_of(PARAMETERS, SAYS, minor=minor) for minor in range(6)},
    "4.4 with ids": notebook_of(PARAMETERS | {"id": "a"}, SAYS | {"id": "b"}),
    "4.5 with the same ids": notebook_of(PARAMETERS | {"id": "a"}, SAYS | {"id": "a"}, minor=5),
    "4.5 with ids that are none": notebook_of(PARAMETERS | {"id": "a b"}, SAYS | {"id": 5}, minor=5),
    "a newer minor version": notebook_of(PARAMETERS, SAYS, minor=9),
    "no minor version": {k: v for k, v in notebook_of(PARAMETERS, SAYS).items() if k != "nbformat_minor"},
    "fields of another tool": notebook_of(PARAMETERS | {"vscode": {}}, SAYS | {"collapsed": True, "attachments": {}}),
    "no kernel named": notebook_of(PARAMETERS, SAYS, metadata={"language_info": {"name": "python"}}),
    "a kernel by its name": notebook_of(PARAMETERS, SAYS, metadata={"kernelspec": {"name": "conda-x"}}),
    "a kernel that is none": notebook_of(PARAMETERS, SAYS, metadata={"kernelspec": "python3"}),
    "metadata of another tool": notebook_of(PARAMETERS, SAYS, metadata={"papermill": "x"}),
    "no metadata of a cell": notebook_of(PARAMETERS, {k: v for k, v in SAYS.items() if k != "metadata"}),
    "no outputs": notebook_of(PARAMETERS, {"cell_type": "code", "metadata": {}, "source": SAYS["source"]}),
    "outputs of another tool": notebook_of(PARAMETERS, SAYS | {"outputs": [{"output_type": "widget"}]}),
    "lines": notebook_of(PARAMETERS, SAYS | {"source": ["x = 1\n", SAYS["source"]]}),
    "tags that are none": notebook_of(PARAMETERS, SAYS | {"metadata": {"tags": "x"}}),
}


@pytest.mark.kind("foreign files: notebooks of other tools")
@pytest.mark.parametrize("content", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_a_notebook_of_another_tool_is_read_whole(content, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    (tmp_path / "in.ipynb").write_text(json.dumps(content))
    read = read_notebook(tmp_path / "in.ipynb")
    nbformat.validate(nbformat.from_dict(read))
    assert set(declared(read)) == {"name"}
    assert len({cell["id"] for cell in read["cells"]}) == len(read["cells"])


RUN = (
    "4.0",
    "4.4 with ids",
    "4.5 with the same ids",
    "fields of another tool",
    "a kernel by its name",
    "no outputs",
)


@pytest.mark.kind("foreign files: notebooks of other tools")
@pytest.mark.parametrize("name", RUN)
def test_a_notebook_of_another_tool_runs(name, tmp_path):
    notebook = tmp_path / "in.ipynb"
    notebook.write_bytes(json.dumps(NOTEBOOKS[name]).encode("utf-8-sig"))
    result = run_notebook(notebook, tmp_path / "out.ipynb", {"name": "prod"})
    assert (result.exit_code, printed(result.output)) == (0, "ran prod\n")
    assert json.loads(result.output.read_text())["metadata"]["papermill"]["input_path"] == str(notebook)


NONE = {
    "empty": (b"", "it is empty"),
    "a page": (b"<!DOCTYPE html><html>", "Expecting value"),
    "an old format": (json.dumps({"nbformat": 3, "worksheets": []}).encode(), "it has format 3"),
    "a script": (b"import os\n", "Expecting value"),
    "a newer format": (json.dumps({"nbformat": 5, "cells": []}).encode(), "it has format 5"),
    "a list": (b"[]", "not an object"),
    "no cells": (b'{"nbformat": 4}', "no list of cells"),
    "a cell without a source": (json.dumps(notebook_of({"cell_type": "code"})).encode(), "cell 1 has no source"),
    "a cell of no kind": (json.dumps(notebook_of({"source": "x"})).encode(), "cell 1 is neither code"),
}


@pytest.mark.kind("foreign files: what is no notebook")
@pytest.mark.parametrize(("data", "says"), NONE.values(), ids=NONE)
def test_what_is_no_notebook_is_named(data, says, tmp_path):
    (tmp_path / "in.ipynb").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_notebook(tmp_path / "in.ipynb")
    assert "is not a Jupyter notebook" in caught.value.message
    assert says in caught.value.message
    assert caught.value.remedy
