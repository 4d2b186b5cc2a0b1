"""Going back to an earlier generation, and forgetting a connection."""

from ucl_helpers import files
from ucl_helpers.client import Client
from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.errors import Refused, UsageError
from ucl_helpers.generation import Generation
from ucl_helpers.models import Outcome
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.outage import unless_it_passes
from ucl_helpers.outcomes import mark_of, outcome_of
from ucl_helpers.revocation import unsettled, valid_identities
from ucl_helpers.store import Connection
from ucl_helpers.tls import check_url


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
            raise unless_it_passes(error, connection, credentials, ca) from None
        connection.switch(chosen)
        previous = mark_of(current)
        connection.record("rolled-back", fingerprint=chosen.fingerprint, previous=previous, generation=chosen.name)
        return outcome_of(connection, "rolled-back", clock(), previous=previous)


def forget(connection: Connection, *, even_if_valid: bool = False, clock: Clock = utc_now) -> Outcome:
    """Remove a connection from disk, keys and all. Nothing is revoked by this.

    Raises:
        UsageError: an identity of it is still valid, or may have been signed without an answer, and ``even_if_valid``
            is not set.
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
    else:
        gone, now = connection.revoked(), clock()
        whole = [one for one in others if one.is_readable and not (current and one.stem == current.stem)]
        found = [one for one in whole if now < one.validity.not_after and one.fingerprint not in gone]
    if not found:
        names = ", ".join(one.name for one in others) or "none"
        what = f"{connection.name} has no generation {wanted or 'that could be used'} besides the current one."
        if wanted and current and _is_named(current, wanted):
            what = f"Generation {wanted} of {connection.name} is in use already."
        raise UsageError(what, remedy=f"There: {names}. If all are lost, establish the connection anew.")
    return found[0]


def _is_named(generation: Generation, wanted: str) -> bool:
    return generation.name == wanted or generation.name.split("-")[0].lstrip("0") == wanted.lstrip("0")
