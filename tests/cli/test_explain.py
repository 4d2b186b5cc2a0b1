"""An error leads to its entry of the catalogue: in a traceback, on the terminal, in a notebook."""

import traceback

import pytest
from command_line import Shell
from notebook_runs import write_notebook
from test_errors import KINDS, through_pickle

from ucl_helpers.cli.common import print_error
from ucl_helpers.cli.watch import catalogue, names
from ucl_helpers.errors import UCLError, UsageError, explained_by
from ucl_helpers.views.cards import html_of
from ucl_helpers.views.notebook import failure


class Inner(UCLError):
    """One that a module has for itself."""


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path / "home", tmp_path)


def last_line(error):
    return traceback.format_exception(error)[-1].rstrip()


@pytest.mark.parametrize("kind", KINDS)
def test_a_traceback_ends_with_the_command_that_explains_it(kind):
    error = kind("It went wrong.", remedy="Do this.")
    assert last_line(error) == last_line(through_pickle(error)) == f"Causes and remedies: ucl explain {kind.__name__}"
    assert "explain" not in str(error)
    assert kind.__name__ in catalogue()


def test_a_class_without_an_entry_names_none():
    assert "Inner" not in catalogue()
    assert last_line(Inner("It went wrong.")).endswith("It went wrong.")
    assert (explained_by("ValueError"), explained_by("Mapping"), explained_by("")) == ("", "", "")


def test_the_last_line_on_the_terminal_leads_to_the_entry(shell):
    said = shell.ucl("renew", "nowhere")
    assert said.err.splitlines()[-1] == "Causes and remedies: ucl explain UnknownConnection"
    *_, command = said.err.splitlines()[-1].split(": ")
    entry = shell.ucl(*command.split()[1:])
    assert (entry.code, entry.err) == (0, "")
    assert "because --home or UCL_HOME differs" in entry.out.replace("`", "")


@pytest.mark.parametrize(("code", "told"), [(1, True), (130, False)])
def test_whoever_stops_a_command_is_not_sent_to_the_catalogue(code, told, capsys):
    print_error(UCLError("Over."), code, json_output=False)
    assert ("ucl explain UCLError" in capsys.readouterr().err) is told


@pytest.mark.parametrize(("cell", "told"), [("raise UCLBusy('Held.')", True), ("1 / 0", False)])
def test_so_does_that_of_a_run(cell, told, shell, tmp_path):
    first = "from ucl_helpers.errors import Busy as UCLBusy"
    write_notebook(tmp_path / "in.ipynb", first, cell)
    said = shell.ucl("run", "in.ipynb")
    assert ("\nCauses and remedies: ucl explain Busy\n" in said.err) is told
    assert ("explain" in said.err) is told


def test_an_entry_is_found_by_name_in_any_case_and_by_exit_code(shell):
    by_name, by_case, by_code = (shell.ucl("explain", one) for one in ("RetryLater", "retrylater", "3"))
    assert by_name == by_case == by_code
    assert by_name.out.startswith("RetryLater\n\nExit code 3, a kind of UCLError.\n\n")
    assert "](" not in by_name.out
    assert by_name.out.splitlines()[-1].startswith("Kinds of it: Unreachable, RateLimited, ")
    assert "Kinds of it" not in shell.ucl("explain", "KeyLocked").out


@pytest.mark.parametrize("asked", ["Unknwon", "130", "Mapping", ""])
def test_what_is_none_is_a_usage_error_that_says_where_all_are(asked, shell):
    said = shell.ucl("explain", asked)
    assert (said.code, said.out) == (2, "")
    assert f"There is no error {asked!r}." in said.err
    every = shell.ucl("explain")
    assert (every.code, [kind.__name__ for kind in KINDS if kind.__name__ not in every.out]) == (0, [])


def test_names_are_completed():
    assert names(None, None, "key") == ["KeyLocked"]
    assert names(None, None, "x") == []


def test_a_card_names_the_command():
    assert "ucl explain UsageError" in html_of(failure(UsageError("No.")))
    broken = failure(Inner("No."))
    assert "explain" not in html_of(broken)
    assert "explain" not in str(broken.as_json())  # programs have the name
