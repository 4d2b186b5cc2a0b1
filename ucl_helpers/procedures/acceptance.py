"""Ask UCL whether it accepts an identity, and explain a refusal.

Invariants that this file keeps:

1.  A question goes over a new, full handshake: each call has a client of its own, hence a new TLS context, no pooled
    connection and no resumed session. Both of those would still speak as another identity.
2.  A 400 with an empty body never proves by itself that an identity is lost. While the Director or its database is
    down, the Connector answers every certificate like that. So the Director is asked, once, with the same certificate.
    If it answers 5xx, or not at all, that proves an outage. Anything else proves nothing. Then the refusal counts as
    temporary for as long as :func:`ucl_helpers.policy.refusal_ends` says, and as a loss after that.
3.  A certificate that this toolkit has revoked is refused as asked, so its refusal is no outage.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from ucl_helpers.clock import Clock
from ucl_helpers.connection.attempts import answered, remembered
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.state import Verdict
from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    Busy,
    CertificateRejected,
    NotYetAccepted,
    Outage,
    PossibleOutage,
    UCLError,
    Unreachable,
    UsageError,
)
from ucl_helpers.keys import Credentials
from ucl_helpers.models import Identity, Validity, Verification, fingerprint
from ucl_helpers.operations import CONFIGURATION, VIEWER, configuration_from
from ucl_helpers.policy import refusal_ends
from ucl_helpers.tables import moment, span
from ucl_helpers.wire.client import Answer, Client

if TYPE_CHECKING:
    from ucl_helpers.connection.store import Connection

FIRST_MINUTES = timedelta(minutes=10)
UNSENT = {"unsent", "unresolved", "proxy"}
"""Facts of an error that say that nothing has left this machine, or that a proxy has passed nothing on."""
PROBE_SECONDS = 10.0


def ask_configuration(url: str, credentials: Credentials, ca_file: Path | None) -> Answer:
    """Query ``configuration`` with a certificate; raises as :class:`ucl_helpers.wire.client.Client` does."""
    with Client(url, "certificate", ca_file=ca_file, credentials=credentials) as client:
        return client.call(CONFIGURATION)


def verify(pending: Pending, identity: Identity, urls: Sequence[str | None], now: datetime) -> Verification:
    """Call as the new identity at each URL in turn until one answers.

    Args:
        pending: where its key is stored.
        identity: decoded and checked.
        urls: the URL that UCL names, then the one that is known to work; either may be None.
        now: the server's clock, UTC.

    Raises:
        NotYetAccepted: refused within ten minutes after signing; a gateway's clock may be behind.
        UCLError: the error of the last URL.
    """
    credentials = pending.credentials()
    failures: dict[str, UCLError] = {}
    for url in dict.fromkeys(filter(None, urls)):
        try:
            answer = ask_configuration(url, credentials, pending.server_ca)
            configuration_from(answer.result)
        except UCLError as error:
            failures[url] = error
            continue
        note = "; ".join(f"UCL names {name}, which failed ({type(error).__name__})" for name, error in failures.items())
        return Verification(url, answer.date or now, answer.request_id, answer.clock_difference, note)
    if not failures:
        raise BadAnswer("UCL names no certificate endpoint.", remedy="Key and CSR are kept; report it to UCL.")
    last = list(failures.values())[-1]
    is_young = now - Validity.of(identity.certificate).not_before < FIRST_MINUTES
    if is_young and isinstance(last, AuthenticationFailed | CertificateRejected):
        raise NotYetAccepted(
            f"The new certificate is signed but not accepted yet. {last.message}",
            remedy="The answer is kept, and nothing else has changed. Run it again in a few minutes.",
            **last.data,
        )
    raise last


def is_final(verdict: Verdict | None) -> TypeGuard[Verdict]:
    """Return whether a certificate was revoked for certain, so that no outage explains its refusals."""
    return verdict is not None and verdict.status == "revoked" and not verdict.may_pass


def is_accepted(connection: "Connection", clock: Clock) -> bool:
    """Ask UCL whether it accepts the identity in use; one that is damaged, expired or revoked here is not asked about.

    Raises:
        Outage, PossibleOutage: UCL refuses it, and its Director says that this passes.
        RetryLater, ServerNotTrusted, BadAnswer: UCL could not be asked.
    """
    current = connection.current
    if current is None or not current.is_readable or current.validity.not_after <= clock():
        return False
    if is_final(connection.verdicts().get(current.fingerprint)):
        return False
    credentials, ca_file = current.credentials, current.server_ca
    try:
        ask_configuration(connection.url, credentials, ca_file)
    except (AuthenticationFailed, CertificateRejected) as error:
        if (explained := explain_by_director(error, connection, credentials, ca_file, now=clock())) is not error:
            raise explained from None
        return False
    with suppress(Busy), connection.lock.held():
        connection.accepted(current.fingerprint)
        answered(connection)
    return True


def require_not_accepted(connection: "Connection", clock: Clock) -> None:
    """Refuse to replace an identity that UCL still accepts: that would leave two clients at UCL.

    Raises:
        UsageError: it is accepted.
    """
    if is_accepted(connection, clock):
        raise UsageError(
            f"{connection.name} is established, and UCL accepts its certificate.",
            remedy=f"Renew it: ucl renew {connection.name} --force; or choose another name.",
        )


@dataclass(frozen=True)
class Evidence:
    """The Director's answer to a certificate that the Connector refused.

    Attributes:
        text: in words, a sentence without its end.
        proof: whether this proves an outage.
        accepted: the Director accepts the certificate, which it does for two seconds after a revocation as well.
        status: the HTTP status that proves it; None where silence does, or an answer that may be a proxy's:
            this machine's own network could explain them as well.
    """

    text: str = ""
    proof: bool = False
    status: int | None = None
    accepted: bool = False


def ask_director(url: str | None, credentials: Credentials, ca_file: Path | None) -> Evidence:
    """Ask the Director once who the client is. Without its URL, nothing is asked and nothing is proven."""
    if url is None:
        return Evidence()
    try:
        with Client(
            url, "director", ca_file=ca_file, credentials=credentials, retry=False, deadline=PROBE_SECONDS
        ) as client:
            client.call(VIEWER)
    except UCLError as error:
        status = error.data.get("status") or 0
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            proxy = error.data.get("through_proxy")  # one that inspects TLS may answer like this forever
            place = f", or the proxy {proxy} in its place," if proxy else ""
            text = f"its Director at {url}{place} answers {status}"
            return Evidence(text, proof=True, status=None if proxy else status)
        # A proxy's own answer, or a name that this machine cannot look up, says nothing of UCL.
        if isinstance(error, Unreachable) and not error.data.keys() & {"proxy", "proxy_status", "unresolved"}:
            return Evidence(f"its Director at {url} does not answer", proof=True)
        return Evidence(f"the answer of the Director at {url} proves nothing ({type(error).__name__})")
    return Evidence(f"the Director at {url} accepts the certificate", accepted=True)


def may_be_outage(error: UCLError) -> bool:
    """Return whether an error is a refusal that an outage may explain."""
    return error.data.get("outage") == "possible"


def explain_by_director(
    error: UCLError, connection: "Connection", credentials: Credentials, ca_file: Path | None, *, now: datetime
) -> UCLError:
    """Return the error itself, or the outage that the Director's answer shows.

    It is an :class:`Outage` where that is proven now, and a :class:`PossibleOutage` where the Director accepts the
    certificate: then it is not lost. A Director that does not answer proves an outage only for as long as a refusal is
    temporary: this machine may have no way to it, and that must not keep a lost connection forever.

    Args:
        error: of the certificate endpoint.
        connection: its recorded attempts say since when UCL has refused.
        credentials: the identity that was refused.
        ca_file: PEM of the CAs that verify the server, or None for the system's CAs.
        now: our clock (UTC).
    """
    if not may_be_outage(error) or fingerprint(credentials.certificate) in connection.revoked():
        return error
    evidence = ask_director(connection.director_url, credentials, ca_file)
    _, ends = _refusal_period(evidence, connection, credentials.certificate.not_valid_after_utc, now)
    if evidence.proof and (evidence.status or now < ends):
        return _outage(error, connection, evidence)
    if not evidence.accepted:
        return error
    return PossibleOutage(
        _with_evidence(error, evidence),
        remedy="Run it again in a minute. If UCL still refuses it, ask UCL's operator. For details, run: ucl doctor "
        f"{connection.name}",
        **error.data,
    )


def explain_refusal(
    error: UCLError,
    connection: "Connection",
    credentials: Credentials,
    ca_file: Path | None,
    *,
    director: str | None,
    not_after: datetime,
    now: datetime,
) -> UCLError:
    """Return the error for a refusal, by the Director's answer and the time since UCL first refused.

    Nothing is recorded.

    Args:
        error: of the certificate endpoint.
        connection: its recorded attempts say since when UCL has refused.
        credentials: the identity that was refused.
        ca_file: PEM of the CAs that verify the server, or None for the system's CAs.
        director: its URL, or None.
        not_after: of the certificate that must be replaced in time (UTC).
        now: our clock (UTC).
    """
    if not may_be_outage(error):
        return error
    verdict = connection.verdicts().get(fingerprint(credentials.certificate))
    if verdict is not None and verdict.status in {"revoked", "asked"}:
        return _refusal_of_revoked(error, connection, verdict, now)
    evidence = ask_director(director, credentials, ca_file)
    since, ends = _refusal_period(evidence, connection, not_after, now)
    if evidence.proof and (evidence.status or now < ends):
        return _outage(error, connection, evidence)
    if isinstance(error, NotYetAccepted):
        return error
    message = _with_evidence(error, evidence)
    facts = {**error.data, "refused_since": moment(since), "refusal_ends": moment(ends)}
    if now < ends:
        return PossibleOutage(
            message,
            remedy=f"Nothing is lost. Wait and run it again. From {moment(ends)} on, the refusal counts as a loss. Do "
            "not establish the connection again before that, unless UCL's operator confirms that there is no outage."
            f"{doctor_hint(connection)}",
            **facts,
        )
    lasting = f"\nUCL has refused it since {moment(since)} ({span(now - since)})." if now > since else ""
    return AuthenticationFailed(
        f"{message}{lasting}",
        remedy="Ask UCL's operator whether there is an outage. If there is one, wait. The next run tries "
        "again. If there is none, the identity is lost. Then establish the connection again: "
        f"{connection.establish_command(again=True)}",
        **facts,
    )


def doctor_hint(connection: "Connection") -> str:
    """Return the sentence that ends the remedy of an outage; the doctor itself leaves it out."""
    return f" To see whether UCL accepts it again: ucl doctor {connection.name}"


def _refusal_period(
    evidence: Evidence, connection: "Connection", not_after: datetime, now: datetime
) -> tuple[datetime, datetime]:
    """Return since when UCL has refused without proof of an outage, and from when on that counts as a loss (UTC)."""
    since = now if evidence.status else min(remembered(connection).unproven_since or now, now)
    return since, refusal_ends(since, not_after=not_after)


def _refusal_of_revoked(
    error: UCLError, connection: "Connection", verdict: Verdict, now: datetime
) -> AuthenticationFailed:
    """Explain the refusal of a certificate that this toolkit has revoked, or has asked UCL to revoke."""
    facts = {name: value for name, value in error.data.items() if name not in {"outage", "causes"}}
    action = "sent its revocation" if verdict.status == "asked" else "revoked it"
    message = f"{_refusal(error, connection)}{_request(error)}. `ucl` {action} at {moment(verdict.since)}"
    if verdict.status == "revoked":
        return AuthenticationFailed(f"{message}.", remedy=f"To come back: {connection.come_back(now)}", **facts)
    return AuthenticationFailed(
        f"{message} and received no answer. It is probably revoked.",
        remedy=f"Finish the revocation: ucl revoke {connection.name} --all",
        **facts,
    )


def _outage(error: UCLError, connection: "Connection", evidence: Evidence) -> Outage:
    facts = {name: value for name, value in error.data.items() if name != "causes"}
    if evidence.status:
        facts["director_status"] = evidence.status
    return Outage(
        f"UCL is down: {_refusal(error, connection)}, and {evidence.text}{_request(error)}.",
        remedy="In an outage UCL refuses every certificate, so nothing is lost. Do not establish the connection again. "
        f"Run it again when UCL is back.{doctor_hint(connection)}",
        **{**facts, "outage": "proven"},
    )


def _refusal(error: UCLError, connection: "Connection") -> str:
    return f"{error.data.get('url')} refuses the certificate of {connection.name} (400)"


def _with_evidence(error: UCLError, evidence: Evidence) -> str:
    return error.message + (evidence.text and f"\n{evidence.text[0].upper()}{evidence.text[1:]}.")


def _request(error: UCLError) -> str:
    request_id = error.data.get("request_id")
    return f" (x-request-id {request_id})" if request_id else ""
