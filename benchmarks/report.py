"""Lines of the table as JSON, as Markdown and as a picture; and quoted where the README has room for them.

``results.json`` is what was measured; the other two are made of it. Some modules run again replace their own lines and
leave the others as they were, each with the day and the commit it was measured on: as long as the machine is the same.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measuring import Result
from ucl_helpers.views.drawing import FINE, INK, LATE, Axes, Picture, beside, picture

Line = Mapping[str, Any]
MODULES = ("renewing", "starting", "fleets", "calling", "simulating", "remembering", "growing")
"""In the order of the table."""

HEADER = ("what", "against", "measured", "to reach", "reached")
"""Of the columns."""

_QUOTED = re.compile(r"(<!-- benchmarks: ([\w -]+) -->\n).*?(<!-- end of benchmarks -->)", re.DOTALL)
_WIDEST = 3.0  # a bar that would be longer ends here; what stands beside it says how long it is
_STYLE = "<style>svg:root{color:#1f2328}@media(prefers-color-scheme:dark){svg:root{color:#e6edf3}}</style>"


def line(result: Result, module: str, date: str, commit: str) -> Line:
    """A result as it is kept."""
    return {**asdict(result), "reached": result.reached, "module": module, "date": date, "commit": commit}


def merged(kept: Mapping[str, Any] | None, machine: Mapping[str, str], lines: Sequence[Line]) -> dict[str, Any]:
    """The lines of the modules that ran, and of the others what was kept; in the order of :data:`MODULES`.

    Raises:
        ValueError: what is kept was measured on another machine, or with other versions, and would stay in part.
    """
    ran = {one["module"] for one in lines}
    others = [one for one in (kept or {}).get("lines", ()) if one["module"] not in ran]
    if kept and others and kept["machine"] != dict(machine):
        raise ValueError(
            "What is kept was measured on another machine or with other versions: run all, or move it away."
        )
    every = sorted([*others, *lines], key=lambda one: MODULES.index(one["module"]))
    return {"machine": dict(machine), "lines": every}


def cells(one: Line) -> tuple[str, ...]:
    """A line of the table, as texts."""
    unit = f" {one['unit']}" if one["unit"] else ""
    more = " more" if one["unit"] == "s" else ""
    bound = "or less" if one["at_most"] else "or more"
    reached = "yes" if one["reached"] else "no"
    return (
        one["what"],
        one["against"],
        f"{one['measured']:.2f}{unit}{more}",
        f"{one['to_reach']:g}{unit} {bound}",
        reached,
    )


def markdown(lines: Iterable[Line], machine: Mapping[str, str]) -> str:
    """The table, and below it the machine and the days."""
    every = list(lines)
    rows = [HEADER, ("---",) * len(HEADER), *map(cells, every)]
    days = sorted({f"{one['date']} (commit {one['commit']})" for one in every})
    told = "; ".join(f"{name} {fact}" for name, fact in machine.items() if fact)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\nMeasured on {', '.join(days)}. {told}.\n"


def quoted(text: str, results: Mapping[str, Any]) -> str:
    """A page with the lines that it quotes as they were measured.

    They stand between ``<!-- benchmarks: NAME NAME -->`` and ``<!-- end of benchmarks -->``, in the order of the names.

    Raises:
        ValueError: a name is that of no line.
    """
    known = {one["name"]: one for one in results["lines"]}

    def found(quote: re.Match[str]) -> str:
        names = quote[2].split()
        if unknown := set(names) - set(known):
            raise ValueError(f"No line is named {', '.join(sorted(unknown))}.")
        return f"{quote[1]}{markdown((known[name] for name in names), results['machine'])}{quote[3]}"

    return _QUOTED.sub(found, text)


def drawn(lines: Sequence[Line]) -> Picture:
    """A bar a line: what was measured by what is to be reached. One that ends left of the line has reached it."""
    shares = [_share(one) for one in lines]
    names = [f"{one['name']}: {cells(one)[2]}" for one in lines]

    def draw(axes: Axes) -> None:
        for row, (one, share) in enumerate(zip(lines, shares, strict=True)):
            length = min(share, _WIDEST)
            axes.barh(row, length, **(FINE if one["reached"] else LATE))
            beside(axes, max(length, 1), row, f"{share:.2f}" + ("" if one["reached"] else ", not reached"))
        axes.axvline(1, color=INK, linewidth=1)
        axes.set(xlim=(0, _WIDEST * 1.25), xlabel="measured, as a share of what is to be reached (1)")
        axes.set_yticks(range(len(lines)), names)
        axes.invert_yaxis()

    title = "What was measured, by what is to be reached"
    description = "One bar for each line of the table; hatched ones go beyond the line at 1 and have not reached it."
    return picture(draw, 1.0 + 0.3 * len(lines), title, description, [HEADER, *map(cells, lines)])


def _share(one: Line) -> float:
    """What was measured by what is to be reached; where more is better, the other way round."""
    measured, to_reach = float(one["measured"]), float(one["to_reach"])
    return max(measured / to_reach if one["at_most"] else to_reach / measured, 0.0)


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "results.md").write_text(markdown(results["lines"], results["machine"]), "utf-8")
    start, rest = drawn(results["lines"]).svg.split(">", 1)
    (folder / "results.svg").write_text(f"{start}>{_STYLE}{rest}\n", "utf-8")
