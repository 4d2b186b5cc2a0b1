"""Draw pictures of connections by matplotlib: timelines, due dates, simulated years, one connection's generations.

A picture is an ``<img>`` that contains SVG, because JupyterLab removes inline SVG from an untrusted notebook. Such an
image cannot take its colours from the page, so they can be read on light and on dark pages. A table below says the
same. Time runs in days or hours from now, UTC, so that the same fleet gives the same picture on any day. matplotlib,
which takes a second to import, is needed here and nowhere else.
"""

import base64
import io
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.status import Status
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import UCLError, UsageError
from ucl_helpers.extras import missing
from ucl_helpers.models import Due, Validity
from ucl_helpers.tables import Row, moment, text_table
from ucl_helpers.views.markup import Html, element, safe, table
from ucl_private_files import others_can_write

with suppress(OSError):
    _status = Path("matplotlibrc").lstat()  # matplotlib reads this file of the current folder when it is imported
    _is_ours = _status.st_uid in {os.geteuid(), 0} and not others_can_write(_status)
    if not stat.S_ISDIR(_status.st_mode) and not (stat.S_ISREG(_status.st_mode) and _is_ours):
        raise UsageError(
            "matplotlib would read matplotlibrc in the current folder, and it is no file that only you can change.",
            remedy="Start in another folder, or remove matplotlibrc.",
        )

try:
    from matplotlib import style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ModuleNotFoundError:
    raise missing("matplotlib", "lab") from None


WIDTH = 9.0  # inches of 72 points
BLUE, ORANGE, GREY = "#4aa3df", "#e69f00", "#8a8f98"  # distinct for colour-blind readers, on light and dark pages
INK = "#70767e"  # 4.6:1 on white, 4.1:1 on JupyterLab's dark page
MARK: dict[str, Any] = {"color": "#f4f5f7", "markeredgecolor": "#30353b", "markeredgewidth": 1.5, "markersize": 8}
FINE: dict[str, Any] = {"color": BLUE, "edgecolor": INK, "linewidth": 0.5}
LATE: dict[str, Any] = {**FINE, "color": ORANGE, "hatch": "///"}
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.alpha": 0.35,
    "grid.color": GREY,
    "hatch.linewidth": 1.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "ucl",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
_STYLE_LOCK = Lock()  # a style is set for all threads
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Picture:
    """A picture, its title, and a table that says the same.

    Attributes:
        svg: an SVG document.
        title: what it shows.
        description: how it is drawn, for screen readers.
        facts: the table, its header first.
        table_title: of the folded table.
    """

    svg: str = field(repr=False)
    title: str
    description: str
    facts: Sequence[Row]
    table_title: str = "The same as a table"

    def __str__(self) -> str:
        return f"{self.title}\n{text_table(self.facts)}" if self.facts[1:] else self.title

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        return {"text/plain": str(self), "text/html": self.html}

    @property
    def html(self) -> Html:
        """Return the picture, and below it the folded table."""
        head = element("summary", self.table_title)
        header, *rows = self.facts
        more = [element("details", head, table(header, rows))] if rows else []
        source = f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"
        image = Html(f'<img src="{source}" alt="{safe(f"{self.title}. {self.description}")}" style="max-width:100%">')
        style = "margin:0.3em 0;max-width:60em;overflow-x:auto"
        return element("figure", image, *more, class_="mathjax_ignore tex2jax_ignore", style=style)


def picture(draw: Callable[[Axes], None], height: float, title: str, description: str, facts: Sequence[Row]) -> Picture:
    """Draw a picture. The user's matplotlibrc has no effect, and the same facts give the same picture.

    Args:
        draw: draws on the axes.
        height: in inches; the width is :data:`WIDTH`.
        title: what it shows.
        description: how it is drawn, for screen readers.
        facts: the table that says the same, its header first.
    """
    with _STYLE_LOCK, style.context(["default", _STYLE]):
        figure, svg = Figure(figsize=(WIDTH, height), layout="constrained"), io.StringIO()
        draw(figure.subplots())
        figure.savefig(svg, format="svg", transparent=True, metadata=_NO_METADATA)
    return Picture("<svg" + svg.getvalue().partition("<svg")[2].rstrip(), title, description, facts)


def beside(axes: Axes, right: float, row: float, word: str) -> None:
    """Write a word beside the right end of a bar."""
    axes.annotate(word, (right, row), xytext=(4, 0), textcoords="offset points", va="center")


def label_rows(axes: Axes, names: Sequence[str], unit: str, title: str) -> None:
    """Name the rows of a chart of bars from top to bottom, mark the present moment, and add title and legend."""
    axes.axvline(0, color=INK, linestyle="--", label="now")
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=f"{unit} from now")
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_title(title)
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)


def whole_numbers(axes: Axes, most: int = 10) -> None:
    """Label the vertical axis with whole numbers, with commas at the thousands."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(_THOUSANDS)


MOST_BARS, MOST_BINS = 40, 30
MOST_ALIKE = 10  # peaks that differ by a larger factor are drawn on a logarithmic scale
NO_RENEWAL = 0.7  # where a logarithmic scale, which has no 0, begins
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def timeline(statuses: Sequence[Status]) -> Picture:
    """Draw each certificate's validity as a bar, with the moment when its renewal becomes due.

    Certificates that end first come first, and in a large fleet only these are shown. A connection without a
    certificate has no bar.
    """
    dated = sorted(_dated(statuses), key=lambda status: (status[1].not_after, status[0].name))
    shown = dated[:MOST_BARS]
    ends = [end - status.now for status, validity, _ in shown for end in (validity.not_before, validity.not_after)]
    unit, steps = scale(ends)

    def draw(axes: Axes) -> None:
        for row, (status, validity, due) in enumerate(shown):
            start, end, mark = (steps(at - status.now) for at in (validity.not_before, validity.not_after, due.at))
            good = status.state == "valid"
            axes.barh(row, end - start, left=start, height=0.6, **(FINE if good else LATE))
            axes.plot(mark, row, "D", **MARK, label="" if row else "renewal due from here on")
            beside(axes, end, row, "" if good else status.state)
        label_rows(axes, [status.name for status, _, _ in shown], unit, title)
        low, high = min([0.0, *map(steps, ends)]), max([0.0, *map(steps, ends)])
        axes.set_xlim(low - 0.03 * (high - low) - 0.01, high + 0.1 * (high - low) + 0.01)  # room for a word

    title = f"Validity of {_of(len(shown), len(statuses))}"
    rows = [(status.name, status.state, moment(validity.not_after), moment(due.at)) for status, validity, due in shown]
    header = ("connection", "state", "valid to", "renewal due")
    what = f"A bar for each certificate, in {unit} from now; a diamond from where on its renewal is due."
    return picture(draw, 1.4 + 0.32 * max(len(shown), 1), title, what, [header, *rows])


def due_dates(statuses: Sequence[Status]) -> Picture:
    """Draw a histogram of due dates. Overdue connections are left of now."""
    waits = [due.at - status.now for status, _, due in _dated(statuses)]
    unit, steps = scale(waits)
    values = [steps(wait) for wait in waits]
    width = max(math.ceil((max(values, default=0) - min(values, default=0)) / MOST_BINS), 1)
    first = math.floor(min(values, default=0) / width) * width
    edges = [first + width * number for number in range(math.ceil((max(values, default=0) - first) / width + 0.5) + 1)]

    def draw(axes: Axes) -> None:
        axes.hist([value for value in values if value >= 0], bins=edges, label="due later", **FINE)
        if overdue:
            axes.hist([value for value in values if value < 0], bins=edges, label="overdue", **LATE)
        axes.axvline(0, color=INK, linestyle="--", label="now")
        whole_numbers(axes)
        axes.set(xlabel=f"{unit} from now until a renewal is due", ylabel="connections")
        axes.grid(axis="y")
        axes.set_title(title)
        axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)

    title, overdue = f"Due dates of {_of(len(waits), len(statuses))}", sum(value < 0 for value in values)
    counts = f"{title}: {overdue} overdue, {len(values) - overdue} later"
    what = f"A histogram of the {unit} from now until a renewal is due; what is overdue is hatched."
    return picture(draw, 3.2, counts, what, [(f"{unit} from now", "connections"), *_counted(values, edges)])


def renewals(years: Mapping[str, Any], days: tuple[float, float] | None = None) -> Picture:
    """Draw simulated years below each other, to one scale. It is logarithmic if their peaks differ much.

    Args:
        years: years as :mod:`ucl_helpers.fleet.simulation` makes them, by a name for each.
        days: first and last day to show, hour by hour; None to show for each day the renewals in its busiest hour.
    """
    peaks = [max(year.peak, 1) for year in years.values()]
    top, is_logarithmic = max(peaks), max(peaks) > MOST_ALIKE * min(peaks)
    kind, bottom, room = ("log", NO_RENEWAL, 2) if is_logarithmic else ("linear", 0, 1.05)
    axis = "\n(logarithmic axis)" if is_logarithmic else ""

    def draw(axes: Axes) -> None:
        figure = axes.figure
        figure.delaxes(axes)
        panels = figure.subplots(len(years), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (label, year) in zip(panels, years.items(), strict=True):
            values, edges = _stretch(year, days)
            heights = [max(value, bottom) for value in values]
            panel.stairs(heights, edges, baseline=bottom, fill=True, color=BLUE, edgecolor=INK, linewidth=0.3)
            panel.set(xlim=(edges[0], edges[-1]), yscale=kind, ylim=(bottom, room * top))
            marks = _mark(panel, year.fleet)
            panel.set_title(f"{label}: {year.peak:,} in the busiest hour" + (f" ({'; '.join(marks)})" if marks else ""))
            if not is_logarithmic:
                whole_numbers(panel, most=4)
            panel.yaxis.set_major_formatter(_THOUSANDS)
            panel.grid(axis="y")
        panels[-1].set_xlabel("day of the year")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        unit = "the busiest hour of the day" if days is None else "an hour"
        figure.supylabel(f"renewals in {unit}{axis}", fontsize=10)

    rows = [(label, f"{year.peak:,}") for label, year in years.items()]
    title = f"Renewals of {' and of '.join(years)}"
    what = f"Renewals over the days of the year, a panel for each, all to one {'logarithmic ' * is_logarithmic}scale."
    header = ("simulated", "renewals in the busiest hour")
    drawn = picture(draw, 0.6 + 1.6 * len(years), title, what, [header, *rows])
    return replace(drawn, table_title="The peaks as a table")


def _stretch(year: Any, days: tuple[float, float] | None) -> tuple[Sequence[float], list[float]]:
    """Return the values, by day or for some days by hour, and in days where each begins and where the last ends."""
    if days is None:
        return year.days, list(range(len(year.days) + 1))
    first, last = (int(day * 24) for day in days)
    values = year.renewals[first:last]
    return values, [(first + number) / 24 for number in range(len(values) + 1)]


def _counted(values: Sequence[float], edges: Sequence[float]) -> list[Row]:
    """Count the values from each edge to the next; leave out empty bins."""
    rows: list[Row] = []
    for low, high in pairwise(edges):
        number = sum(low <= value < high or value == high == edges[-1] for value in values)
        rows += [(f"{low:g} to {high:g}", str(number))] * bool(number)
    return rows


def _mark(panel: Axes, fleet: Any) -> list[str]:
    """Draw outages and the limit, and return their legend."""
    for at, length in fleet.outages:
        panel.axvspan(at / DAY, (at + length) / DAY, color=ORANGE, alpha=0.4, linewidth=0)
    if fleet.per_hour:
        panel.axhline(fleet.per_hour, color=ORANGE, linestyle="--")
    return ["shaded: outage"] * bool(fleet.outages) + ["dashed: limit"] * bool(fleet.per_hour)


def _dated(statuses: Sequence[Status]) -> list[tuple[Status, Validity, Due]]:
    """Return the connections that have a certificate, with its dates."""
    return [(each, each.validity, each.due) for each in statuses if each.validity and each.due]


def _of(shown: int, there: int) -> str:
    return f"{shown}{f' of {there}' * (shown != there)} connection{'s' * (there != 1)}"


def scale(lengths: Sequence[timedelta]) -> tuple[str, Callable[[timedelta], float]]:
    """Return a suitable unit, and a function that converts a length to it, rounded below what can be seen."""
    longest = max(map(abs, lengths), default=DAY)
    name, unit = ("hours", HOUR) if longest < 3 * DAY else ("days", DAY)
    digits = 2 - math.floor(math.log10(max(longest / unit, 1)))
    return name, lambda length: round(length / unit, digits) + 0.0


MOST = 20
_LOOKS = {
    "in use": FINE,
    **{state: {**FINE, "color": GREY} for state in ("kept", "expired")},
    **dict.fromkeys(("revoked", "refused"), LATE),
}


@dataclass(frozen=True)
class Kept:
    """A generation: its number, what it is now, and its validity, None if it cannot be read."""

    number: str
    state: str
    validity: Validity | None


def history(connection: Connection, clock: Clock = utc_now) -> Picture:
    """Draw the validity of each generation that is kept, oldest first. Of many, only the newest are drawn.

    It reads the disk without a lock, and reads no keys.
    """
    now = clock()
    kept = list(_kept(connection, now))[-MOST:]
    dated = [(generation, generation.validity) for generation in kept if generation.validity]
    unit, steps = scale([end - now for _, life in dated for end in (life.not_before, life.not_after)])

    def draw(axes: Axes) -> None:
        for row, (generation, life) in enumerate(dated):
            start, end = steps(life.not_before - now), steps(life.not_after - now)
            axes.barh(row, end - start, left=start, height=0.6, **_LOOKS[generation.state])
            beside(axes, end, row, generation.state)
        axes.margins(x=0.12)
        label_rows(axes, [generation.number for generation, _ in dated], unit, title)

    title = f"Generations of {connection.name}"
    what = f"A bar for the validity of each generation, oldest first, in {unit} from now."
    rows = [(generation.number, generation.state, *_dates(generation)) for generation in kept]
    header = ("generation", "state", "valid from", "valid to")
    return picture(draw, 1.4 + 0.36 * max(len(dated), 1), title, what, [header, *rows])


def _kept(connection: Connection, now: datetime) -> Iterator[Kept]:
    current, verdicts = connection.current, connection.verdicts()
    for generation in connection.generations():
        number = generation.name.partition("-")[0]
        try:
            life, mark = generation.validity, generation.fingerprint
        except UCLError:
            yield Kept(number, "damaged", None)
            continue
        verdict = verdicts.get(mark)
        if verdict and verdict.status in {"revoked", "refused"}:
            state: str = verdict.status
        else:
            state = "in use" if current and generation.name == current.name else "kept"
        yield Kept(number, "expired" if state == "kept" and life.not_after < now else state, life)


def _dates(kept: Kept) -> tuple[str, str]:
    return (moment(kept.validity.not_before), moment(kept.validity.not_after)) if kept.validity else ("", "")
