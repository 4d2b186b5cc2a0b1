"""The sandbox as a process of its own, and the one that the users of a home folder share."""

import contextlib
import json
import logging
import os
import select
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract_replay import CONFIGURATION, JSON_TYPE, Landscape, graphql, send, trusting

from ucl_sandbox import Access, SandboxError, SharedSandbox, join, shared
from ucl_sandbox.__main__ import duration
from ucl_sandbox.listeners import in_plain_words
from ucl_sandbox.server import fields_of
from ucl_sandbox.state import owner_of

KEYS = {
    "pid", "directorUrl", "directorToken", "tenant", "applicationId", "connectorUrl",
    "certificateSecuredConnectorUrl", "caFile",
}  # fmt: skip
DEADLINE = 30
REQUEST = "mutation ($id: ID!) { result: requestOneTimeTokenForApplication(id: $id) { token } }"


def answers(access: Access) -> bool:
    """Whether a sandbox answers a whole round: the Director's token opens the Connector."""
    headers = {**JSON_TYPE, "Authorization": f"Bearer {access.director_token}", "Tenant": access.tenant}
    context = trusting(access.ca_file)
    token = send(access.director_url, context, graphql(REQUEST, id=access.application_id), headers).result["token"]
    return Landscape(access, None).at_token(graphql(CONFIGURATION), token).status == 200


# -- a process of its own ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Runs a sandbox until it is ready, which it says through a pipe."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "ucl_sandbox", *map(str, arguments), "--notify", str(writing)]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.PIPE, text=True) as running:
        os.close(writing)
        try:
            select.select([reading], [], [], DEADLINE)
            yield running
        finally:
            os.close(reading)
            running.kill()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, ending: signal.Signals) -> None:
    ready = tmp_path / "files" / "ready.json"
    with process("--state", tmp_path / "state", "--ready-file", ready, "--ca-layout", "root") as running:
        content = json.loads(ready.read_text("utf-8"))
        assert set(content) == KEYS
        assert content["pid"] == running.pid
        assert stat.S_IMODE(ready.stat().st_mode) == 0o600
        assert answers(Access(**fields_of(ready.read_text("utf-8"), tmp_path / "state")))
        running.send_signal(ending)
        _, told = running.communicate(timeout=DEADLINE)
        assert running.returncode == 0
    assert "for practice only" in told
    assert "loopback" in told
    assert "handshake" not in told
    assert content["directorToken"] not in told
    assert not ready.exists()


def hello() -> bytes:
    """The first bytes of a client that does not come to know the server's CA."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def shake_hands(port: int, ca_file: Path | None, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=ca_file)
    context.maximum_version = version
    with socket.create_connection(("localhost", port)) as raw, context.wrap_socket(raw, server_hostname="localhost"):
        pass


def test_handshakes_that_fail_are_told_in_a_sentence_each(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with process("--state", tmp_path / "state", "--ready-file", ready) as running:
        access = Access(**fields_of(ready.read_text("utf-8"), tmp_path / "state"))
        port = urlsplit(access.certificate_secured_connector_url).port or 0
        for ca_file in (None, access.ca_file):
            with pytest.raises(ssl.SSLError):
                shake_hands(port, ca_file, ssl.TLSVersion.TLSv1_2)
        for said in (b"GET / HTTP/1.1\r\n\r\n", hello()[:50], b""):
            with socket.create_connection(("localhost", port)) as raw, contextlib.suppress(OSError):
                raw.sendall(said)  # it may have hung up by now
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(1000):
                    pass
        assert answers(access)
        running.terminate()
        _, told = running.communicate(timeout=DEADLINE)
    assert sorted(told.splitlines()[-3:]) == [
        "A client's TLS handshake failed: it does not trust the server CA.",
        "A client's TLS handshake failed: it showed no client certificate.",
        "A client's TLS handshake failed: it speaks HTTP without TLS.",
    ]
    assert told.count("\n") == 10


def test_what_tornado_says_besides_stays_as_it_is() -> None:
    record = logging.makeLogRecord({"msg": "%s of %s", "args": ("one", OSError("another"))})
    assert in_plain_words(record)
    assert record.getMessage() == "one of another"
    record = logging.makeLogRecord({"msg": "100 %"})
    assert in_plain_words(record)
    assert record.getMessage() == "100 %"


def test_a_ready_file_of_another_is_left_alone(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with process("--state", tmp_path / "state", "--ready-file", ready) as running:
        ready.write_text("another's", "utf-8")
        running.terminate()
        running.communicate(timeout=DEADLINE)
    assert ready.read_text("utf-8") == "another's"


def test_a_second_process_is_told_who_has_the_state(tmp_path: Path) -> None:
    with process("--state", tmp_path) as first, process("--state", tmp_path) as second:
        _, told = second.communicate(timeout=DEADLINE)
        assert second.returncode == 1
        assert f"process {first.pid}" in told


@pytest.mark.parametrize(
    ("text", "length"),
    [("90d", timedelta(90)), ("24h", timedelta(1)), ("5m", timedelta(minutes=5)), ("30s", timedelta(seconds=30))],
)
def test_durations(text: str, length: timedelta) -> None:
    assert duration(text) == length


@pytest.mark.parametrize("text", ["", "5", "d", "0d", "-1d", "1.5h", "1w", "5 m", "5M"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


# -- shared ------------------------------------------------------------------------------------------------------------

LINGER = timedelta(seconds=1)
USER = """
import sys
from datetime import timedelta
from pathlib import Path
from ucl_sandbox import join
sandbox = join(Path(sys.argv[1]), linger=timedelta(seconds=1))
print(sandbox.pid, sandbox.connector_url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    owner = owner_of(tmp_path / "sandbox")
    if owner is not None:
        os.kill(owner, signal.SIGTERM)
        ended(tmp_path)


def ended(home: Path) -> float:
    """Waits until nobody owns the home folder's state; returns how long that took."""
    began, pause = monotonic(), Event()
    while owner_of(home / "sandbox") is not None:
        assert monotonic() - began < DEADLINE, "the sandbox does not end"
        pause.wait(0.05)
    return monotonic() - began


def users(home: Path, count: int) -> list[Any]:
    """Processes that join at the same instant."""
    command = [sys.executable, "-c", USER, str(home)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, **pipes) for _ in range(count)]


def test_users_that_come_at_the_same_instant_work_on_one_sandbox(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        joined = [stack.enter_context(user) for user in users(home, 3)]
        told = {user.stdout.readline() for user in joined}
        assert len(told) == 1
        for user in joined:
            user.stdin.close()
    ended(home)


def test_the_first_to_come_may_be_the_first_to_go(home: Path) -> None:
    first = join(home, linger=LINGER)
    second = join(home, linger=LINGER)
    first.leave()
    first.leave()
    assert (first.pid, first.connector_url) == (second.pid, second.connector_url)
    Event().wait(2 * LINGER.total_seconds())
    assert owner_of(home / "sandbox") == second.pid
    assert answers(second)
    second.leave()
    ended(home)


def test_it_ends_when_its_users_have_been_killed(home: Path) -> None:
    (user,) = users(home, 1)
    with user:
        pid = int(user.stdout.readline().split()[0])
        assert owner_of(home / "sandbox") == pid
        user.kill()
    ended(home)
    assert not (home / "sandbox" / "ready.json").exists()


def test_a_killed_sandbox_is_started_anew(home: Path) -> None:
    before = join(home, linger=LINGER)
    os.kill(before.pid, signal.SIGKILL)
    ended(home)
    assert (home / "sandbox" / "ready.json").exists(), "what the killed process has left behind"
    with shared(home, linger=LINGER) as after:
        assert after.pid != before.pid
        assert after.director_url == before.director_url
        assert answers(after)
    before.leave()


def test_who_comes_while_it_ends_gets_one_that_lives(home: Path) -> None:
    """Joining and leaving around the end of the linger time, again and again."""
    pids, pause = set(), Event()
    for wait in (0.9, 0.95, 1.0, 1.02, 1.05, 1.1, 1.15):
        with shared(home, linger=LINGER) as sandbox:
            assert answers(sandbox)
            pids.add(sandbox.pid)
        pause.wait(wait)
    assert pids


def test_joining_does_not_wait_for_the_linger_time(home: Path) -> None:
    linger = timedelta(seconds=20)
    with shared(home, linger=linger) as before:
        pass
    Event().wait(0.2)
    with ThreadPoolExecutor() as pool:
        after = pool.submit(join, home, linger=linger).result(timeout=10)
    assert after.pid == before.pid
    after.leave()


def test_two_homes_do_not_meet(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with shared(one, linger=LINGER) as first, shared(other, linger=LINGER) as second:
        assert first.pid != second.pid
        assert first.tenant != second.tenant
        assert stat.S_IMODE(first.state.stat().st_mode) == 0o700
    for home in (one, other):
        ended(home)


def test_a_sandbox_that_was_started_by_hand_is_joined_too(tmp_path: Path) -> None:
    with process("--state", tmp_path / "sandbox") as running, shared(tmp_path) as sandbox:
        assert sandbox.pid == running.pid
        assert answers(sandbox)


def test_one_that_cannot_start_says_where_its_log_is(tmp_path: Path) -> None:
    (tmp_path / "sandbox" / "state.sqlite").mkdir(parents=True)
    with pytest.raises(SandboxError, match=r"did not start; its log is .*process\.log"):
        join(tmp_path)


def test_nothing_of_the_users_environment_is_handed_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCL_TEST_SECRET", "hidden")
    with shared(home, linger=LINGER) as sandbox:
        assert isinstance(sandbox, SharedSandbox)
        environment = Path(f"/proc/{sandbox.pid}/environ")
        content = environment.read_bytes() if environment.exists() else b""
        assert b"hidden" not in content
        assert sandbox.director_token not in repr(sandbox)
