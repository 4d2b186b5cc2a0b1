"""What ``ucl`` says of itself, and how it ends when things are not as they should be: its help, streams, bugs."""

import json
import os
import subprocess
import sys

import click
import pytest
from command_line import UCL, Shell, environment

from ucl_helpers import errors
from ucl_helpers.cli.common import EXIT_CODES
from ucl_helpers.cli.main import group

JSON = sorted(name for name, command in group.commands.items() if "json_output" in {one.name for one in command.params})


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path / "home")


def examples(command: click.Command) -> list[str]:
    """The lines of a help text that can be typed, without what is said behind them."""
    lines = [line.strip() for line in (command.help or "").splitlines()]
    return [line.split("   ")[0] for line in lines if line.startswith("ucl ")]


def test_the_commands_are_these():
    assert sorted(group.commands) == [
        *("completion", "doctor", "establish", "explain", "export", "fleet", "forget", "hooks", "import", "journal"),
        *("metrics", "notebooks", "path", "renew", "revoke", "rollback", "run", "sandbox", "settings", "status"),
    ]
    silent = ["completion", "explain", "fleet", "metrics", "notebooks", "path", "sandbox"]
    assert sorted(set(group.commands) - set(JSON)) == silent


def cut_off(help_text):
    """The lines of a list of commands whose summary did not fit."""
    return [line for line in help_text.splitlines() if line.startswith("  ") and line.endswith("...")]


@pytest.mark.parametrize("arguments", [(), ("fleet",)])
def test_each_summary_fits_on_its_line(arguments, tmp_path):
    assert cut_off(Shell(tmp_path).ucl(*arguments, "--help", COLUMNS="80").out) == []


def test_a_summary_that_does_not_fit_is_found():
    @click.group()
    def commands():
        pass

    commands.command("long", help="Say " + "much " * 20)(lambda: None)
    assert len(cut_off(commands.get_help(click.Context(commands, max_content_width=80)))) == 1


def test_a_command_loads_no_module_of_another():
    script = "import sys; from ucl_helpers.cli.main import group; group.commands['renew']; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in sorted(loaded) if name.startswith("ucl_helpers.cli.")] == [
        "ucl_helpers.cli.common",
        "ucl_helpers.cli.keep",
        "ucl_helpers.cli.main",
    ]


@pytest.mark.parametrize("name", sorted(group.commands))
def test_the_help_of_a_command_has_examples_that_can_be_typed(name, shell):
    said = shell.ucl(name, "--help")
    assert (said.code, said.err) == (0, "")
    assert "Example" in said.out
    found = examples(group.commands[name])
    assert found
    for line in found:
        assert line in said.out
        _, command, *arguments = line.split()
        assert command == name
        group.commands[name].make_context(name, arguments)


def test_an_example_with_an_option_that_is_not_there_would_be_found():
    with pytest.raises(click.NoSuchOption):
        group.commands["renew"].make_context("renew", ["prod", "--forec"])


def test_every_error_and_its_exit_code_is_in_the_help(shell):
    def tree(kind):
        return {kind}.union(*map(tree, kind.__subclasses__()))

    listed = {int(line.split()[0]) for line in EXIT_CODES.splitlines() if line[:4].strip().isdigit()}
    ours = {kind.exit_code for kind in tree(errors.UCLError) if kind.__module__ == errors.__name__}
    assert listed == ours | {0, 130, 143}
    assert all(line in shell.ucl("--help").out for line in EXIT_CODES.splitlines()[2:])


def test_the_help_is_asked_for_and_the_version(shell):
    assert "Usage: ucl [OPTIONS] COMMAND [ARGS]...\n" in shell.ucl("--help").out
    assert "Commands:" in shell.ucl("-h").out
    assert shell.ucl("--version").out.startswith("ucl, version ")


# -- for programs ------------------------------------------------------------------------------------------------------

WRONG = {
    "establish": ("establish", "x"),
    "import": ("import", "x", "--key", "nowhere", "--connector-url", "https://localhost/"),
    "renew": ("renew", "x"),
    "status": ("status", "x"),
    "doctor": ("doctor", "x"),
    "hooks": ("hooks", "x"),
    "journal": ("journal", "x"),
    "settings": ("settings", "x"),
    "export": ("export", "x"),
    "revoke": ("revoke", "x", "--yes"),
    "rollback": ("rollback", "x"),
    "forget": ("forget", "x", "--yes"),
    "run": ("run", "99"),
    "no name": ("renew",),
    "no such option": ("renew", "x", "--forec"),
    "not a number": ("renew", "x", "--key-length", "long"),
    "no command": ("renw",),
    "no reference": ("establish", "x", "--token", "s3cr3t", "--connector-url", "https://localhost/"),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_an_error_is_json_on_standard_output_or_text_on_standard_error(arguments, shell):
    as_json, as_text = shell.ucl(*arguments, "--json"), shell.ucl(*arguments)
    assert (as_json.code, as_json.err) == (2, "")
    told = as_json.json
    assert (told["outcome"], told["exitCode"]) == ("failed", 2)
    assert isinstance(getattr(errors, told["error"]), type)
    assert told["remedy"]
    assert (as_text.code, as_text.out) == (2, "")
    assert told["message"] in as_text.err
    assert "s3cr3t" not in as_json.out + as_text.err


def test_json_is_tried_for_every_command_that_has_it():
    assert set(JSON) <= set(WRONG)


# -- streams that do not take it ---------------------------------------------------------------------------------------


def run(*arguments, home, **streams):
    with subprocess.Popen([UCL, *arguments], env=environment(home), stderr=subprocess.PIPE, **streams) as process:
        err = process.stderr.read()
    return process.returncode, err


@pytest.mark.parametrize(("arguments", "code"), [(("status",), 1), (("status", "--json", "x"), 2)])
def test_when_nobody_reads_it_ends_quietly(arguments, code, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    assert run(*arguments, home=tmp_path, stdout=writing) == (code, b"")
    os.close(writing)


@pytest.mark.parametrize(("arguments", "code"), [("status", 0), ("status --json x", 2), ("status x", 2)])
def test_closed_streams_change_nothing(arguments, code, tmp_path):
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{UCL} {arguments} {closed}"], env=environment(tmp_path), capture_output=True, check=False
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False)


def test_what_a_terminal_cannot_show_is_shown_otherwise(tmp_path):
    shell = Shell(tmp_path / "\N{SNOWMAN}")
    for arguments in (("status",), ("status", "x")):
        said = shell.ucl(*arguments, PYTHONIOENCODING="latin-1")
        assert r"\u2603" in said.out + said.err
        assert "\N{SNOWMAN}" in shell.ucl(*arguments, PYTHONIOENCODING="utf-8").out + shell.ucl(*arguments).err
        assert "Traceback" not in said.err


# -- bugs --------------------------------------------------------------------------------------------------------------

BUG = """
import click, sys
from ucl_helpers.cli.main import group, main

@group.command()
@click.option("--json", is_flag=True)
def bug(json):
    raise ZeroDivisionError("s3cr3t")

main(sys.argv[1:])
"""


MORE = "Causes and remedies: ucl explain UCLError\n"


def buggy(*arguments, **more):
    command = [sys.executable, "-c", BUG, "bug", *arguments]
    return subprocess.run(command, env=environment(**more), capture_output=True, text=True, check=False)


def test_a_bug_is_1_and_tells_its_type_but_not_its_text():
    said, as_json = buggy(), buggy("--json")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == f"UCLError: Unexpected: ZeroDivisionError.\nWith UCL_DEBUG=1 it tells where.\n{MORE}"
    assert (as_json.returncode, as_json.stderr) == (1, "")
    assert json.loads(as_json.stdout)["exitCode"] == 1


def test_who_asks_sees_where_the_bug_is():
    said = buggy(UCL_DEBUG="1")
    assert said.returncode == 1
    assert said.stderr.endswith("ZeroDivisionError: s3cr3t\n")


def test_without_flock_the_reason_and_the_way_out_are_told():
    """As on plain Windows."""
    script = "import sys; sys.modules['fcntl'] = None; import ucl_helpers.cli"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Use Linux, macOS, or WSL on Windows.\n" in done.stderr
