"""Choose which connections a run renews, and which need nothing.

Connections that are not due are settled at once, without a worker and without a call. A run with ``force`` records the
generation that each connection had when it began, until every connection has been tried. So you can run it again after
it was stopped or killed, and it renews nothing twice. Without ``force`` nothing is recorded: a renewed connection is
not due.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import record_check
from ucl_helpers.connection.files import json_object
from ucl_helpers.connection.references import generation_spec
from ucl_helpers.connection.status import Status, needs, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UCLError, UsageError
from ucl_helpers.fleet.pacing import endpoint_of
from ucl_helpers.fleet.report import NOT_DUE, FleetStatus, Result

CONTINUED_WITHIN = timedelta(days=1)
"""A forced run that was stopped longer ago is not continued. The next forced run renews all connections."""


@dataclass(frozen=True)
class Plan:
    """The connections that a run renews, and the results of those that need nothing.

    Attributes:
        bases: connections to renew, each with the generation that it has now, or had when a forced run began.
        settled: the results of those that need nothing.
        endpoints: the certificate endpoint of each connection that is to be renewed, where it is known.
        failures: how often in a row each has failed in earlier runs, where it has; the fewer, the earlier it is tried.
        practice: whether one of them follows the sandbox of the home folder.
        continued: when the forced run that is continued began (UTC), or None.
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
        """Record that every connection has been tried: a forced run is over."""
        with files.storage("remove", _forced(self.home)):
            _forced(self.home).unlink(missing_ok=True)


def statuses(home: Home, patterns: Sequence[str] = (), clock: Clock = utc_now) -> list[Status]:
    """Return the status of connections by name, read from disk. Keys are not read, which would take 50 ms each.

    Args:
        home: the home folder.
        patterns: as a shell's, for names (``prod-*``); none for all.
        clock: our clock, aware, UTC.

    Raises:
        UsageError: there are no connections, or none has such a name.
    """
    names = _names(home)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"No connection in {home.path} is called {pattern!r}.", remedy="See: ucl fleet status")
    chosen = [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]
    return [status_of(Connection(home, name), clock, whole=False) for name in chosen]


def fleet_status(
    home: Home, patterns: Sequence[str] = (), *, practice: bool = False, clock: Clock = utc_now
) -> FleetStatus:
    """Return the state of a fleet. Practice connections are included if ``practice`` or a pattern asks for them.

    The other arguments and the errors are those of :func:`statuses`.
    """
    fleet = statuses(home, patterns, clock)
    chosen = [status for status in fleet if practice or patterns or not status.sandbox]
    return FleetStatus(clock(), chosen, omitted=len(fleet) - len(chosen))


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Hold the lock that allows one run of a home folder at a time. Without connections, nothing is made.

    Raises:
        Busy: there is another; names it.
        UsageError: there are no connections.
    """
    _names(home)
    files.make_private_folder(home.path, folder := home.path / "fleet")
    with files.Lock(folder / "lock", home.path, folder).held():
        yield


def plan(home: Home, patterns: Sequence[str] = (), *, force: bool = False, clock: Clock = utc_now) -> Plan:
    """Read the status of every connection, and choose those to renew. The caller holds :func:`alone`.

    Args:
        home: the home folder.
        patterns: as a shell's, for names; none for all.
        force: also those that are not due.
        clock: our clock, aware, UTC.

    Raises:
        UsageError: there are no connections, or none has such a name.
    """
    fleet = sorted(statuses(home, patterns, clock), key=lambda status: status.attempts.failures)
    idle = [] if force else [status for status in fleet if _has_nothing_to_do(home, status)]
    for status in idle:
        record_check(Connection(home, status.name), clock())
    settled = {status.name: Result(NOT_DUE, status.fingerprint) for status in idle}
    chosen = [status for status in fleet if status.name not in settled]
    bases, continued = {status.name: status.generation for status in chosen}, None
    if force:
        bases, continued = _recorded(home, patterns, bases, clock())
    return Plan(
        home,
        force,
        bases,
        settled,
        endpoints={status.name: endpoint for status in chosen if (endpoint := endpoint_of(status.url))},
        failures={status.name: count for status in chosen if (count := status.attempts.failures)},
        practice=any(status.sandbox for status in fleet),
        continued=continued,
    )


def _names(home: Home) -> list[str]:
    if not (names := home.names()):
        remedy = "Is it the right folder? --home names it, or else UCL_HOME."
        raise UsageError(f"There are no connections in {home.path}.", remedy=remedy)
    return names


def _has_nothing_to_do(home: Home, status: Status) -> bool:
    """Return whether a connection needs no run. A reference that leads nowhere would stop the next renewal."""
    with suppress(UCLError):
        if needs(status) is None:
            generation_spec(Connection(home, status.name).read_settings(), status.name)
            return True
    return False


def _recorded(
    home: Home, patterns: Sequence[str], bases: Mapping[str, str | None], now: datetime
) -> tuple[dict[str, str | None], datetime | None]:
    """Return the generations with which a forced run began that was not over, and when; else record that one begins."""
    with files.storage("read", _forced(home)), suppress(FileNotFoundError, KeyError, TypeError, ValueError):
        record = json_object(files.read_regular(_forced(home))) or {}
        began = datetime.fromisoformat(record["began"])
        is_same = record["patterns"] == list(patterns) and isinstance(record["bases"], dict)
        if is_same and timedelta(0) <= now - began < CONTINUED_WITHIN:
            return {name: record["bases"].get(name, base) for name, base in bases.items()}, began
    record = {"began": now.isoformat(), "patterns": list(patterns), "bases": dict(bases)}
    files.write(_forced(home), json.dumps(record).encode())
    return dict(bases), None


def _forced(home: Home) -> Path:
    return home.folder("fleet") / "forced.json"
