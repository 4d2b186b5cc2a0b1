"""How much memory it takes at most: of a process and those it waits for, the largest one.

A run of a notebook is two processes, here as with papermill; the larger one counts on both sides.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measuring import Result, in_turn, process
from benchmarks.renewing import NOTEBOOK
from benchmarks.serving import CONNECTION, bench
from benchmarks.starting import THEIRS

OURS = "import ucl_helpers.cli.main, ucl_helpers.cli.keep, ucl_helpers.wire.adapter"
LIMIT, MOST_PAIRS = 1.2, 5  # it hardly differs from one time to the next


def results(pairs: int) -> Iterator[Result]:
    """The resident set at its peak, in bytes."""
    with bench() as on:
        renewal = ("renew", CONNECTION, "--force")
        notebook = ("run", NOTEBOOK, "-p", "connection", CONNECTION)
        imports = [on.programs / "python", "-c", OURS], "python, and all that it imports"
        libraries = [on.programs / "python", "-c", THEIRS], f"`python -c '{THEIRS}'`"
        empty = on.empty_run(), "an empty papermill run"
        for name, what, command, (theirs, against) in (
            ("memory-renew", "`ucl renew`", renewal, imports),
            ("memory-renew-all", "`ucl renew`", renewal, libraries),
            ("memory-run", f"`ucl run {NOTEBOOK}`", notebook, empty),
        ):
            peaks = in_turn(partial(_peak, on.ucl(*command)), partial(_peak, theirs), min(pairs, MOST_PAIRS))
            yield Result(name, f"peak memory of {what}", against, peaks.ratio, "×", LIMIT, details=peaks.described())


def _peak(command: Sequence[str | Path]) -> float:
    return process(command).peak_bytes
