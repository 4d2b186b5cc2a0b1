"""Show the states of many connections as one table."""

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
_STATES_THAT_FAIL: dict[str, tuple[Literal["warning", "failed"], set[str]]] = {
    "readable": ("failed", {"damaged", "settings not usable"}),
    "accepted by UCL": ("warning", {"expired", "not yet valid", "revoked", "not established"}),
    "not due": ("warning", {"due"}),
}


@dataclass(frozen=True)
class Overview(Tabular):
    """Connections, each with its state, its dates, and its problems."""

    statuses: Sequence[Status]

    header: ClassVar[Row] = ("connection", "state", "valid to", "renewal due", "notes")

    def caption(self) -> str:
        """Return the number of connections in each state."""
        states = Counter(status.state for status in self.statuses).most_common()
        named = ", ".join(f"{number} {state}" for state, number in states) or "none"
        all_practise = bool(self.statuses) and all(status.sandbox for status in self.statuses)
        return f"Connections: {named}" + " (sandbox, for practice)" * all_practise

    def rows(self) -> list[Row]:
        """Return one row for each connection."""
        return [_row(status) for status in self.statuses]

    @property
    def checks(self) -> tuple[Check, ...]:
        """Check that all can be read, that UCL accepts them, and that none is due. The last two are warnings."""
        return tuple(self._check(name, *failing) for name, failing in _STATES_THAT_FAIL.items())

    def _check(self, name: str, status: Literal["warning", "failed"], states: set[str]) -> Check:
        names = [status.name for status in self.statuses if status.state in states]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        result = f"not {', '.join(names[:NAMED])}{more}" if names else f"all {len(self.statuses)}"
        return Check(name, status if names else "ok", "all", result)


def overview(connections: Iterable[Connection], clock: Clock = utc_now) -> Overview:
    """Read the states of connections from disk, without a lock and without a call. Damage is shown, not raised."""
    return Overview(tuple(status_of(connection, clock) for connection in connections))


def _row(status: Status) -> Row:
    facts: dict[str, str] = {row[0]: row[1] for row in status.rows()}
    notes = [facts[name] for name in ("to come back", "under way", "problem") if name in facts]
    return (status.name, status.state, facts.get("valid to", ""), facts.get("renewal due", ""), "; ".join(notes))
