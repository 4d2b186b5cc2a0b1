"""What a renewal takes: the command, the notebook, a run that is not due, the time without the key, and memory.

It is compared with the tutorial as a shell script, ``tutorial.sh``, which makes the same calls. Making an RSA key of
4096 bits takes ten times as long for one as for another, so a renewal is also measured without it: it uses a key and a
CSR that an interrupted run left.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.measuring import Result, in_turn, process
from benchmarks.serving import CONNECTION, Bench, bench, called, connected
from ucl_helpers import Connection, Renewal, renew
from ucl_helpers.crypto import encode
from ucl_helpers.keys import make_key
from ucl_helpers.operations import CONFIGURATION, SIGN

NOTEBOOK = "02_maintain_connection"
SCRIPT, RUN, BARE = "the tutorial as a shell script", f"`ucl run {NOTEBOOK}`", "`python -c pass`"
IMPORTS = "import ucl_helpers.cli.main, ucl_helpers.cli.keep, ucl_helpers.wire.adapter"
MOST_READINGS = 5  # memory hardly differs from one time to the next


def results(pairs: int) -> Iterator[Result]:
    """Whole processes, except the renewal without the key, which is measured within this one."""
    with bench() as on:
        notebook, renewal = ("run", NOTEBOOK, "-p", "connection", CONNECTION), ("renew", CONNECTION, "--force")
        script, run, empty = seconds(*on.tutorial()), renewing(on, *notebook), seconds(*on.empty_run())
        whole = in_turn(renewing(on, *renewal), script, pairs)
        yield Result(
            "renew", f"`ucl {' '.join(renewal)}`", SCRIPT, whole.total_ratio, "×", 0.45, details=whole.described()
        )
        whole = in_turn(run, script, pairs)
        yield Result("run", RUN, SCRIPT, whole.total_ratio, "×", 1.4, details=whole.described())
        whole = in_turn(run, renewing_by(on, *on.plain_run(NOTEBOOK)), pairs)
        yield Result("run-plain", RUN, "plain papermill on it", whole.total_ratio, "×", 1.0, details=whole.described())
        whole = in_turn(run, lambda: empty() + seconds_of(make_key), pairs)
        against = "an empty papermill run, and one key"
        yield Result("run-more", RUN, against, whole.more, "s", 0.3, details=whole.described())

        nothing = seconds(sys.executable, "-c", "pass")
        for name, command in (("run-not-due", (*notebook, "--if-due")), ("renew-not-due", ("renew", CONNECTION))):
            whole = in_turn(seconds(*on.ucl(*command)), nothing, pairs)
            what = f"`ucl {command[0]}`, not due"
            yield Result(name, what, BARE, whole.more, "s", 0.2, details=whole.described())

        within = in_turn(partial(renewed_without_key, on), partial(three_round_trips, on), pairs)
        against = "three round trips: two over one TLS connection, one over a new one"
        what, details = "a renewal without the key", within.described()
        yield Result("renew-no-key", what, against, within.ratio, "×", 1.7, details=details)

        imports = [on.programs / "python", "-c", IMPORTS]
        peaks = in_turn(
            lambda: process(on.ucl(*renewal)).peak_bytes,
            lambda: process(imports).peak_bytes,
            min(pairs, MOST_READINGS),
        )
        what, against = "peak memory of `ucl renew`", "python, and all that it imports"
        yield Result("memory-renew", what, against, peaks.ratio, "×", 1.2, details=peaks.described())


def seconds(*command: str | Path) -> Callable[[], float]:
    """Return a function that measures a command."""
    return lambda: process(command).seconds


def renewing(on: Bench, *arguments: str) -> Callable[[], float]:
    """Return a function that measures a command of ``ucl`` which renews."""
    return renewing_by(on, *on.ucl(*arguments))


def renewing_by(on: Bench, *command: str | Path) -> Callable[[], float]:
    """Return a function that measures a command which renews."""

    def renewed() -> float:
        on.on_another_day()
        return process(command).seconds

    return renewed


def seconds_of(act: Callable[[], object]) -> float:
    """Return the seconds that a call takes in this process."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def make_key_before(connection: Connection) -> None:
    """Leave key and CSR as an interrupted run does."""
    rehearsed = Renewal.begin(connection, rehearsal=True)
    rehearsed.configuration()
    rehearsed.request()
    rehearsed.close()


def renewed_without_key(on: Bench) -> float:
    """Return the seconds of a renewal whose key was made before."""
    on.on_another_day()
    make_key_before(on.connection)
    return seconds_of(lambda: renew(on.connection))


def three_round_trips(on: Bench) -> float:
    """Return the seconds of a renewal's calls alone: two over one TLS connection, one over another."""
    csr = encode((on.folder / "shell" / "new" / "csr.pem").read_bytes())

    def calls() -> None:
        with connected(on) as old:
            called(old, CONFIGURATION, {})
            called(old, SIGN, {"csr": csr})
        with connected(on) as new:
            called(new, CONFIGURATION, {})

    return seconds_of(calls)
