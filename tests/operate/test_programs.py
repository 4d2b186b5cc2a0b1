"""Scripts that cannot be run are named for the reason, where the system says only "No such file or directory"."""

import re
import shlex
import subprocess
import sys
from datetime import timedelta

import pytest

from ucl_helpers.operate import programs

PATH = {"PATH": "/usr/bin:/bin"}
SCRIPTS = {
    "CR LF": (b"#!/bin/sh\r\nexit 0\r\n", 0o700, "and so does the last word in it"),
    "CR LF and env": (b"#!/usr/bin/env sh\r\nexit 0\r\n", 0o700, "its first line ends with CR LF"),
    "CR LF and an argument": (b"#!/bin/sh -e\r\nexit 0\r\n", 0o700, "its first line ends with CR LF"),
    "CR LF after the first line": (
        b"#!/bin/sh\nif true; then\r\n  exit 0\r\nfi\r\n",
        0o700,
        "it has lines that end with CR LF",
    ),
    "no interpreter": (b"#!/no/such/sh\n", 0o700, "the interpreter /no/such/sh that its first line names is not there"),
    "a folder as interpreter": (
        b"#!/usr/bin\n",
        0o700,
        "the interpreter /usr/bin that its first line names is not a pro",
    ),
    "a file as interpreter": (
        b"#!/etc/passwd\n",
        0o700,
        "the interpreter /etc/passwd that its first line names is not",
    ),
    "no interpreter for env": (b"#!/usr/bin/env no-such-sh\n", 0o700, "the interpreter no-such-sh that its first line"),
    "not executable": (b"#!/bin/sh\n", 0o600, "it is not executable; make it so: chmod u+x"),
    "no first line": (b"exit 0\n", 0o700, "its first line names no interpreter"),
    "empty": (b"", 0o700, "the file is empty"),
    "byte order mark": (b"\xef\xbb\xbf#!/bin/sh\nexit 0\n", 0o700, "it begins with a byte order mark (BOM)"),
    "byte order mark and CR LF": (b"\xef\xbb\xbf#!/bin/sh\r\nexit 0\r\n", 0o700, "a byte order mark (BOM)"),
    "UTF-16": ("#!/bin/sh\nexit 0\n".encode("utf-16"), 0o700, "UTF-16"),
    "of another system": (b"MZ\x90\0" + b"\0" * 100, 0o700, "it was built for another system"),
}


def run(*command):
    return programs.run(command, PATH, timedelta(seconds=30)).problem


def script(folder, data, mode):
    path = folder / "my hook"
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.kind("foreign files: scripts that cannot be run")
@pytest.mark.parametrize(("data", "mode", "says"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_that_cannot_be_run_is_named(data, mode, says, tmp_path):
    assert says in run(str(script(tmp_path, data, mode)))


@pytest.mark.kind("foreign files: scripts that cannot be run")
@pytest.mark.parametrize("name", ["CR LF", "CR LF and env", "CR LF after the first line", "byte order mark"])
def test_the_command_that_is_named_converts_it(name, tmp_path):
    data, mode, _ = SCRIPTS[name]
    path = script(tmp_path, data, mode)
    command = re.split("convert it: |remove it: ", run(str(path)))[-1]
    assert shlex.split(command)[-1] == str(path)
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as a user would paste it
    assert run(str(path)) == ""


@pytest.mark.kind("foreign files: scripts that cannot be run")
def test_a_script_given_to_a_shell_is_looked_at_as_well(tmp_path):
    path = script(tmp_path, b"#!/bin/sh\nif true; then\r\n  exit 0\r\nfi\r\n", 0o600)
    problem = run("sh", str(path))
    assert "it has lines that end with CR LF" in problem
    assert "interpreter" not in problem
    marked = script(tmp_path, b"\xef\xbb\xbfno-such-command\n", 0o600)
    assert "byte order mark (BOM)" in run("sh", str(marked))


@pytest.mark.parametrize("name", ["CR LF after the first line", "byte order mark"])
def test_what_is_not_the_interpreters_fault_is_not_blamed_on_it(name, tmp_path):
    data, mode, _ = SCRIPTS[name]
    assert "interpreter" not in run(str(script(tmp_path, data, mode)))


def test_a_program_that_reads_cr_lf_is_not_blamed_for_it(tmp_path):
    """The twin: Python reads such lines as any others, so the exit code is the script's own."""
    path = script(tmp_path, f"#!{sys.executable}\nimport sys\r\nsys.exit(3)\r\n".encode(), 0o700)
    assert run(str(path)) == "exit code 3"


@pytest.mark.kind("foreign files: scripts that cannot be run")
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-program", "No such file or directory: it is in no folder of PATH"),
        ("./hook", "give the whole path"),
        ("/no/such/hook", "No such file or directory"),
        ("{}", "it is a folder"),
        ("{}/link", "it is a symlink to a file that is not there"),
    ],
)
def test_a_program_that_is_not_there_is_named(command, says, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    assert says in run(command.format(tmp_path))


def test_a_script_that_fails_by_itself_is_not_explained(tmp_path):
    assert run(str(script(tmp_path, b"#!/bin/sh\nexit 3\n", 0o700))) == "exit code 3"
    assert run(str(script(tmp_path, b"#!/bin/sh\nexit 0\n", 0o700))) == ""


@pytest.mark.parametrize("name", ["x" * 300, "closed"])
def test_a_folder_of_path_that_cannot_be_searched_is_skipped(name, tmp_path):
    """Its name is too long or, for an ordinary user, it may not be entered."""
    (tmp_path / "closed").mkdir(mode=0)
    folder = tmp_path / name
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    assert programs.run(("true",), environment, timedelta(seconds=30)).problem == ""
    assert programs.run(("false",), environment, timedelta(seconds=30)).problem == "exit code 1"
    missing = programs.run(("no-such-program",), environment, timedelta(seconds=30))
    assert (missing.code, programs.NOT_IN_PATH in missing.problem) == (None, True)
