"""A procedure meets a fault: which it is, what came of it, and what has to be true afterwards whatever came of it."""

import re
import sqlite3
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from stat import S_IMODE

import pytest
from steps import STEPS, pending_of, tree

from ucl_helpers import Renewal, renew
from ucl_helpers.errors import UCLError
from ucl_helpers.operations import CONFIGURATION, VIEWER
from ucl_helpers.wire import client
from ucl_helpers.wire.client import Client
from ucl_sandbox.faults.catalogue import CATALOGUE
from ucl_sandbox.faults.plans import Fault

CALLS = ("configuration", "sign", "verify")
ANEW, SIGNS, VERIFIES = "starts again", "has the same CSR signed", "only verifies"
READ_SECONDS, DEADLINE_SECONDS = 0.05, 0.3  # where the fault is that nothing comes, or that it never ends
ENDLESS = {"black-hole", "slow-drip"}


@dataclass(frozen=True)
class Case:
    """A kind of fault, with a value if it is to have one, how the table names that, and the only calls it can spoil."""

    kind: str
    value: object = None
    label: str = ""
    only: tuple[str, ...] = ()

    @property
    def name(self):
        return f"{self.kind} ({self.label})" if self.label else self.kind

    def calls(self, every=CALLS):
        """Those that it can spoil, of every call of a procedure."""
        family = CATALOGUE[self.kind].family
        return self.only or {"certificate": ("sign",), "url": ("configuration",)}.get(family, every)

    def at(self, call, listener="certificate"):
        everywhere = CATALOGUE[self.kind].blind or self.kind == "outage"  # it strikes what else is asked meanwhile, too
        operation = "*" if everywhere else {"verify": "configuration"}.get(call, call)
        value = self.value() if callable(self.value) else self.value
        return Fault(self.kind, at=listener, operation=operation, value=value)


def in_an_hour():
    return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


# Beside each kind as it is: the values that make a difference.
VALUES = (
    Case("slow-drip", 0.02, "without end"),
    *(Case("tls-alert", name, name) for name in ("handshake_failure", "unknown_ca", "certificate_expired")),
    *(Case("tls-alert", name, name) for name in ("certificate_revoked", "protocol_version")),
    Case("http-429", "0", "Retry-After: 0"),
    Case("http-429", "3600", "Retry-After: 3600"),
    Case("http-503", in_an_hour, "Retry-After: in an hour, as a date"),
    Case("redirect-other-host", 302, "302"),
    Case("missing-fields", "certificateChain", "certificateChain", ("sign",)),
    *(Case("missing-fields", name, name, ("configuration", "verify")) for name in ("subject", "managementPlaneInfo")),
    Case("wrong-types", "clientCertificate", "clientCertificate", ("sign",)),
    Case("wrong-types", "directorURL", "directorURL", ("configuration", "verify")),
    Case("expired", 1, "1 s ago"),
    Case("not-yet-valid", 1, "by 1 s"),
    Case("not-yet-valid", 150, "by 2.5 min"),
)
CASES = tuple(case for kind in CATALOGUE for case in (Case(kind), *(one for one in VALUES if one.kind == kind)))


BROKE_OFF = "the connection broke off"
NORMAL = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "…"),
    (r" \(x-request-id …\)", ""),
    (r"(localhost|127\.0\.0\.1):\d{3,}", r"\1:PORT"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"\b[0-9a-f]{16}…", "FINGERPRINT"),
    (r"\((SSLV3|TLSV1|SSL/TLS)_ALERT_", "("),  # named so or so by OpenSSL
    (r"is \d+ s old", "is N s old"),
    (r"but \d+ bytes", "but N bytes"),
    (r"in (1 h|59 min \d+ s)\.", "in 1 h."),
    # Which of them shows depends on the moment at which the reset arrives, and so does the hint at what it may mean.
    (r"connection reset by peer|broken pipe|\w+ \w+ is not connected|the connection broke off \(\w+\)", BROKE_OFF),
    (r" If the error persists: a server that .* may also close the connection without a reason\.", ""),
)


def normalised(text):
    """A text for the table, without what differs from run to run."""
    for pattern, instead in NORMAL:
        text = re.sub(pattern, instead, text)
    return text.replace("|", "\\|")


@dataclass(frozen=True)
class Met:
    """What came of a fault, how often the call was made, what the user reads, and what the next run will do."""

    outcome: str
    exit_code: int
    tries: int
    says: str
    then: str


def meet(ucl, connection, case, call):
    """Renew; the fault is on as long as one of the calls is made."""
    with closing(Renewal.begin(connection)) as renewal:
        steps = {name: getattr(renewal, name) for name in STEPS}
        error, tries = struck(ucl, steps, call, case, case.at(call))
        if error is None:
            warnings = renewal.outcome().facts["warnings"] or ""
            return Met("renewed", 0, max(tries.values()), normalised(warnings), "")
        return met_of(error, list(tries.values())[-1], connection)


def struck(ucl, steps, call, case, fault):
    """Take steps by name, one of them while a fault is on: the error that this came to, and the tries of each step."""
    tries = {}
    for name, step in steps.items():
        with hasty(case) if name == call else nullcontext(), counting() as made:
            ucl.faults.set([fault] if name == call else [])
            try:
                step()
            except UCLError as error:
                return error, tries
            finally:
                tries[name] = len(made)
                ucl.faults.clear()
    return None, tries


def met_of(error, tries, connection):
    """What came of an error."""
    says = normalised(f"{error.message.splitlines()[0]} {error.remedy}".strip())
    return Met(type(error).__name__, error.exit_code, tries, says, next_run(pending_of(connection)))


def next_run(pending):
    """What the next run will do, by what the last has left."""
    if not pending:
        return ANEW
    if pending.answer():
        return VERIFIES
    return SIGNS if pending.has_request and pending.read_state().sent else "goes on with what was never sent"


def issued(ucl):
    """The fingerprint of every certificate that was signed."""
    with closing(sqlite3.connect(f"file:{ucl.state / 'state.sqlite'}?mode=ro", uri=True)) as state:
        return {fingerprint for (fingerprint,) in state.execute("SELECT fingerprint FROM certificates")}


def accepted(connection, identity):
    """Whether the sandbox answers an identity over a new handshake."""
    ca, url = identity.server_ca, connection.url
    with Client(url, "certificate", ca_file=ca, credentials=identity.credentials) as caller:
        return bool(caller.call(CONFIGURATION).result)


def open_to_others(connection):
    """What of a connection others may look at or change."""
    below = [connection.path, *connection.path.rglob("*")]
    return [one for one in below if not one.is_symlink() and S_IMODE(one.stat().st_mode) & 0o077]


def wrongs(ucl, connection, old, kept, before=frozenset()):
    """What is not as it should be, whatever has happened: the identity that was in use, the current one, what is open.

    ``before`` holds the certificates that were signed before it happened.
    """
    found = [f"open to others: {path.name}" for path in open_to_others(connection)]
    if tree(old.path) != kept:
        found.append("the identity that was in use has changed")
    for name, identity in {"old": old, "current": connection.current}.items():
        try:
            identity.check_whole()
            accepted(connection, identity)
        except UCLError as error:
            found.append(f"the {name} identity: {type(error).__name__}")
    if issued(ucl) - before and connection.current == old and not pending_of(connection).has_request:
        found.append("a certificate was signed, and its key is lost")
    return found


def go_on(connection):
    """The next run renews, with the key that was asked with and the answer that waits, if there are any."""
    pending = pending_of(connection)
    key = pending.key_path.read_bytes() if pending else None
    waiting = pending.certificate()
    assert renew(connection).outcome == "renewed"
    current = connection.current
    assert key in {None, (current.path / "key.pem").read_bytes()}
    assert waiting in {None, current.certificate}
    assert not pending_of(connection)


@contextmanager
def counting():
    """The tries of calls, as they leave."""
    made, once = [], Client._once

    def counted(client_, operation, *args):
        if operation != VIEWER:  # that asks whether UCL is down, and is no other try
            made.append(1)
        return once(client_, operation, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_once", counted)
        yield made


@contextmanager
def hasty(case):
    """Calls do not wait long for what never comes, or never ends."""
    with pytest.MonkeyPatch.context() as patch:
        if case.kind in ENDLESS and not case.value:
            patch.setattr(client, "READ_SECONDS", READ_SECONDS)
        elif case.kind in ENDLESS:
            short = property(lambda _: DEADLINE_SECONDS, lambda _, value: None)
            patch.setattr(Client, "_deadline", short, raising=False)
        yield
