"""A year of a fleet's renewals by the policy's rule, simulated: an operator chooses a policy by looking at it.

How it goes:

- Every ``every`` a run looks at the whole fleet and attempts to renew what :func:`ucl_helpers.policy.due` says is due,
  the longest due first: all at once, or evenly, ``per_hour`` in an hour. What it has not come to when the next run
  begins, that one takes up.
- During an outage every attempt fails, and the next run makes it again. With an expired certificate it fails for good.
- A renewed certificate is valid from the moment of its renewal, as long as the one before.

*Not* in it: the time that a renewal takes, failures other than outages, the policy's memory of attempts. Moments are in
microseconds from the beginning; numpy does a million connections in some seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal

from ucl_helpers.errors import UsageError
from ucl_helpers.extras import missing
from ucl_helpers.models import Check, Validity
from ucl_helpers.policy import JITTER, due, fraction_bytes
from ucl_helpers.tables import Row, Tabular, span

try:
    import numpy as np
    from numpy.typing import NDArray
except ModuleNotFoundError:
    raise missing("numpy", "lab") from None

MOST_CONNECTIONS, MOST_RUNS, ASKED = 5_000_000, 1_000_000, 100
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
Moments = NDArray[np.int64]


@dataclass(frozen=True)
class Fleet:
    """Connections, the policy they are renewed by, and what befalls them.

    Attributes:
        connections: how many, up to five million.
        lifetime: of each certificate.
        renew_before: as in ``settings.toml``; None for the rule by fractions, with jitter.
        established: within this time from the beginning they are established, one after the other.
        every: a run looks so often.
        outages: when UCL cannot be reached: pairs of a beginning (after that of the simulation) and a length.
        per_hour: how many renewals are attempted in an hour at most, or None for no limit.
        length: of the simulation.
        seed: gives the connections other names, on which their jitter depends.

    Raises:
        UsageError: a value makes no sense; names it.
    """

    connections: int = 20_000
    lifetime: timedelta = 90 * DAY
    renew_before: timedelta | None = None
    established: timedelta = DAY
    every: timedelta = DAY
    outages: tuple[tuple[timedelta, timedelta], ...] = ()
    per_hour: int | None = None
    length: timedelta = 365 * DAY
    seed: int = 1

    def __post_init__(self) -> None:
        zero = timedelta(0)
        sensible = {
            f"connections from 1 to {MOST_CONNECTIONS}": 1 <= self.connections <= MOST_CONNECTIONS,
            "a lifetime of five minutes or more": self.lifetime >= timedelta(minutes=5),
            "a length of an hour or more": self.length >= HOUR,
            "a time between two runs that is more than none": self.every > zero,
            "renew_before more than none": self.renew_before is None or self.renew_before > zero,
            "established within no less than no time": self.established >= zero,
            "outages that last, after the beginning": all(at >= zero and long > zero for at, long in self.outages),
            "a limit of one an hour or more": self.per_hour is None or self.per_hour >= 1,
        }
        if wrong := [what for what, holds in sensible.items() if not holds]:
            raise UsageError(f"A fleet to simulate has {'; '.join(wrong)}.", remedy="Change what is named.")
        if self.length / self.every > MOST_RUNS:
            raise UsageError(f"That are more than {MOST_RUNS} runs.", remedy="Look less often, or for a shorter time.")

    def name(self, number: int) -> str:
        """What names a connection to the policy, as its name and its client's id do."""
        return f"{self.seed}/{number}"

    def due_after(self, number: int) -> timedelta:
        """How long after its NotBefore a connection is due: :func:`ucl_helpers.policy.due`, asked."""
        validity = Validity(BEGINNING, BEGINNING + self.lifetime)
        return due(validity, seed=self.name(number), now=BEGINNING, renew_before=self.renew_before).at - BEGINNING

    @property
    def first_due(self) -> timedelta:
        """How long after its NotBefore the connection is due whose jitter is largest."""
        return timedelta(microseconds=int(rests(self).min()))


@dataclass(frozen=True, eq=False)
class Year(Tabular):
    """What came of a fleet.

    Attributes:
        renewals: how many certificates were renewed in each hour from the beginning.
        expired: how many certificates expired before they were renewed.
        margin: what was left of the certificate that came closest to that; None if none was renewed.
    """

    fleet: Fleet
    renewals: Moments = field(repr=False)
    expired: int
    margin: timedelta | None

    title: ClassVar[str] = "A year, simulated"

    @property
    def peak(self) -> int:
        """Renewals in the busiest hour."""
        return int(self.renewals.max())

    @property
    def days(self) -> Moments:
        """For each day, the renewals in its busiest hour."""
        whole = np.zeros(-(-len(self.renewals) // 24) * 24, np.int64)
        whole[: len(self.renewals)] = self.renewals
        busiest: Moments = whole.reshape(-1, 24).max(axis=1)
        return busiest

    def told(self) -> Row:
        """Renewals, those of the busiest hour, expired, smallest margin: as texts."""
        margin = "none" if self.margin is None else span(self.margin)
        return f"{int(self.renewals.sum()):,}", f"{self.peak:,}", f"{self.expired:,}", margin

    def rows(self) -> list[Row]:
        """What came of it."""
        labels = (
            "certificates renewed",
            "of these in the busiest hour",
            "expired before their renewal",
            "smallest margin left",
        )
        return [*zip(labels, self.told(), strict=True)]

    @property
    def checks(self) -> tuple[Check, ...]:
        """That it went by the rule and kept the limit; and, as warnings, what an operator wants of a policy."""
        every, limit = self.fleet.every, self.fleet.per_hour
        kept = limit is None or self.peak <= limit
        safe = self.margin is None or self.margin > every
        _, peak, expired, margin = self.told()
        return (
            self._rule(),
            Check("expired", "warning" if self.expired else "ok", "0", expired),
            Check("margin", "ok" if safe else "warning", f"more than {span(every)}, for another try", margin),
            Check("busiest hour", "ok" if kept else "failed", f"{limit:,} or fewer" if limit else "no limit", peak),
        )

    def _rule(self) -> Check:
        """A hundred connections, each asked about by itself."""
        asked = range(0, self.fleet.connections, max(self.fleet.connections // ASKED, 1))[:ASKED]
        said = [_whole(self.fleet.due_after(one)) for one in asked]
        same = int(np.count_nonzero(np.abs(rests(self.fleet, asked) - said) <= 1))
        status: Literal["ok", "failed"] = "ok" if same == len(asked) else "failed"
        return Check("due as the policy says", status, f"{len(asked)} connections asked about", f"{same} of them")


@dataclass(frozen=True)
class Years(Tabular):
    """Years by what tells them apart, for a look at them side by side."""

    years: Mapping[str, Year]

    title: ClassVar[str] = "Side by side"
    header: ClassVar[Row] = ("policy", "renewed", "in the busiest hour", "expired", "smallest margin")

    def rows(self) -> list[Row]:
        """One row a year."""
        return [(label, *year.told()) for label, year in self.years.items()]


def rests(fleet: Fleet, numbers: range | None = None) -> Moments:
    """How long after its NotBefore each connection is due (all, or those of these numbers), by the policy.

    It is asked once: the others differ in their jitter alone. That is the same to a microsecond, since the products of
    floats are rounded and those of a ``timedelta`` are not.
    """
    numbers = range(fleet.connections) if numbers is None else numbers
    first = _whole(fleet.due_after(numbers[0]))
    if fleet.renew_before is not None:
        return np.full(len(numbers), first)
    jitter = np.fromiter(map(fraction_bytes, map(fleet.name, numbers)), "S8", len(numbers)).view(">u8") / 2.0**64
    early: Moments = np.rint(_whole(fleet.lifetime) * (JITTER * jitter)).astype(np.int64)
    after: Moments = first + early[0] - early
    return after


def beginnings(fleet: Fleet) -> Moments:
    """When each connection is established: one after the other, evenly."""
    return np.arange(1, fleet.connections + 1) * (_whole(fleet.established) // fleet.connections)


def simulate(fleet: Fleet) -> Year:
    """What comes of a fleet; the same each time."""
    return _Course(fleet).run()


class _Course:
    """The state of a fleet as its runs go on."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.rests, self.begun = fleet, rests(fleet), beginnings(fleet)
        self.every, self.lifetime, self.end = map(_whole, (fleet.every, fleet.lifetime, fleet.length))
        self.runs = -(-self.end // self.every)
        self.gap = -(-_whole(HOUR) // fleet.per_hour) if fleet.per_hour else 0
        self.outages = [(_whole(at), _whole(at + long)) for at, long in fleet.outages]
        self.due, self.expires = self.begun + self.rests, self.begun + self.lifetime
        self.looks = self._looks(self.due)
        self.renewals = np.zeros(-(-self.end // _whole(HOUR)), np.int64)
        self.lost, self.margin, self.free = 0, self.lifetime + 1, 0

    def run(self) -> Year:
        waiting = np.empty(0, np.int64)  # in the order in which they became due
        for number in range(self.runs):
            new = np.flatnonzero(self.looks == number)
            if new.size or waiting.size:
                waiting = np.concatenate([waiting, self._longest_due_first(new)])
                waiting = self._attempt(waiting, number * self.every)
        self.lost += int(np.count_nonzero(self.expires <= self.end))
        margin = None if self.margin > self.lifetime else timedelta(microseconds=self.margin)
        return Year(self.fleet, self.renewals, self.lost, margin)

    def _longest_due_first(self, those: Moments) -> Moments:
        """Where there is no limit all have the same turn, and their order makes no difference."""
        return those[np.argsort(self.due[those], kind="stable")] if self.gap else those

    def _attempt(self, waiting: Moments, now: int) -> Moments:
        """One run that begins ``now``; returns those who are still to be renewed."""
        first = max(now, self.free)
        until = min(now + self.every, self.end)
        room = max(-(-(until - first) // self.gap), 0) if self.gap else waiting.size
        tried, waiting = waiting[:room], waiting[room:]
        at = first + self.gap * np.arange(tried.size)
        self.free = first + self.gap * tried.size
        expired, out = self.expires[tried] <= at, np.zeros(tried.size, bool)
        for begin, end in self.outages:
            out |= (at >= begin) & (at < end)
        self._lose(tried[expired])
        renewed = ~(expired | out)
        self._renew(tried[renewed], at[renewed])
        return np.concatenate([tried[out & ~expired], waiting])

    def _lose(self, those: Moments) -> None:
        self.lost += those.size
        self.expires[those] = self.end + 1  # counted once

    def _renew(self, those: Moments, at: Moments) -> None:
        if those.size:
            self.margin = min(self.margin, int((self.expires[those] - at).min()))
            hours = at // _whole(HOUR)
            counts = np.bincount(hours - hours[0])
            self.renewals[hours[0] : hours[0] + counts.size] += counts
            self.due[those], self.expires[those] = at + self.rests[those], at + self.lifetime
            self.looks[those] = self._looks(self.due[those])

    def _looks(self, moments: Moments) -> NDArray[np.unsignedinteger]:
        """Which run is the first to find them due; ``runs`` for none."""
        small = np.min_scalar_type(self.runs)  # looked through in each run: the fewer bytes the better
        return np.minimum(-(-moments // self.every), self.runs).astype(small)


def _whole(length: timedelta) -> int:
    """In microseconds."""
    return length // timedelta(microseconds=1)
