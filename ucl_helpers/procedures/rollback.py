"""Go back to an earlier generation of a connection.

``current`` is switched by one rename, to a generation that is whole, and only after UCL has answered a call with its
identity over a new, full handshake. If the settings ask for other files than it has, for example further exports, it is
written again with them first, so that programs that read them keep working.
"""

from datetime import datetime

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.generation import Generation, fingerprint_or_none
from ucl_helpers.connection.state import Verdict
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import PossibleOutage, Refused, RetryLater, UsageError
from ucl_helpers.models import Outcome
from ucl_helpers.procedures.acceptance import ask_configuration, explain_by_director, is_accepted, may_be_outage
from ucl_helpers.procedures.generations import as_settings_want, outcome_of
from ucl_helpers.tables import moment
from ucl_helpers.urls import check_url


def rollback(connection: Connection, generation: str | None = None, *, clock: Clock = utc_now) -> Outcome:
    """Make an earlier generation current again, after it has answered a call over a new, full handshake.

    Args:
        connection: established.
        generation: its name or number; None for the newest that is valid and not revoked; not the current one as it
            was before it was rebuilt.
        clock: our clock, aware, UTC.

    Raises:
        UsageError: there is no such generation, or none that could be used.
        RetryLater, Refused, ServerNotTrusted: UCL does not accept it. The identity in use is unchanged. It is
            ``PossibleOutage`` if UCL does not accept the identity in use either.
    """
    with connection.lock.held():
        previous = fingerprint_or_none(connection.current)
        chosen = _choose(connection, generation, clock())
        chosen.check_whole()
        url = connection.url if connection.is_sandbox else check_url(chosen.facts.get("connectorUrl"))
        ca_file, credentials = chosen.server_ca, chosen.credentials
        try:
            ask_configuration(url, credentials, ca_file)
        except Refused as error:
            explained = explain_by_director(error, connection, credentials, ca_file, now=clock())
            if isinstance(explained, RetryLater):
                raise explained from None
            remedy = "The identity in use has not changed."
            if may_be_outage(error):
                if chosen.fingerprint not in connection.verdicts():
                    connection.judge(chosen.fingerprint, Verdict("doubtful", clock()))
                if not is_accepted(connection, clock):
                    remedy += (
                        " UCL accepts neither, so it may have an outage. Wait and run it again. If UCL's operator says "
                        f"that there is none: {connection.establish_command(again=True)}"
                    )
                    raise PossibleOutage(error.message, remedy=remedy, **error.data) from None
                remedy += " UCL accepts that one, and this generation no more."
            raise explained.replaced(remedy=remedy) from None
        connection.judge(chosen.fingerprint, None)  # UCL has just accepted it
        restored, problem = as_settings_want(connection, chosen)
        connection.switch(restored, "rolled-back", previous)
        connection.record("rolled-back", fingerprint=chosen.fingerprint, previous=previous, generation=restored.name)
        return outcome_of(connection, "rolled-back", clock(), previous=previous, warnings=problem)


def _choose(connection: Connection, name: str | None, now: datetime) -> Generation:
    current, verdicts = connection.current, connection.verdicts()
    others = [generation for generation in reversed(connection.generations()) if generation != current]
    chosen = next(iter(connection.usable(now) if name is None else _named(others, name)), None)
    if chosen is None:
        problem = f"{connection.name} has no other generation {name or 'that can be used'}."
        if name and current and _named([current], name):
            problem = f"Generation {name} of {connection.name} is in use already."
        names = ", ".join(_described(other, verdicts.get(fingerprint_or_none(other) or ""), now) for other in others)
        raise UsageError(
            problem, remedy=f"Others: {names or 'none'}. If all are lost: {connection.establish_command(again=True)}"
        )
    verdict = verdicts.get(fingerprint_or_none(chosen) or "")
    if verdict is not None and verdict.status == "revoked":  # UCL would refuse it
        raise UsageError(
            f"Generation {chosen.name} of {connection.name} was revoked {moment(verdict.since)}.",
            remedy=f"See which can be used: ucl status {connection.name}",
        )
    return chosen


def _named(generations: list[Generation], name: str) -> list[Generation]:
    """Return the generations with this name, or this number."""
    number = name.lstrip("0")
    return [generation for generation in generations if name == generation.name or number == str(generation.order[0])]


def _described(generation: Generation, verdict: Verdict | None, now: datetime) -> str:
    """Return the name of a generation, and why it cannot be used, if the reason is recorded."""
    if verdict is not None:
        return f"{generation.name} ({verdict})"
    if not generation.is_readable:
        return f"{generation.name} (damaged)"
    return f"{generation.name} (expired)" if generation.validity.not_after <= now else generation.name
