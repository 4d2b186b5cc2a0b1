"""How the cost grows: with connections, with a connection's generations and events, with a notebook's cells.

A figure is the slope of the line that fits the logarithms of cost and size best: 1 when the cost is in proportion to
the size, 0 when it does not depend on it. Costs are seconds on the CPU, or bytes; each is the median of some rounds in
which all sizes have their turn.

A fixed part of the cost flattens the slope where sizes are small. So a cost that is to be in proportion is fitted over
the upper three sizes; what can be called is called in this process, and of a run that of one cell is taken off. What is
to be flat are commands, whole processes. What they do without Python's start does grow, and stands in the JSON: a look
through the events for a revocation, and before a renewal one through the folder of generations for leftovers.

A run's cost grows by more than the cells: it saves the whole notebook after each, so that one can see how far it is.

The folders lie in memory where the machine has a folder for that (:data:`MEMORY`): with ten thousand connections
everybody would wait for the disk, which CPU seconds do not tell.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.copying import copies
from benchmarks.homes import with_history
from benchmarks.measuring import Result, process
from benchmarks.serving import UCL, bench
from ucl_helpers import Connection
from ucl_helpers.connection.status import status_of
from ucl_helpers.fleet.plan import plan
from ucl_helpers.fleet.simulation import Fleet, simulate
from ucl_helpers.fleet.status import standing
from ucl_helpers.procedures.renewal import Renewal

LINEAR, FLAT, FITTED, MOST_ROUNDS = 1.1, 0.1, 3, 3
MOST_RUNS = 9  # of what is left when a run of one cell is taken off, a third is chance
CONNECTIONS, MOST = (10, 100, 1_000, 10_000), 100_000  # the most are looked at once: that takes a minute or two
MEMORY = Path("/dev", "shm")
RENEWALS, CELLS = (10, 100, 1_000, 10_000), (10, 50, 100, 200)
AGAIN = 20  # calls that take a millisecond or two are made so often for one figure

Costs = Mapping[int, float]


def results(pairs: int) -> Iterator[Result]:
    """Connections, then renewals of one connection, then cells."""
    rounds = min(pairs, MOST_ROUNDS)
    where = MEMORY if MEMORY.is_dir() else None
    with bench() as on, TemporaryDirectory(prefix="ucl-bench-", dir=where) as name:
        yield from _connections(on.connection, Path(name), rounds)
        yield from _renewals(on.connection, Path(name), rounds)
        yield from _cells(Path(name), min(pairs, MOST_RUNS))


def _connections(connection: Connection, folder: Path, rounds: int) -> Iterator[Result]:
    sizes = (*CONNECTIONS, MOST)
    homes = {count: copies(connection, folder / f"{count}", count, distinct=True) for count in sizes}
    status = _costs(lambda count: _cpu(lambda: standing(homes[count])), CONNECTIONS, rounds, once=MOST)
    yield _linear("growth-fleet-status", "the work of `ucl fleet status`", status, "connections")

    looks = _costs(lambda count: _cpu(lambda: plan(homes[count])), CONNECTIONS, rounds, once=MOST)
    yield _linear("growth-fleet-due", "a fleet's look at what is due", looks, "connections")

    years = _costs(lambda count: _cpu(lambda: simulate(Fleet(count))), sizes, rounds)
    yield _linear("growth-simulation", "a simulated year", years, "connections")


def _renewals(connection: Connection, folder: Path, rounds: int) -> Iterator[Result]:
    aged = {count: with_history(connection, folder / f"aged-{count}", count) for count in RENEWALS}
    for name, command, call in (("growth-status", "status", status_of), ("growth-renew", "renew", _begin)):
        whole = _costs(partial(_process, command, aged), RENEWALS, rounds)
        within = _described(_costs(partial(_each, call, aged), RENEWALS, rounds), "CPU seconds")
        details = {**_described(whole, "CPU seconds"), "without_the_start": within}
        what = f"growth of `ucl {command} NAME`, whole process" + (", not due" if command == "renew" else "")
        against = f"generations and events, {_spread(RENEWALS)}"
        yield Result(name, what, against, _slope(whole), "", FLAT, details=details)


def _cells(folder: Path, rounds: int) -> Iterator[Result]:
    costs = _costs(partial(_run, folder), (1, *CELLS), rounds)
    beyond = {count: costs[count] - costs[1] for count in CELLS}
    yield _linear("growth-run", "`ucl run`, beyond a notebook of one cell", beyond, "cells, each a print")
    sizes = {count: float((folder / f"{count}.ipynb").stat().st_size) for count in CELLS}
    yield _linear("growth-notebook", "size of the executed notebook", sizes, "cells", "bytes")


def _process(command: str, aged: Mapping[int, Connection], count: int) -> float:
    connection = aged[count]
    return process([UCL, command, connection.name, "--home", connection.home.path]).cpu_seconds


def _begin(connection: Connection) -> None:
    """What a renewal reads before it asks for its configuration; it is not due, so no key is begun."""
    Renewal.begin(connection, only_if_due=True)


def _each(call: Callable[[Connection], object], aged: Mapping[int, Connection], count: int) -> float:
    return _cpu(lambda: [call(aged[count]) for _ in range(AGAIN)]) / AGAIN


def _run(folder: Path, count: int) -> float:
    """CPU seconds of a run, the process that executes the cells included."""
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells = [{**cell, "id": f"cell-{number}", "source": f"print({number})"} for number in range(count)]
    notebook, executed = folder / f"cells-{count}.ipynb", folder / f"{count}.ipynb"
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook.write_text(json.dumps(content), "utf-8")
    return process([UCL, "run", notebook, "--output", executed, "--home", folder / "home"]).cpu_seconds


def _cpu(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _costs(cost: Callable[[int], float], sizes: Sequence[int], rounds: int, *, once: int | None = None) -> Costs:
    """By size, the median of some rounds, of one more size one; the smallest has been measured for nothing before."""
    cost(sizes[0])
    found = [[cost(size) for size in sizes] for _ in range(rounds)]
    costs = dict(zip(sizes, map(statistics.median, zip(*found, strict=True)), strict=True))
    return costs if once is None else {**costs, once: cost(once)}


def _slope(costs: Costs) -> float:
    return float(np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0])


def _linear(name: str, what: str, costs: Costs, of: str, unit: str = "CPU seconds") -> Result:
    upper = dict(list(costs.items())[-FITTED:])
    against = f"{of}, {_spread(list(upper))}"
    return Result(name, f"growth of {what}", against, _slope(upper), "", LINEAR, details=_described(costs, unit))


def _spread(sizes: Sequence[int]) -> str:
    return f"{sizes[0]:,} to {sizes[-1]:,}"


def _described(costs: Costs, unit: str) -> Mapping[str, Any]:
    """Each cost, and the slope from each to the next: where it bends can be seen."""
    told = {size: cost for size, cost in costs.items() if cost > 0}  # beyond a notebook of one cell there may be less
    slopes = [round(_slope(dict(two)), 3) for two in pairwise(told.items())]
    return {"unit": unit, "costs": {str(size): round(cost, 6) for size, cost in costs.items()}, "slopes": slopes}
