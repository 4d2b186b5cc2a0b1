"""UCL acts and its answer never arrives, since the client was killed just then: the next run goes on from there.

Each is a real `ucl`, killed with SIGKILL by the gateway that holds its answer, so at exactly that moment; it dies with
the connection's lock in its hands, which holds nobody up.
"""

import shutil
import signal
import subprocess
from queue import Queue

import pytest
from command_line import BITS, UCL, Shell, environment
from meddler import passes
from steps import aside, events, pending_of

from ucl_helpers.connection.store import Connection

pytest_plugins = ["procedure_fixtures"]


@pytest.fixture
def killed(home, between, proof):
    """Run ``ucl`` and kill it when the answer to one of its calls is on its way, or before that call has arrived."""

    def run(operation, *arguments, nth=0, arrives=True, **more):
        started = Queue()

        def kills(forward, call):
            if arrives:
                forward()
            started.get().kill()

        between.on(operation, *[passes] * nth, kills)
        with subprocess.Popen([UCL, *map(str, arguments)], env=environment(home.path, **more)) as process:
            started.put(process)
        assert process.returncode == -signal.SIGKILL
        proof("crash", "processes killed while UCL's answer was on its way", 1)
        return process.pid

    return run


@pytest.fixture
def shell(home):
    return Shell(home.path)


RENEW = ("renew", "prod", "--force", *BITS)


@pytest.mark.parametrize("arrives", [True, False], ids=["signed", "never arrived"])
def test_a_renewal_goes_on_with_the_same_key_and_csr(secure, between, killed, shell, arrives):
    before = secure.current
    pid = killed("sign", *RENEW, arrives=arrives)
    assert secure.current == before
    assert f"process {pid} on" in secure.lock.holder()
    key = pending_of(secure).key_path.read_bytes()
    assert shell.ucl("renew", "prod", "--json").json["outcome"] == "renewed"  # also without --force
    assert (secure.current.path / "key.pem").read_bytes() == key
    first, second = (call.body["variables"]["csr"] for call in between.seen("sign"))
    assert first == second
    assert not pending_of(secure)


def test_without_what_the_killed_run_left_it_is_another_key(secure, between, killed, shell):
    """The twin: that is what would be lost."""
    killed("sign", *RENEW)
    key = pending_of(secure).key_path.read_bytes()
    shutil.rmtree(secure.path / "pending")
    assert shell.ucl("renew", "prod", "--json").json["outcome"] == "not-due"
    assert shell.ucl(*RENEW).code == 0
    assert (secure.current.path / "key.pem").read_bytes() != key


@pytest.mark.parametrize(("nth", "signatures"), [(0, 1), (1, 1)], ids=["the first call", "the verification"])
def test_killed_at_another_call_nothing_is_signed_twice(secure, between, killed, shell, *, nth, signatures):
    killed("configuration", *RENEW, nth=nth)
    answer = pending_of(secure).answer()
    assert bool(answer) == bool(nth)
    assert shell.ucl(*RENEW, "--json").json["outcome"] == "renewed"
    assert len(between.seen("sign")) == signatures
    assert len(secure.generations()) == 2


@pytest.mark.parametrize(
    ("arrives", "how"), [(True, "settled by the refusal of a repeated request"), (False, "answered")]
)
def test_a_revocation_is_settled_by_the_next(secure, killed, shell, arrives, how):
    killed("revoke", "revoke", "prod", "--yes", arrives=arrives)
    assert events(secure) == ["revoke-intended"]
    assert shell.ucl("revoke", "prod", "--yes", "--json").json["outcome"] == "revoked"
    assert (secure.journal()[-1]["event"], secure.journal()[-1]["how"]) == ("revoked", how)


@pytest.mark.parametrize("operation", ["configuration", "sign"])
def test_an_establishment_ends_with_none_and_then_with_a_whole_one(home, ucl, between, killed, shell, *, operation):
    """Its token is gone; the key that may have been signed is kept, and the Director gives another token."""
    access = ("--director-url", between.director_url, "--tenant", ucl.tenant, "--application-id", ucl.application_id)
    command = ("establish", "new", *access, "--bearer", "env:BEARER", "--ca-file", ucl.ca_file, *BITS)
    killed(operation, *command, BEARER=ucl.director_token)
    connection = Connection(home, "new")
    assert connection.current is None
    key = pending_of(connection).key_path.read_bytes() if operation == "sign" else None
    said = shell.ucl(*command, "--json", BEARER=ucl.director_token)
    assert (said.code, said.json["outcome"]) == (0, "established")
    assert [(one / "key.pem").read_bytes() for one in aside(connection)] == ([key] if key else [])
