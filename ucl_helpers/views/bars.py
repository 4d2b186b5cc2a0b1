"""A certificate's lifetime as a bar: what it has lived, what is left until its renewal is due, and after that. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from ucl_helpers.models import Validity
from ucl_helpers.tables import moment
from ucl_helpers.views.markup import Html, element

_GROUNDS = {
    "lived": "#7d8590",
    "until the renewal is due": "#4aa3df",
    "overdue": "repeating-linear-gradient(45deg,#7d8590 0 5px,#d9822b 5px 10px)",
    "left after that": "repeating-linear-gradient(45deg,#e69f00 0 5px,#f6d489 5px 10px)",
    "left": "repeating-linear-gradient(45deg,#e69f00 0 5px,#f6d489 5px 10px)",
}
SEEN = 0.005  # of the lifetime


@dataclass(frozen=True)
class Part:
    """A stretch of a lifetime."""

    name: str
    length: timedelta


def parts(validity: Validity, now: datetime, due: datetime | None) -> list[Part]:
    """The stretches of a lifetime, in order, those too short to be seen left out.

    Args:
        validity: NotBefore and NotAfter.
        now: the moment of looking; before NotBefore nothing has been lived, after NotAfter everything.
        due: from when on a renewal is due; None if there is nothing to say of that.
    """
    start, end = validity.not_before, validity.not_after
    here = min(max(now, start), end)
    turn = min(max(due, start), end) if due else here
    return [one for one in _parts(start, here, turn, end) if one.length > SEEN * validity.lifetime]


def _parts(start: datetime, here: datetime, turn: datetime, end: datetime) -> Iterator[Part]:
    yield Part("lived", min(here, turn) - start)
    if here < turn:
        yield Part("until the renewal is due", turn - here)
        yield Part("left after that", end - turn)
    else:
        yield Part("overdue", here - turn)
        yield Part("left", end - here)


def bar(validity: Validity, now: datetime, due: datetime | None) -> Html:
    """The lifetime as a bar, with its legend; ends and due point are dated (UTC)."""
    found = parts(validity, now, due)
    shares = [one.length / validity.lifetime for one in found]
    lived = sum(share for one, share in zip(found, shares, strict=True) if one.name in {"lived", "overdue"})
    start, end = moment(validity.not_before), moment(validity.not_after)
    dated = f"Valid from {start} to {end}"
    turn = f"renewal due from {moment(due)}" if due else ""
    strip = element(
        "div",
        *map(_stretch, found, shares),
        role="img",
        aria_label="; ".join(filter(None, (dated, turn, f"{lived:.0%} lived"))),
        style="display:flex;height:0.9em;border-radius:0.45em;overflow:hidden;border:1px solid rgba(128,128,128,.6)",
    )
    ends = map(_date, (start, turn, end), ("left", "center", "right"))
    return element(
        "div",
        strip,
        element("div", *ends, style="display:flex;flex-wrap:wrap;gap:0 1em"),
        element("div", *map(_swatch, found), style="margin-bottom:0.4em"),
        style="max-width:48em",
    )


def _stretch(part: Part, share: float) -> Html:
    return element("div", style=f"flex:{round(100 * share)} 0 0;background:{_GROUNDS[part.name]}")


def _date(text: str, side: str) -> Html:
    """At its side of the line that it is on: on a narrow page each has one of its own."""
    return element("span", text, style=f"flex:1 0 auto;text-align:{side};white-space:nowrap;font-size:0.9em")


def _swatch(part: Part) -> Html:
    style = f"display:inline-block;width:0.8em;height:0.8em;margin-right:0.35em;background:{_GROUNDS[part.name]}"
    mark = element("span", aria_hidden="true", style=style)
    return element("span", mark, part.name, style="font-size:0.9em;margin-right:1.4em;white-space:nowrap")
