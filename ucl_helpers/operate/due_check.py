"""Check for ``ucl run --if-due`` whether a connection needs a run, without a lock, a call or a kernel.

:func:`ucl_helpers.connection.status.needs` decides. If the connection cannot be read, a run is needed, because it
reports the error.
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
from ucl_helpers.headless.outcome import Record
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.tables import moment


@dataclass(frozen=True)
class DueCheck:
    """Whether a connection needs a run.

    Attributes:
        need: its work, or None.
        until: the moment (UTC) before which no run is needed; None if there is work.
        rule: the rule that sets this moment.
    """

    need: Need | None
    until: datetime | None = None
    rule: str = ""


def check_due(connection: Connection, now: datetime) -> DueCheck:
    """Decide whether a run is needed at ``now`` (aware, UTC), and why, or until when none is needed.

    Raises:
        Waiting: a renewal is needed and failed a short time ago.
    """
    try:
        status = status_of(connection, lambda: now)
        if (need := needs(status)) is not None:
            if need.wait_until:
                raise_if_backing_off(connection, now)
            return DueCheck(need)
        # A reference that leads nowhere would stop the next renewal.
        generation_spec(connection.read_settings(), connection.name)
        due = connection.due(now)
    except Waiting:
        raise
    except UCLError as error:
        return DueCheck(Need("settings", error.message))
    return DueCheck(None, due.at, due.reason)


def nothing_to_do(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the content of ``outcome.json`` for a run that is not made; None if a run is made.

    A run is made if one is needed, or if no connection is named. The check is recorded. A pause that is not over is an
    error with its exit code, and so is a revoked certificate: the notebook would end in the same way each time.

    Args:
        notebook: what would be run.
        parameters: what it would be given, ``connection`` and ``home`` among them.
    """
    if not (name := parameters.get("connection")):
        return None
    record = Record(str(notebook), parameters, datetime.now(UTC))
    connection = Connection(Home(parameters.get("home") or None), name)
    error: UCLError | None = None
    try:
        check = check_due(connection, record.started)
    except Waiting as waiting:
        error, facts = waiting, {"nextTry": waiting.data["not_before"]}
    else:
        if check.until is not None:
            facts = {"outcome": "not-due", "notNeededUntil": moment(check.until), "rule": check.rule}
        elif check.need and check.need.action == "establish" and not check.need.renews and connection.current:
            facts = {}  # it was revoked, and no run brings it back
            remedy = f"It cannot be renewed. To come back: {connection.come_back(utc_now())}"
            error = Refused(f"The certificate of {name} was revoked.", remedy=remedy)
        else:
            return None
        record_check(connection, record.started)
    record.end((), error, Redactor())
    record.outcome |= facts
    return {**record.as_json(None), "kind": "look"}
