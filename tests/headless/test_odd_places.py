"""Where a run finds its folders: paths that are not UTF-8, a long or missing TMPDIR, no HOME, closed descriptors."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from command_line import BITS, UCL, environment
from notebook_runs import write_notebook

from ucl_sandbox import Sandbox

LATIN = os.fsdecode(b"M\xfcller")


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def latin(tmp_path):
    """A folder whose name is Latin-1."""
    folder = tmp_path / LATIN
    folder.mkdir(mode=0o700)
    return folder


def said_by(*arguments, home, changed=None, unset=(), shell="", **options):
    variables = {**environment(home), **(changed or {})}
    variables.pop("PYTEST_CURRENT_TEST", None)
    variables = {name: value for name, value in variables.items() if name not in unset}
    command = [UCL, *map(str, arguments)]
    if shell:
        command = ["sh", "-c", f'"$0" "$@" {shell}', *command]
    return subprocess.run(command, env=variables, capture_output=True, check=False, **options)


@pytest.mark.kind("the right culprit: a path that is not UTF-8")
def test_a_connection_lives_in_a_home_whose_path_is_not_utf8(ucl, latin):
    home = latin / "home"
    ca, key, chain, out = (latin / name for name in ("ca.pem", "own.key", "own.crt", "out.ipynb"))
    ca.write_bytes(ucl.ca_file.read_bytes())
    where = ("--connector-url", ucl.connector_url, "--ca-file", ca)
    token = {"T": ucl.one_time_token()}
    done = [said_by("establish", "prod", "--token", "env:T", *where, *BITS, home=home, changed=token)]
    key.write_bytes((home / "connections/prod/current/key.pem").read_bytes())
    chain.write_bytes((home / "connections/prod/current/chain.pem").read_bytes())
    certificate_url = ("--connector-url", ucl.certificate_secured_connector_url)
    imported = ("--key", key, "--certificate", chain, *certificate_url, "--ca-file", ca)
    (latin / "in.ipynb").write_bytes(write_notebook(latin.parent / "in.ipynb", "print(1)").read_bytes())
    commands = [
        ("import", "other", *imported),
        ("renew", "prod", "--force"),
        ("run", "02_maintain_connection", "-p", "connection", "prod"),
        ("run", "02_maintain_connection", "-p", "connection", "prod", "-o", out),
        ("run", latin / "in.ipynb", "-o", latin / "other.ipynb"),
        ("export", "prod", "--force"),
        ("status",),
        ("status", "prod", "--json"),
        ("doctor", "prod", "--json"),
        ("doctor",),
        ("journal", "prod"),
        ("metrics",),
        ("hooks", "prod"),
        ("rollback", "prod"),
        (),
    ]
    done += [said_by(*command, home=home) for command in commands]
    assert [(one.args[1:2], one.returncode, one.stderr[-300:]) for one in done if one.returncode] == []
    assert [one.args for one in done if b"Unexpected" in one.stderr] == []
    notebook = json.loads(out.read_text("utf-8"))
    assert notebook["metadata"]["papermill"]["output_path"].endswith("M\\udcfcller/out.ipynb")
    outcome = json.loads(out.with_name("out.outcome.json").read_bytes())
    assert Path(outcome["notebook"]) == out  # a program reads the bytes again
    errors = json.loads(said_by("status", "none", "--json", home=home).stdout)
    assert LATIN in errors["message"].encode().decode("unicode_escape") or "udcfc" in errors["message"]


@pytest.mark.kind("the right culprit: a path that is not UTF-8")
def test_practice_works_there_too(latin):
    done = [
        said_by("establish", "practice", "--sandbox", *BITS, home=latin / "home"),
        said_by("renew", "practice", "--force", home=latin / "home"),
    ]
    assert [(one.returncode, one.stderr[-300:]) for one in done if one.returncode] == []


LONG = "a" * 100 + "/" + "b" * 60
CASES = {
    "a long TMPDIR": ({"TMPDIR": "{folder}/" + LONG}, ()),
    "a long TMPDIR and no runtime folder": ({"TMPDIR": "{folder}/" + LONG}, ("XDG_RUNTIME_DIR",)),
    "a TMPDIR that is not there": ({"TMPDIR": "/nonexistent"}, ()),
    "a TMPDIR that is a file": ({"TMPDIR": "{folder}/file"}, ()),
    "a TMPDIR that cannot be written": ({"TMPDIR": "/proc"}, ()),
    "an empty TMPDIR": ({"TMPDIR": ""}, ()),
    "no HOME": ({}, ("HOME",)),
    "an empty HOME": ({"HOME": ""}, ()),
    "a HOME that is not there": ({"HOME": "/nonexistent"}, ()),
    "a HOME that cannot be written": ({"HOME": "/proc"}, ()),
    "a relative XDG_RUNTIME_DIR": ({"XDG_RUNTIME_DIR": "here"}, ()),
    "an XDG_RUNTIME_DIR that is not there": ({"XDG_RUNTIME_DIR": "/nonexistent", "TMPDIR": "{folder}/" + LONG}, ()),
    "an IPYTHONDIR that cannot be made": ({"IPYTHONDIR": "/proc/none"}, ()),
}


@pytest.mark.kind("the right culprit: the start of a kernel")
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_starts_all_the_same(tmp_path, name):
    changed, unset = CASES[name]
    (tmp_path / LONG).mkdir(parents=True)
    (tmp_path / "file").touch()
    changed = {variable: value.format(folder=tmp_path) for variable, value in changed.items()}
    notebook = write_notebook(tmp_path / "in.ipynb", "print('it ran')")
    arguments = ("run", notebook, "-o", tmp_path / "out.ipynb")
    done = said_by(*arguments, home=tmp_path / "home", changed=changed, unset=unset, cwd=tmp_path)
    assert done.returncode == 0, done
    assert "it ran" in (tmp_path / "out.ipynb").read_text("utf-8")


def test_where_no_folder_can_hold_its_sockets_the_error_names_tmpdir(tmp_path, monkeypatch):
    from ucl_helpers.errors import StorageFailed
    from ucl_helpers.headless import kernel
    from ucl_helpers.headless.run import run_notebook

    monkeypatch.setattr(kernel, "_LONGEST_SOCKET", 10)
    monkeypatch.setenv("TMPDIR", "/somewhere")
    notebook = write_notebook(tmp_path / "in.ipynb", "print(1)")
    with pytest.raises(StorageFailed, match="kernel cannot start") as caught:
        run_notebook(notebook, tmp_path / "out.ipynb")
    assert "TMPDIR (now /somewhere)" in caught.value.remedy


@pytest.mark.kind("the right culprit: closed standard descriptors")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("command", ["renew", "run", "status"])
def test_closed_descriptors_do_no_harm(ucl, tmp_path, closed, command):
    home = tmp_path / "home"
    where = ("--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file)
    said_by("establish", "prod", "--token", "env:T", *where, *BITS, home=home, changed={"T": ucl.one_time_token()})
    commands = {
        "renew": ("renew", "prod", "--force"),
        "run": ("run", write_notebook(tmp_path / "in.ipynb", "print(1)"), "-o", tmp_path / "out.ipynb"),
        "status": ("status",),
    }
    assert said_by(*commands[command], home=home, shell=closed).returncode == 0
    assert command != "run" or (tmp_path / "out.ipynb").exists()
