"""A passphrase that is an ordinary word: the toolkit's own texts are not taken for it, a cell that prints it is."""

import pytest
from command_line import Shell
from notebook_runs import write_notebook
from quick_keys import QUICK_BITS

from ucl_sandbox import Sandbox

WORDS = ("connection", "changeit")


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A shell with one connection, ``prod``, that exports PKCS #12."""
    with Sandbox() as ucl:
        shell = Shell(tmp_path_factory.mktemp("home"))
        shell.establish("prod", ucl)
        settings = shell.home / "connections" / "prod" / "settings.toml"
        settings.write_text(f'key_length = {QUICK_BITS}\n[exports]\npkcs12 = "env:P12"\n')
        yield shell


@pytest.mark.parametrize("word", WORDS)
def test_the_toolkits_notebook_runs(shell, word, tmp_path):
    said = shell.ucl(
        "run", "02_maintain_connection", "-o", tmp_path / "out.ipynb", "-p", "connection", "prod", P12=word
    )
    assert (said.code, "prod: renewed" in said.out) == (0, True), said.err
    warning = "The secret of env:P12 is a word of this notebook, so the outputs are not searched for it."
    assert (warning in said.err) == (word == "connection")


def test_the_errors_own_words_are_not_taken_for_it(shell, tmp_path):
    """The remedy of this error says "change it"."""
    settings = shell.home / "connections" / "prod" / "settings.toml"
    before = settings.read_text()
    settings.write_text(f'key_passphrase = "file:{tmp_path}/missing"\n{before}')
    said = shell.ucl(
        "run", "02_maintain_connection", "-o", tmp_path / "out.ipynb", "-p", "connection", "prod", P12=WORDS[1]
    )
    settings.write_text(before)
    assert (said.code, "InvalidSettings" in said.err, "removed" in said.err) == (2, True, False), said.err


def test_a_cell_that_prints_it_is_found(shell, tmp_path):
    """The twin."""
    cell = "import os\nprint(os.environ['P12'])"
    notebook = write_notebook(tmp_path / "in.ipynb", cell, parameters='connection = ""')
    said = shell.ucl("run", notebook, "-o", tmp_path / "out.ipynb", "-p", "connection", "prod", P12=WORDS[1])
    assert (said.code, "secret of env:P12 in cell" in said.err) == (14, True), said.err
