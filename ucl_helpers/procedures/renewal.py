"""Renewal with the certificate in use: the tutorial's four steps, then verify and activate.

::

    renewal  = Renewal.begin(connection)   # reads what an interrupted run left; starts generating the key
    config   = renewal.configuration()     # step 1
    request  = renewal.request()           # step 2: key and CSR, on disk before they are used
    signed   = renewal.sign()              # step 3
    identity = renewal.decode()            # step 4: decoded, every check shown
    renewal.verify()                       # the new identity answers over a new mutual TLS handshake
    renewal.activate()                     # one rename

:func:`renew` is exactly these lines, under one lock.

Invariants that this file keeps, besides those of :mod:`ucl_helpers.procedures.procedure`:

1.  Only a certificate that this toolkit has not revoked is renewed, and UCL is asked with it.
2.  Another subject, or another host of the certificate endpoint, needs the user's consent before anything is signed.
3.  Nothing that waits to be tried again is tried earlier, unless the user asks for it.
"""

from collections.abc import Mapping
from typing import Self

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import attempts
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.status import needs, status_of
from ucl_helpers.connection.store import Connection
from ucl_helpers.crypto import parse_subject, same_subject, subject_text
from ucl_helpers.errors import CertificateRejected, HostChanged, Refused, SubjectChanged, UsageError
from ucl_helpers.models import Configuration, Due, NotNeeded, Outcome
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.procedures.acceptance import is_final
from ucl_helpers.procedures.procedure import STEP_WAIT_SECONDS, Procedure
from ucl_helpers.tables import moment
from ucl_helpers.urls import another_host, hostname
from ucl_helpers.wire.client import Answer, Client


class Renewal(Procedure):
    """One renewal of a connection, step by step; see :meth:`begin`."""

    kind = "renew"
    done = "renewed"
    idle = "not-due"

    due: Due
    accept_new_subject = accept_new_host = False

    @classmethod
    def begin(
        cls,
        connection: Connection,
        *,
        key_length: int | None = None,
        only_if_due: bool = False,
        accept_new_subject: bool = False,
        accept_new_host: bool = False,
        rehearsal: bool = False,
        clock: Clock = utc_now,
    ) -> Self:
        """Read the connection and what an interrupted run left, and start making the key in a thread.

        Args:
            connection: established.
            key_length: RSA bits, 2048 to 8192; None for that of an interrupted run, else the connection's setting (4096
                by default).
            only_if_due: when nothing is due and no signing request is open, every step returns
                :class:`~ucl_helpers.models.NotNeeded`; when something is, it may have to wait.
            accept_new_subject: consent to a subject other than the one in use.
            accept_new_host: consent to another host of the certificate endpoint.
            rehearsal: nothing will be signed, so nothing is recorded as an attempt.
            clock: our clock, aware, UTC.

        Raises:
            UnknownConnection: it is not established.
            Waiting: with ``only_if_due``; it has failed, and the next try is not due yet.
            Refused: its certificate was revoked.
            UsageError: an establishment waits to be finished, or ``key_length`` is out of range.
            StorageFailed: a file of the connection is missing or damaged.
            KeyLocked, InvalidSettings: a passphrase that the settings refer to does not fit, or is not there.
        """
        with (
            connection.lock.held(wait=STEP_WAIT_SECONDS),
            attempts.recording_attempt(connection, clock, rehearsal=rehearsal),
        ):
            connection.require_current()
            renewal = cls(connection, bits=key_length, server_ca=None, clock=clock)
            current = connection.require_current()  # read again: its key may have been encrypted meanwhile
            current.check_whole()
            renewal._server_ca = current.server_ca
            renewal.accept_new_subject, renewal.accept_new_host = accept_new_subject, accept_new_host
            renewal.rehearsal = rehearsal
            renewal.due = connection.due(clock())
            state = renewal.pending.read_state()
            if state.kind == "establish" and state.base == current.stem and renewal.pending.answer():
                raise UsageError(
                    f"An establishment of {connection.name} waits to be finished.",
                    remedy=f"Run: {connection.establish_command()}",
                )
            need = needs(status_of(connection, clock, whole=False, pending=renewal.pending))
            verdict = connection.verdicts().get(current.fingerprint)
            if is_final(verdict):
                raise Refused(
                    f"The certificate of {connection.name} was revoked {moment(verdict.since)} and cannot be renewed.",
                    remedy=f"To come back: {connection.come_back(clock())}",
                )
            # A due renewal runs even if other files are damaged. In that case needs() has no due date.
            if only_if_due and not renewal.due.due and not (need and need.renews):
                if need and need.action == "ask":
                    renewal._ask_whether_it_is_accepted()
                renewal.not_needed = NotNeeded(renewal.due.at, renewal.due.reason)
                attempts.record_check(connection, clock())
                return renewal
            if only_if_due:
                attempts.raise_if_backing_off(connection, clock())
            renewal.start_key()
            return renewal

    def _ask_configuration(self, operation: str, variables: Mapping[str, str]) -> Answer:
        try:
            answer = self._call(operation, variables)
        except CertificateRejected as error:
            command = self.connection.establish_command(again=True)
            remedy = f"If it has expired or was revoked, establish the connection again: {command}"
            raise error.replaced(remedy=remedy) from None
        self.connection.accepted(self.connection.require_current().fingerprint)
        return answer

    def _ask_whether_it_is_accepted(self) -> None:
        """Ask UCL again about a certificate that it has refused, though nothing is due. Raises if UCL still refuses."""
        attempts.raise_if_backing_off(self.connection, self._clock())
        try:
            self._ask_configuration(CONFIGURATION, {})
        finally:
            self.close()

    def _ask_signature(self, operation: str, variables: Mapping[str, str]) -> Answer:
        try:
            return self._call(operation, variables)
        finally:
            self.close()

    def _call(self, operation: str, variables: Mapping[str, str]) -> Answer:
        current = self.connection.require_current()
        ca_file, credentials = current.server_ca, current.credentials
        with self._asking(credentials, ca_file, self.connection.director_url, current.validity.not_after):
            if self._client is None:  # configuration and sign share one TLS connection
                self._client = Client(self.connection.url, "certificate", ca_file=ca_file, credentials=credentials)
            return self._client.call(operation, variables)

    def _fallback(self) -> Generation | None:
        base = self._previous
        if base is None or base.validity.not_after <= self._server_now():
            return None
        return None if base.fingerprint in self.connection.revoked() else base

    def _known_url(self) -> str:
        return self.connection.url

    def _consent(self, configuration: Configuration) -> None:
        current = self.connection.require_current().certificate.subject
        if not self.accept_new_subject and not same_subject(current, parse_subject(configuration.subject)):
            raise SubjectChanged(
                f"UCL now wants the subject {configuration.subject!r}; in use is {subject_text(current)!r}.",
                remedy="If that is right, consent: --accept-new-subject, or the parameter accept_new_subject.",
                wanted=configuration.subject,
            )

    def _new_host(self, configuration: Configuration) -> str | None:
        """Return the host that UCL names for the certificate endpoint, if the user has just agreed to it; else None.

        Raises:
            HostChanged: the host is neither the established one nor one that the user has agreed to before.
        """
        named, used = configuration.certificate_secured_connector_url, self.connection.url
        state = self.pending.read_state()
        before = state.accepted_host if state.sent else None  # else the user agreed in a rehearsal
        host = another_host(named, used, self.connection.require_current().facts.get("acceptedHost"), before)
        if host is None or self.accept_new_host:
            return host
        raise HostChanged(
            f"UCL now names the host {host} for the certificate endpoint, instead of {hostname(used)}. "
            "`ucl` did not call it.",
            remedy="Ask UCL's operator whether that is right. If it is, consent: ucl renew "
            f"{self.connection.name} --force --accept-new-host, or the parameter accept_new_host of notebook 02.",
            named=named,
            host=host,
            established=hostname(used),
        )


def renew(
    connection: Connection,
    *,
    key_length: int | None = None,
    only_if_due: bool = False,
    accept_new_subject: bool = False,
    accept_new_host: bool = False,
    clock: Clock = utc_now,
) -> Outcome:
    """Renew a connection: all steps, the lock held throughout.

    Arguments and errors are those of :meth:`Renewal.begin` and its steps. The outcome is ``renewed`` or ``not-due``.
    """
    with connection.lock.held():
        renewal = Renewal.begin(
            connection,
            key_length=key_length,
            only_if_due=only_if_due,
            accept_new_subject=accept_new_subject,
            accept_new_host=accept_new_host,
            clock=clock,
        )
        return renewal.run()
