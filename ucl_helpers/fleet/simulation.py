"""Simulate a year of a fleet's renewals by the policy's rule, to help an operator to choose a policy.

The rules:

- At intervals of ``every`` a run reads the whole fleet and attempts to renew what :func:`ucl_helpers.policy.due` says
  is due, the longest due first: all at once, or evenly, ``per_hour`` in an hour. The next run takes up what a run has
  not attempted.
- During an outage every attempt fails, and the next run repeats it. An expired certificate cannot be renewed any more.
- A renewed certificate is valid from the moment of its renewal, for the same lifetime as the previous one.

*Not* simulated: the time that a renewal takes, failures other than outages, and pauses after failed attempts. Moments
are in microseconds from the beginning. A million connections take some seconds.
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
    """Connections, the policy for their renewal, and outages.

    Attributes:
        connections: how many, up to five million.
        lifetime: of each certificate.
        renew_before: as in ``settings.toml``; None for the rule by fractions, with jitter.
        established: they are established evenly within this time from the beginning.
        every: time between two runs.
        outages: when UCL cannot be reached: pairs of a beginning (after that of the simulation) and a length.
        per_hour: how many renewals are attempted in an hour at most, or None for no limit.
        length: of the simulation.
        seed: changes the names of the connections, on which their jitter depends.

    Raises:
        UsageError: a value makes no sense. The error names it.
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
        """Return the text from which the policy computes the jitter of a connection."""
        return f"{self.seed}/{number}"

    def due_after(self, number: int) -> timedelta:
        """Return how long after its NotBefore a connection is due, by :func:`ucl_helpers.policy.due`."""
        validity = Validity(BEGINNING, BEGINNING + self.lifetime)
        return due(validity, seed=self.name(number), now=BEGINNING, renew_before=self.renew_before).at - BEGINNING

    @property
    def first_due(self) -> timedelta:
        """How long after NotBefore the first connection of the fleet is due."""
        return timedelta(microseconds=int(rests(self).min()))


@dataclass(frozen=True, eq=False)
class Year(Tabular):
    """The result of a simulation.

    Attributes:
        renewals: how many certificates were renewed in each hour from the beginning.
        expired: how many certificates expired before they were renewed.
        margin: the shortest remaining validity at a renewal; None if none was renewed.
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

    def figures(self) -> Row:
        """Return renewals, those of the busiest hour, expired certificates and the smallest margin, as texts."""
        margin = "none" if self.margin is None else span(self.margin)
        return f"{int(self.renewals.sum()):,}", f"{self.peak:,}", f"{self.expired:,}", margin

    def rows(self) -> list[Row]:
        """Return the figures with their labels."""
        labels = (
            "certificates renewed",
            "of these in the busiest hour",
            "expired before their renewal",
            "smallest margin left",
        )
        return [*zip(labels, self.figures(), strict=True)]

    @property
    def checks(self) -> tuple[Check, ...]:
        """Check the rule and the limit; as warnings, that none expired and that there was time for another attempt."""
        every, limit = self.fleet.every, self.fleet.per_hour
        kept = limit is None or self.peak <= limit
        safe = self.margin is None or self.margin > every
        _, peak, expired, margin = self.figures()
        return (
            self._rule(),
            Check("expired", "warning" if self.expired else "ok", "0", expired),
            Check("margin", "ok" if safe else "warning", f"more than {span(every)}, for another try", margin),
            Check("busiest hour", "ok" if kept else "failed", f"{limit:,} or fewer" if limit else "no limit", peak),
        )

    def _rule(self) -> Check:
        """Compare the simulated due dates of a hundred connections with those of the policy."""
        sample = range(0, self.fleet.connections, max(self.fleet.connections // ASKED, 1))[:ASKED]
        expected = [_whole(self.fleet.due_after(number)) for number in sample]
        same = int(np.count_nonzero(np.abs(rests(self.fleet, sample) - expected) <= 1))
        status: Literal["ok", "failed"] = "ok" if same == len(sample) else "failed"
        return Check("due as the policy says", status, f"{len(sample)} connections asked about", f"{same} of them")


@dataclass(frozen=True)
class Years(Tabular):
    """Several years side by side, by a label for each."""

    years: Mapping[str, Year]

    title: ClassVar[str] = "Side by side"
    header: ClassVar[Row] = ("policy", "renewed", "in the busiest hour", "expired", "smallest margin")

    def rows(self) -> list[Row]:
        """Return one row for each year."""
        return [(label, *year.figures()) for label, year in self.years.items()]


def rests(fleet: Fleet, numbers: range | None = None) -> Moments:
    """Return how long after its NotBefore each connection is due, for all or for these numbers.

    The policy is called once, because connections differ in their jitter only. The results differ from the policy's
    by up to a microsecond, because products of floats are rounded in another way than those of a ``timedelta``.
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
    """Return when each connection is established, at equal intervals."""
    return np.arange(1, fleet.connections + 1) * (_whole(fleet.established) // fleet.connections)


def simulate(fleet: Fleet) -> Year:
    """Simulate a fleet. The same fleet gives the same result each time."""
    return _Course(fleet).run()


class _Course:
    """The state of a fleet during the simulation."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.rests, self.begun = fleet, rests(fleet), beginnings(fleet)
        self.every, self.lifetime, self.end = map(_whole, (fleet.every, fleet.lifetime, fleet.length))
        self.runs = -(-self.end // self.every)
        self.gap = -(-_whole(HOUR) // fleet.per_hour) if fleet.per_hour else 0
        self.outages = [(_whole(at), _whole(at + long)) for at, long in fleet.outages]
        self.due, self.expires = self.begun + self.rests, self.begun + self.lifetime
        self.first_runs = self._first_runs(self.due)
        self.renewals = np.zeros(-(-self.end // _whole(HOUR)), np.int64)
        self.lost, self.margin, self.free = 0, self.lifetime + 1, 0

    def run(self) -> Year:
        waiting = np.empty(0, np.int64)  # in the order in which they became due
        for number in range(self.runs):
            new = np.flatnonzero(self.first_runs == number)
            if new.size or waiting.size:
                if self.gap:  # the longest due first; without a limit all have the same turn
                    new = new[np.argsort(self.due[new], kind="stable")]
                waiting = self._attempt(np.concatenate([waiting, new]), number * self.every)
        self.lost += int(np.count_nonzero(self.expires <= self.end))
        margin = None if self.margin > self.lifetime else timedelta(microseconds=self.margin)
        return Year(self.fleet, self.renewals, self.lost, margin)

    def _attempt(self, waiting: Moments, now: int) -> Moments:
        """Do one run that begins ``now``, and return the connections that are still to be renewed."""
        first = max(now, self.free)
        until = min(now + self.every, self.end)
        room = max(-(-(until - first) // self.gap), 0) if self.gap else waiting.size
        tried, waiting = waiting[:room], waiting[room:]
        at = first + self.gap * np.arange(tried.size)
        self.free = first + self.gap * tried.size
        expired, out = self.expires[tried] <= at, np.zeros(tried.size, bool)
        for begin, end in self.outages:
            out |= (at >= begin) & (at < end)
        self.lost += int(np.count_nonzero(expired))
        self.expires[tried[expired]] = self.end + 1  # counted once
        renewed = ~(expired | out)
        self._renew(tried[renewed], at[renewed])
        return np.concatenate([tried[out & ~expired], waiting])

    def _renew(self, renewed: Moments, at: Moments) -> None:
        if renewed.size:
            self.margin = min(self.margin, int((self.expires[renewed] - at).min()))
            hours = at // _whole(HOUR)
            counts = np.bincount(hours - hours[0])
            self.renewals[hours[0] : hours[0] + counts.size] += counts
            self.due[renewed], self.expires[renewed] = at + self.rests[renewed], at + self.lifetime
            self.first_runs[renewed] = self._first_runs(self.due[renewed])

    def _first_runs(self, moments: Moments) -> NDArray[np.unsignedinteger]:
        """Return the first run after each moment; ``runs`` if there is none."""
        small = np.min_scalar_type(self.runs)  # each run searches this array, so small items are faster
        return np.minimum(-(-moments // self.every), self.runs).astype(small)


def _whole(length: timedelta) -> int:
    """Return a length in microseconds."""
    return length // timedelta(microseconds=1)
