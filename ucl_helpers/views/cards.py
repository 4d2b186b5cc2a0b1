"""Show each object of the toolkit as a card in a notebook: tables, lifetimes, chains, calls.

An object's own HTML is a plain table, so that the core needs none of this. A notebook shows the cards in its place; the
text form stays the object's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import singledispatch
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from IPython.core.getipython import get_ipython
from pygments.lexer import Lexer
from pygments.lexers.data import JsonLexer
from pygments.lexers.graphql import GraphQLLexer
from pygments.token import Keyword, Name, Number, Operator, String, _TokenType

from ucl_helpers.connection.status import LOST, Status
from ucl_helpers.crypto import public_key_of, subject_text
from ucl_helpers.errors import explained_by, printable
from ucl_helpers.models import (
    CallRecord,
    Due,
    Identity,
    Outcome,
    Validity,
    fingerprint,
)
from ucl_helpers.tables import Tabular, moment
from ucl_helpers.views.markup import FAINT, Html, badge, breakable, card, element, safe, table

_STRIPES = "background-image:repeating-linear-gradient(45deg,"  # JupyterLab removes it until the notebook is trusted
_GROUNDS = {
    "lived": "#7d8590",
    "until the renewal is due": "#4aa3df",
    "overdue": f"#d9822b;{_STRIPES}#7d8590 0 5px,#d9822b 5px 10px)",
    **dict.fromkeys(("left after that", "left"), f"#e69f00;{_STRIPES}#e69f00 0 5px,#f6d489 5px 10px)"),
}
SEEN = 0.005  # of the lifetime


@dataclass(frozen=True)
class Part:
    """A part of a lifetime, such as ``lived``."""

    name: str
    length: timedelta


def parts(validity: Validity, now: datetime, due: datetime | None) -> list[Part]:
    """Return the parts of a lifetime in order, without those that are too short to be seen.

    Args:
        validity: NotBefore and NotAfter.
        now: the present moment, which may be before NotBefore or after NotAfter.
        due: when a renewal becomes due; None to leave this out.
    """
    start, end = validity.not_before, validity.not_after
    here = min(max(now, start), end)
    turn = min(max(due, start), end) if due else here
    return [part for part in _parts(start, here, turn, end) if part.length > SEEN * validity.lifetime]


def _parts(start: datetime, here: datetime, turn: datetime, end: datetime) -> Iterator[Part]:
    yield Part("lived", min(here, turn) - start)
    if here < turn:
        yield Part("until the renewal is due", turn - here)
        yield Part("left after that", end - turn)
    else:
        yield Part("overdue", here - turn)
        yield Part("left", end - here)


def bar(validity: Validity, now: datetime, due: datetime | None) -> Html:
    """Return a lifetime as a bar with a legend, and with the dates of its ends and of the renewal (UTC)."""
    stretches = parts(validity, now, due)
    shares = [part.length / validity.lifetime for part in stretches]
    lived = sum(share for part, share in zip(stretches, shares, strict=True) if part.name in {"lived", "overdue"})
    start, end = moment(validity.not_before), moment(validity.not_after)
    dated = f"Valid from {start} to {end}"
    turn = f"renewal due from {moment(due)}" if due else ""
    strip = element(
        "div",
        *map(_stretch, stretches, shares),
        role="img",
        aria_label="; ".join(filter(None, (dated, turn, f"{lived:.0%} lived"))),
        style="display:flex;height:0.9em;border-radius:0.45em;overflow:hidden;border:1px solid rgba(128,128,128,.6)",
    )
    ends = map(_date, (start, turn, end), ("left", "center", "right"))
    return element(
        "div",
        strip,
        element("div", *ends, style="display:flex;flex-wrap:wrap;gap:0 1em"),
        element("div", *map(_swatch, stretches), style="margin-bottom:0.4em"),
        style="max-width:48em",
    )


def _stretch(part: Part, share: float) -> Html:
    return element("div", style=f"flex:{round(100 * share)} 0 0;background-color:{_GROUNDS[part.name]}")


def _date(text: str, side: str) -> Html:
    """Return a date, aligned to a side of the line. On a narrow page each date has its own line."""
    return element("span", text, style=f"flex:1 0 auto;text-align:{side};white-space:nowrap;font-size:0.9em")


def _swatch(part: Part) -> Html:
    style = f"display:inline-block;width:0.8em;height:0.8em;margin-right:0.35em;background-color:{_GROUNDS[part.name]}"
    mark = element("span", aria_hidden="true", style=style)
    return element("span", mark, part.name, style="font-size:0.9em;margin-right:1.4em;white-space:nowrap")


_COLOURS = (  # JupyterLab's for code, else those of pydata's Sphinx themes, else the page's
    (Keyword, "keyword", "font-weight:600"),
    (String, "string", ""),
    (Number, "number", ""),
    (Name.Tag, "property", ""),
    (Name.Attribute, "property", ""),
    (Name.Function, "def", "font-weight:600"),
    (Operator, "operator", ""),
)
_PRE = f"margin:0.2em 0 0.6em;padding:0.5em 0.7em;border:{FAINT};border-radius:0.3em;white-space:pre-wrap"


def highlighted(text: str, lexer: Lexer) -> Html:
    """Return a text with syntax colours."""
    return Html("".join(_coloured(kind, word) for kind, word in lexer.get_tokens(printable(text))))


def code_block(text: str, lexer: Lexer | None = None) -> Html:
    """Return a text as a block of code, with syntax colours if there is a lexer."""
    content = highlighted(text.strip(), lexer) if lexer else safe(text)
    style = "background:none;color:inherit;word-break:normal;overflow-wrap:anywhere"  # JupyterLab breaks all words
    return element("pre", element("code", content, style=style), style=_PRE)


def panel(title: str, *content: str, is_open: bool = False) -> Html:
    """Return content that a reader can fold and unfold."""
    head = element("summary", element("b", title), style="cursor:pointer")
    opened = {"open": ""} if is_open else {}
    return element("details", head, *content, style="margin-top:0.5em", **opened)


def call_lines(record: CallRecord) -> Iterator[Html]:
    """Return a call as it went over the wire: the query readable, the JSON body that carries it folded."""
    parts = {row[0]: row[1] for row in record.rows()}
    yield element("div", element("b", "POST "), breakable(parts["POST"]))
    yield code_block(parts["request headers"])
    yield element("b", "GraphQL sent")
    yield code_block(parts["query"], GraphQLLexer())
    yield panel("JSON body, which carries the query", code_block(parts["JSON body"], JsonLexer()))
    yield element("div", element("b", "Answer "), parts.get("status", ""), style="margin-top:0.6em")
    if headers := parts.get("answer headers"):
        yield code_block(headers)
    yield code_block(parts["JSON answer"], JsonLexer())


def _coloured(kind: _TokenType, word: str) -> Html:
    for token, name, more in _COLOURS:
        if kind in token:
            colour = f"color:var(--jp-mirror-editor-{name}-color,var(--pst-color-inline-code,currentColor))"
            return element("span", breakable(word), style=f"{colour};{more}".rstrip(";"))
    return breakable(word)


_LONG = 15  # rows of checks that are shown at once
_BOX = f"border:{FAINT};border-radius:0.4em;padding:0.4em 0.8em;display:inline-block"


@singledispatch
def html_of(shown: Tabular, *more: Html) -> Html:
    """Return HTML for a notebook: a card with a table, and more below it.

    In a long table the checks that are ok are folded.
    """
    rows = list(shown.rows())
    well = [row for row in rows if "status" in shown.header and row[shown.header.index("status")] == "ok"]
    if len(rows) <= _LONG or not well:
        return card(shown.caption(), table(shown.header, rows), *more)
    others = sorted((row for row in rows if row not in well), key=lambda row: "failed" not in row)  # failures first
    rest = [table(shown.header, others)] if others else []
    return card(shown.caption(), *rest, panel(f"{len(well)} checks are ok", table(shown.header, well)), *more)


@html_of.register
def _(status: Status) -> Html:
    lost = status.state in LOST
    due = status.due.at if status.due and not lost else None
    is_refused = status.refusal_ends and not lost  # this may be an outage
    state = badge(f"{status.state}, refused by UCL", "attention") if is_refused else badge(status.state)
    life = [bar(status.validity, status.now, due)] if status.validity and status.state != "revoked" else []
    title = status.name + " (sandbox, for practice)" * status.sandbox
    return card(title, *life, table(status.header, status.rows()), state=state)


@html_of.register
def _(validity: Validity) -> Html:
    return card(validity.title, bar(validity, validity.not_before, None), table(validity.header, validity.rows()))


@html_of.register
def _(due: Due) -> Html:
    state = badge("due", "attention") if due.due else badge("not due", "good")
    return card(due.title, table(due.header, due.rows()[1:]), state=state)


@html_of.register
def _(exchange: CallRecord) -> Html:
    return card(exchange.title, *call_lines(exchange))


@html_of.register
def _(identity: Identity, *more: Html) -> Html:
    state = badge("ok" if identity.ok else "failed")
    return card(identity.title, chain(identity.chain), table(identity.header, identity.rows()), *more, state=state)


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
        *(element("p", explanation, style="margin:0.3em 0 0") for explanation in [explained_by(name)] if explanation),
        element("p", f"{outcome.connection}; exit code {outcome.exit_code}", style="margin:0.4em 0 0;font-size:0.9em"),
        state=badge("not yet", "attention") if name == "Waiting" else badge("failed"),
    )


def chain(certificates: Sequence[x509.Certificate]) -> Html:
    """Return a chain, leaf first. It says where a certificate names another issuer than the next one."""
    steps = [_certificate(certificates[0], "client certificate")] if certificates else []
    for below, above in pairwise(certificates):
        fits = below.issuer == above.subject
        says = "↓ signed by" if fits else f"✗ names another issuer: {subject_text(below.issuer)}"
        steps += [
            element("div", says, style="padding:0.1em 1.5em;font-size:0.9em"),
            _certificate(above, "CA" if above.issuer != above.subject else "root CA, signed by itself"),
        ]
    lines = (element("div", step) for step in steps)
    return element("div", *lines, role="group", aria_label="Certificate chain", style="margin-bottom:0.8em")


def certificate(certificate: x509.Certificate) -> Html:
    """Return a certificate as a card with its subject, validity and fingerprint."""
    return card("Certificate", _certificate(certificate, "client certificate"))


def _certificate(certificate: x509.Certificate, role: str) -> Html:
    validity, key = Validity.of(certificate), public_key_of(certificate)
    kind = f"RSA, {key.key_size} bits" if isinstance(key, rsa.RSAPublicKey) else "a key that is not RSA"
    facts = f"{role}; {kind}; valid {validity.not_before:%Y-%m-%d} to {validity.not_after:%Y-%m-%d}"
    plain = "background:none;color:inherit;font-size:0.85em;padding:0"
    mark = element("code", breakable(f"SHA-256 {fingerprint(certificate)}"), style=plain)
    return element(
        "div",
        element("div", element("b", breakable(subject_text(certificate.subject)))),
        element("div", breakable(facts)),
        element("div", mark),
        style=_BOX,
    )


def show_as_cards() -> None:
    """Show objects of the toolkit as cards in this notebook. Outside of IPython this does nothing."""
    if (shell := get_ipython()) and shell.display_formatter:
        shell.display_formatter.formatters["text/html"].for_type(Tabular, html_of)
