"""Which connections a run takes in hand, and which need nobody.

What is not due is told at once: it costs no worker, and no call. A run with ``force`` notes which generation each
connection had when it began, until every connection has been tried: so a run that was stopped or killed goes on when
it is run again, and renews nothing twice. Without ``force`` nothing needs to be noted: what was renewed is not due.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import record_check
from ucl_helpers.connection.exports import json_object
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.settings import Settings
from ucl_helpers.connection.status import Status, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UsageError
from ucl_helpers.fleet.breaker import endpoint_of
from ucl_helpers.fleet.task import Result, not_due

CONTINUED_WITHIN = timedelta(days=1)
"""A run with ``force`` that was stopped longer ago is not gone on with: whoever forces then means all of them."""


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        bases: connections to renew, each with the generation that it has now, or had when a forced run began.
        settled: those that need nobody.
        endpoints: the certificate endpoint of each connection that is to be renewed, where it is known.
        failures: how often in a row each has failed in earlier runs, where it has; the fewer, the earlier it is asked.
        practice: whether one of them follows the sandbox of the home folder.
        continued: when the forced run that is gone on with began (UTC), or None.
    """

    home: Home
    force: bool
    bases: Mapping[str, str | None]
    settled: Mapping[str, Result] = field(default_factory=dict)
    endpoints: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    practice: bool = False
    continued: datetime | None = None

    def done(self) -> None:
        """Every connection has been tried: a forced run is over."""
        with files.storage("remove", _note(self.home)):
            _note(self.home).unlink(missing_ok=True)


class _Seen(Connection):
    """A connection as it stands now: what several questions need is read once, which is most of what a look costs."""

    @cached_property
    def settings(self) -> Settings:
        return super().settings

    @cached_property
    def current(self) -> Generation | None:
        return super().current


def statuses(home: Home, patterns: Sequence[str] = (), clock: Clock = utc_now) -> list[Status]:
    """Where connections stand, by name, read from disk; keys are not looked at, which would take 50 ms each.

    Args:
        home: where they lie.
        patterns: as a shell's, for names (``prod-*``); none for all.
        clock: our clock, aware, UTC.

    Raises:
        UsageError: there are no connections, or none has such a name.
    """
    found = _names(home)
    for pattern in patterns:
        if not any(fnmatchcase(one, pattern) for one in found):
            raise UsageError(f"No connection in {home.path} is called {pattern!r}.", remedy="See: ucl fleet status")
    wanted = [one for one in found if not patterns or any(fnmatchcase(one, each) for each in patterns)]
    return [_status(home, one, clock) for one in wanted]


def _status(home: Home, name: str, clock: Clock) -> Status:
    seen = _Seen(home, name)
    try:
        return status_of(seen, clock, whole=False)
    finally:
        vars(seen).clear()  # it and its generation know each other, so both would stay until garbage is looked for


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Only one run of a home folder at a time; where there are no connections, nothing is made.

    Raises:
        Busy: there is another; names it.
        UsageError: there are no connections.
    """
    _names(home)
    files.make_private_folder(home.path, folder := home.path / "fleet")
    with files.Lock(folder / "lock", home.path, folder).held():
        yield


def plan(home: Home, patterns: Sequence[str] = (), *, force: bool = False, clock: Clock = utc_now) -> Plan:
    """Look at every connection, and see which are to be renewed. The caller runs :func:`alone`.

    Args:
        home: where they lie.
        patterns: as a shell's, for names; none for all.
        force: also those that are not due.
        clock: our clock, aware, UTC.

    Raises:
        UsageError: there are no connections, or none has such a name.
    """
    found = sorted(statuses(home, patterns, clock), key=lambda one: one.attempts.failures)
    practice = any(one.sandbox for one in found)
    if not force:
        idle = {one.name: not_due(one.fingerprint) for one in found if not _has_work(home, one)}
        for name in idle:
            record_check(Connection(home, name), clock())
        found = [one for one in found if one.name not in idle]
        bases = {one.name: one.generation for one in found}
        return Plan(home, force, bases, idle, _endpoints(found), _failures(found), practice)
    now, began = clock(), None
    bases = {one.name: one.generation for one in found}
    if (earlier := _earlier(home, patterns, now)) is not None:
        began, noted = earlier
        bases = {name: noted.get(name, base) for name, base in bases.items()}
    elif bases:
        note = {"began": now.isoformat(), "patterns": list(patterns), "bases": bases}
        files.write(_note(home), json.dumps(note).encode())
    return Plan(home, force, bases, {}, _endpoints(found), _failures(found), practice, began)


def _endpoints(found: Sequence[Status]) -> dict[str, str]:
    return {one.name: endpoint for one in found if (endpoint := endpoint_of(one.url))}


def _failures(found: Sequence[Status]) -> dict[str, int]:
    return {one.name: failures for one in found if (failures := one.attempts.failures)}


def _names(home: Home) -> list[str]:
    if not (found := home.names()):
        remedy = "Is it the right folder? --home names it, or else UCL_HOME."
        raise UsageError(f"There are no connections in {home.path}.", remedy=remedy)
    return found


def _has_work(home: Home, status: Status) -> bool:
    """Whether ``renew()`` would do something, or say what is wrong, or a hook still has to run."""
    well = status.due is not None and status.state == "valid" and status.pending is None
    well = well and status.attempts.refused_since is None
    return not well or bool(status.pending_hooks) or Connection(home, status.name).has_plain_keys()


def _earlier(home: Home, patterns: Sequence[str], now: datetime) -> tuple[datetime, Mapping[str, str | None]] | None:
    """A forced run of the same connections that was not over: when it began, and with which generations."""
    with files.storage("read", _note(home)), suppress(FileNotFoundError, KeyError, TypeError, ValueError):
        told = json_object(_note(home).read_bytes()) or {}
        began, bases = datetime.fromisoformat(told["began"]), told["bases"]
        same = told["patterns"] == list(patterns) and isinstance(bases, dict)
        if same and timedelta(0) <= now - began < CONTINUED_WITHIN:
            return began, bases
    return None


def _note(home: Home) -> Path:
    return home.folder("fleet") / "forced.json"
