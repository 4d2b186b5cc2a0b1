"""Examine the way to UCL, its server, and its answer to the identity in use.

:class:`Reach` does so for a URL before there is a connection, :class:`IdentityReach` for a connection. One
``configuration`` call is made, without a one-time token; nothing is signed. Before it, a connection is opened over
which no request is sent, so that a fault of name resolution, TCP or TLS shows as itself.
"""

import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from errno import ECONNRESET, ENOTCONN
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

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
from ucl_helpers.operations import CONFIGURATION, configuration_from
from ucl_helpers.procedures.acceptance import doctor_hint, explain_refusal
from ucl_helpers.tables import span
from ucl_helpers.urls import another_host, check_url, is_loopback
from ucl_helpers.wire.adapter import PlainConnection
from ucl_helpers.wire.client import MAX_RECEIVED_BYTES, Answer, Client
from ucl_helpers.wire.diagnosis import Endpoint, transport_error
from ucl_helpers.wire.proxy import Proxy, proxy_for, proxy_variable
from ucl_helpers.wire.sockets import CallLimits, NoTunnel
from ucl_helpers.wire.tls import system_trust_problem, tls_context

if TYPE_CHECKING:
    from ucl_helpers.operate.doctor.on_disk import OnDisk

SECONDS = 15.0
WAY = ("proxy", "name resolution", "TCP connection", "TLS handshake", "server trust")
NAMES = ("certificate endpoint", *WAY, "client certificate", "UCL's answer", "clock", "subject", "URLs")
_OTHER_CA = ("its CA is unknown", "self-signed", "cannot be verified")
_OTHER_HOST = ("for another host", "for another address")


class Reach:
    """How far a call to a URL gets, before there is an identity.

    The call shows no certificate and no token, so that UCL refuses it. It only matters that UCL answers.
    """

    names: Sequence[str] = ("URL", *WAY, "UCL's answer", "clock")
    credentials: Credentials | None = None
    trusted = "the CA file"
    other_url = "Check the URL (--url): copy it again from UCL."
    other_ca = "Give the CA of the server as a PEM file: --ca-file"

    def __init__(self, url: str, clock: Clock, seconds: float = SECONDS, server_ca: Path | None = None) -> None:
        self.url, self.clock, self.seconds, self.server_ca = url, clock, seconds, server_ca
        self.noted: dict[str, Finding] = {}
        self.ahead: float | None = None  # seconds, UCL's clock minus ours
        self._proxy_text = ""

    def findings(self) -> list[Finding]:
        """Go as far as possible, and return the findings of all ``names`` in their order."""
        try:
            self._note(self.names[0], ok(check_url(self.url)))
            self._probe()
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

    # -- the connection that is opened first ---------------------------------------------------------------------------

    def _probe(self) -> None:
        """Connect, through the proxy if there is one, shake hands, and hang up."""
        url = urlsplit(self.url)
        host, port = url.hostname or "", url.port or 443
        proxy = self._proxy()
        near = (proxy.host, proxy.port) if proxy else (host, port)
        self._resolve(*near, of_proxy=proxy is not None)
        connection = PlainConnection(*near, timeout=self.seconds)
        connection.bounds = CallLimits(self.seconds, MAX_RECEIVED_BYTES)
        if proxy and proxy.scheme == "http":
            connection.set_tunnel(host, port, HTTPAdapter().proxy_headers(proxy.url))
        try:
            connection.connect()
            self._note("TCP connection", ok(f"{near[0]}:{near[1]} answers"))
            if proxy is None or proxy.scheme == "http":
                self._note("TLS handshake", ok(self._handshake(connection.sock, self.credentials)))
        except NoTunnel as error:
            raise self._transport_error(error, proxy=proxy) from None
        except OSError as error:
            # Only a connection that was established can be reset.
            step = "TLS handshake" if error.errno in {ECONNRESET, ENOTCONN} else "TCP connection"
            raise _stopped(step, f"{near[0]}:{near[1]}", error) from None
        finally:
            connection.close()

    def _proxy(self) -> Proxy | None:
        """Return the proxy that is used. The finding shows only host and port of its URL."""
        variable = proxy_variable()
        if (proxy := proxy_for(self.url)) is None:
            here, excepted = "none to this machine itself", f"none: NO_PROXY excepts this host from {variable}"
            self._note("proxy", ok("none" if not variable else here if is_loopback(self.url) else excepted))
            return None
        self._proxy_text = f"{proxy.host}:{proxy.port}, by {proxy.variable}"
        return proxy

    def _resolve(self, host: str, port: int, *, of_proxy: bool) -> None:
        try:
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            raise _stopped("name resolution", host, error) from None
        what = " (the proxy; it looks up UCL's)" if of_proxy else ""
        self._note("name resolution", ok(f"{host}{what}: {', '.join(sorted(addresses))}"))

    def _handshake(self, connection: socket.socket, shown: Credentials | None, *, tls12: bool = False) -> str:
        """Shake hands and hang up; return the protocol and cipher."""
        context = tls_context(self.server_ca, shown)
        if tls12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            host = urlsplit(self.url).hostname
            with context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False) as tls:
                tls.do_handshake()  # fails if the connection is gone by now, where wrap_socket would do nothing
                return f"{tls.version()}, {(tls.cipher() or ('?',))[0]}"
        except OSError as error:
            raise self._transport_error(error, shown) from None

    def _transport_error(
        self, error: OSError, shown: Credentials | None = None, proxy: Proxy | None = None
    ) -> UCLError:
        return transport_error(
            error,
            url=self.url,
            certificate=shown.certificate if shown else None,
            now=self.clock(),
            proxy=proxy,
            accepted=shown.accepted if shown else False,
            by_system=self.server_ca is None,
            system_trust=system_trust_problem,
        )

    def _opinion(self, shown: Credentials | None) -> UCLError | None:
        """Ask what the server says to a certificate, or to none: in a handshake of TLS 1.2 it says so at once."""
        url = urlsplit(self.url)
        if self._proxy_text:
            return Unreachable("through a proxy it is not asked")
        try:
            with socket.create_connection((url.hostname or "", url.port or 443), self.seconds) as plain:
                self._handshake(plain, shown, tls12=True)
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
            answer = client.call(CONFIGURATION)
        if answer.date is not None:
            self.ahead = (answer.date - self.clock()).total_seconds()
        return answer

    def _note_way(self) -> None:
        """Note that the call got through: what had no finding of its own is well."""
        if self._proxy_text:
            self._note("proxy", ok(self._proxy_text))
        self._note("TLS handshake", ok("done"))
        verified_by = self.trusted if self.server_ca else "the system's CAs"
        self._note("server trust", ok(f"verified by {verified_by}"))

    def _refused(self, error: UCLError) -> None:
        wanted = "a client certificate" if isinstance(error, CertificateRejected) else "a token or a certificate"
        self._note("UCL's answer", ok(f"it answers and asks for {wanted}, as expected"))

    # -- what an error means -------------------------------------------------------------------------------------------

    def _blame(self, error: UCLError) -> None:
        """Note an error at the step that it belongs to, and the steps before it as well done."""
        if (difference := error.data.get("clock_difference")) is not None:
            self.ahead = (datetime.now(UTC) - self.clock()).total_seconds() + difference
        if isinstance(error, Unreachable) and "TLS handshake" in self.noted:
            opinion = self._opinion(self.credentials)  # with TLS 1.3 a server may refuse it by hanging up
            error = opinion if isinstance(opinion, CertificateRejected) else error
        if isinstance(error, CertificateRejected | AuthenticationFailed):
            self._note_way()
            self._refused(error)
            return
        step, remedy = self._step_of(error)
        if self._proxy_text and step != "proxy":
            self._note("proxy", ok(self._proxy_text))
        if step in {"proxy", "TLS handshake"} and "name resolution" in self.noted:
            self._note("TCP connection", ok("done"))
        if step == "UCL's answer":
            self._note_way()
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

    def __init__(self, disk: "OnDisk", clock: Clock, seconds: float = SECONDS) -> None:
        self._disk, self._identity, self._commands = disk, disk.identity, disk.commands
        super().__init__(disk.sandbox_url() or str(self._identity.facts["connectorUrl"]), clock, seconds)
        self.server_ca, self.credentials = self._identity.server_ca, self._identity.credentials
        self.other_url = self._commands.again(url="$CERTIFICATE_SECURED_CONNECTOR_URL")
        self.other_ca = self._commands.again(ca="$SERVER_CA_FILE")

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
        if isinstance(error, AuthenticationFailed) and self._opinion(None) is None:
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
            again = f"Wait. When UCL is back: {self._commands.renew()}"
            return failed(f"{verdict.message}\n{wait}", again, type(verdict))
        return failed(verdict.message, self._commands.establish(), type(verdict))

    def _subject(self, configuration: Configuration) -> Finding:
        used = self._identity.certificate.subject
        if same_subject(used, parse_subject(configuration.subject)):
            return ok("UCL names the subject in use")
        problem = f"UCL names {configuration.subject}, and the certificate in use has {subject_text(used)}"
        return failed(problem, self._commands.renew("--force", "--accept-new-subject"), SubjectChanged)

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
            return failed(changed, self._commands.renew("--force", "--accept-new-host"), HostChanged)
        return warning(changed, self._commands.renew("--force")) if changed else ok("those that UCL names")


def _stopped(step: str, where: str, error: Exception) -> Unreachable:
    """Return the error that stopped the first connection, with the step at which it did."""
    return Unreachable(f"{where}: {str(getattr(error, 'strerror', None) or error).lower()}", step=step)


def _clock(ahead: float) -> Finding:
    difference = timedelta(seconds=abs(ahead))
    if difference <= TOLERANCE:
        return ok("within 5 min of UCL's")
    way = "behind" if ahead > 0 else "ahead of"
    return warning(f"this machine's clock is {span(difference)} {way} UCL's", "timedatectl set-ntp true")
