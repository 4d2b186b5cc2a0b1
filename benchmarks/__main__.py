"""``python -m benchmarks [NAME ...] [--pairs N]``: measure, print a table, and keep it in ``benchmarks/results``."""

import argparse
import compileall
import json
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.report import HEADER, MODULES, cells, commit, line, machine, merged, write

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAIRS = 31


def main() -> None:
    """Run the modules that are named, or all; what has been measured is kept when a module has come to its end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *MODULES], help=", ".join(MODULES))
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"measured in turn, at least 2 [default: {PAIRS}]")
    given = parser.parse_args()
    if given.pairs < 2:
        parser.error("--pairs is at least 2")
    compileall.compile_dir(ROOT / "ucl_helpers", quiet=1)  # as an installed package is
    compileall.compile_file(ROOT / "ucl_private_files.py", quiet=1)
    path, facts, revision = RESULTS / "results.json", machine(), commit()
    kept = json.loads(path.read_text("utf-8")) if path.exists() else None
    if kept and kept["machine"] != facts:
        if given.names:
            parser.error("what is kept was measured on another machine, or with other versions: run all, without names")
        kept = None
    print(" | ".join(("name", *HEADER)), flush=True)
    for name in given.names or MODULES:
        lines = []
        for result in import_module(f"benchmarks.{name}").results(given.pairs):
            lines.append(line(result, name, f"{datetime.now(UTC):%Y-%m-%d}", revision))
            print(" | ".join((result.name, *cells(lines[-1]))), flush=True)
        kept = merged(kept, facts, lines)
        write(kept, RESULTS)


if __name__ == "__main__":
    main()
