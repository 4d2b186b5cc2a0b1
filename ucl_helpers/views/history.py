"""The identities that a connection has had, as a timeline: what there is to go back to."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import UCLError
from ucl_helpers.models import Validity
from ucl_helpers.tables import moment
from ucl_helpers.views.charts import scale
from ucl_helpers.views.drawing import FINE, GREY, INK, LATE, Axes, Picture, beside, picture

MOST = 20
_LOOKS = {
    "in use": FINE,
    "kept": {**FINE, "color": GREY},
    "expired": {**FINE, "color": GREY},
    "revoked": LATE,
    "refused": LATE,
}


@dataclass(frozen=True)
class Kept:
    """A generation: its number, what it is now, and its validity, None if it cannot be read."""

    number: str
    state: str
    validity: Validity | None


def history(connection: Connection, clock: Clock = utc_now) -> Picture:
    """The generations that are kept, oldest first, each with its validity; of many the newest.

    Read from disk, without a lock; keys are not looked at.
    """
    now = clock()
    kept = list(_kept(connection, now))[-MOST:]
    dated = [(one, one.validity) for one in kept if one.validity]
    unit, steps = scale([end - now for _, life in dated for end in (life.not_before, life.not_after)])

    def draw(axes: Axes) -> None:
        for row, (one, life) in enumerate(dated):
            left, right = steps(life.not_before - now), steps(life.not_after - now)
            axes.barh(row, right - left, left=left, height=0.6, **_LOOKS[one.state])
            beside(axes, right, row, one.state)
        axes.axvline(0, color=INK, linestyle="--", label="now")
        axes.margins(x=0.12)
        axes.set(yticks=range(len(dated)), yticklabels=[one.number for one, _ in dated], xlabel=f"{unit} from now")
        axes.set_ylim(max(len(dated), 1) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.set_title(title)
        axes.figure.legend(loc="outside lower center", frameon=False)

    title = f"Generations of {connection.name}"
    what = f"A bar for the validity of each generation, oldest first, in {unit} from now."
    facts = [
        ("generation", "state", "valid from", "valid to"),
        *((one.number, one.state, *_dates(one)) for one in kept),
    ]
    return picture(draw, 1.4 + 0.36 * max(len(dated), 1), title, what, facts)


def _kept(connection: Connection, now: datetime) -> Iterator[Kept]:
    current, verdicts = connection.current, connection.verdicts()
    for one in connection.generations():
        number = one.name.partition("-")[0]
        try:
            life, mark = one.validity, one.fingerprint
        except UCLError:
            yield Kept(number, "damaged", None)
            continue
        known = verdicts.get(mark)
        if known and known.status in {"revoked", "refused"}:
            state: str = known.status
        else:
            state = "in use" if current and one.name == current.name else "kept"
        yield Kept(number, "expired" if state == "kept" and life.not_after < now else state, life)


def _dates(one: Kept) -> tuple[str, str]:
    return (moment(one.validity.not_before), moment(one.validity.not_after)) if one.validity else ("", "")
