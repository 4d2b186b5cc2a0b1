"""Secrets by reference: where they come from, and that the secret itself is never repeated."""

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from ucl_helpers.connection.references import resolve
from ucl_helpers.errors import UsageError

SECRET = "hunter2-not-to-be-shown"


def test_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", f" {SECRET}\n")
    assert resolve("env:MY_TOKEN", what="token") == SECRET


def test_from_a_file(tmp_path, monkeypatch):
    (tmp_path / "a:b").write_text(f"\n{SECRET}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(f"file:{tmp_path}/a:b", what="token") == resolve("file:~/a:b", what="token") == SECRET


@pytest.mark.parametrize("text", ["pässwörd", "p w", "\u2028x"])
def test_any_text_is_a_secret(tmp_path, text):
    (tmp_path / "secret").write_text(text, "utf-8")
    assert resolve(f"file:{tmp_path}/secret", what="passphrase") == text.strip()


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_an_empty_variable_is_an_error_that_names_it(monkeypatch, value):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_TOKEN", value)
    with pytest.raises(UsageError, match="token: the environment variable MY_TOKEN is empty or not set") as caught:
        resolve("env:MY_TOKEN", what="token")
    assert "prompt" not in str(caught.value)  # where it stands in settings nobody can be asked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "No such file"),
        ("folder", "Is a directory"),
        ("empty", "is empty"),
        ("binary", "it is not text"),
        ("folder/empty/x", "No such file"),
        ("nul\x00", "that is no path"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=said) as caught:
        resolve(f"file:{tmp_path / name}", what="token")
    assert name.rstrip("\x00") in str(caught.value)
    assert "prompt" not in str(caught.value)


def test_the_home_of_nobody_is_an_error():
    with pytest.raises(UsageError, match="no such user"):
        resolve("file:~no-such-user/token", what="token")


@pytest.mark.parametrize(
    "reference", [SECRET, "", "env:", "file:", f"prompt:{SECRET}", "PROMPT", f"http:{SECRET}", "env"]
)
def test_what_is_no_reference_is_refused_unseen(reference):
    with pytest.raises(UsageError, match="must be a reference") as caught:
        resolve(reference, what="passphrase")
    assert SECRET not in f"{caught.value} {caught.value!r}"
    assert "env:NAME, file:PATH or prompt" in str(caught.value)


# -- asked for at a terminal -------------------------------------------------------------------------------------------

ASK = """
from ucl_helpers.errors import UsageError
from ucl_helpers.connection.references import resolve
try:
    print("got", len(resolve("prompt", what="passphrase")))
except UsageError as error:
    print(error)
"""


PLAIN = """
import sys
print("passphrase: ", end="", file=sys.stderr, flush=True)
print("got", len(input()))
"""


def ask_at_a_terminal(typed, script=ASK):
    """What is seen at the terminal, and what the process that asks says then."""
    ours, theirs = pty.openpty()
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=theirs, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as asking:
        os.close(theirs)
        seen = asking.stderr.read(len("passphrase: "))  # by then it echoes nothing any more
        os.write(ours, typed.encode())
        said = asking.stdout.read()
        seen += asking.stderr.read()
    with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):  # so Linux tells the end of a terminal
        seen += terminal.read(1000).decode()
    return seen, said


def test_it_is_asked_for_and_not_echoed():
    seen, said = ask_at_a_terminal(f"{SECRET}\n")
    assert said == f"got {len(SECRET)}\n"
    assert seen.startswith("passphrase: ")
    assert SECRET not in seen


def test_asked_for_plainly_it_would_be():
    seen, said = ask_at_a_terminal(f"{SECRET}\n", PLAIN)
    assert said == f"got {len(SECRET)}\n"
    assert SECRET in seen


@pytest.mark.parametrize("typed", ["\n", " \n", "\x04"])
def test_nothing_typed_is_an_error(typed):
    assert "passphrase: what was typed is empty" in ask_at_a_terminal(typed)[1]


def test_without_a_terminal_nobody_is_asked():
    asking = subprocess.run(
        [sys.executable, "-c", ASK], input=f"{SECRET}\n", capture_output=True, text=True, check=True
    )
    assert "there is no terminal to ask at" in asking.stdout
    assert asking.stderr == ""
