"""``ucl`` as a process, after a connection is established: renew, path, rollback, revoke, forget."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command_line import BITS, UCL, Shell, environment

from ucl_helpers.connection.store import Home
from ucl_sandbox import Sandbox


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def shell(tmp_path, ucl):
    """A shell with one connection, ``prod``."""
    shell = Shell(tmp_path / "home")
    shell.establish("prod", ucl)
    return shell


# -- renew -------------------------------------------------------------------------------------------------------------


def test_a_renewal_that_is_not_due_says_why_and_until_when(shell):
    said, told = shell.ucl("renew", "prod"), shell.ucl("status", "prod", "--json").json
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("prod: not-due\n")
    assert told["dueAt"][:10] in said.out
    assert told["dueReason"] in said.out
    as_json = shell.ucl("renew", "prod", "--json").json
    assert (as_json["outcome"], as_json["notNeededUntil"][:10]) == ("not-due", told["dueAt"][:10])
    assert as_json["fingerprint"] == told["fingerprint"]


def test_force_renews_and_the_paths_stay_the_same(shell):
    before = {what: shell.ucl("path", "prod", what).out for what in ("key", "certificate", "chain", "identity")}
    old = shell.fingerprint("prod")
    said = shell.ucl("renew", "prod", "--force", *BITS)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("prod: renewed\n")
    assert old in said.out
    assert shell.fingerprint("prod") != old
    assert {what: shell.ucl("path", "prod", what).out for what in before} == before
    assert "PRIVATE KEY" in Path(before["key"].rstrip("\n")).read_text()


def test_a_dry_run_signs_nothing(shell, ucl):
    old, calls = shell.fingerprint("prod"), len(ucl.requests)
    said = shell.ucl("renew", "prod", "--dry-run", *BITS, "--json")
    assert (said.code, said.json["outcome"]) == (0, "rehearsed")
    assert (shell.fingerprint("prod"), len(ucl.requests)) == (old, calls + 1)
    assert shell.ucl("status", "prod", "--json").json["pending"].endswith(": begun")
    assert shell.ucl("renew", "prod", "--force", *BITS).code == 0
    assert shell.ucl("status", "prod", "--json").json["pending"] is None


def test_while_another_process_has_it_in_hand_it_is_busy(shell):
    with Home(shell.home).connection("prod").lock.held():
        said = shell.ucl("renew", "prod", "--force", "--json")
        assert (said.code, said.json["error"]) == (8, "Busy")
        assert f"process {os.getpid()}" in said.json["data"]["holder"]
        assert shell.ucl("status", "prod").code == 0
    assert shell.ucl("renew", "prod").code == 0


def test_with_the_server_down_it_is_to_be_tried_later_and_nothing_changed(tmp_path):
    shell = Shell(tmp_path)
    with Sandbox(tmp_path / "state") as ucl:
        shell.establish("prod", ucl)
    old = shell.fingerprint("prod")
    said = shell.ucl("renew", "prod", "--force", *BITS, "--json")
    assert (said.code, said.json["error"], shell.fingerprint("prod")) == (3, "Unreachable", old)
    with Sandbox(tmp_path / "state"):
        assert shell.ucl("renew", "prod", "--force", *BITS).code == 0


# -- rollback ----------------------------------------------------------------------------------------------------------


def test_rollback_goes_to_the_generation_before_or_to_the_one_named(shell):
    first = shell.fingerprint("prod")
    assert shell.ucl("renew", "prod", "--force", *BITS).code == 0
    second = shell.fingerprint("prod")
    said = shell.ucl("rollback", "prod", "--json")
    assert (said.code, said.json["outcome"], said.json["fingerprint"]) == (0, "rolled-back", first)
    assert (shell.ucl("rollback", "prod", "2").code, shell.fingerprint("prod")) == (0, second)
    said = shell.ucl("rollback", "prod", "9")
    assert (said.code, "no other generation 9" in said.err, shell.fingerprint("prod")) == (2, True, second)


# -- revoke and forget -------------------------------------------------------------------------------------------------


def test_revoke_asks_first(shell):
    for answer in ("n\n", "\n", ""):
        said = shell.ucl("revoke", "prod", given=answer)
        assert (said.code, said.out) == (2, "")
        assert "Revoke the one in use? This cannot be undone" in said.err
        assert "nothing was done" in said.err
        assert shell.ucl("status", "prod", "--json").json["state"] == "valid"
    said = shell.ucl("revoke", "prod", given="y\n")
    assert (said.code, said.out.splitlines()[0]) == (0, "prod: revoked")


def test_a_revoked_certificate_is_refused_and_not_renewed(shell):
    assert shell.ucl("revoke", "prod", "--yes", "--json").json["outcome"] == "revoked"
    said = shell.ucl("renew", "prod", "--force", "--json")
    assert (said.code, said.json["error"]) == (4, "Refused")
    assert "establish" in said.json["remedy"]
    assert shell.ucl("status", "prod", "--json").json["state"] == "revoked"


@pytest.mark.parametrize(("option", "left"), [((), 1), (("--all",), 0)])
def test_the_one_before_is_revoked_only_with_all(option, left, shell):
    assert shell.ucl("renew", "prod", "--force", *BITS).code == 0
    said = shell.ucl("revoke", "prod", "--yes", *option, "--json")
    assert (said.code, said.json["revoked"].count(",")) == (0, 1 - left)
    assert (said.json["stillValid"] == "none") == (left == 0)
    forgotten = shell.ucl("forget", "prod", "--yes", "--json")
    assert (forgotten.code, forgotten.json["outcome"]) == ((2, "failed") if left else (0, "forgotten"))


def test_forget_asks_first_and_keeps_what_is_valid_unless_told(shell):
    path = shell.home / "connections" / "prod"
    for given, options, text in (("n\n", (), "nothing was done"), ("y\n", (), "may still accept")):
        said = shell.ucl("forget", "prod", *options, given=given)
        assert (said.code, text in said.err, path.exists()) == (2, True, True)
    said = shell.ucl("forget", "prod", "--even-if-valid", given="y\n")
    assert (said.code, path.exists()) == (0, False)


def test_ctrl_c_at_a_question_is_130_and_nothing_is_done(shell):
    with subprocess.Popen(
        [UCL, "revoke", "prod"],
        env=environment(shell.home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        said = b""
        while not said.endswith(b"[y/N]: "):
            said += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert b"Interrupted." in err
    assert b"Traceback" not in err
    assert shell.ucl("status", "prod", "--json").json["state"] == "valid"
