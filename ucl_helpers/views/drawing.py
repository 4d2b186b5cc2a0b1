"""Pictures by matplotlib: SVG whose text is text, in the colours of the page it stands on, and a table beside it.

What colour says is also said by form or in words. matplotlib, which takes a second to import, is needed here and by
what draws with it, and nowhere else.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Any

from ucl_helpers.extras import missing
from ucl_helpers.tables import Row, text_table
from ucl_helpers.views.markup import Html, element, joined, table

try:
    from matplotlib import style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ModuleNotFoundError:
    raise missing("matplotlib", "lab") from None

__all__ = [
    "BLUE",
    "FINE",
    "GREY",
    "INK",
    "LATE",
    "ORANGE",
    "WIDTH",
    "Axes",
    "Picture",
    "beside",
    "picture",
    "whole_numbers",
]

WIDTH = 9.0  # inches of 72 points
BLUE, ORANGE, GREY = "#4aa3df", "#e69f00", "#8a8f98"  # told apart by the colour-blind, and on light and dark ground
INK = "#010203"  # stands for the colour of the page's text
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
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "ucl",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_ONE_AT_A_TIME = Lock()  # a style is set for all threads
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_ID, _USED = re.compile(r' id="([^"]+)"'), re.compile(r"#([\w.-]+)")


@dataclass(frozen=True)
class Picture:
    """A picture, its title, and a table that says the same.

    Attributes:
        svg: an element for a page, with title and description.
        title: what is to be seen.
        facts: the table, its header first.
    """

    svg: Html = field(repr=False)
    title: str
    facts: Sequence[Row]

    def __str__(self) -> str:
        return f"{self.title}\n{text_table(self.facts)}" if self.facts[1:] else self.title

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        return {"text/plain": str(self), "text/html": self.html}

    @property
    def html(self) -> Html:
        """The picture, and below it the table for whoever opens it."""
        head = element("summary", "The same as a table")
        header, *rows = self.facts
        more = [element("details", head, table(header, rows))] if rows else []
        style = "margin:0.3em 0;max-width:60em;overflow-x:auto"
        return element("figure", self.svg, *more, class_="mathjax_ignore tex2jax_ignore", style=style)


def picture(draw: Callable[[Axes], None], height: float, title: str, description: str, facts: Sequence[Row]) -> Picture:
    """What is drawn, whatever a user's matplotlibrc says; the same each time for the same facts.

    Args:
        draw: draws on axes that are there.
        height: in inches; the width is :data:`WIDTH`.
        title: what is to be seen.
        description: how it is drawn, for whoever has it read out.
        facts: the table that says the same, its header first.
    """
    with _ONE_AT_A_TIME, style.context(["default", _STYLE]):
        figure, svg = Figure(figsize=(WIDTH, height), layout="constrained"), io.StringIO()
        draw(figure.subplots())
        figure.savefig(svg, format="svg", transparent=True, metadata=_NO_METADATA)
    return Picture(_inline(svg.getvalue(), title, description), title, facts)


def beside(axes: Axes, right: float, row: float, word: str) -> None:
    """A word beside the right end of a bar."""
    axes.annotate(word, (right, row), xytext=(4, 0), textcoords="offset points", va="center")


def whole_numbers(axes: Axes, most: int = 10) -> None:
    """Let the axis that goes up count in whole numbers, with commas at the thousands."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _inline(document: str, title: str, description: str) -> Html:
    """An SVG document as an element of a page, named for whoever has it read out."""
    body = document[document.index("<svg") :].replace(INK, "currentColor")
    used = set(_USED.findall(body))
    body = _ID.sub(lambda found: found[0] if found[1] in used else "", body)
    mark = f"ucl-{sha256((body + title).encode()).hexdigest()[:12]}"
    start, rest = body.split(">", 1)
    named = f' role="img" aria-labelledby="{mark}-title {mark}-desc" style="max-width:100%;height:auto"'
    told = joined((element("title", title, id=f"{mark}-title"), element("desc", description, id=f"{mark}-desc")))
    return Html(f"{start}{named}>{told}{rest}".strip())
