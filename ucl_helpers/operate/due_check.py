"""Is there anything to do for a connection? Seen on disk in a moment, without a lock, a call or a kernel.

A run is needed if one of :data:`REASONS` gives a reason, asked in their order, or if looking itself meets an error:
then the notebook tells more. A reason is a function of the connection and the moment; it gives a text, or None.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucl_helpers.clock import utc_now
from ucl_helpers.connection.attempts import raise_if_backing_off, record_check, refusal
from ucl_helpers.connection.hook_state import pending_hooks
from ucl_helpers.connection.passphrases import wanted_by
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import Refused, UCLError, Waiting
from ucl_helpers.headless.outcome import SCHEMA_VERSION, identity_facts, timestamp
from ucl_helpers.tables import moment

REVOKED = "its certificate was revoked"
"""A reason for a run that would end as the look does: no run brings a revoked certificate back."""


@dataclass(frozen=True)
class Look:
    """What a look at a connection came to.

    Attributes:
        connection: its name.
        needed: why a run is needed, or None.
        until: if none is, a run is not needed before then (UTC).
        rule: and by which rule.
    """

    connection: str
    needed: str | None
    until: datetime | None = None
    rule: str = ""


def _not_established(connection: Connection, _: datetime) -> str | None:
    return "it is not established" if connection.current is None else None


def _damaged(connection: Connection, _: datetime) -> str | None:
    connection.require_current().check_whole()
    return None


def _lost(connection: Connection, _: datetime) -> None:
    wanted_by(connection.settings, connection.name)  # a reference that leads nowhere stops the next renewal


def _revoked(connection: Connection, _: datetime) -> str | None:
    gone = connection.require_current().fingerprint in connection.revoked()
    return REVOKED if gone else None


def _under_way(connection: Connection, _: datetime) -> str | None:
    return "a signing request is under way" if Pending(connection.path / "pending").state.get("sent") else None


def _hooks(connection: Connection, _: datetime) -> str | None:
    waiting = ", ".join(one.name for one in pending_hooks(connection))
    return f"hooks still have to run: {waiting}" if waiting else None


def _due(connection: Connection, now: datetime) -> str | None:
    due = connection.due(now)
    return f"due since {moment(due.at)} ({due.reason})" if due.due else None


def _in_plain(connection: Connection, _: datetime) -> str | None:
    return "a key lies there in plain, and the settings want it encrypted" if connection.has_plain_keys() else None


def _refused(connection: Connection, _: datetime) -> str | None:
    return refusal(connection)


REASONS: tuple[Callable[[Connection, datetime], str | None], ...] = (
    *(_not_established, _damaged, _lost, _revoked),
    *(_under_way, _due, _refused),
    *(_hooks, _in_plain),
)
PAUSED = (_under_way, _due, _refused)
"""Reasons that do not count while a failure is too recent, like those behind them in this order.

See :mod:`ucl_helpers.connection.attempts`.
"""


def look(connection: Connection, now: datetime) -> Look:
    """Whether a run is needed at ``now`` (aware, UTC), and why, or until when not.

    Raises:
        Waiting: a renewal is needed and failed a short time ago.
    """
    try:
        for reason in REASONS:
            if why := reason(connection, now):
                if reason in PAUSED:
                    raise_if_backing_off(connection, now)
                return Look(connection.name, why)
        due = connection.due(now)
    except Waiting:
        raise
    except UCLError as error:
        return Look(connection.name, f"it cannot be told: {error.message}")
    return Look(connection.name, None, due.at, due.reason)


def nothing_to_do(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """What ``outcome.json`` says of a run that is not made; None if it is needed, or if no connection is named.

    It is remembered that somebody looked. That a pause is not over is an error, with its exit code, and so is that the
    certificate was revoked: the notebook would end in the same way each time.

    Args:
        notebook: what would be run.
        parameters: what it would be given, ``connection`` and ``home`` among them.
    """
    if not (name := parameters.get("connection")):
        return None
    started = datetime.now(UTC)
    connection = Connection(Home(parameters.get("home") or None), name)
    try:
        seen = look(connection, started)
    except Waiting as error:
        told = {**_failed(error), "nextTry": error.data["not_before"]}
    else:
        if seen.needed == REVOKED:
            record_check(connection, started)
            told = _failed(Refused(f"The certificate of {name} was revoked.", remedy=_come_back(connection)))
        elif seen.needed or seen.until is None:
            return None
        else:
            record_check(connection, started)
            told = {"outcome": "not-due", "exitCode": 0, "notNeededUntil": moment(seen.until), "rule": seen.rule}
    ended = datetime.now(UTC)
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "look",
        "connection": name,
        **told,
        **identity_facts(connection),
        "redacted": [],
        "started": timestamp(started),
        "ended": timestamp(ended),
        "seconds": round((ended - started).total_seconds(), 3),
        "steps": [],
        "source": str(notebook),
        "notebook": None,
    }


def _failed(error: UCLError) -> dict[str, Any]:
    told = {"outcome": "failed", "exitCode": error.exit_code, "error": type(error).__name__}
    return {**told, "message": error.message, "remedy": error.remedy}


def _come_back(connection: Connection) -> str:
    return f"It cannot be renewed. To come back: {connection.come_back(utc_now())}"
