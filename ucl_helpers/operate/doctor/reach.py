"""Examine the way to UCL, its server, and its answer.

:class:`Reach` does so for a URL before there is a connection, :class:`IdentityReach` for the identity in use. Each
makes one ``configuration`` call, without a one-time token, and requests no signature. Before the call, it looks up
the name, connects and shakes hands, so that a fault there has a finding of its own.
"""

import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from errno import ECONNRESET, ENOTCONN
from pathlib import Path
from urllib.parse import urlsplit

from ucl_helpers.checks import TOLERANCE
from ucl_helpers.clock import Clock
from ucl_helpers.crypto import parse_subject, same_subject, subject_text
from ucl_helpers.errors import (
    AuthenticationFailed,
    CertificateRejected,
    HostChanged,
    RequestRejected,
    RetryLater,
    ServerNotTrusted,
    StorageFailed,
    SubjectChanged,
    UCLError,
    Unreachable,
    UsageError,
)
from ucl_helpers.keys import Credentials
from ucl_helpers.models import Configuration
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, skipped, warning
from ucl_helpers.operate.doctor.on_disk import OnDisk
from ucl_helpers.operations import CONFIGURATION, configuration_from
from ucl_helpers.procedures.acceptance import doctor_hint, explain_refusal
from ucl_helpers.tables import span
from ucl_helpers.urls import another_host, check_url, is_loopback
from ucl_helpers.wire.client import Answer, Client
from ucl_helpers.wire.diagnosis import Endpoint, transport_error
from ucl_helpers.wire.proxy import proxy_for, proxy_variable
from ucl_helpers.wire.tls import system_trust_problem, tls_context

SECONDS = 15.0
WAY = ("proxy", "name resolution", "TCP connection", "TLS handshake", "server trust")
NAMES = ("certificate endpoint", *WAY, "client certificate", "UCL's answer", "clock", "subject", "URLs")
_OTHER_CA = ("its CA is unknown", "self-signed", "cannot be verified")
_OTHER_HOST = ("for another host", "for another address")


class Reach:
    """How far a call to a URL gets, before there is an identity.

    The call shows no certificate and no token, so UCL refuses it. A refusal is an answer, and that is enough.
    """

    names: Sequence[str] = ("URL", *WAY, "UCL's answer", "clock")
    credentials: Credentials | None = None
    trusted = "the CA file"
    other_url = "Check the URL (--url). Copy it again from UCL."
    other_ca = "Give the CA of the server as a PEM file: --ca-file"

    def __init__(self, url: str, clock: Clock, seconds: float = SECONDS, server_ca: Path | None = None) -> None:
        self.url, self.clock, self.seconds, self.server_ca = url, clock, seconds, server_ca
        self.noted: dict[str, Finding] = {}
        self.ahead: float | None = None  # seconds, UCL's clock minus ours
        self._proxy = "none"  # in words

    def findings(self) -> list[Finding]:
        """Go as far as possible, and return the findings of all ``names`` in their order."""
        try:
            self._note(self.names[0], ok(check_url(self.url)))
            self._connect()
            self._call()
        except UCLError as error:
            self._blame(error)
        if self.ahead is not None:
            self._note("clock", _clock(self.ahead))
        for name in self.names:
            self._note(name, skipped("not reached"))
        return [self.noted[name] for name in self.names]

    @property
    def server_now(self) -> datetime:
        """UCL's clock as far as it is known, else ours."""
        return self.clock() + timedelta(seconds=self.ahead or 0.0)

    def _note(self, name: str, finding: Finding) -> None:
        """Keep the first finding of each name."""
        self.noted.setdefault(name, finding.named(name))

    def _note_way(self, step: str = "UCL's answer") -> None:
        """Note that the call got as far as a step."""
        place = self.names.index(step) - 1
        verified_by = self.trusted if self.server_ca else "the system's CAs"
        texts = {"proxy": self._proxy, "server trust": f"verified by {verified_by}"}
        for name in WAY[: max(place, 0)]:
            if (name, step) != ("TLS handshake", "server trust"):  # trust is part of the handshake
                self._note(name, ok(texts.get(name, "done by the proxy")))

    # -- the connection that is opened first ---------------------------------------------------------------------------

    def _connect(self) -> None:
        """Connect, shake hands and hang up. If there is a proxy, leave all of it to the call."""
        if proxy := proxy_for(self.url):
            self._proxy = f"{proxy.host}:{proxy.port}, by {proxy.variable}"
            return
        if variable := proxy_variable():
            excepted = f"none: NO_PROXY excepts this host from {variable}"
            self._proxy = "none to this machine itself" if is_loopback(self.url) else excepted
        host, port = self._address
        try:
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            raise _stopped("name resolution", host, error) from None
        self._note("name resolution", ok(f"{host}: {', '.join(sorted(addresses))}"))
        try:
            with socket.create_connection((host, port), self.seconds) as connection:
                self._note("TCP connection", ok(f"{host}:{port} answers"))
                self._note("TLS handshake", ok(self._handshake(connection, self.credentials)))
        except OSError as error:
            # Only a connection that was established can be reset.
            step = "TLS handshake" if error.errno in {ECONNRESET, ENOTCONN} else "TCP connection"
            raise _stopped(step, f"{host}:{port}", error) from None

    @property
    def _address(self) -> tuple[str, int]:
        url = urlsplit(self.url)
        return url.hostname or "", url.port or 443

    def _handshake(self, connection: socket.socket, shown: Credentials | None, *, tls12: bool = False) -> str:
        """Shake hands and hang up; return the protocol and cipher."""
        context = tls_context(self.server_ca, shown)
        if tls12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            host, _ = self._address
            with context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False) as tls:
                tls.do_handshake()  # fails if the connection is gone by now, where wrap_socket would do nothing
                return f"{tls.version()}, {(tls.cipher() or ('?',))[0]}"
        except OSError as error:
            raise transport_error(
                error,
                url=self.url,
                certificate=shown.certificate if shown else None,
                now=self.clock(),
                accepted=shown is not None and shown.accepted,
                by_system=self.server_ca is None,
                system_trust=system_trust_problem,
            ) from None

    def _objection(self, shown: Credentials | None) -> UCLError | None:
        """Return the server's objection to a certificate, or to none. In a handshake of TLS 1.2 it objects at once."""
        if proxy_for(self.url):
            return Unreachable("A proxy is in between.")
        try:
            with socket.create_connection(self._address, self.seconds) as connection:
                self._handshake(connection, shown, tls12=True)
        except OSError as error:
            return Unreachable(str(error))
        except UCLError as error:
            return error
        return None

    # -- the call ------------------------------------------------------------------------------------------------------

    def _call(self) -> None:
        text = "it answers"
        try:
            self._ask("token")
        except RequestRejected:
            text = "it answers with a GraphQL error"
        self._note_way()
        self._note("UCL's answer", ok(text))

    def _ask(self, endpoint: Endpoint) -> Answer:
        with Client(
            self.url, endpoint, ca_file=self.server_ca, credentials=self.credentials, retry=False, deadline=self.seconds
        ) as client:
            try:
                answer = client.call(CONFIGURATION)
            finally:
                if client.context.session_stats()["connect_good"]:  # of the handshakes that were completed
                    self._note("TLS handshake", ok("done"))
        if answer.date is not None:
            self.ahead = (answer.date - self.clock()).total_seconds()
        return answer

    def _refused(self, error: UCLError) -> None:
        wanted = "a client certificate" if isinstance(error, CertificateRejected) else "a token or a certificate"
        self._note("UCL's answer", ok(f"it answers and asks for {wanted}, as expected"))

    # -- what an error means -------------------------------------------------------------------------------------------

    def _blame(self, error: UCLError) -> None:
        """Note an error at the step that it belongs to, and the steps before it as done."""
        if (difference := error.data.get("clock_difference")) is not None:
            self.ahead = (datetime.now(UTC) - self.clock()).total_seconds() + difference
        if isinstance(error, Unreachable) and "TLS handshake" in self.noted:
            objection = self._objection(self.credentials)  # with TLS 1.3 a server may refuse it by hanging up
            error = objection if isinstance(objection, CertificateRejected) else error
        if isinstance(error, CertificateRejected | AuthenticationFailed):
            self._note_way()
            self._refused(error)
            return
        step, remedy = self._step_of(error)
        self._note_way(step)
        self._note(step, failed(error.message, remedy, type(error)))

    def _step_of(self, error: UCLError) -> tuple[str, str]:
        """Return the step on the way that an error belongs to, and its remedy."""
        if step := error.data.get("step"):
            return step, f"Check network and firewall. If UCL's URL has changed: {self.other_url}"
        if "variable" in error.data:
            return "proxy", error.remedy
        if isinstance(error, UsageError):
            return self.names[0], self.other_url
        if isinstance(error, StorageFailed):
            return "server trust", self.other_ca
        if isinstance(error, ServerNotTrusted) and "speaks no TLS" not in error.message:
            return "server trust", self._remedy_of_trust(error)
        return ("UCL's answer" if "TLS handshake" in self.noted else "TLS handshake"), error.remedy

    def _remedy_of_trust(self, error: ServerNotTrusted) -> str:
        if variable := error.data.get("trust_variable"):
            return f"unset {variable}"
        if any(text in error.message for text in _OTHER_CA):
            return self.other_ca
        return self.other_url if any(text in error.message for text in _OTHER_HOST) else error.remedy


class IdentityReach(Reach):
    """How far the identity in use gets, and whether UCL names the subject and URLs that are stored here."""

    names = NAMES
    trusted = "the connection's server-ca.pem"

    def __init__(self, disk: OnDisk, clock: Clock, seconds: float = SECONDS) -> None:
        self._disk, self._identity = disk, disk.identity
        super().__init__(disk.sandbox_url or str(self._identity.facts["connectorUrl"]), clock, seconds)
        self.server_ca, self.credentials = self._identity.server_ca, self._identity.credentials
        self.other_url = disk.import_command(url="$CERTIFICATE_SECURED_CONNECTOR_URL")
        self.other_ca = disk.import_command(server_ca="$SERVER_CA_FILE")

    def _call(self) -> None:
        answer = self._ask("certificate")
        self._note_way()
        self._note("client certificate", ok("UCL accepts it"))
        configuration = configuration_from(answer.result)
        subject, urls = self._subject(configuration), self._urls(configuration)
        self._note("UCL's answer", ok("a configuration"))  # which it is not if the subject cannot be read
        self._note("subject", subject)
        self._note("URLs", urls)

    def _refused(self, error: UCLError) -> None:
        self._note("client certificate", self._refusal(error))

    def _refusal(self, error: UCLError) -> Finding:
        if isinstance(error, AuthenticationFailed) and self._objection(None) is None:
            problem = "the server requests no client certificate, so this is not the certificate-secured Connector URL"
            return failed(problem, self.other_url, type(error))
        connection, identity = self._disk.connection, self._identity
        verdict = explain_refusal(
            error,
            connection,
            identity.credentials,
            identity.server_ca,
            director=connection.director_url,
            not_after=identity.validity.not_after,
            now=self.clock(),
        )
        if isinstance(verdict, RetryLater):  # an outage is temporary: it is too early to establish the connection again
            wait = verdict.remedy.removesuffix(doctor_hint(connection))
            again = f"Wait. When UCL is back: {self._disk.renew_command()}"
            return failed(f"{verdict.message}\n{wait}", again, type(verdict))
        return failed(verdict.message, self._disk.establish_command(), type(verdict))

    def _subject(self, configuration: Configuration) -> Finding:
        used = self._identity.certificate.subject
        if same_subject(used, parse_subject(configuration.subject)):
            return ok("UCL names the subject in use")
        problem = f"UCL names {configuration.subject}, and the certificate in use has {subject_text(used)}"
        return failed(problem, self._disk.renew_command("--force", "--accept-new-subject"), SubjectChanged)

    def _urls(self, configuration: Configuration) -> Finding:
        endpoint, facts = configuration.certificate_secured_connector_url, self._identity.facts
        director = configuration.director_url
        pairs = (("certificate endpoint", self.url, endpoint), ("Director", facts.get("directorUrl"), director))
        changed = "; ".join(
            f"the {name} is {url} according to UCL, but {stored} here"
            for name, stored, url in pairs
            if url and stored and url != stored
        )
        if another_host(endpoint, self.url, facts.get("acceptedHost")):
            return failed(changed, self._disk.renew_command("--force", "--accept-new-host"), HostChanged)
        return warning(changed, self._disk.renew_command("--force")) if changed else ok("those that UCL names")


def _stopped(step: str, where: str, error: Exception) -> Unreachable:
    """Return the error that stopped the first connection, with the step at which it did."""
    return Unreachable(f"{where}: {str(getattr(error, 'strerror', None) or error).lower()}", step=step)


def _clock(ahead: float) -> Finding:
    difference = timedelta(seconds=abs(ahead))
    if difference <= TOLERANCE:
        return ok("within 5 min of UCL's")
    way = "behind" if ahead > 0 else "ahead of"
    return warning(f"this machine's clock is {span(difference)} {way} UCL's", "timedatectl set-ntp true")
