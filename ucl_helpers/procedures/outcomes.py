"""What a procedure came to, told from what is on disk now."""

from datetime import datetime

from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import StorageFailed
from ucl_helpers.models import Configuration, Identity, NotNeeded, Outcome, Verification
from ucl_helpers.tables import moment
from ucl_helpers.wire.tls import hostname


def facts_of(
    source: str,
    told: Configuration,
    url: str,
    fingerprint: str,
    *,
    now: datetime,
    previous: str | None,
    accepted_host: str | None = None,
) -> dict[str, str | None]:
    """``connection.json`` of a new generation: URLs, where it came from, when (UTC).

    ``accepted_host`` is kept only if it is not the host in use: the user agrees to it once.
    """
    return {
        "source": source,
        "connectorUrl": url,
        **({"acceptedHost": accepted_host} if accepted_host not in {None, hostname(url)} else {}),
        "directorUrl": told.director_url,
        "subject": told.subject,
        "created": now.isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "previous": previous,
    }


def mark_of(generation: Generation | None) -> str | None:
    """The fingerprint of a generation; None when there is none, or when it is damaged."""
    try:
        return generation.fingerprint if generation else None
    except StorageFailed:
        return None


def warnings_of(identity: Identity, verification: Verification) -> str | None:
    """What the checks and the verification warn of, in one line, or None."""
    return "; ".join(filter(None, (identity.warnings, verification.note))) or None


def outcome_of(
    connection: Connection, done: str, now: datetime, *, previous: str | None = None, warnings: str | None = None
) -> Outcome:
    """What a procedure came to, told from the generation that is current now."""
    current, due_now = connection.require_current(), connection.due(now)
    facts = {
        "sandbox": "practice" if connection.is_sandbox else None,
        "previous_fingerprint": previous,
        "fingerprint": current.fingerprint,
        "not_before": moment(current.validity.not_before),
        "not_after": moment(current.validity.not_after),
        "due_at": moment(due_now.at),
        "generation": current.name,
        "warnings": warnings,
        "identity_file": str(connection.path / "current" / "identity.pem"),
    }
    return Outcome(done, connection.name, facts)


def not_needed(connection: Connection, idle: str, why: NotNeeded) -> Outcome:
    """The outcome of a run that had nothing to do: when it will, and by which rule."""
    current = connection.require_current()
    facts = {"not_needed_until": moment(why.until), "rule": why.reason, "fingerprint": current.fingerprint}
    return Outcome(idle, connection.name, {**facts, "not_after": moment(current.validity.not_after)})
