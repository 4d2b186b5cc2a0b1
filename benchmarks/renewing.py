"""What a renewal takes: the command, the notebook, a run that is not due, and what is left without the key.

It is held against the tutorial as a shell script, ``tutorial.sh``, which does the same calls. Making an RSA key of 4096
bits takes ten times as long for one as for another, so it is also measured apart, and the renewal without it: a key and
a CSR that an interrupted run left are used again, and the script is given a key.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import Result, in_turn, process
from benchmarks.serving import CONNECTION, Bench, bench
from benchmarks.talking import called, connected, tls
from ucl_helpers import Connection, Renewal, renew
from ucl_helpers.crypto import encode, make_key
from ucl_helpers.operations import CONFIGURATION, SIGN

NOTEBOOK = "02_maintain_connection"
GENPKEY = ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096", "-out", "/dev/null"]
SCRIPT, RUN, BARE = "the tutorial as a shell script", f"`ucl run {NOTEBOOK}`", "`python -c pass`"


def results(pairs: int) -> Iterator[Result]:
    """Whole processes, but for the renewal without the key: that is measured within this one."""
    with bench() as on:
        notebook = ("run", NOTEBOOK, "-p", "connection", CONNECTION)
        script, renewal = _seconds(*on.tutorial()), _renewing(on, "renew", CONNECTION, "--force")
        whole = in_turn(renewal, script, pairs)
        details = {**whole.described(), "without_key": _without_key(on, pairs), "key": _keys(pairs)}
        yield Result("renew", f"`ucl renew {CONNECTION} --force`", SCRIPT, whole.ratio, "×", 0.45, details=details)

        run = _renewing(on, *notebook)
        whole = in_turn(run, script, pairs)
        yield Result("run", RUN, SCRIPT, whole.ratio, "×", 1.4, details=whole.described())
        empty = _seconds(*on.empty_run())
        whole = in_turn(run, lambda: empty() + _seconds_of(make_key), pairs)
        against = "an empty papermill run, and one key"
        yield Result("run-more", RUN, against, whole.more, "s", 0.3, details=whole.described())

        nothing = _seconds(sys.executable, "-c", "pass")
        for name, command in (("run-not-due", (*notebook, "--if-due")), ("renew-not-due", ("renew", CONNECTION))):
            whole = in_turn(_seconds(*on.ucl(*command)), nothing, pairs)
            what = f"`ucl {command[0]}`, not due"
            yield Result(name, what, BARE, whole.more, "s", 0.25, details=whole.described())

        within = in_turn(partial(_renewed_without_key, on), partial(_three_round_trips, on), pairs)
        against = "three round trips: two over one TLS connection, one over a new one"
        what, details = "a renewal without the key", within.described()
        yield Result("renew-no-key", what, against, within.ratio, "×", 1.5, details=details)


def _seconds(*command: str | Path) -> Callable[[], float]:
    return lambda: process(command).seconds


def _renewing(on: Bench, *arguments: str) -> Callable[[], float]:
    def seconds() -> float:
        on.on_another_day()
        return process(on.ucl(*arguments)).seconds

    return seconds


def _seconds_of(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def _keys(pairs: int) -> dict[str, Any]:
    """Making a key: by the toolkit, within a process; by ``openssl``, which is one. Each has its own chance."""
    made = in_turn(lambda: _seconds_of(make_key), _seconds(*GENPKEY), pairs)
    spread = {"ours": statistics.quantiles(made.ours, n=4), "theirs": statistics.quantiles(made.theirs, n=4)}
    return {**made.described(), "quartiles_in_seconds": spread}


def _without_key(on: Bench, pairs: int) -> dict[str, Any]:
    """Both whole processes again: a rehearsal has left key and CSR to the one; the other is given that key."""

    def ours() -> float:
        on.on_another_day()
        make_key_before(on.connection)
        return process(on.ucl("renew", CONNECTION, "--force")).seconds

    whole = in_turn(ours, _seconds(*on.tutorial(on.connection.path / "current" / "key.pem")), pairs)
    return {**whole.described(), "ratio": round(whole.ratio, 3)}


def make_key_before(connection: Connection) -> None:
    """Leave key and CSR as an interrupted run does."""
    rehearsed = Renewal.begin(connection, rehearsal=True)
    rehearsed.configuration()
    rehearsed.request()
    rehearsed.close()


def _renewed_without_key(on: Bench) -> float:
    on.on_another_day()
    make_key_before(on.connection)
    return _seconds_of(lambda: renew(on.connection))


def _three_round_trips(on: Bench) -> float:
    """The calls of a renewal and nothing else: configuration and sign over one TLS connection, one over another."""
    csr = encode((on.folder / "shell" / "new" / "csr.pem").read_bytes())

    def calls() -> None:
        old = connected(on, tls(on))
        called(old, on, CONFIGURATION, {})
        called(old, on, SIGN, {"csr": csr})
        old.close()
        new = connected(on, tls(on))
        called(new, on, CONFIGURATION, {})
        new.close()

    return _seconds_of(calls)
