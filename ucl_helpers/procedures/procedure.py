"""The steps of a renewal and of an establishment, one method each. A run can be interrupted before or after any step.

Invariants that this file keeps:

1.  Key and CSR are on disk before the signing request leaves, and so is the fact that it leaves.
2.  A new identity becomes current only after its checks passed *and* it answered over a new, full handshake.
3.  Each step takes the lock, reads ``pending/`` again, acts, records and releases. If another process has settled what
    it began, it raises an error.
4.  A failure leaves the identity in use untouched, and keeps in ``pending/`` what a later run needs.

A subclass says how UCL is asked: with the certificate in use, or with a one-time token.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers import steps
from ucl_helpers.checks import Expected
from ucl_helpers.clock import Clock
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import answered, recording_attempt
from ucl_helpers.connection.generation import Generation, fingerprint_or_none
from ucl_helpers.connection.pending import prune_aside
from ucl_helpers.crypto import parse_subject
from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    CertificateRejected,
    ChecksFailed,
    NotYetAccepted,
    SettledElsewhere,
    UCLError,
    UsageError,
)
from ucl_helpers.formats.key_files import ca_pem
from ucl_helpers.keys import Credentials, key_length, make_key
from ucl_helpers.models import (
    CallRecord,
    Configuration,
    Identity,
    NotNeeded,
    Outcome,
    SignedCertificates,
    SigningRequest,
    Verification,
)
from ucl_helpers.procedures.acceptance import explain_refusal, verify
from ucl_helpers.procedures.generations import clean_up, generation_metadata, outcome_of
from ucl_helpers.progress import waiting
from ucl_helpers.tables import moment, span
from ucl_helpers.wire.client import Answer, Client
from ucl_helpers.wire.tls import unusable_ca

if TYPE_CHECKING:
    from ucl_helpers.connection.store import Connection

STEP_WAIT_SECONDS = 10.0
MAX_REJECTED = 3
LONGEST_WAIT_FOR_VALIDITY = timedelta(minutes=1)
Step = TypeVar("Step")


class KeyMaker:
    """Makes one RSA key of ``bits`` bits in the background."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._key: Future[rsa.RSAPrivateKey] | None = None

    def start(self) -> Future[rsa.RSAPrivateKey]:
        """Begin, unless it has begun."""
        if self._key is None:
            self._key = ThreadPoolExecutor(1, thread_name_prefix="key").submit(make_key, self._bits)
        return self._key

    def key(self) -> rsa.RSAPrivateKey:
        """Return the key; wait for it if it is not ready."""
        future = self.start()
        if future.done():
            return future.result()
        with waiting(f"Making an RSA key of {self._bits} bits; this takes some seconds."):
            return future.result()


class Procedure(ABC):
    """Configuration → key and CSR → sign → decode and check → verify → activate."""

    kind: ClassVar[str]
    done: ClassVar[str]
    idle: ClassVar[str]
    asks_for_token = False  # with the configuration: a new connection signs with it
    rehearsal = False  # if true, nothing is recorded as an attempt
    wait: Callable[[float], object] = staticmethod(time.sleep)  # for so many seconds

    def __init__(self, connection: "Connection", *, bits: int | None, server_ca: Path | None, clock: Clock) -> None:
        self.connection = connection
        self.pending = connection.pending
        self._server_ca, self._clock = server_ca, clock
        self._client: Client | None = None
        self._answer: Answer | None = None
        self._results: dict[str, Any] = {}
        self._id: str | None = None
        self._outcome: Outcome | None = None
        self.exchange: CallRecord | None = None
        self.not_needed: NotNeeded | None = None
        with connection.lock.held(wait=STEP_WAIT_SECONDS):
            clean_up(connection, self.pending)
            self._base = connection.current
            self._previous = self._base if fingerprint_or_none(self._base) else None
            state = self.pending.read_state()
        if bits is None:  # then an interrupted run decides
            resumes = (state.kind, state.base) == (self.kind, self._base.stem if self._base else None)
            bits = state.bits if resumes else connection.read_settings().key_length
        self.bits = key_length(bits)
        self._key = KeyMaker(self.bits)

    @abstractmethod
    def _ask_configuration(self, operation: str, variables: Mapping[str, str]) -> Answer: ...

    @abstractmethod
    def _ask_signature(self, operation: str, variables: Mapping[str, str]) -> Answer: ...

    @abstractmethod
    def _consent(self, configuration: Configuration) -> None: ...

    @abstractmethod
    def _new_host(self, configuration: Configuration) -> str | None: ...

    @abstractmethod
    def _fallback(self) -> Generation | None:
        """Return the identity in use if it still works. Then a signed identity that fails may be given up."""

    def _known_url(self) -> str | None:
        """Return a certificate endpoint that has worked before, or None."""
        return None

    @property
    def results(self) -> Mapping[str, Any]:
        """Return the results of the steps so far, by the steps' names, without outdated ones."""
        if self._outcome is None:
            self._drop_stale_results()
        return dict(self._results)

    def configuration(self) -> Configuration | NotNeeded:
        """Step 1: ask UCL which subject to request. An answer that only waits to be verified is not asked for again.

        Raises:
            SubjectChanged: UCL wants another subject than the certificate in use has.
            HostChanged: UCL names another host for the certificate endpoint.
            RetryLater, Refused, ServerNotTrusted, BadAnswer: see :class:`ucl_helpers.wire.client.Client`.
            SettledElsewhere, Busy: another process has finished this, or is working on it.
        """
        return self._step("configuration", self._configuration)

    def request(self) -> SigningRequest | NotNeeded:
        """Step 2: make key and CSR and store them. Those of an interrupted run are used again."""
        return self._step("request", self._request, after="configuration")

    def sign(self) -> SignedCertificates | NotNeeded:
        """Step 3: have the CSR signed. A stored answer is not asked for again."""
        return self._step("sign", self._sign, after="request")

    def decode(self) -> Identity | NotNeeded:
        """Step 4: decode the chain and check everything.

        Raises:
            ChecksFailed: names all that failed; the next run has the same CSR signed again, three times at most.
        """
        return self._step("decode", self._decode, after="sign")

    def verify(self) -> Verification | NotNeeded:
        """Let the new identity answer a ``configuration`` call over a new, full handshake.

        A certificate that becomes valid within a minute, by UCL's clock, is waited for. The lock is free meanwhile,
        unless the caller holds it.

        Raises:
            RetryLater: the answer is kept; the next run only verifies.
        """
        self._wait_until_valid()
        return self._step("verify", self._verify, after="decode")

    def _wait_until_valid(self) -> None:
        if self.not_needed is not None or self._outcome is not None or "decode" not in self.results:
            return
        identity: Identity = self._results["decode"]
        ahead = identity.certificate.not_valid_before_utc - self._server_now()
        if timedelta(0) < ahead <= LONGEST_WAIT_FOR_VALIDITY:
            with waiting(f"The new certificate is valid in {span(ahead)}, by UCL's clock."):
                self.wait(ahead.total_seconds())

    def activate(self) -> Outcome | NotNeeded:
        """Make the new identity current: one rename."""
        return self._step("activate", self._activate, after="verify")

    def _step(self, name: str, act: Callable[[], Step], *, after: str | None = None) -> Step | NotNeeded:
        if self.not_needed is not None:
            return self.not_needed
        if self._outcome is not None:  # activated by this object: a cell that runs twice shows the same again
            earlier: Step = self._results[name]
            return earlier
        with self.connection.lock.held(wait=STEP_WAIT_SECONDS):
            self.pending.reload()
            self._require_same_pending()
            self._drop_stale_results()
            if after and after not in self._results:
                raise UsageError(f"{name}() comes after {after}().", remedy="Run the steps in their order.")
            if name not in self._results or after is None:  # only the configuration is asked for again
                try:
                    with recording_attempt(
                        self.connection, self._clock, begins=after is None, rehearsal=self.rehearsal
                    ):
                        self._results[name] = act()
                except UCLError:
                    self.close()
                    raise
            result: Step = self._results[name]
            return result

    def _require_same_pending(self) -> None:
        """Go on only with what this object has begun, for the generation it began with.

        Raises:
            SettledElsewhere: another process has finished it, or set it aside.
        """
        name, current = self.connection.name, self.connection.current
        if current != self._base:
            problem = f"{name} got another generation meanwhile: {current.name if current else 'none'}."
        elif self._id is not None and self.pending.read_state().id != self._id:
            problem = f"Another run has finished this work for {name}, or set it aside."
        else:
            return
        raise SettledElsewhere(problem, remedy="Nothing is lost. Start again from the first step.")

    def _drop_stale_results(self) -> None:
        """Drop the results that depend on an answer which was rejected, or replaced by another process."""
        if self._results.get("sign") != self.pending.answer():
            for name in ("sign", "decode", "verify"):
                self._results.pop(name, None)

    def _configuration(self) -> Configuration:
        configuration = self.pending.resume(self.kind, self._base, self.bits, self._is_outdated)
        if configuration is None:
            configuration = steps.configuration(
                self._recording(self._ask_configuration), with_token=self.asks_for_token
            )
            host = self._new_host(configuration)
            self._consent(configuration)
            self.pending.open(
                self.kind, self._base, configuration, bits=self.bits, server_ca=_ca_for_server(self._server_ca)
            )
            self._note_time()
        else:
            host = self._new_host(configuration)
            self.pending.replace_server_ca(self.kind, _ca_for_server(self._server_ca))
        if host is not None:
            self.pending.update(accepted_host=host)
        if self._id != self.pending.read_state().id:
            self._results.clear()
        self._id = self.pending.read_state().id
        return configuration

    def _request(self) -> SigningRequest:
        subject = self._results["configuration"].subject
        reused = self.pending.has_request
        if not reused:
            self.pending.keep_request(*steps.request(subject, self.bits, make=lambda _: self._key.key()))
        csr = self.pending.csr().decode("ascii")
        return SigningRequest(subject, self.bits, csr, str(self.pending.key_path), reused)

    def start_key(self) -> None:
        """Begin to make the key in a thread, unless one is pending."""
        if not (self.pending.has_request and self.pending.read_state().bits == self.bits):
            self._key.start()

    def _sign(self) -> SignedCertificates:
        if (answer := self.pending.answer()) is not None:
            return answer
        self.pending.about_to_send(self._clock())
        self.connection.record("signing-requested", pending=self._id)
        signed = steps.sign(self._recording(self._ask_signature), self.pending.csr())
        self.pending.keep_answer(signed)
        self._note_time()
        return signed

    def _decode(self) -> Identity:
        try:
            return steps.decode(self._results["sign"], self._expected())
        except (ChecksFailed, BadAnswer) as error:
            self._reject(error)
            raise

    def _expected(self) -> Expected:
        return Expected(
            public_key=self.pending.key().public_key(),
            subject=parse_subject(self._results["configuration"].subject),
            server_now=self._server_now(),
            local_now=self._clock(),
            due=lambda leaf: self.connection.due_of(leaf, self._server_now()),
            previous=self._previous.certificate if self._previous else None,
            previous_ca=self._previous.client_ca if self._previous else (),
        )

    def _recording(self, ask: Callable[[str, Mapping[str, str]], Answer]) -> steps.Call:
        """Return ``ask`` as a step calls it. The last answer is kept, because it also tells the server's time."""

        def call(operation: str, variables: Mapping[str, str]) -> Any:
            self._answer = ask(operation, variables)
            self.exchange = self._answer.record
            return self._answer.result

        return call

    def _note_time(self) -> None:
        date = self._answer.date if self._answer else None
        ahead = date - self._clock() if date else timedelta(0)
        self.pending.update(clock_difference=ahead.total_seconds())

    def _server_now(self) -> datetime:
        """Return the server's time, by the ``Date`` of its last answer."""
        return self._clock() + timedelta(seconds=self.pending.read_state().clock_difference or 0.0)

    def _is_outdated(self, certificate: x509.Certificate) -> bool:
        """Return whether a signed certificate is useless: expired, or due although another identity works."""
        now = self._server_now()
        if now >= certificate.not_valid_after_utc:
            return True
        return self._fallback() is not None and self.connection.due_of(certificate, now).due

    def _reject(self, error: UCLError) -> None:
        """Set aside an answer that failed its checks. The same CSR is signed again, a bounded number of times."""
        rejected = (self.pending.read_state().rejected or 0) + 1
        self.connection.record("answer-rejected", reason=error.message[:500], count=rejected)
        self.pending.drop_answer()
        self.pending.update(rejected=rejected)
        if rejected >= MAX_REJECTED:
            self.pending.set_aside("its answers failed their checks")

    def _verify(self) -> Verification:
        identity: Identity = self._results["decode"]
        configuration: Configuration = self._results["configuration"]
        url = self.connection.sandbox_url or configuration.certificate_secured_connector_url
        practice, fallback = self.connection.is_sandbox, self._fallback()
        director = self.connection.director_url if practice else configuration.director_url
        not_after = (fallback or identity).certificate.not_valid_after_utc
        try:
            with self._asking(self.pending.credentials(), self.pending.server_ca, director, not_after):
                verification = verify(self.pending, identity, [url, self._known_url()], self._server_now())
        except (AuthenticationFailed, CertificateRejected) as error:  # not a temporary refusal: see acceptance.py
            if fallback is None:  # the only identity: each run tries it again while it is valid
                raise self._still_refused(error) from None
            self._reject(error)
            raise
        self.pending.update(verified=identity.fingerprint, url=verification.url)
        return verification

    def _still_refused(self, error: UCLError) -> UCLError:
        """Return the error for an identity that was signed, is refused, and is kept."""
        return error

    @contextmanager
    def _asking(
        self, credentials: Credentials, ca_file: Path | None, director: str | None, not_after: datetime
    ) -> Iterator[None]:
        """Explain a refusal by the certificate endpoint; record that it answered."""
        try:
            yield
        except (AuthenticationFailed, NotYetAccepted) as error:
            raise explain_refusal(
                error, self.connection, credentials, ca_file, director=director, not_after=not_after, now=self._clock()
            ) from None
        if not self.rehearsal:
            answered(self.connection)

    def _activate(self) -> Outcome:
        identity: Identity = self._results["decode"]
        if identity.certificate.not_valid_after_utc <= self._server_now():
            raise UsageError(
                "The new certificate has expired since it was verified.", remedy="Start again from the first step."
            )
        previous = fingerprint_or_none(self._base)
        configuration: Configuration = self._results["configuration"]
        verification: Verification = self._results["verify"]
        now = self._clock()
        url, mark = verification.url, identity.fingerprint
        facts = generation_metadata(self.kind, configuration, url, mark, now=now, previous=previous, consented=True)
        server_ca = self.pending.server_ca_pem()
        previous_url = self._base.facts.get("connectorUrl") if self._base and previous else None
        new = self.connection.install(self.pending.key(), identity.chain, identity.client_ca, server_ca, facts)
        warnings = "; ".join(filter(None, (identity.warnings, verification.note))) or None
        names = {"fingerprint": identity.fingerprint, "previous": previous, "generation": new.name}
        self.connection.record(self.done, **names, warnings=warnings)
        if isinstance(previous_url, str) and previous_url != facts["connectorUrl"]:
            self.connection.record("endpoint-changed", previous=previous_url, url=facts["connectorUrl"])
        prune_aside(self.connection.path, self._server_now())  # by what is noted in pending/
        self.pending.discard()
        self._outcome = outcome_of(self.connection, self.done, now, previous=previous, warnings=warnings)
        return self._outcome

    def close(self) -> None:
        """Close the kept TLS connection; a later step opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(self) -> Outcome:
        """Run all steps in their order, and hold the lock throughout."""
        with self.connection.lock.held():
            for step in (self.configuration, self.request, self.sign, self.decode, self.verify, self.activate):
                step()
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return the outcome.

        Raises:
            UsageError: the steps have not run to the end.
        """
        if self.not_needed is not None:
            until, rule, current = self.not_needed.until, self.not_needed.reason, self.connection.require_current()
            facts = {"not_needed_until": moment(until), "rule": rule, "fingerprint": current.fingerprint}
            facts["not_after"] = moment(current.validity.not_after)
            return Outcome(self.idle, self.connection.name, facts)
        if self._outcome is None:
            raise UsageError(f"{self.connection.name} has no outcome yet.", remedy="Run the steps first.")
        return self._outcome


def _ca_for_server(path: Path | None) -> bytes | None:
    """Read the user's CA file for the server as plain PEM; raises StorageFailed when it cannot be used."""
    if path is None:
        return None
    try:
        with files.storage("read", path):
            return ca_pem(files.read_regular(path), where=str(path))
    except UsageError as error:
        raise unusable_ca(path, error) from None
