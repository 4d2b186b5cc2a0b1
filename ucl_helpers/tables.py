"""Show facts as an HTML table in a notebook, and as aligned text elsewhere. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from itertools import zip_longest
from typing import Any, ClassVar

from ucl_helpers.errors import printable

Row = Sequence[str]
UNITS_SHOWN = 2


def text_table(rows: Sequence[Row]) -> str:
    """Return rows of cells as text in aligned columns."""
    if not rows:
        return ""
    flat = [line for row in rows for line in _lines(row)]
    widths = [max(len(row[column]) for row in flat) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in flat)
    return "\n".join(line.rstrip() for line in lines)


def _lines(row: Row) -> list[Row]:
    """Split a row into rows of single lines, so that a cell of several lines continues in the next row."""
    return list(zip_longest(*(printable(cell).split("\n") for cell in row), fillvalue=""))


def html_table(title: str, header: Row, rows: Sequence[Row]) -> str:
    """Return an HTML table with a caption. Cells are escaped, as some are from a server, and MathJax ignores them."""

    def cells(row: Row, tag: str) -> str:
        style = "text-align:left;white-space:pre-wrap"
        return "".join(f'<{tag} style="{style}">{escape(printable(cell))}</{tag}>' for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    caption = f'<caption style="text-align:left"><b>{escape(printable(title))}</b></caption>'
    head = f"{caption}<thead><tr>{cells(header, 'th')}</tr></thead>"
    return f'<table class="mathjax_ignore tex2jax_ignore">{head}<tbody>{body}</tbody></table>'


def moment(at: datetime) -> str:
    """Return a UTC moment to the second as ISO 8601, for example ``2026-04-15T09:00:00Z``."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(at: datetime) -> str:
    """Return a UTC moment to the millisecond, in the same form: ``2026-04-15T09:00:00.123Z``."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(length: timedelta) -> str:
    """Return a length of time in at most two units, for example ``89 d 23 h`` or ``4 min 10 s``."""
    seconds = round(abs(length.total_seconds()))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size and len(parts) < UNITS_SHOWN:
            parts.append(f"{seconds // size} {unit}")
            seconds %= size
    return ("-" if length < timedelta(0) and parts else "") + (" ".join(parts) or "0 s")


class Tabular:
    """Mixin for an object with ``rows``. A notebook shows the object as a table, and ``str`` as text."""

    title: ClassVar[str] = ""
    header: ClassVar[Row] = ("", "")

    def caption(self) -> str:
        """Return the title above the table."""
        return self.title

    def rows(self) -> list[Row]:
        """Return one row for each fact, with as many cells as ``header``."""
        raise NotImplementedError

    def __str__(self) -> str:
        named = [self.header] if any(self.header) else []
        table = text_table([*named, *self.rows()])
        return f"{printable(self.caption())}\n{table}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude  # every form is small
        html = html_table(self.caption(), self.header, self.rows())
        return {"text/plain": str(self), "text/html": html}
