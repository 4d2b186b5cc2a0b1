"""One call on the sandbox's certificate endpoint, over a new TLS connection and over a kept one.

The sandbox is held against a bare TLS server: the same handshake, then a fixed answer of the same length to whatever
comes, in a process of its own. The toolkit's client is held against curl, both on the sandbox; what counts there are
the seconds that curl itself says a transfer took, so without the start of its process.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.measuring import Result, in_turn
from benchmarks.serving import Bench, bench
from benchmarks.talking import called, connected, tls
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.wire.client import Client

LIMIT, CALLS = 1.3, 20  # so many calls a figure: one takes milliseconds
FRESH, KEPT = "over a new TLS connection", "over a kept one"


def results(pairs: int) -> Iterator[Result]:
    """Seconds for a call, the mean of :data:`CALLS`."""
    with bench() as on, _bare(on) as bare:
        for name, how, call in (("call-fresh", FRESH, _fresh), ("call-kept", KEPT, _kept)):
            servers = in_turn(partial(call, on), partial(call, bare), pairs)
            what, details = f"a call on the sandbox, {how}", servers.described()
            yield Result(name, what, "a bare TLS server", servers.ratio, "×", LIMIT, details=details)
        for name, how, ours, theirs in (
            ("client-fresh", FRESH, _fresh_by_us, _fresh_by_curl),
            ("client-kept", KEPT, _kept_by_us, _kept_by_curl),
        ):
            clients = in_turn(partial(ours, on), partial(theirs, on), pairs)
            what, details = f"a call by the toolkit's client, {how}", clients.described()
            yield Result(name, what, "curl", clients.ratio, "×", LIMIT, details=details)


@contextmanager
def _bare(on: Bench) -> Iterator[Bench]:
    """The bare server in the place of the sandbox."""
    connection = connected(on, tls(on))
    length = len(called(connection, on, CONFIGURATION, {}))
    connection.close()
    server = Path(__file__).with_name("bare_server.py")
    command = [sys.executable, str(server), str(on.access.state), str(length)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            port = served.stdout.readline().strip() if served.stdout else ""
            yield replace(on, access=replace(on.access, certificate_secured_connector_url=f"https://localhost:{port}/"))
        finally:
            served.terminate()


def _mean(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begin) / CALLS


def _fresh(on: Bench) -> float:
    context = tls(on)

    def call() -> None:
        connection = connected(on, context)
        called(connection, on, CONFIGURATION, {})
        connection.close()

    return _mean(call)


def _kept(on: Bench) -> float:
    connection = connected(on, tls(on))
    called(connection, on, CONFIGURATION, {})
    seconds = _mean(lambda: called(connection, on, CONFIGURATION, {}))
    connection.close()
    return seconds


def _client(on: Bench) -> Client:
    current = on.connection.require_current()
    return Client(on.url, "certificate", ca_file=current.server_ca, credentials=current.credentials)


def _fresh_by_us(on: Bench) -> float:
    def call() -> None:
        with _client(on) as client:
            client.call(CONFIGURATION)

    return _mean(call)


def _kept_by_us(on: Bench) -> float:
    with _client(on) as client:
        client.call(CONFIGURATION)
        return _mean(lambda: client.call(CONFIGURATION))


def _fresh_by_curl(on: Bench) -> float:
    return sum(_curl(on, 1)[0] for _ in range(CALLS)) / CALLS


def _kept_by_curl(on: Bench) -> float:
    return sum(_curl(on, 1 + CALLS)[1:]) / CALLS


def _curl(on: Bench, transfers: int) -> list[float]:
    """Seconds of each transfer, all over one connection."""
    identity = ["--cert", "shell/identity.pem", "--cacert", "shell/server-ca.pem"]
    body = ["--header", "Content-Type: application/json", "--data-binary", json.dumps({"query": CONFIGURATION})]
    told = ["--silent", "--show-error", "--fail", "--write-out", r"%{time_total}\n"]
    answers = ["--output", "/dev/null"] * transfers
    command = ["curl", *told, *identity, *body, *answers, *[on.url] * transfers]
    done = subprocess.run(command, cwd=on.folder, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]
