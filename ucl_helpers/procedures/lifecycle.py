"""Going back to an earlier generation, and forgetting a connection."""

from collections.abc import Sequence
from datetime import datetime

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.state import Verdict
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import Refused, UsageError
from ucl_helpers.models import Outcome
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.procedures.outage import unless_it_passes
from ucl_helpers.procedures.outcomes import mark_of, outcome_of
from ucl_helpers.procedures.revocation import unproven_identities, unsettled, valid_identities
from ucl_helpers.tables import moment
from ucl_helpers.wire.client import Client
from ucl_helpers.wire.tls import check_url


def rollback(connection: Connection, generation: str | None = None, *, clock: Clock = utc_now) -> Outcome:
    """Make an earlier generation current again, after it has answered a call over a new, full handshake.

    Args:
        connection: established.
        generation: its name or number; None for the newest that is valid and not revoked; not the current one as it
            was before it was rebuilt.
        clock: our clock, aware, UTC.

    Raises:
        UsageError: there is no such generation, or none that could be used.
        RetryLater, Refused, ServerNotTrusted: UCL does not accept it; the one in use stays.
    """
    with connection.lock.held():
        current = connection.current
        chosen = _choose(connection, current, generation, clock)
        chosen.check_whole()
        url = connection.url if connection.is_sandbox else check_url(chosen.facts.get("connectorUrl"))
        ca, credentials = chosen.server_ca, chosen.credentials
        try:
            with Client(url, "certificate", ca_file=ca, credentials=credentials) as client:
                client.call(CONFIGURATION)
        except Refused as error:
            raise unless_it_passes(error, connection, credentials, ca, now=clock()) from None
        previous = mark_of(current)
        if connection.verdicts().get(chosen.fingerprint):  # UCL has just accepted it
            connection.judge(chosen.fingerprint, None)
        connection.switch(chosen, "rolled-back", previous)
        connection.record("rolled-back", fingerprint=chosen.fingerprint, previous=previous, generation=chosen.name)
        return outcome_of(connection, "rolled-back", clock(), previous=previous)


def forget(connection: Connection, *, even_if_valid: bool = False, clock: Clock = utc_now) -> Outcome:
    """Remove a connection from disk, keys and all. Nothing is revoked by this.

    Raises:
        UsageError: an identity of it is still valid, was refused in what may be an outage of UCL, or may have been
            signed without an answer, and ``even_if_valid`` is not set.
    """
    with connection.lock.held():
        valid = valid_identities(connection, clock)
        if valid and not even_if_valid:
            counted = "an identity" if len(valid) == 1 else f"{len(valid)} identities"
            raise UsageError(
                f"{connection.name} has {counted} that UCL still accepts; with their keys gone nobody "
                "could use or revoke them.",
                remedy=f"Revoke them first: ucl revoke {connection.name} --all; or add --even-if-valid.",
            )
        if (unproven := unproven_identities(connection, clock)) and not even_if_valid:
            counted = "an identity" if len(unproven) == 1 else f"{len(unproven)} identities"
            raise UsageError(
                f"UCL refuses {counted} of {connection.name}. UCL may be down: in an outage it refuses every "
                "certificate like this, and the keys are good again afterwards.",
                remedy=f"Ask UCL's operator whether there is an outage. If there is one, wait, then run: ucl revoke "
                f"{connection.name} --all. If there is none: ucl forget {connection.name} --even-if-valid",
            )
        if (lost := unsettled(connection)) and not even_if_valid:
            raise UsageError(
                f"{connection.name} keeps the key of what may be valid: {lost}.",
                remedy="Settle it first with ucl renew or ucl establish; or add --even-if-valid.",
            )
        files.remove_tree(connection.path)
    return Outcome("forgotten", connection.name, {"removed": str(connection.path)})


def _choose(connection: Connection, current: Generation | None, wanted: str | None, clock: Clock) -> Generation:
    others = [one for one in reversed(connection.generations()) if one != current]
    if wanted is not None:
        found = [one for one in others if _is_named(one, wanted)]
        _require_not_revoked(connection, found[:1])
    else:
        found = connection.usable(clock())
    if not found:
        verdicts = connection.verdicts()
        names = ", ".join(_described(one, verdicts.get(mark_of(one) or ""), clock()) for one in others) or "none"
        what = f"{connection.name} has no generation {wanted or 'that could be used'} besides the current one."
        if wanted and current and _is_named(current, wanted):
            what = f"Generation {wanted} of {connection.name} is in use already."
        raise UsageError(what, remedy=f"There: {names}. If all are lost, establish the connection anew.")
    return found[0]


def _require_not_revoked(connection: Connection, chosen: Sequence[Generation]) -> None:
    """A generation that this toolkit has revoked is not tried: UCL refuses it.

    Raises:
        UsageError: it was revoked.
    """
    revoked = connection.revoked()
    for one in chosen:
        if (when := revoked.get(mark_of(one) or "")) is not None:
            raise UsageError(
                f"Generation {one.name} of {connection.name} was revoked {moment(when)}.",
                remedy=f"See which can be used: ucl status {connection.name}",
            )


def _described(one: Generation, verdict: Verdict | None, now: datetime) -> str:
    """The name of a generation, and why it cannot be used, if that is known."""
    why = ""
    if verdict is not None:
        why = str(verdict)
    elif not one.is_readable:
        why = "damaged"
    elif one.validity.not_after <= now:
        why = "expired"
    return f"{one.name} ({why})" if why else one.name


def _is_named(generation: Generation, wanted: str) -> bool:
    return generation.name == wanted or generation.name.split("-")[0].lstrip("0") == wanted.lstrip("0")
