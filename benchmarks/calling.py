"""One call by the toolkit's client, over a new TLS connection and over a kept one, beside curl on the same sandbox.

What counts for curl are the seconds that it reports for a transfer, so without the start of its process.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.measuring import Result, in_turn
from benchmarks.serving import Bench, bench
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.wire.client import Client

LIMIT, CALLS = 1.3, 20  # so many calls a figure: one takes milliseconds


def results(pairs: int) -> Iterator[Result]:
    """Seconds for a call, the mean of :data:`CALLS`."""
    with bench() as on:
        for name, how, ours, theirs in (
            ("client-fresh", "over a new TLS connection", fresh_by_client, fresh_by_curl),
            ("client-kept", "over a kept one", kept_by_client, kept_by_curl),
        ):
            clients = in_turn(partial(ours, on), partial(theirs, on), pairs)
            what, details = f"a call by the toolkit's client, {how}", clients.described()
            yield Result(name, what, "curl", clients.ratio, "×", LIMIT, details=details)


def mean_seconds(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes on average."""
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begin) / CALLS


def client(on: Bench) -> Client:
    """Return a client with the connection's identity."""
    current = on.connection.require_current()
    return Client(on.url, "certificate", ca_file=current.server_ca, credentials=current.credentials)


def fresh_by_client(on: Bench) -> float:
    """Each call has a client, and so a TLS connection, of its own."""

    def call() -> None:
        with client(on) as fresh:
            fresh.call(CONFIGURATION)

    return mean_seconds(call)


def kept_by_client(on: Bench) -> float:
    """All calls use one connection, which a first call has opened."""
    with client(on) as kept:
        kept.call(CONFIGURATION)
        return mean_seconds(lambda: kept.call(CONFIGURATION))


def fresh_by_curl(on: Bench) -> float:
    """Each transfer is a process of its own."""
    return sum(curl(on, 1)[0] for _ in range(CALLS)) / CALLS


def kept_by_curl(on: Bench) -> float:
    """All transfers use one connection, which a first transfer has opened."""
    return sum(curl(on, 1 + CALLS)[1:]) / CALLS


def curl(on: Bench, transfers: int) -> list[float]:
    """Return the seconds of each transfer, all over one connection."""
    identity = ["--cert", "shell/identity.pem", "--cacert", "shell/server-ca.pem"]
    body = ["--header", "Content-Type: application/json", "--data-binary", json.dumps({"query": CONFIGURATION})]
    output = ["--silent", "--show-error", "--fail", "--write-out", r"%{time_total}\n"]
    answers = ["--output", "/dev/null"] * transfers
    command = ["curl", *output, *identity, *body, *answers, *[on.url] * transfers]
    done = subprocess.run(command, cwd=on.folder, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]
