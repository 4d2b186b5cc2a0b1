"""A fleet's renewal beside the making of its keys, and ``ucl fleet status`` beside the reading of its certificates.

What renews makes keys most of the time. Both sides take as many keys of 4096 bits, made by the same function in the
same processes, one a core; these have been started before, on both sides. The sandbox works on the same cores: the time
that it had on the CPU, divided by their number, is taken off the fleet's. The pace is no limit here.

Of two hundred keys a side the mean still varies by seven percent, which is more than what is asked for. So the figure
is put together of two that vary less: the mean of all keys that were made alone, and what the same renewals take with
keys that lay there before. What came of both sides with their keys stands beside it in the JSON (``share_with_keys``).
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.copying import copies
from benchmarks.measuring import Result, in_turn, process
from benchmarks.renewing import make_key_before
from benchmarks.serving import UCL, Bench, bench
from ucl_helpers import Connection
from ucl_helpers.crypto import make_key
from ucl_helpers.fleet.executors import Workers, processes
from ucl_helpers.fleet.plan import alone, plan
from ucl_helpers.fleet.run import renew_fleet

CORES, BITS, KEYS, MOST_PAIRS, NO_LIMIT = 2, 4096, 24, 8, 1e6
MANY, FEWER, MOST_READINGS = 10_000, 1_000, 5
PARSE = """
import sys
from pathlib import Path
from cryptography import x509
for one in Path(sys.argv[1], "connections").iterdir():
    x509.load_pem_x509_certificate((one / "current" / "certificate.pem").read_bytes())
"""


def results(pairs: int) -> Iterator[Result]:
    """First the renewal, then the status, then the memory that this takes."""
    with bench() as on:
        yield _renewal(on, min(pairs, MOST_PAIRS))
        yield from _status(on, min(pairs, MOST_READINGS))


@dataclass(frozen=True)
class _Fleet:
    """Copies of the connection, and processes that wait for something to do."""

    on: Bench
    workers: Workers

    def renew(self, connection: Connection) -> float:
        """Seconds for a renewal of all copies of this connection, the sandbox's share taken off."""
        home = copies(connection, self.on.folder / "fleet", KEYS)
        spent, begin = _cpu_seconds(self.on.access.pid), time.perf_counter()
        with alone(home):
            outcome = renew_fleet(plan(home, force=True), self.workers, rate=NO_LIMIT)
        seconds = time.perf_counter() - begin
        assert outcome.exit_code == 0, str(outcome)
        return seconds - (_cpu_seconds(self.on.access.pid) - spent) / CORES

    def make_keys(self) -> float:
        """Seconds for as many keys and nothing else."""
        begin = time.perf_counter()
        made = wait([self.workers.executor.submit(_make_key) for _ in range(KEYS)])
        seconds = time.perf_counter() - begin
        assert not any(one.exception() for one in made.done)
        return seconds


def _renewal(on: Bench, pairs: int) -> Result:
    workers = processes(CORES)
    with workers.executor:
        fleet = _Fleet(on, workers)
        both = in_turn(partial(fleet.renew, on.connection), fleet.make_keys, pairs)
        with_key = copies(on.connection, on.folder / "with-key", 1).connections()[0]
        make_key_before(with_key)
        beside = statistics.median(fleet.renew(with_key) for _ in range(pairs))
    keys = statistics.mean(both.theirs)
    details = {
        **both.described(),
        "keys_a_side": KEYS * pairs,
        "seconds_a_key": round(keys * CORES / KEYS, 4),
        "seconds_beside_the_key": round(beside * CORES / KEYS, 4),
        "share_with_keys": round(100 / both.ratio, 1),
        "left_out": "CPU time of the sandbox, divided by the cores",
    }
    what, against = f"a fleet's renewals, {CORES} cores, {BITS} bits, without the server", "making its keys alone"
    share = 100 * keys / (keys + beside)
    return Result("fleet-renew", what, against, share, "%", 95, at_most=False, details=details)


def _status(on: Bench, pairs: int) -> Iterator[Result]:
    homes = {one: copies(on.connection, on.folder / f"{one}", one, distinct=True).path for one in (MANY, FEWER)}
    parse: list[str | Path] = [sys.executable, "-c", PARSE, homes[MANY]]
    both = in_turn(lambda: process(_shown(homes[MANY])).seconds, lambda: process(parse).seconds, pairs)
    what, against = f"`ucl fleet status`, {MANY:,} connections", f"parsing {MANY:,} certificates alone"
    yield Result("fleet-status", what, against, both.ratio, "×", 2, details=both.described())

    peaks = in_turn(
        lambda: process(_shown(homes[MANY])).peak_bytes, lambda: process(_shown(homes[FEWER])).peak_bytes, 2
    )
    what, details = f"peak memory of `ucl fleet status`, {MANY:,} connections", peaks.described()
    yield Result("fleet-status-memory", what, f"the same, {FEWER:,}", peaks.ratio, "×", 1.5, details=details)


def _shown(home: Path) -> list[str | Path]:
    return [UCL, "fleet", "status", "--home", home]


def _make_key() -> None:
    make_key(BITS)  # it stays in that process: a key is not sent


def _cpu_seconds(pid: int) -> float:
    """What a process that runs has had of the CPU, in user and in kernel mode; Linux only."""
    after_name = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
