"""``ucl completion``: real shells load the script, and ask for what may follow."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from command_line import BIN, BOUNDED, Shell, environment, needs_bounds

from ucl_helpers.cli.main import SHELLS, group
from ucl_helpers.connection.store import Home
from ucl_helpers.headless.notebooks import packaged

NOTEBOOKS = sorted(path.stem for path in packaged("notebooks").glob("*.ipynb"))
BASH = """
eval "$(ucl completion bash)"
complete -p ucl >&2
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ucl_completion ucl
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
eval "$(ucl completion zsh)"
compadd() { print -l -- $completions }
_describe() { print -l -- ${completions_with_descriptions%%:*} }
words=("$@") CURRENT=$#
$_comps[ucl]
"""
FISH = """
ucl completion fish | source
complete -C "$argv" | string split --fields 1 \\t
true
"""
COMMANDS = {
    "bash": ("--norc", "--noprofile", "-c", BASH, "bash"),
    "zsh": ("-f", "-c", ZSH, "zsh"),
    "fish": ("--no-config", "-c", FISH),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder with three connections; what is in them does not matter."""
    home = Home(tmp_path_factory.mktemp("completion") / "home")
    for name in ("practice", "prod-1", "prod-2"):
        home.new(name)
    return home.path


def complete(shell, line, home=None, started_by=()):
    """What a shell would offer at the end of a line; nothing is said besides."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    words = [line] if shell == "fish" else line.split(" ")
    done = subprocess.run(
        [*started_by, shell, *COMMANDS[shell], *words],
        env=environment(home, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.sub(r"^complete .* ucl\n", "", done.stderr)
    assert (done.returncode, told) == (0, "")
    return [word for word in done.stdout.split("\n") if word]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_completes_commands_and_names(shell, home):
    assert complete(shell, "ucl ren", home) == ["renew"]
    assert complete(shell, "ucl renew prod", home) == ["prod-1", "prod-2"]
    assert complete(shell, "ucl renew x", home) == []
    assert complete(shell, "ucl run 02", home) == ["02_maintain_connection"]
    assert complete(shell, "ucl fleet renew prod-1 prod-2 pra", home) == ["practice"]


NAMED = sorted(
    name
    for name, command in group.commands.items()
    if any(isinstance(one, click.Argument) and one.name == "name" for one in command.params)
)


@pytest.mark.parametrize("name", NAMED)
def test_wherever_a_connection_is_named_it_is_completed(name, home):
    assert complete("bash", f"ucl {name} pr", home) == ["practice", "prod-1", "prod-2"]
    assert complete("bash", f"ucl {name} q", home) == []


def test_that_is_tried_for_every_command_that_takes_a_connection():
    assert {"renew", "status", "doctor", "journal", "path", "establish", "forget"} <= set(NAMED)


def test_notebooks_are_completed_by_name_and_else_files_are():
    assert complete("bash", "ucl run ") == NOTEBOOKS
    asked = environment(COMP_WORDS="ucl run ./x", COMP_CWORD="2", _UCL_COMPLETE="bash_complete")
    done = subprocess.run([BIN / "ucl"], env=asked, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("file,./x\n", "")


@pytest.mark.parametrize(
    "line", ["ucl --home {} renew prac", "ucl renew --home {} prac", "ucl fleet status --home {} p"]
)
def test_the_home_folder_that_is_given_counts(line, home, tmp_path):
    assert "practice" in complete("bash", line.format(home), tmp_path / "another")
    assert complete("bash", line.format(tmp_path / "another"), home) == []
    assert complete("bash", line.format("~no-such-user/x"), home) == []


def test_a_home_folder_that_is_broken_completes_to_nothing(tmp_path):
    (tmp_path / "file").touch()
    assert complete("bash", "ucl renew ", tmp_path / "file") == []
    assert complete("bash", "ucl ren", tmp_path / "file") == ["renew"]


@needs_bounds
def test_so_does_one_that_may_not_be_read(tmp_path):
    connections = Home(tmp_path).new("prod").path.parent
    assert complete("bash", "ucl renew ", tmp_path, BOUNDED) == ["prod"]
    connections.chmod(0)
    assert complete("bash", "ucl renew ", tmp_path, BOUNDED) == []
    connections.chmod(0o700)


def test_the_help_says_which_line_turns_it_on(tmp_path):
    told = Shell(tmp_path).ucl("completion", "--help").out
    for shell, line in {"bash": 'eval "$({})"', "zsh": 'eval "$({})"', "fish": "{} | source"}.items():
        assert line.format(f"ucl completion {shell}") in told


def test_another_shell_is_a_usage_error(tmp_path):
    said = Shell(tmp_path).ucl("completion", "tcsh")
    assert (said.code, said.out, "'bash', 'zsh', 'fish'" in said.err) == (2, "", True)


def test_nothing_is_made_by_it(tmp_path):
    assert complete("bash", "ucl renew p", tmp_path / "home") == []
    assert list(Path(tmp_path).iterdir()) == []
