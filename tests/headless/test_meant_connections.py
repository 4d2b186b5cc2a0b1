"""A headless run practises only if it is asked to; a person's notebook practises by itself."""

import json
import subprocess

import papermill
import pytest
from command_line import BIN, Shell, environment
from jupyter_client.manager import start_new_kernel
from notebook_runs import write_notebook
from papermill.exceptions import PapermillExecutionError
from steps import install

from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UsageError
from ucl_helpers.headless.run import run_notebook
from ucl_helpers.practice import must_be_asked_for
from ucl_sandbox import Sandbox

PARAMETERS = """\
connection: str = ""  # name
practice: bool = False  # for a headless run
"""
ASKS = "from ucl_helpers import views\nfrom ucl_helpers.practice import must_be_asked_for\nviews.begin(globals())"
PYTHON = {"kernel_name": "python3", "language": "python"}
PRACTISES = "if not connection:\n    must_be_asked_for(asked=practice)\nprint('practised')"

REFUSED = {
    "02": ("02",),
    "02 if due": ("02", "--if-due"),
    "an unset variable": ("02", "--if-due", "-p", "connection", ""),
    "an unset variable after =": ("02", "-p", "connection="),
    "blanks": ("02", "--if-due", "-p", "connection", "  "),
    "practice not wanted": ("02", "-p", "practice", "false"),
    "01": ("01",),
    "03": ("03", "-p", "everything", "true"),
    "04": ("04",),
    "04 and an unset variable": ("04", "-p", "connections", ""),
    "05": ("05",),
    "07": ("07",),
    "a misspelt name": ("02", "-p", "conection", "prod"),
    "a misspelt name and practice": ("02", "--practice", "-p", "only_if_deu", "true"),
    "practice with no such parameter": ("00", "--practice"),
}


@pytest.mark.kind("success: runs by ucl that name no connection")
@pytest.mark.parametrize("case", REFUSED)
def test_ucl_run_refuses_to_practise_unasked(case, tmp_path):
    shell = Shell(tmp_path / "home", tmp_path)
    said = shell.ucl("run", *REFUSED[case], "--json")
    assert (said.code, said.json["error"]) == (2, "UsageError"), said
    assert not (shell.home / "sandbox").exists()
    assert list((shell.home / "connections").glob("*")) == []


@pytest.mark.parametrize("options", [(), ("--if-due",)])
def test_practice_with_a_real_connection_is_refused(options, tmp_path):
    with Sandbox() as ucl:
        connection = install(Home(tmp_path / "home"), ucl, tmp_path)
    named = ("run", "02", "-p", "connection", connection.name, "--json")
    shell = Shell(connection.home.path, tmp_path)
    refused = shell.ucl(*named, "--practice", *options)
    assert (refused.code, "is a real connection" in refused.json["message"]) == (2, True), refused
    assert shell.ucl(*named, "--if-due").json["outcome"] == "not-due"


def test_an_own_notebook_with_another_meaning_of_no_connection_is_run(tmp_path):
    write_notebook(tmp_path / "own.ipynb", "print(connection)", parameters='connection: str = ""  # all\n')
    shell = Shell(tmp_path / "home", tmp_path)
    assert shell.ucl("run", "own.ipynb", "-o", "out.ipynb").code == 0
    assert shell.ucl("run", "own.ipynb", "-o", "out.ipynb", "-p", "connection", "").code == 2


GIVEN = {
    "nothing": ({}, False),
    "an empty name": ({"connection": ""}, False),
    "a misspelt name": ({"conection": "prod"}, False),
    "practice not wanted": ({"practice": "false"}, False),
    "a misspelt practice": ({"practise": True}, False),
    "practice and a misspelt name": ({"practice": True, "conection": "prod"}, False),
    "practice": ({"practice": True}, True),
    "practice as papermill reads it": ({"practice": "true"}, True),
    "a name": ({"connection": "prod"}, True),
    "a name of digits": ({"connection": 123}, True),
}


@pytest.mark.kind("success: runs by papermill that name no connection")
@pytest.mark.parametrize("engine", [None, "ucl"])
@pytest.mark.parametrize("case", GIVEN)
def test_a_notebook_that_papermill_runs_practises_only_if_asked(engine, case, tmp_path):
    given, passes = GIVEN[case]
    path = write_notebook(tmp_path / "in.ipynb", ASKS, PRACTISES, parameters=PARAMETERS)
    options = {"parameters": given, "engine_name": engine, "progress_bar": False, **PYTHON}
    try:
        papermill.execute_notebook(str(path), str(tmp_path / "out.ipynb"), **options)
        error = ""
    except (PapermillExecutionError, UsageError) as caught:  # the notebook, or the engine
        error = str(caught)
    assert (error == "") == passes, error
    assert passes or "practise" in error or "there is no parameter" in error
    practised = tmp_path.joinpath("out.ipynb").exists() and "practised\\n" in tmp_path.joinpath("out.ipynb").read_text()
    assert practised == passes


def test_by_nbconvert_it_practises(tmp_path):
    write_notebook(tmp_path / "in.ipynb", ASKS, PRACTISES, parameters=PARAMETERS)
    command = [BIN / "jupyter-nbconvert", "--to", "notebook", "--execute", "--output", "out", "in.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "practised" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.parametrize("asks", [True, False])
def test_where_a_person_can_be_asked_it_practises(asks):
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for source in (PARAMETERS, ASKS, PRACTISES):
            reply = client.execute_interactive(source, allow_stdin=asks, store_history=True, output_hook=lambda _: None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == ("ok" if asks else "error")


def test_the_environment_asks_for_it_where_no_parameter_can(tmp_path, monkeypatch):
    path = write_notebook(tmp_path / "in.ipynb", ASKS, PRACTISES, parameters=PARAMETERS)
    for value, passes in (("1", True), ("", False), ("0", False)):
        monkeypatch.setenv("UCL_PRACTICE", value)
        options = {"progress_bar": False, **PYTHON}
        if passes:
            papermill.execute_notebook(str(path), None, **options)
        else:
            with pytest.raises(PapermillExecutionError, match="UsageError"):
                papermill.execute_notebook(str(path), None, **options)


def test_a_name_that_is_new_needs_something_to_establish_it_with(tmp_path):
    said = Shell(tmp_path / "home", tmp_path).ucl("run", "01", "-p", "connection", "zz", "-o", "out.ipynb", "--json")
    assert (said.code, "no connection zz yet" in said.json["message"]) == (2, True), said
    assert "-p token env:NAME" in said.json["remedy"]


def test_outside_of_a_notebook_nobody_needs_to_ask():
    must_be_asked_for(asked=False)


def test_a_revoked_connection_runs_no_notebook_and_says_what_to_do(tmp_path):
    with Sandbox() as ucl:
        shell = Shell(tmp_path / "home", tmp_path)
        shell.establish("prod", ucl)
        asked = ("run", "02", "-p", "connection", "prod", "--if-due", "--json")
        assert shell.ucl(*asked).code == 0
        assert shell.ucl("revoke", "prod", "--yes").code == 0
        for _ in range(2):
            said = shell.ucl(*asked)
            assert (said.code, said.json["kind"], said.json["error"]) == (4, "look", "Refused")
            assert "was revoked" in said.json["message"]
            assert "ucl establish prod" in said.json["remedy"]
    assert list((shell.home / "runs").glob("*.ipynb")) == []


def test_the_runner_itself_passes_on_what_it_is_given(tmp_path):
    path = write_notebook(tmp_path / "in.ipynb", ASKS, PRACTISES, parameters=PARAMETERS)
    refused = run_notebook(path, tmp_path / "out.ipynb")
    assert (refused.exit_code, refused.outcome["error"]) == (2, "UsageError")
    assert "-p connection NAME" in refused.outcome["remedy"]
    assert json.loads((tmp_path / "out.outcome.json").read_text()) == refused.outcome
    assert run_notebook(path, tmp_path / "out.ipynb", {"practice": True}).exit_code == 0
