"""Pictures of a fleet: validities as a timeline, due dates as a histogram, simulated years beside each other.

Time runs in days (or hours) from the moment of looking, UTC, so that the same fleet gives the same picture on any day.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Protocol

from ucl_helpers.connection.status import Status
from ucl_helpers.models import Due, Validity
from ucl_helpers.tables import Row, moment
from ucl_helpers.views.drawing import BLUE, FINE, GREY, INK, LATE, ORANGE, Axes, Picture, beside, picture, whole_numbers

MOST_BARS, MOST_BINS = 40, 30
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SHORT = 3 * DAY


class Simulated(Protocol):
    """A year as :mod:`ucl_helpers.fleet.simulation` makes it."""

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
    unit, steps = scale(ends)

    def draw(axes: Axes) -> None:
        for row, (one, validity, due) in enumerate(shown):
            left, right, mark = (steps(at - one.now) for at in (validity.not_before, validity.not_after, due.at))
            good = one.state == "valid"
            axes.barh(row, right - left, left=left, height=0.6, **(FINE if good else LATE))
            axes.plot(mark, row, "D", color=INK, markersize=6, label="" if row else "renewal due from here on")
            beside(axes, right, row, "" if good else one.state)
        axes.axvline(0, color=INK, linestyle="--", label="now")
        low, high = min([0.0, *map(steps, ends)]), max([0.0, *map(steps, ends)])
        axes.set_xlim(low - 0.03 * (high - low) - 0.01, high + 0.1 * (high - low) + 0.01)  # room for a word
        axes.set(yticks=range(len(shown)), yticklabels=[one.name for one, _, _ in shown], xlabel=f"{unit} from now")
        axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.set_title(title)
        axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)

    title = f"Validity of {_of(len(shown), len(statuses))}"
    rows = [(one.name, one.state, moment(validity.not_after), moment(due.at)) for one, validity, due in shown]
    header = ("connection", "state", "valid to", "renewal due")
    what = f"A bar for each certificate, in {unit} from now; a diamond from where on its renewal is due."
    return picture(draw, 1.4 + 0.32 * max(len(shown), 1), title, what, [header, *rows])


def due_dates(statuses: Sequence[Status]) -> Picture:
    """How many connections become due when: what is overdue stands left of now."""
    found = [due.at - one.now for one, _, due in _dated(statuses)]
    unit, steps = scale(found)
    values = [steps(one) for one in found]
    width = max(math.ceil((max(values, default=0) - min(values, default=0)) / MOST_BINS), 1)
    first = math.floor(min(values, default=0) / width) * width
    edges = [first + width * number for number in range(math.ceil((max(values, default=0) - first) / width + 0.5) + 1)]

    def draw(axes: Axes) -> None:
        axes.hist([one for one in values if one >= 0], bins=edges, label="due later", **FINE)
        if overdue:
            axes.hist([one for one in values if one < 0], bins=edges, label="overdue", **LATE)
        axes.axvline(0, color=INK, linestyle="--", label="now")
        whole_numbers(axes)
        axes.set(xlabel=f"{unit} from now until a renewal is due", ylabel="connections")
        axes.grid(axis="y")
        axes.set_title(title)
        axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)

    title, overdue = f"Due dates of {_of(len(found), len(statuses))}", sum(one < 0 for one in values)
    told = f"{title}: {overdue} overdue, {len(values) - overdue} later"
    what = f"A histogram of the {unit} from now until a renewal is due; what is overdue is hatched."
    return picture(draw, 3.2, told, what, [(f"{unit} from now", "connections"), *_counted(values, edges)])


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
            values, edges = _stretch(year, days)
            panel.stairs(values, edges, fill=True, color=BLUE, edgecolor=INK, linewidth=0.3)
            panel.set(ylim=(0, 1.05 * top), xlim=(edges[0], edges[-1]))
            marks = _mark(panel, year.fleet)
            panel.set_title(_busiest(label, year) + (f" ({'; '.join(marks)})" if marks else ""))
            whole_numbers(panel, most=4)
            panel.grid(axis="y")
        panels[-1].set_xlabel("day of the year")
        figure.supylabel(f"renewals in {'the busiest hour of the day' if days is None else 'an hour'}", fontsize=10)

    rows = [(label, f"{year.peak:,}") for label, year in years.items()]
    title = f"Renewals of {' and of '.join(years)}"
    what = "Renewals over the days of the year, a panel for each, all to one scale."
    header = ("simulated", "renewals in the busiest hour")
    return picture(draw, 0.6 + 1.6 * len(years), title, what, [header, *rows])


def _stretch(year: Simulated, days: tuple[float, float] | None) -> tuple[Sequence[float], list[float]]:
    """By day for all of it, by hour for some days: the values, and where each begins and the last ends, in days."""
    if days is None:
        return year.days, list(range(len(year.days) + 1))
    first, last = (int(day * 24) for day in days)
    values = year.renewals[first:last]
    return values, [(first + number) / 24 for number in range(len(values) + 1)]


def _counted(values: Sequence[float], edges: Sequence[float]) -> list[Row]:
    """How many values lie from each edge to the next, where there are any."""
    rows: list[Row] = []
    for left, right in pairwise(edges):
        number = sum(left <= one < right or one == right == edges[-1] for one in values)
        rows += [(f"{left:g} to {right:g}", str(number))] * bool(number)
    return rows


def _busiest(label: str, year: Simulated) -> str:
    return f"{label}: {year.peak:,} in the busiest hour"


def _mark(panel: Axes, fleet: Any) -> list[str]:
    """Draw outages and the limit; returns what says how they look."""
    for at, length in fleet.outages:
        panel.axvspan(at / DAY, (at + length) / DAY, color=GREY, alpha=0.4, hatch="xx", linewidth=0)
    if fleet.per_hour:
        panel.axhline(fleet.per_hour, color=ORANGE, linestyle="--")
    return ["hatched: outage"] * bool(fleet.outages) + ["dashed: limit"] * bool(fleet.per_hour)


def _dated(statuses: Sequence[Status]) -> list[tuple[Status, Validity, Due]]:
    """Those with a certificate, with its dates."""
    return [(one, one.validity, one.due) for one in statuses if one.validity is not None and one.due is not None]


def _of(shown: int, there: int) -> str:
    number = f"{shown}" if shown == there else f"{shown} of {there}"
    return f"{number} connection" if there == 1 else f"{number} connections"


def scale(lengths: Sequence[timedelta]) -> tuple[str, Callable[[timedelta], float]]:
    """The unit that suits them, and what turns a length into it: in steps that are too small to be seen."""
    longest = max(map(abs, lengths), default=DAY)
    name, unit = ("hours", HOUR) if longest < SHORT else ("days", DAY)
    digits = 2 - math.floor(math.log10(max(longest / unit, 1)))
    return name, lambda length: round(length / unit, digits) + 0.0
