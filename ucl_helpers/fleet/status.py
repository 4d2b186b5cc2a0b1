"""Where a whole fleet stands: how many are in which state, when the next is due, who needs somebody."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.status import Status
from ucl_helpers.connection.store import Home
from ucl_helpers.fleet.plan import statuses
from ucl_helpers.tables import Row, Shown, moment

SHOWN = 20
WELL = {"valid", "due"}


@dataclass(frozen=True)
class Standing(Shown):
    """Where each connection stands at ``now`` (UTC), by name."""

    now: datetime
    statuses: Sequence[Status]

    title: ClassVar[str] = "Fleet"
    header: ClassVar[Row] = ("connections", "state", "next due", "first to expire")

    @property
    def counts(self) -> dict[str, int]:
        """How many are in which state; only states that occur."""
        return dict(sorted(Counter(one.state for one in self.statuses).items()))

    @property
    def ailing(self) -> list[Status]:
        """Those that no renewal mends, or that none was begun for in time."""
        return [one for one in self.statuses if one.state not in WELL]

    def caption(self) -> str:
        """How many, and how many are due."""
        many = "1 connection" if len(self.statuses) == 1 else f"{len(self.statuses)} connections"
        return f"{many}, {self.counts.get('due', 0)} due"

    def rows(self) -> list[Row]:
        """By state; then those that need somebody, of many only the first."""
        rows = [(str(count), state, *self._first(state)) for state, count in self.counts.items()]
        told = [(one.name, one.state, "", one.problem or "") for one in self.ailing[:SHOWN]]
        more = len(self.ailing) - len(told)
        return [*rows, *told, *([("…", f"{more} more", "", "all of them: --json")] if more else [])]

    def _first(self, state: str) -> tuple[str, str]:
        here = [one for one in self.statuses if one.state == state and one.due and one.validity]
        due = min((one.due.at for one in here if one.due), default=None)
        ends = min((one.validity.not_after for one in here if one.validity), default=None)
        return moment(due) if due else "-", moment(ends) if ends else "-"

    def as_json(self) -> dict[str, Any]:
        """For programs: counts, and each connection as ``ucl status --json`` tells it."""
        every = [one.as_json() for one in self.statuses]
        return {
            "schemaVersion": 1,
            "kind": "fleet-status",
            "now": moment(self.now),
            "counts": self.counts,
            "connections": every,
        }


def standing(home: Home, patterns: Sequence[str] = (), clock: Clock = utc_now) -> Standing:
    """Where connections stand; arguments and errors are those of :func:`ucl_helpers.fleet.plan.statuses`."""
    return Standing(clock(), statuses(home, patterns, clock))
