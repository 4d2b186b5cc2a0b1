"""``ucl run --if-due``: does a connection need a run? Answered from disk, without a lock, a call or a kernel.

:func:`ucl_helpers.connection.status.needs` decides. If the connection cannot be read, a run is needed: it says more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucl_helpers.clock import utc_now
from ucl_helpers.connection.attempts import raise_if_backing_off, record_check
from ucl_helpers.connection.references import generation_spec
from ucl_helpers.connection.status import Need, needs, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import Refused, UCLError, Waiting
from ucl_helpers.headless.outcome import SCHEMA_VERSION, identity_facts, timestamp
from ucl_helpers.tables import moment


@dataclass(frozen=True)
class DueCheck:
    """Whether a connection needs a run.

    Attributes:
        connection: its name.
        need: the work that it has, or None.
        until: if none is, a run is not needed before then (UTC).
        rule: and by which rule.
    """

    connection: str
    need: Need | None
    until: datetime | None = None
    rule: str = ""


def check_due(connection: Connection, now: datetime) -> DueCheck:
    """Whether a run is needed at ``now`` (aware, UTC), and why, or until when not.

    Raises:
        Waiting: a renewal is needed and failed a short time ago.
    """
    try:
        status = status_of(connection, lambda: now)
        if (need := needs(status)) is not None:
            if need.wait_until:
                raise_if_backing_off(connection, now)
            return DueCheck(connection.name, need)
        # A reference that leads nowhere would stop the next renewal.
        generation_spec(connection.read_settings(), connection.name)
        due = connection.due(now)
    except Waiting:
        raise
    except UCLError as error:
        return DueCheck(connection.name, Need("settings", error.message))
    return DueCheck(connection.name, None, due.at, due.reason)


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
        seen = check_due(connection, started)
    except Waiting as error:
        told = {**_failed(error), "nextTry": error.data["not_before"]}
    else:
        if seen.need and seen.need.action == "establish" and not seen.need.renews and connection.current:
            record_check(connection, started)  # it was revoked, and no run brings it back
            told = _failed(Refused(f"The certificate of {name} was revoked.", remedy=_come_back(connection)))
        elif seen.need or seen.until is None:
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
    return {"outcome": "failed", **error.as_json()}


def _come_back(connection: Connection) -> str:
    return f"It cannot be renewed. To come back: {connection.come_back(utc_now())}"
