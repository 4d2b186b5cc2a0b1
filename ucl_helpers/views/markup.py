"""Make HTML that is safe: every text that this module did not make is escaped, since some come from a server. Pure.

Coloured parts have a background and a text colour that are readable in a light and in a dark theme. A sign and a word
say the same as the colour. Everything else takes its colour from the page.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

from ucl_helpers.errors import printable
from ucl_helpers.tables import Row

Mood = Literal["good", "attention", "bad", "neutral"]
FAINT = "1px solid rgba(128,128,128,.45)"
_LONG, _LABEL, _AFTER_COMMA = 32, 24, re.compile(r"(?<=,)")
_WORD = re.compile(rf"(\S{{{_LONG},}}|\w+(?:-[\w:.]+)+|\d+ (?:d|h|min|s|bits|characters)\b)")  # long, date, duration
_CELL = f"text-align:left;vertical-align:top;white-space:pre-wrap;padding:0.2em 1em 0.2em 0;border:0;border-top:{FAINT}"
_SIGNS: dict[Mood, tuple[str, str, str]] = {
    "good": ("✓", "#d3efda", "#0f4a1f"),
    "attention": ("!", "#fbe7b2", "#533a00"),
    "bad": ("✗", "#fad7d4", "#76150f"),
    "neutral": ("·", "#e2e5e9", "#30353b"),
}
_MOODS: dict[str, Mood] = {
    **dict.fromkeys(("ok", "valid", "yes", "renewed", "established", "imported", "rolled-back", "not-due"), "good"),
    **dict.fromkeys(("warning", "due", "not yet valid", "settings not usable"), "attention"),
    **dict.fromkeys(("failed", "expired", "revoked", "refused", "damaged"), "bad"),
}


class Html(str):
    """Text that is HTML already and needs no escaping."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Return an element. Attributes (``aria_label``, ``class_``) and content that is not :class:`Html` are escaped."""
    named = "".join(f' {name.strip("_").replace("_", "-")}="{safe(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{named}>{joined(content)}</{tag}>")


def joined(parts: Iterable[str]) -> Html:
    """Join texts, and escape those that are not :class:`Html`."""
    return Html("".join(part if isinstance(part, Html) else safe(part) for part in parts))


def safe(text: str) -> Html:
    """Escape a text for HTML; characters that cannot be printed become backslash escapes."""
    return Html(escape(printable(text)))


def breakable(text: str) -> Html:
    """Escape a text, and let its longest words break: after a comma, or anywhere if that is not enough.

    These are fingerprints, base64, subjects and URLs. All other words stay whole, and so do dates and durations.
    """
    parts: list[str] = _WORD.split(text)
    for place in range(1, len(parts), 2):
        style = "overflow-wrap:anywhere" if len(parts[place]) >= _LONG else "white-space:nowrap"
        pieces = _AFTER_COMMA.split(parts[place])  # an inline block goes to the next line before it breaks
        words = [element("span", piece, style="display:inline-block") for piece in pieces] if pieces[1:] else pieces
        parts[place] = element("span", *words, style=style)
    return joined(parts)


def badge(word: str, mood: Mood | None = None) -> Html:
    """Return a state in a word, with its sign and colours."""
    sign, ground, ink = _SIGNS[mood or _MOODS.get(word, "neutral")]
    style = f"background:{ground};color:{ink};border-radius:0.7em;padding:0.1em 0.6em;white-space:nowrap"
    return element("span", f"{sign} {word}", style=style)


def table(header: Row, rows: Sequence[Row]) -> Html:
    """Return a table. The first cell of a row is its heading; cells below ``status`` and ``state`` become badges."""
    marked = [name in {"status", "state"} for name in header]

    def line(row: Row) -> Html:
        first, *others = row
        width = "white-space:nowrap" if len(first) < _LABEL and not others[1:] else "min-width:6em"
        cells = [element("th", breakable(first), scope="row", style=f"{_CELL};font-weight:600;{width}")]
        for cell, is_state in zip(others, marked[1:], strict=True):
            shown = badge(cell) if is_state else breakable(cell)
            least = ";min-width:9em" * ("anywhere" in shown)  # a column of long words would be one letter wide
            cells.append(element("td", shown, style=_CELL + least))
        return element("tr", *cells)

    names = element("tr", *(element("th", name, scope="col", style=_CELL) for name in header))
    head = [element("thead", names)] if any(header) else []
    return element("table", *head, element("tbody", *map(line, rows)), style="border-collapse:collapse;margin:0.3em 0")


def card(title: str, *content: str, state: Html | None = None) -> Html:
    """Return a framed card with a title, a badge beside it, and content. MathJax ignores it.

    A card that is too wide does not scroll. The element around it does, and the keyboard can scroll that one.
    """
    head = element("div", element("b", title), " ", state or "", style="font-size:1.1em;margin-bottom:0.4em")
    style = f"border:{FAINT};border-radius:0.5em;padding:0.7em 1em;margin:0.3em 0;max-width:60em;min-width:min-content"
    return element(
        "section", head, *content, class_="ucl-card mathjax_ignore tex2jax_ignore", aria_label=title, style=style
    )
