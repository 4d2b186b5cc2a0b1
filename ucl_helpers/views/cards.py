"""How each thing of the toolkit looks in a notebook: cards, bars, chains. Importing ``ucl_helpers.views`` is enough.

An object's own HTML is a plain table, so that the core needs none of this. Here is what a notebook shows in its place;
the text beside it stays the object's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import singledispatch
from itertools import pairwise
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from IPython.core.getipython import get_ipython

from ucl_helpers.connection.status import Status
from ucl_helpers.crypto import public_key_of, subject_text
from ucl_helpers.errors import explained_by
from ucl_helpers.models import Configuration, Due, Identity, Outcome, SignedCertificates, Validity, fingerprint
from ucl_helpers.procedures.procedure import Procedure
from ucl_helpers.tables import Row, Shown
from ucl_helpers.views.bars import bar
from ucl_helpers.views.markup import FAINT, Html, badge, card, element, joined, table
from ucl_helpers.views.wire import exchanged
from ucl_helpers.wire.exchange import Exchange

_CALLS: dict[type, str] = {Configuration: "configuration", SignedCertificates: "signCertificateSigningRequest"}
_LONG = 15  # rows of checks that are shown at once
_BOX = f"border:{FAINT};border-radius:0.4em;padding:0.4em 0.8em;display:inline-block;overflow-wrap:anywhere"


@singledispatch
def html_of(shown: Shown) -> Html:
    """HTML for a notebook: a card with a table; of a long one, what is ok can be opened."""
    rows = list(shown.rows())
    well = [row for row in rows if "status" in shown.header and row[shown.header.index("status")] == "ok"]
    if len(rows) <= _LONG or not well:
        return card(shown.caption(), table(shown.header, rows))
    rest = [table(shown.header, others)] if (others := [row for row in rows if row not in well]) else []
    head = element("summary", f"{len(well)} checks are ok")
    return card(shown.caption(), *rest, element("details", head, table(shown.header, well)))


@html_of.register
def _(status: Status) -> Html:
    what = "sandbox, for practice" if status.sandbox else ""
    lost = status.state in {"expired", "revoked"}
    due = status.due.at if status.due and not lost else None
    life = [bar(status.validity, status.now, due)] if status.validity and status.state != "revoked" else []
    title = f"{status.name} ({what})" if what else status.name
    return card(title, *life, table(status.header, status.rows()), state=badge(status.state))


@html_of.register
def _(validity: Validity) -> Html:
    return card(validity.title, bar(validity, validity.not_before, None), table(validity.header, validity.rows()))


@html_of.register
def _(due: Due) -> Html:
    state = badge("due", "attention") if due.due else badge("not due", "good")
    return card(due.title, table(due.header, due.rows()[1:]), state=state)


@html_of.register
def _(exchange: Exchange) -> Html:
    return exchanged(exchange)


@html_of.register
def _(identity: Identity) -> Html:
    state = badge("ok") if identity.ok else badge("failed")
    return card(identity.title, chain(identity.chain), table(identity.header, identity.rows()), state=state)


@html_of.register
def _(outcome: Outcome) -> Html:
    if outcome.outcome != "failed":
        state = badge(outcome.outcome, "neutral" if outcome.outcome == "revoked" else None)  # as it was asked for
        return card(outcome.connection, table(outcome.header, outcome.rows()), state=state)
    facts = outcome.facts
    name = str(facts.get("error", "failed"))
    return card(
        name,
        element("p", str(facts.get("message") or ""), style="white-space:pre-wrap;margin:0.3em 0"),
        element(
            "p", element("b", "What to do: "), str(facts.get("remedy") or "look at the text above"), style="margin:0"
        ),
        *(element("p", told, style="margin:0.3em 0 0") for told in [explained_by(name)] if told),
        element("p", f"{outcome.connection}; exit code {outcome.exit_code}", style="margin:0.4em 0 0;font-size:0.9em"),
        state=badge("failed"),
    )


def chain(certificates: Sequence[x509.Certificate]) -> Html:
    """A chain, leaf first: each certificate below the one that it signed, a link that does not fit told."""
    steps = [_certificate(certificates[0], "client certificate")] if certificates else []
    for below, above in pairwise(certificates):
        fits = below.issuer == above.subject
        says = "↓ signed by" if fits else f"✗ names another issuer: {subject_text(below.issuer)}"
        steps += [
            element("div", says, style="padding:0.1em 1.5em;font-size:0.9em"),
            _certificate(above, "CA" if above.issuer != above.subject else "root CA, signed by itself"),
        ]
    return element("div", *(element("div", one) for one in steps), role="group", aria_label="Certificate chain")


def certificate(one: x509.Certificate) -> Html:
    """A certificate in short, as a card."""
    return card("Certificate", _certificate(one, "client certificate"))


def _certificate(one: x509.Certificate, role: str) -> Html:
    validity, key = Validity.of(one), public_key_of(one)
    kind = f"RSA, {key.key_size} bits" if isinstance(key, rsa.RSAPublicKey) else "a key that is not RSA"
    plain = "background:none;color:inherit;font-size:0.85em;padding:0"
    mark = element("code", f"SHA-256 {fingerprint(one)}", style=plain)
    return element(
        "div",
        element("div", element("b", subject_text(one.subject))),
        element("div", f"{role}; {kind}; valid {_day(validity.not_before)} to {_day(validity.not_after)}"),
        element("div", mark),
        style=_BOX,
    )


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


@dataclass(frozen=True)
class StepCard:
    """What a step returned, and the call that it made to UCL."""

    result: Shown
    call: Shown | None

    def __str__(self) -> str:
        return "\n\n".join(str(part) for part in (self.result, self.call) if part)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        html = joined(html_of(part) for part in (self.result, self.call) if part)
        return {"text/plain": str(self), "text/html": html}


@dataclass(frozen=True)
class NothingSent(Shown):
    """A step that would call UCL and already has its answer."""

    title: ClassVar[str] = "Sent and received"

    def rows(self) -> list[Row]:
        """One row."""
        return [("sent", "nothing: an earlier run has received the answer")]


def step_card(procedure: Procedure, result: Shown) -> StepCard:
    """Show a step of a procedure as one card: what it returned, and the call that it made, without secrets."""
    operation = _CALLS.get(type(result))
    if operation is None:
        return StepCard(result, None)
    call = procedure.exchange
    return StepCard(result, call if call and operation in call.operation else NothingSent())


def show_as_cards() -> None:
    """From now on this notebook shows everything of the toolkit as cards. Outside of IPython this does nothing."""
    if (shell := get_ipython()) and shell.display_formatter:
        shell.display_formatter.formatters["text/html"].for_type(Shown, html_of)
