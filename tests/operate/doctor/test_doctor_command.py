"""``ucl doctor`` as a process: what it prints, how it ends, and what it leaves alone."""

import json

import pytest
from command_line import Shell
from steps import tree

from ucl_sandbox import Sandbox
from ucl_sandbox.faults.plans import Fault


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def shell(ucl, tmp_path_factory):
    """A shell with one connection, ``prod``, without a proxy."""
    shell = Shell(tmp_path_factory.mktemp("doctor") / "home")
    shell.establish("prod", ucl)
    return shell


NAMES = [
    *("home folder", "file system", "connection folder", "access", "secrecy", "settings", "references", "lock"),
    *("state files", "identity in use", "key and certificate", "key at rest", "files", "chain"),
    *("validity", "revocation"),
    *("under way", "one-time token", "set aside", "hooks"),
    *("certificate endpoint", "proxy", "name resolution", "TCP connection", "TLS handshake", "server trust"),
    *("client certificate", "UCL's answer", "clock", "subject", "URLs"),
]


def test_it_says_that_all_is_well_from_near_to_far(shell):
    before = tree(shell.home)
    said, told = shell.ucl("doctor", "prod"), shell.ucl("doctor", "prod", "--json")
    assert (said.code, said.err, told.code, told.err) == (0, "", 0, "")
    assert said.out.startswith("prod: all is well\nexamined")
    assert [one["name"] for one in told.json["findings"]] == NAMES
    assert (told.json["ok"], told.json["exitCode"]) == (True, 0)
    assert {one["status"] for one in told.json["findings"]} == {"ok", "skipped"}
    assert tree(shell.home) == before


def test_a_fault_is_told_with_its_remedy_and_is_the_exit_code(shell, ucl):
    ucl.faults.set([Fault("http-400-empty", at="certificate")])
    said, told, every = (shell.ucl("doctor", *more) for more in (("prod",), ("prod", "--json"), ("--json",)))
    ucl.faults.clear()
    assert (said.code, told.code, every.code) == (3, 3, 3)
    assert said.out.startswith("prod: failed: client certificate\n")
    (bad,) = [one for one in told.json["findings"] if one["status"] == "failed"]
    assert (bad["name"], bad["remedy"].startswith("Wait. When UCL is back: ucl renew prod")) == (
        "client certificate",
        True,
    )
    assert f"→ {bad['remedy']}" in said.out
    assert [(one["name"], one["exitCode"]) for one in every.json] == [(str(shell.home), 0), ("prod", 3)]


def test_offline_nobody_is_called(shell, ucl):
    calls = len(ucl.requests)
    told = shell.ucl("doctor", "prod", "--offline", "--json")
    assert (told.code, len(ucl.requests)) == (0, calls)
    assert {one["status"] for one in told.json["findings"][NAMES.index("certificate endpoint") :]} == {"skipped"}
    assert "2 examined, 0 failed" in shell.ucl("doctor", "--offline").out


@pytest.mark.parametrize("name", ["nowhere", "../prod", "pr od"])
def test_a_name_without_a_connection_is_a_usage_error(shell, name):
    assert shell.ucl("doctor", name, "--json").code == 2


def test_a_server_cannot_write_to_the_terminal(shell, ucl):
    ucl.faults.set([Fault("errors-beside-data", at="certificate", value="\x1b[2Jgone")])
    said = shell.ucl("doctor", "prod")
    ucl.faults.clear()
    assert said.code == 4
    assert "\x1b" not in said.out
    assert r"\x1b[2Jgone" in said.out


def test_a_practice_connection_is_looked_at_without_starting_its_sandbox(tmp_path):
    shell = Shell(tmp_path / "home")
    with Sandbox(shell.home / "sandbox") as running:
        shell.establish("practice", running)
        path = shell.home / "connections" / "practice" / "settings.toml"
        path.write_text(f"sandbox = {json.dumps(str(running.state / 'ready.json'))}")
        assert shell.ucl("doctor", "practice").code == 0
    before = tree(shell.home)
    said = shell.ucl("doctor", "practice", "--json")
    assert (said.code, tree(shell.home)) == (0, before)
    last = said.json["findings"][-1]
    assert (last["status"], "its sandbox is not running" in last["found"]) == ("skipped", True)
