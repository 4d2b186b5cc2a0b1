"""Where many connections stand, as one table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.status import Status, status_of
from ucl_helpers.connection.store import Connection
from ucl_helpers.models import Check
from ucl_helpers.tables import Row, Tabular

NAMED = 5
_FALLS_SHORT: dict[str, tuple[Literal["warning", "failed"], set[str]]] = {
    "readable": ("failed", {"damaged", "settings not usable"}),
    "let in": ("warning", {"expired", "not yet valid", "revoked", "not established"}),
    "not due": ("warning", {"due"}),
}


@dataclass(frozen=True)
class Overview(Tabular):
    """Connections, each with its state, its dates, and what else is to be known of it."""

    statuses: Sequence[Status]

    header: ClassVar[Row] = ("connection", "state", "valid to", "renewal due", "besides")

    def caption(self) -> str:
        """How many there are, by state."""
        states = Counter(status.state for status in self.statuses).most_common()
        practice = (
            " (sandbox, for practice)" if self.statuses and all(status.sandbox for status in self.statuses) else ""
        )
        return f"Connections: {', '.join(f'{number} {state}' for state, number in states) or 'none'}{practice}"

    def rows(self) -> list[Row]:
        """One row a connection."""
        return [_row(status) for status in self.statuses]

    @property
    def checks(self) -> tuple[Check, ...]:
        """That all can be read; that UCL lets them in and none is due, as warnings."""
        return tuple(self._check(name, *short) for name, short in _FALLS_SHORT.items())

    def _check(self, name: str, status: Literal["warning", "failed"], states: set[str]) -> Check:
        short = [status.name for status in self.statuses if status.state in states]
        more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
        result = f"not {', '.join(short[:NAMED])}{more}" if short else f"all {len(self.statuses)}"
        return Check(name, status if short else "ok", "all", result)


def overview(connections: Iterable[Connection], clock: Clock = utc_now) -> Overview:
    """Look at connections: from disk, without a lock and without a call; damage is told, not raised."""
    return Overview(tuple(status_of(connection, clock) for connection in connections))


def _row(status: Status) -> Row:
    facts: dict[str, str] = {row[0]: row[1] for row in status.rows()}
    besides = [facts[name] for name in ("to come back", "under way", "problem") if name in facts]
    return (status.name, status.state, facts.get("valid to", ""), facts.get("renewal due", ""), "; ".join(besides))
