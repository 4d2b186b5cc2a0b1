"""Is a refusal a loss, or an outage of UCL that passes?

While the Director or its database is down, the Connector answers every certificate with 400 and an empty body, as it
answers one that was revoked. So the Director is asked, once, with the same certificate. That it answers 5xx, or not at
all, proves an outage. Anything else proves nothing: then the refusal counts as temporary for as long as
:func:`ucl_helpers.policy.refusal_ends` says, and as a loss after that.
"""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path

from ucl_helpers.connection.attempts import remembered
from ucl_helpers.connection.state import Verdict
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import AuthenticationFailed, NotYetAccepted, Outage, PossibleOutage, UCLError, Unreachable
from ucl_helpers.models import fingerprint
from ucl_helpers.operations import VIEWER
from ucl_helpers.policy import refusal_ends
from ucl_helpers.tables import moment, span
from ucl_helpers.wire.client import Client
from ucl_helpers.wire.tls import Credentials

PROBE_SECONDS = 10.0
_OURS = ("revoked", "asked")


@dataclass(frozen=True)
class Evidence:
    """What the Director said to a certificate that the Connector refused.

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
    """Ask the Director who we are, once; without its URL nothing is asked and nothing proven."""
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
            if proxy := error.data.get("through_proxy"):  # one that looks into TLS may answer for ever: no status
                return Evidence(
                    f"its Director at {url}, or the proxy {proxy} in its place, answers {status}", proof=True
                )
            return Evidence(f"its Director at {url} answers {status}", proof=True, status=status)
        # A proxy's own answer, or a name that this machine cannot look up, says nothing of UCL.
        if isinstance(error, Unreachable) and not error.data.keys() & {"proxy", "proxy_status", "unresolved"}:
            return Evidence(f"its Director at {url} does not answer", proof=True)
        return Evidence(f"the answer of the Director at {url} proves nothing ({type(error).__name__})")
    return Evidence(f"the Director at {url} accepts the certificate", accepted=True)


def may_be(error: UCLError) -> bool:
    """Whether an error is a refusal that may be an outage."""
    return error.data.get("outage") == "possible"


def unless_it_passes(
    error: UCLError, connection: Connection, credentials: Credentials, ca_file: Path | None, *, now: datetime
) -> UCLError:
    """The error itself, or what the Director makes of it.

    It is an :class:`Outage` where that is proven now, and a :class:`PossibleOutage` where the Director accepts the
    certificate: then it is not lost. A Director that does not answer proves an outage only for as long as a refusal is
    temporary: this machine may have no way to it, and that must not keep a lost connection for ever.

    Args:
        error: of the certificate endpoint.
        connection: what is remembered of its attempts says since when UCL has refused.
        credentials: the identity that was refused.
        ca_file: PEM of what verifies the server, or None for the system's CAs.
        now: our clock (UTC).
    """
    if not may_be(error) or _is_revoked_here(connection, credentials):
        return error
    evidence = ask_director(connection.director_url, credentials, ca_file)
    _, ends = _lasts(evidence, connection, credentials.certificate.not_valid_after_utc, now)
    if evidence.proof and (evidence.status or now < ends):
        return _outage(error, connection, evidence)
    if not evidence.accepted:
        return error
    return PossibleOutage(
        _with(error, evidence),
        remedy="Run it again in a minute. If UCL still refuses it, ask UCL's operator. For details, run: ucl doctor "
        f"{connection.name}",
        **error.data,
    )


def judged(
    error: UCLError,
    connection: Connection,
    credentials: Credentials,
    ca_file: Path | None,
    *,
    director: str | None,
    not_after: datetime,
    now: datetime,
) -> UCLError:
    """What a refusal means, by what the Director says and by how long UCL has refused. It is not remembered here.

    Args:
        error: of the certificate endpoint.
        connection: what is remembered of its attempts says since when UCL has refused.
        credentials: the identity that was refused.
        ca_file: PEM of what verifies the server, or None for the system's CAs.
        director: its URL, or None.
        not_after: of the certificate that must be replaced in time (UTC).
        now: our clock (UTC).
    """
    if not may_be(error):
        return error
    if (verdict := connection.verdicts().get(fingerprint(credentials.certificate))) and verdict.status in _OURS:
        return _revoked_by_us(error, connection, verdict, now)
    evidence = ask_director(director, credentials, ca_file)
    since, ends = _lasts(evidence, connection, not_after, now)
    if evidence.proof and (evidence.status or now < ends):
        return _outage(error, connection, evidence)
    if isinstance(error, NotYetAccepted):
        return error
    message = _with(error, evidence)
    facts = {**error.data, "refused_since": since.isoformat(), "refusal_ends": ends.isoformat()}
    if now < ends:
        return PossibleOutage(
            message,
            remedy=f"Nothing is lost. Wait and run it again. From {moment(ends)} on, the refusal counts as a loss. Do "
            "not establish the connection again before that, unless UCL's operator confirms that there is no outage."
            f"{to_see(connection)}",
            **facts,
        )
    lasting = f"\nUCL has refused it since {moment(since)} ({span(now - since)})." if now > since else ""
    return AuthenticationFailed(
        f"{message}{lasting}",
        remedy="Ask UCL's operator whether there is an outage. If there is one, wait. The next run tries "
        "again. If there is none, the identity is lost. Then establish the connection again: "
        f"{connection.establish_command}",
        **facts,
    )


def to_see(connection: Connection) -> str:
    """The sentence that ends the remedy of an outage; the doctor, who has just been asked, leaves it out."""
    return f" To see whether UCL accepts it again: ucl doctor {connection.name}"


def _lasts(evidence: Evidence, connection: Connection, not_after: datetime, now: datetime) -> tuple[datetime, datetime]:
    """Since when UCL has refused without a proof of an outage, and from when on that counts as a loss (UTC)."""
    since = now if evidence.status else min(remembered(connection).unproven_since or now, now)
    return since, refusal_ends(since, not_after=not_after)


def _revoked_by_us(error: UCLError, connection: Connection, verdict: Verdict, now: datetime) -> AuthenticationFailed:
    """What the refusal of a certificate means that this toolkit has revoked, or was to revoke."""
    facts = {name: value for name, value in error.data.items() if name not in {"outage", "causes"}}
    told = f"{_url(error)} refuses the certificate of {connection.name} (400){_request(error)}."
    if verdict.status == "revoked":
        return AuthenticationFailed(
            f"{told} `ucl` revoked it at {moment(verdict.since)}.",
            remedy=f"To come back: {connection.come_back(now)}",
            **facts,
        )
    return AuthenticationFailed(
        f"{told} `ucl` sent its revocation at {moment(verdict.since)} and received no answer. It is probably revoked.",
        remedy=f"Finish the revocation: ucl revoke {connection.name} --all",
        **facts,
    )


def _is_revoked_here(connection: Connection, credentials: Credentials) -> bool:
    """Whether this toolkit has revoked it: then a refusal is what was asked for, and no outage."""
    return fingerprint(credentials.certificate) in connection.revoked()


def _outage(error: UCLError, connection: Connection, evidence: Evidence) -> Outage:
    facts = {**error.data, "outage": "proven"}
    if evidence.status:
        facts["director_status"] = evidence.status
    facts.pop("causes", None)
    return Outage(
        f"UCL is down: {_url(error)} refuses the certificate of {connection.name} (400), and {evidence.text}"
        f"{_request(error)}.",
        remedy="In an outage UCL refuses every certificate, so nothing is lost. Do not establish the connection again. "
        f"Run it again when UCL is back.{to_see(connection)}",
        **facts,
    )


def _with(error: UCLError, evidence: Evidence) -> str:
    found = evidence.text and f"\n{evidence.text[0].upper()}{evidence.text[1:]}."
    return f"{error.message}{found}"


def _url(error: UCLError) -> str:
    return str(error.data.get("url"))


def _request(error: UCLError) -> str:
    found = error.data.get("request_id")
    return f" (x-request-id {found})" if found else ""
