"""How this folder measures: two things in turn, in one run, so that what the machine does meanwhile falls on both.

A comparison is the ratio of the medians of pairs. Where both sides make a key each time, it is the ratio of the totals.
Chance decides how long a key takes, so the median of a few such times says little. The quartiles of the pairs' own
ratios are kept beside it. Processes are measured whole, from their start to their end, with the kernel's figures of
their time on the CPU and of their memory.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spent:
    """What a process took: seconds by the clock, seconds on the CPU, bytes of memory at its peak."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Pairs:
    """Two things measured in turn: of each, one figure a pair."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratio(self) -> float:
        """Our median over theirs."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def total_ratio(self) -> float:
        """Return our total over theirs: of so many renewals, what all of ours take beside all of theirs."""
        return sum(self.ours) / sum(self.theirs)

    @property
    def more(self) -> float:
        """Our median less theirs."""
        return statistics.median(self.ours) - statistics.median(self.theirs)

    def described(self) -> dict[str, Any]:
        """Return for the JSON: totals, medians, and the quartiles of the pairs' ratios."""
        ratios = [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return {
            "pairs": len(ratios),
            "totals": [round(sum(self.ours), 3), round(sum(self.theirs), 3)],
            "ours": round(statistics.median(self.ours), 6),
            "theirs": round(statistics.median(self.theirs), 6),
            "quartiles": [round(cut, 3) for cut in statistics.quantiles(ratios, n=4)] if len(ratios) > 1 else ratios,
        }


@dataclass(frozen=True)
class Result:
    """A line of the table.

    Attributes:
        name: short, unique: ``renew``.
        what: is measured, as the table says it.
        against: what it is compared with.
        measured: the figure, in ``unit``.
        unit: ``×``, ``s`` (more than the other), ``%``, or empty.
        to_reach: the figure that is to be reached.
        at_most: whether a smaller figure is better.
        details: for the JSON; :meth:`Pairs.described` for one.
    """

    name: str
    what: str
    against: str
    measured: float
    unit: str
    to_reach: float
    at_most: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether the figure is what it is to be."""
        return self.measured <= self.to_reach if self.at_most else self.measured >= self.to_reach


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> Pairs:
    """Measure both once for nothing (compiled files, the disk's cache), then in alternating pairs."""
    ours(), theirs()
    figures = [(ours(), theirs()) if number % 2 else (theirs(), ours())[::-1] for number in range(pairs)]
    return Pairs([first for first, _ in figures], [second for _, second in figures])


def process(argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Spent:
    """Run a command to its end; what it prints goes nowhere.

    Time and peak are those of the command and of what it waited for; the peak is that of the largest of them. A small
    process starts it: to the kernel a process is at least as large as the one it was started by.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    starter = [sys.executable, "-I", "-S", "-c", _START, *argv]
    done = subprocess.run(starter, env=environment, capture_output=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, argv, stderr=done.stderr)
    seconds, cpu_seconds, peak_bytes = done.stdout.split()
    return Spent(float(seconds), float(cpu_seconds), int(peak_bytes))


_START = """
import os, sys, time
begin = time.perf_counter()
silent = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
started = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[silent])
_, status, usage = os.wait4(started, 0)
print(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
