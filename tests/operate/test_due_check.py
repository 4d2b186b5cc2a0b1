"""Whether there is anything to do for a connection: seen on disk, with the reason, and recorded when there is not."""

import json
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta

import pytest
from command_line import Shell, environment
from notebook_runs import mode, must_follow_the_schema
from quick_keys import QUICK_BITS
from steps import install, judged

from ucl_helpers.clock import utc_now
from ucl_helpers.connection.attempts import recording_attempt
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Unreachable
from ucl_helpers.headless.notebooks import find_notebook
from ucl_helpers.operate.due_check import check_due, nothing_to_do
from ucl_sandbox import Sandbox


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def connection(tmp_path, ucl):
    return install(Home(tmp_path / "home"), ucl, tmp_path)


def sent(connection):
    folder = connection.path / "pending"
    folder.mkdir()
    facts = {
        "id": "x",
        "kind": "renew",
        "created": utc_now().isoformat(),
        "base": None,
        "bits": QUICK_BITS,
        "configuration": {},
    }
    (folder / "state.json").write_text(json.dumps({**facts, "sent": utc_now().isoformat()}))
    assert Pending(folder).read_state().kind == "renew"


def begun(connection):
    sent(connection)
    state = connection.path / "pending" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "sent": None}))


PKCS12 = 'exports.pkcs12 = "env:NOT_SET"'
CHANGES = {
    "current is gone": lambda one: (one.path / "current").unlink(),
    "revoked": judged,
    "under way: renew": sent,
    "identity.pem": lambda one: (one.path / "current" / "identity.pem").write_text("x"),
    "settings.toml": lambda one: (one.path / "settings.toml").write_text("keep ="),
    "a key is stored unencrypted": lambda one: (one.path / "settings.toml").write_text('key_passphrase = "env:HOME"'),
    "exports.pkcs12": lambda one: (one.path / "settings.toml").write_text(PKCS12),
    "due since": lambda one: (one.path / "settings.toml").write_text('renew_before = "2000d"'),
}


def test_nothing_is_to_be_done_until_the_due_date(connection):
    seen, due = check_due(connection, utc_now()), connection.due(utc_now())
    assert (seen.need, seen.until, seen.rule) == (None, due.at, due.reason)
    assert check_due(connection, due.at - timedelta(seconds=1)).need is None
    assert check_due(connection, due.at).need.why.startswith("due since ")


@pytest.mark.parametrize("why", CHANGES)
def test_each_reason_to_run_is_told(connection, why):
    later = utc_now() + timedelta(days=46)
    assert check_due(connection, later).need is None
    CHANGES[why](connection)
    assert why in check_due(connection, later).need.why


def test_what_was_begun_and_not_sent_waits_until_it_is_due(connection):
    begun(connection)
    assert check_due(connection, utc_now()).need is None


def test_without_a_name_and_of_an_unknown_one_there_is_something_to_do(connection):
    home = str(connection.home.path)
    assert nothing_to_do(find_notebook("02"), {"connection": connection.name, "home": home})
    for name in ("", "nobody"):
        assert nothing_to_do(find_notebook("02"), {"connection": name, "home": home}) is None


def test_a_run_that_is_not_due_says_so_records_it_and_starts_no_kernel(connection, tmp_path):
    shell = Shell(connection.home.path, tmp_path)
    asked = ("run", "02", "-p", "connection", connection.name, "--if-due")
    script = "import sys; from ucl_helpers.cli import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)"
    command = [sys.executable, "-c", script, *asked]
    done = subprocess.run(command, env=environment(shell.home), capture_output=True, text=True, check=True)
    first, modules = done.stdout.splitlines()
    due = connection.due(utc_now())
    assert first == f"{connection.name}: not-due until {due.at:%Y-%m-%dT%H:%M:%SZ} ({due.reason})"
    assert not {"papermill", "nbclient", "nbformat", "jupyter_client", "IPython"} & set(modules.split())
    [kept] = (shell.home / "runs").iterdir()
    assert (kept.name, mode(kept)) == (f"02_maintain_connection-{connection.name}-looked.outcome.json", 0o600)
    told = json.loads(kept.read_text())
    must_follow_the_schema(told)
    assert (told["kind"], told["outcome"], told["fingerprint"]) == ("look", "not-due", connection.current.fingerprint)
    said = shell.ucl(*asked, "--json", "-o", "out.ipynb")
    assert (said.code, said.json) == (0, json.loads((tmp_path / "out.outcome.json").read_text()))
    assert not (tmp_path / "out.ipynb").exists()
    assert [path.name for path in (shell.home / "runs").iterdir()] == [kept.name]


def test_while_a_renewal_waits_hooks_are_run_all_the_same_and_no_kernel_is_started(connection, tmp_path):
    hook = f'[[hooks]]\nname = "one"\ncommand = ["touch", "{tmp_path / "ran"}"]\n'
    (connection.path / "settings.toml").write_text(hook)
    assert check_due(connection, utc_now()).need.why == "hooks still have to run: one"
    sent(connection)
    with suppress(Unreachable), connection.lock.held(), recording_attempt(connection, utc_now):
        raise Unreachable("UCL cannot be reached.")
    shell = Shell(connection.home.path, tmp_path)
    said = shell.ucl("run", "02", "-p", "connection", connection.name, "--if-due", "--json")
    assert (said.code, said.json["kind"], said.json["error"]) == (3, "look", "Waiting")
    assert (tmp_path / "ran").exists()
    assert list((shell.home / "runs").glob("*.ipynb")) == []


def test_only_a_notebook_that_knows_of_due_dates_can_be_run_if_due(tmp_path):
    said = Shell(tmp_path / "home").ucl("run", "03", "--if-due", "--json")
    assert (said.code, "only_if_due" in said.json["message"]) == (2, True)
