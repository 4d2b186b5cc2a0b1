"""What happens after, from the command line and from the notebook: the certificate is in place, whatever hooks do."""

import json
import shutil

import pytest
from command_line import BITS, Shell, made_by_hand
from quick_keys import QUICK_BITS

from ucl_helpers.connection.state import pending_hooks
from ucl_helpers.connection.store import Home
from ucl_helpers.models import OUTCOME_MIME
from ucl_sandbox import Sandbox

HOOK = """
[[hooks]]
name = "copy"
command = ["sh", "-c", "echo $UCL_EVENT $UCL_FINGERPRINT >> {0}/told; echo looking; test -e {0}/ready"]
"""


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def established(tmp_path_factory, ucl):
    """A home with one connection, ``prod``."""
    shell = Shell(tmp_path_factory.mktemp("home"))
    shell.establish("prod", ucl)
    return shell.home


@pytest.fixture
def shell(tmp_path, established):
    """A shell with one connection, ``prod``, whose hook fails until there is a file ``ready``."""
    shell = Shell(shutil.copytree(established, tmp_path / "home", symlinks=True))
    settings(shell, "prod").write_text(HOOK.format(tmp_path))
    return shell


def settings(shell, name):
    return shell.home / "connections" / name / "settings.toml"


def told(tmp_path):
    return [line.split() for line in (tmp_path / "told").read_text().splitlines()]


def test_a_failed_hook_has_its_own_exit_code_and_runs_again_without_a_new_certificate(shell, tmp_path):
    connection = Home(shell.home).connection("prod")
    first = connection.current.fingerprint
    said = shell.ucl("renew", "prod", "--force", *BITS, "--json")
    assert (said.code, said.err) == (13, "")
    new, told_of = connection.current.fingerprint, {name: said.json[name] for name in ("outcome", "exitCode", "error")}
    assert told_of == {"outcome": "renewed", "exitCode": 13, "error": "HookFailed"}
    assert (said.json["fingerprint"], said.json["previousFingerprint"]) == (new, first)
    assert (said.json["hooks"][:20], said.json["hooksFailed"]) == ("copy: exit code 1 (0", "copy")

    said = shell.ucl("renew", "prod")
    assert (said.code, said.out.startswith("prod: not-due\n")) == (13, True)
    assert "copy: exit code 1" in said.out
    assert "looking" in said.err
    assert "HookFailed: A hook of prod failed: copy: exit code 1.\n" in said.err
    assert "again with the next run, or by: ucl hooks prod" in said.err
    assert shell.ucl("status", "prod", "--json").json["pendingHooks"] == ["copy"]

    (tmp_path / "ready").touch()
    said = shell.ucl("renew", "prod", "--json")
    assert (said.code, said.json["outcome"], said.json["hooks"][:11]) == (0, "not-due", "copy: done ")
    assert told(tmp_path) == [["renewed", new]] * 3
    assert shell.ucl("rollback", "prod").code == 0
    assert told(tmp_path)[3:] == [["rolled-back", first]]
    assert pending_hooks(connection) == ()


def test_hooks_by_hand(shell, tmp_path):
    said = shell.ucl("hooks", "prod", "--json")
    assert (said.code, said.err, said.json["exitCode"]) == (13, "", 13)
    assert [(one["name"], one["status"], one["exitCode"]) for one in said.json["hooks"]] == [("copy", "failed", 1)]
    (tmp_path / "ready").touch()
    assert [shell.ucl("hooks", "prod", *options).code for options in ((), ("--all",), ())] == [0, 0, 0]
    fingerprint = Home(shell.home).connection("prod").current.fingerprint
    assert told(tmp_path) == [["established", fingerprint]] * 3


def test_after_an_import_they_run_as_well(ucl, tmp_path):
    shell = Shell(tmp_path / "home", tmp_path / "hand")
    settings(shell, "hand").parent.mkdir(parents=True)
    settings(shell, "hand").write_text(HOOK.format(tmp_path))
    made_by_hand(tmp_path / "hand", ucl)
    files = ("--key", "ucl-app.key", "--certificate", "ucl-app.crt", "--ca-file", "server-ca.pem")
    said = shell.ucl("import", "hand", *files, "--connector-url", ucl.certificate_secured_connector_url)
    assert (said.code, said.out.startswith("hand: imported\n")) == (13, True)
    assert told(tmp_path) == [["imported", Home(shell.home).connection("hand").current.fingerprint]]


def test_a_notebook_tells_of_its_hooks_in_its_outcome(shell, tmp_path):
    output = tmp_path / "out.ipynb"
    small = ("-p", "connection", "prod", "-p", "key_length", str(QUICK_BITS))
    said = shell.ucl("run", "02_maintain_connection", "-o", output, *small, "--json")
    assert (said.code, said.json["outcome"], said.json["error"]) == (13, "renewed", "HookFailed")
    cells = json.loads(output.read_text())["cells"]
    last = [cell for cell in cells if cell["cell_type"] == "code"][-1]["outputs"][-1]["data"]
    assert (last[OUTCOME_MIME]["exitCode"], last[OUTCOME_MIME]["fingerprint"]) == (13, shell.fingerprint("prod"))
    tables = [out["data"]["text/plain"] for cell in cells for out in cell.get("outputs", []) if "data" in out]
    shown = "\n".join("".join(table) for table in tables)
    assert "copy: exit code 1" in shown
    assert f"What was printed is kept in {shell.home}" in shown
