"""Pictures of a fleet: validities as a timeline, due dates as a histogram, simulated years beside each other.

Time runs in days (or hours) from the moment of looking, UTC, so that the same fleet gives the same picture on any day.
What colour says is also said by form or in words, and each picture has its text. matplotlib, which takes a second to
import, is needed here and nowhere else.
"""

import io
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from ucl_helpers.errors import UsageError
from ucl_helpers.models import Due, Validity
from ucl_helpers.show import moment
from ucl_helpers.status import Status

try:
    from matplotlib import style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ModuleNotFoundError:
    raise UsageError("Pictures need matplotlib.", remedy="Install it with: pip install 'ucl-helpers[lab]'") from None

MOST_BARS, MOST_BINS, WIDTH, DPI = 40, 30, 9.0, 100
BLUE, ORANGE, GREY, DARK = "#56b4e9", "#e69f00", "#999999", "#222222"  # told apart by the colour-blind (Okabe and Ito)
FINE: dict[str, Any] = {"color": BLUE, "edgecolor": DARK, "linewidth": 0.5}
LATE: dict[str, Any] = {**FINE, "color": ORANGE, "hatch": "///"}
STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.6,
}
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SHORT = 3 * DAY


@dataclass(frozen=True)
class Picture:
    """A PNG, and in words what is to be seen on it."""

    png: bytes = field(repr=False)
    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        return {"image/png": b64encode(self.png).decode(), "text/plain": self.text}


class Simulated(Protocol):
    """A year as :mod:`ucl_helpers.automation.simulation` makes it."""

    @property
    def renewals(self) -> Any:
        """For each hour."""

    @property
    def days(self) -> Any:
        """For each day, the renewals in its busiest hour."""

    @property
    def peak(self) -> int:
        """Renewals in the busiest hour of all."""

    @property
    def fleet(self) -> Any:
        """``outages`` and ``per_hour``."""


def timeline(statuses: Sequence[Status]) -> Picture:
    """Each certificate's validity as a bar, with the moment from which its renewal is due; the next to end first.

    Of a large fleet those that end first are shown. A connection without a certificate has no bar.
    """
    found = sorted(_dated(statuses), key=lambda one: (one[1].not_after, one[0].name))
    shown = found[:MOST_BARS]
    ends = [end - one.now for one, validity, _ in shown for end in (validity.not_before, validity.not_after)]
    unit, steps = _scale(ends)

    def draw(axes: Axes) -> None:
        for row, (one, validity, due) in enumerate(shown):
            left, right, mark = (steps(at - one.now) for at in (validity.not_before, validity.not_after, due.at))
            good = one.state == "valid"
            axes.barh(row, right - left, left=left, height=0.6, **(FINE if good else LATE))
            axes.plot(mark, row, "D", color=DARK, markersize=6, label="" if row else "renewal due from here on")
            axes.text(right, row, "" if good else f" {one.state}", va="center")
        axes.axvline(0, color=DARK, linestyle="--", label="now")
        low, high = min([0.0, *map(steps, ends)]), max([0.0, *map(steps, ends)])
        axes.set_xlim(low - 0.03 * (high - low) - 0.01, high + 0.1 * (high - low) + 0.01)  # room for a word
        axes.set(yticks=range(len(shown)), yticklabels=[one.name for one, _, _ in shown], xlabel=f"{unit} from now")
        axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.set_title(title)
        axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)

    title = f"Validity of {_of(len(shown), len(statuses))}"
    lines = [f"{one.name}: to {moment(validity.not_after)}, due {moment(due.at)}" for one, validity, due in shown]
    return _picture(draw, 1.4 + 0.32 * max(len(shown), 1), "\n".join([title, *lines]))


def due_dates(statuses: Sequence[Status]) -> Picture:
    """How many connections become due when: what is overdue stands left of now."""
    found = [due.at - one.now for one, _, due in _dated(statuses)]
    unit, steps = _scale(found)
    values = [steps(one) for one in found]
    width = max(math.ceil((max(values, default=0) - min(values, default=0)) / MOST_BINS), 1)
    first = math.floor(min(values, default=0) / width) * width
    edges = [first + width * number for number in range(math.ceil((max(values, default=0) - first) / width + 0.5) + 1)]

    def draw(axes: Axes) -> None:
        axes.hist([one for one in values if one >= 0], bins=edges, label="due later", **FINE)
        if overdue:
            axes.hist([one for one in values if one < 0], bins=edges, label="overdue", **LATE)
        axes.axvline(0, color=DARK, linestyle="--", label="now")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(xlabel=f"{unit} from now until a renewal is due", ylabel="connections")
        axes.grid(axis="y")
        axes.set_title(title)
        axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)

    title, overdue = f"Due dates of {_of(len(found), len(statuses))}", sum(one < 0 for one in values)
    return _picture(draw, 3.2, f"{title}: {overdue} overdue, {len(values) - overdue} later")


def renewals(years: Mapping[str, Simulated], days: tuple[float, float] | None = None) -> Picture:
    """Simulated years below each other, to one scale.

    Args:
        years: by what tells them apart.
        days: which stretch to show, hour by hour; None for all of it, by day: the renewals in its busiest hour.
    """
    top = max(one.peak for one in years.values()) or 1

    def draw(axes: Axes) -> None:
        figure = axes.figure
        figure.delaxes(axes)
        panels = figure.subplots(len(years), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (label, year) in zip(panels, years.items(), strict=True):
            values, hours = (year.days, 24) if days is None else (year.renewals, 1)
            edges = [number * hours / 24 for number in range(len(values) + 1)]
            panel.stairs(values, edges, fill=True, color=BLUE, edgecolor=DARK, linewidth=0.3)
            panel.set(ylim=(0, 1.05 * top), xlim=days or (0, edges[-1]))
            marks = _mark(panel, year.fleet)
            panel.set_title(_busiest(label, year) + (f" ({'; '.join(marks)})" if marks else ""))
            panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            panel.grid(axis="y")
        panels[-1].set_xlabel("day of the year")
        figure.supylabel(f"renewals in {'the busiest hour of the day' if days is None else 'an hour'}", fontsize=10)

    return _picture(draw, 0.6 + 1.6 * len(years), "\n".join(map(_busiest, years, years.values())))


def _busiest(label: str, year: Simulated) -> str:
    return f"{label}: {year.peak:,} in the busiest hour"


def _mark(panel: Axes, fleet: Any) -> list[str]:
    """Draw outages and the limit; returns what says how they look."""
    for at, length in fleet.outages:
        panel.axvspan(at / DAY, (at + length) / DAY, color=GREY, alpha=0.4, hatch="xx", linewidth=0)
    if fleet.per_hour:
        panel.axhline(fleet.per_hour, color=ORANGE, linestyle="--")
    return ["hatched: outage"] * bool(fleet.outages) + ["dashed: limit"] * bool(fleet.per_hour)


def _picture(draw: Callable[[Axes], None], height: float, text: str) -> Picture:
    """What is drawn, whatever a user's matplotlibrc says."""
    with style.context(["default", STYLE]):
        figure, png = Figure(figsize=(WIDTH, height), layout="constrained"), io.BytesIO()
        draw(figure.subplots())
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(png.getvalue(), text)


def _dated(statuses: Sequence[Status]) -> list[tuple[Status, Validity, Due]]:
    """Those with a certificate, with its dates."""
    return [(one, one.validity, one.due) for one in statuses if one.validity is not None and one.due is not None]


def _of(shown: int, there: int) -> str:
    return f"{shown} connections" if shown == there else f"{shown} of {there} connections"


def _scale(lengths: Sequence[timedelta]) -> tuple[str, Callable[[timedelta], float]]:
    """The unit that suits them, and what turns a length into it: in steps that are too small to be seen."""
    longest = max(map(abs, lengths), default=DAY)
    name, unit = ("hours", HOUR) if longest < SHORT else ("days", DAY)
    digits = 2 - math.floor(math.log10(max(longest / unit, 1)))
    return name, lambda length: round(length / unit, digits) + 0.0
