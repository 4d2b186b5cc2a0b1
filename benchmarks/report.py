"""Lines of the table as JSON and as Markdown.

``results.json`` has what was measured, and ``results.md`` is made of it. If only some modules run, they replace their
own lines and leave the others as they were, each with the day and the commit it was measured on. All have to be from
the same machine.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.backends.openssl import backend

from benchmarks.measuring import Result

Line = Mapping[str, Any]
MODULES = ("renewing", "starting", "fleets", "calling")
"""In the order of the table."""

HEADER = ("what", "against", "measured", "to reach", "reached")
"""Of the columns."""


def line(result: Result, module: str, date: str, commit: str) -> Line:
    """A result as it is kept."""
    return {**asdict(result), "reached": result.reached, "module": module, "date": date, "commit": commit}


def merged(kept: Mapping[str, Any] | None, machine: Mapping[str, str], lines: Sequence[Line]) -> dict[str, Any]:
    """The lines of the modules that ran, and of the others what was kept; in the order of :data:`MODULES`.

    Raises:
        ValueError: what is kept was measured on another machine, or with other versions, and would stay in part.
    """
    ran = {row["module"] for row in lines}
    others = [row for row in (kept or {}).get("lines", ()) if row["module"] not in ran]
    if kept and others and kept["machine"] != dict(machine):
        raise ValueError(
            "What is kept was measured on another machine or with other versions: run all, or move it away."
        )
    every = sorted([*others, *lines], key=lambda row: MODULES.index(row["module"]))
    return {"machine": dict(machine), "lines": every}


def cells(row: Line) -> tuple[str, ...]:
    """A line of the table, as texts."""
    unit = f" {row['unit']}" if row["unit"] else ""
    more = " more" if row["unit"] == "s" else ""
    bound = "or less" if row["at_most"] else "or more"
    reached = "yes" if row["reached"] else "no"
    return (
        row["what"],
        row["against"],
        f"{row['measured']:.2f}{unit}{more}",
        f"{row['to_reach']:g}{unit} {bound}",
        reached,
    )


def markdown(lines: Iterable[Line], machine: Mapping[str, str]) -> str:
    """The table, and below it the machine and the days."""
    every = list(lines)
    rows = [HEADER, ("---",) * len(HEADER), *map(cells, every)]
    days = sorted({f"{row['date']} (commit {row['commit']})" for row in every})
    machine_facts = "; ".join(f"{name} {fact}" for name, fact in machine.items() if fact)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\nMeasured on {', '.join(days)}. {machine_facts}.\n"


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write both files."""
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "results.md").write_text(markdown(results["lines"], results["machine"]), "utf-8")


def machine() -> dict[str, str]:
    """Return the processor, the memory, and the versions of the programs that do the work."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    return {
        "CPU": processor[1] if processor else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "OpenSSL within cryptography": backend.openssl_version_text().split()[1],
        "openssl": _output("openssl", "version").split()[1],
        "curl": _output("curl", "--version").split()[1],
    }


def commit() -> str:
    """Return the measured commit, marked if something of it is not committed; empty outside of a repository."""
    revision = _output("git", "rev-parse", "--short", "HEAD").strip()
    return revision + (", changed" if revision and _output("git", "status", "--porcelain", "-uno") else "")


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout
