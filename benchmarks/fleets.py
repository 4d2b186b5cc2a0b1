"""A fleet's renewal beside the making of its keys, and ``ucl fleet status`` beside the reading of its certificates.

What renews makes keys most of the time. Both sides make keys of 4096 bits by the same function in the same processes,
one a core; these have been started before. The sandbox works on the same cores, so the time that it had on the CPU,
divided by their number, is subtracted from the fleet's. The pace is no limit here.

Of two hundred keys a side the mean still varies by seven percent, which is more than what is to be measured. So the
figure is put together of two that vary less: the mean of all keys that are made alone, and the time of the same
renewals with keys that were made before.

The connections are copies of one. Where they are renewed all have the same identity. Where they are only read, each
certificate differs in the last bytes of its signature, so that no parsed certificate can be used for the next one.
"""

import os
import shutil
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

from benchmarks.measuring import Result, in_turn, process
from benchmarks.renewing import make_key_before
from benchmarks.serving import UCL, Bench, bench
from ucl_helpers import Connection, Home
from ucl_helpers.fleet.executors import Workers, processes
from ucl_helpers.fleet.plan import alone, plan
from ucl_helpers.fleet.run import renew_fleet
from ucl_helpers.keys import make_key

CORES, BITS, KEYS, MOST_PAIRS, NO_LIMIT = 2, 4096, 24, 8, 1e6
CONNECTIONS, MOST_READINGS = 10_000, 5
PARSE = """
import sys
from pathlib import Path
from cryptography import x509
for folder in Path(sys.argv[1], "connections").iterdir():
    x509.load_pem_x509_certificate((folder / "current" / "certificate.pem").read_bytes())
"""


def results(pairs: int) -> Iterator[Result]:
    """First the renewal, then the status."""
    with bench() as on:
        yield renewal(on, min(pairs, MOST_PAIRS))
        home = copies(on.connection, on.folder / "many", CONNECTIONS, distinct=True).path
        shown: list[str | Path] = [UCL, "fleet", "status", "--home", home]
        parse: list[str | Path] = [sys.executable, "-c", PARSE, home]
        both = in_turn(lambda: process(shown).seconds, lambda: process(parse).seconds, min(pairs, MOST_READINGS))
        what, against = (
            f"`ucl fleet status`, {CONNECTIONS:,} connections",
            f"parsing {CONNECTIONS:,} certificates alone",
        )
        yield Result("fleet-status", what, against, both.ratio, "×", 8, details=both.described())


def renewal(on: Bench, pairs: int) -> Result:
    """Return the share of the keys in the time of a fleet's renewal."""
    workers = processes(CORES)
    with workers.executor:
        with_key = copies(on.connection, on.folder / "with-key", 1).connections()[0]
        make_key_before(with_key)
        both = in_turn(lambda: renew_copies(on, workers, with_key), lambda: make_keys(workers), pairs)
    keys, beside = statistics.mean(both.theirs), statistics.median(both.ours)
    details = {
        **both.described(),
        "keys_a_side": KEYS * pairs,
        "seconds_a_key": round(keys * CORES / KEYS, 4),
        "seconds_beside_the_key": round(beside * CORES / KEYS, 4),
        "left_out": "CPU time of the sandbox, divided by the cores",
    }
    what, against = f"a fleet's renewals, {CORES} cores, {BITS} bits, without the server", "making its keys alone"
    share = 100 * keys / (keys + beside)
    return Result("fleet-renew", what, against, share, "%", 92, at_most=False, details=details)


def renew_copies(on: Bench, workers: Workers, connection: Connection) -> float:
    """Return the seconds that renewals of copies of a connection take, without the sandbox's share."""
    home = copies(connection, on.folder / "fleet", KEYS)
    spent, begin = cpu_seconds(on.access.pid), time.perf_counter()
    with alone(home):
        outcome = renew_fleet(plan(home, force=True), workers, rate=NO_LIMIT)
    seconds = time.perf_counter() - begin
    assert outcome.exit_code == 0, str(outcome)
    return seconds - (cpu_seconds(on.access.pid) - spent) / CORES


def make_keys(workers: Workers) -> float:
    """Return the seconds that as many keys and nothing else take."""
    begin = time.perf_counter()
    made = wait([workers.executor.submit(make_unused_key) for _ in range(KEYS)])
    seconds = time.perf_counter() - begin
    assert not any(future.exception() for future in made.done)
    return seconds


def make_unused_key() -> None:
    """Make a key that stays in its process: a key is not sent."""
    make_key(BITS)


def cpu_seconds(pid: int) -> float:
    """Return the time that a running process has had on the CPU, in user and in kernel mode; Linux only."""
    after_name = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def copies(connection: Connection, folder: Path, count: int, *, distinct: bool = False) -> Home:
    """Make a home folder with copies of a connection; an older one is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    home = Home(folder)
    home.new("copied-00000")  # makes the folders above, as they have to be
    leaf = (connection.path / "current" / "certificate.pem").read_bytes()
    for number in range(count):
        copy = home.path / "connections" / f"copied-{number:05d}"
        shutil.copytree(connection.path, copy, symlinks=True, dirs_exist_ok=True)
        if distinct:
            signature = ssl.PEM_cert_to_DER_cert(leaf.decode())[:-8] + number.to_bytes(8)
            other = ssl.DER_cert_to_PEM_cert(signature).encode()
            for path in copy.rglob("*.pem"):
                path.write_bytes(path.read_bytes().replace(leaf, other))
    return home
