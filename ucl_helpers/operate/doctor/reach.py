"""What a doctor looks at beyond this machine: the way to UCL, its server, and what it says to the identity in use.

:class:`Reach` does so for a connection, :class:`Way` for a URL before there is one. One ``configuration`` call, without
a one-time token; nothing is signed. Before it a connection is opened that says nothing, so that each step of the way
shows by itself.
"""

import errno
import os
import socket
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

from ucl_helpers.checks import TOLERANCE
from ucl_helpers.clock import Clock
from ucl_helpers.connection.generation import Generation
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
from ucl_helpers.models import Configuration, Proxy
from ucl_helpers.operate.doctor.findings import Commands, Finding, failed, ok, skipped, warning
from ucl_helpers.operations import CONFIGURATION, configuration_from
from ucl_helpers.procedures.acceptance import doctor_hint, explain_refusal
from ucl_helpers.tables import span
from ucl_helpers.wire.adapter import PlainConnection
from ucl_helpers.wire.client import MAX_RECEIVED_BYTES, Answer, Client
from ucl_helpers.wire.diagnosis import Endpoint, NoTunnel, transport_error
from ucl_helpers.wire.proxy import proxy_for
from ucl_helpers.wire.tls import (
    Bounds,
    Credentials,
    check_url,
    hostname,
    is_loopback,
    system_trust_problem,
    tls_context,
)

NAMES = (
    *("certificate endpoint", "proxy", "name resolution", "TCP connection", "TLS handshake", "server trust"),
    *("client certificate", "UCL's answer", "clock", "subject", "URLs"),
)
WAY = ("URL", *NAMES[1:6], "UCL's answer", "clock")
"""What is looked at where there is no identity yet."""
SECONDS = 15.0
SYSTEM = "the system's CAs"
_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_OTHER_CA = ("its CA is unknown", "self-signed", "cannot be verified")
_OTHER_HOST = ("for another host", "for another address")


@dataclass
class Reach:
    """How far one comes: the findings so far, by name."""

    url: str
    generation: Generation
    commands: Commands
    clock: Clock
    seconds: float = SECONDS
    found: dict[str, Finding] = field(default_factory=dict)
    ahead: float | None = None  # seconds, UCL's clock minus ours

    names: ClassVar[tuple[str, ...]] = NAMES

    def look(self) -> None:
        """Go as far as one comes."""
        try:
            self._say(ok(self.names[0], check_url(self.url)))
            self._probe()
            self._call()
        except UCLError as error:
            self._blame(error)
        if self.ahead is not None:
            self._say(_clock(self.ahead))

    def findings(self, why: str = "not reached") -> list[Finding]:
        """All of ``names``, in their order."""
        return [self.found.get(name) or skipped(name, why) for name in self.names]

    @property
    def _server_ca(self) -> Path | None:
        """What verifies the server, or None for the system's trust."""
        return self.generation.server_ca

    @property
    def _credentials(self) -> Credentials | None:
        """The identity that is shown to the server."""
        return self.generation.credentials

    def _by_another_url(self) -> str:
        return self.commands.again(url="$CERTIFICATE_SECURED_CONNECTOR_URL")

    def _by_another_ca(self) -> str:
        return self.commands.again(ca="$SERVER_CA_FILE")

    @property
    def server_now(self) -> datetime:
        """UCL's clock as far as it is known, else ours."""
        return self.clock() + timedelta(seconds=self.ahead or 0.0)

    def _say(self, finding: Finding) -> None:
        self.found.setdefault(finding.name, finding)

    def _probe(self) -> None:
        """Connect, through the proxy if there is one, shake hands, and hang up."""
        url = urlsplit(self.url)
        host, port = url.hostname or "", url.port or 443
        proxy = self._proxy()
        near = (proxy.host, proxy.port) if proxy else (host, port)
        self._resolve(*near, of_proxy=proxy is not None)
        connection = PlainConnection(*near, timeout=self.seconds)
        connection.bounds = Bounds(self.seconds, MAX_RECEIVED_BYTES)
        if proxy and proxy.scheme == "http":
            connection.set_tunnel(host, port, HTTPAdapter().proxy_headers(proxy.url))
        try:
            connection.connect()
            self._say(ok("TCP connection", f"{near[0]}:{near[1]} answers"))
            if proxy is None or proxy.scheme == "http":
                self._say(ok("TLS handshake", self._handshake(connection.sock, self._credentials)))
        except NoTunnel as error:
            raise transport_error(
                error,
                url=self.url,
                request_id="",
                certificate=None,
                now=self.clock(),
                proxy=proxy,
                system_trust=system_trust_problem(),
            ) from None
        except OSError as error:
            raise _on_the_way(error, f"{near[0]}:{near[1]}") from None
        finally:
            connection.close()

    def _proxy(self) -> Proxy | None:
        """The proxy that is used; of its URL the finding shows host and port alone."""
        variable = next((name for name in _VARIABLES if os.environ.get(name)), None)
        if (proxy := proxy_for(self.url)) is None:
            here, excepted = "none to this machine itself", f"none: NO_PROXY excepts this host from {variable}"
            self._say(ok("proxy", "none" if not variable else here if is_loopback(self.url) else excepted))
            return None
        self._proxy_text = f"{proxy.host}:{proxy.port}, by {proxy.variable}"
        return proxy

    _proxy_text = ""

    def _resolve(self, host: str, port: int, *, of_proxy: bool) -> None:
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            text = str(getattr(error, "strerror", None) or error).lower()
            raise _At("name resolution", f"{host}: {text}") from None
        what = " (the proxy; it looks up UCL's)" if of_proxy else ""
        self._say(ok("name resolution", f"{host}{what}: {', '.join(sorted(map(str, found)))}"))

    def _handshake(self, connection: socket.socket, shown: Credentials | None, **limits: ssl.TLSVersion) -> str:
        """Shake hands and hang up; says what was agreed on."""
        context = tls_context(self._server_ca, shown)
        for name, version in limits.items():
            setattr(context, name, version)
        try:
            host = urlsplit(self.url).hostname
            with context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False) as tls:
                tls.do_handshake()  # says so if the connection is gone by now, where wrap_socket would say nothing
                return f"{tls.version()}, {(tls.cipher() or ('?',))[0]}"
        except OSError as error:
            leaf, now = shown.certificate if shown else None, self.clock()
            accepted = shown.accepted if shown else False
            raise transport_error(
                error,
                url=self.url,
                request_id="",
                certificate=leaf,
                now=now,
                accepted=accepted,
                by_system=self._server_ca is None,
                system_trust=system_trust_problem(),
            ) from None

    def _opinion(self, shown: Credentials | None) -> UCLError | None:
        """What the server says to a certificate, or to none: in a handshake of TLS 1.2 it says so at once."""
        url = urlsplit(self.url)
        if self._proxy_text:
            return Unreachable("through a proxy it is not asked")
        try:
            with socket.create_connection((url.hostname or "", url.port or 443), self.seconds) as plain:
                self._handshake(plain, shown, maximum_version=ssl.TLSVersion.TLSv1_2)
        except OSError as error:
            return Unreachable(str(error))
        except UCLError as error:
            return error
        return None

    def _call(self) -> None:
        answer = self._asked("certificate")
        self._way_is_fine()
        self._say(ok("client certificate", "UCL accepts it"))
        if answer.date is not None:
            self.ahead = (answer.date - self.clock()).total_seconds()
        configuration = configuration_from(answer.result)
        told = [self._subject(configuration), self._urls(configuration)]  # a subject that cannot be read is no answer
        for finding in (ok("UCL's answer", "a configuration"), *told):
            self._say(finding)

    def _asked(self, endpoint: Endpoint) -> Answer:
        ca, credentials = self._server_ca, self._credentials
        options: dict[str, Any] = {"ca_file": ca, "credentials": credentials, "retry": False, "deadline": self.seconds}
        with Client(self.url, endpoint, **options) as client:
            return client.call(CONFIGURATION)

    def _way_is_fine(self) -> None:
        if self._proxy_text:
            self._say(ok("proxy", self._proxy_text))
        self._say(ok("TLS handshake", "done"))
        self._say(ok("server trust", f"verified by {self._trusted if self._server_ca else SYSTEM}"))

    _trusted = "the connection's server-ca.pem"

    def _blame(self, error: UCLError) -> None:
        """Put an error where it belongs, and what came before it as well."""
        if (difference := error.data.get("clock_difference")) is not None:
            self.ahead = (datetime.now(UTC) - self.clock()).total_seconds() + difference
        if isinstance(error, Unreachable) and "TLS handshake" in self.found:
            opinion = self._opinion(self._credentials)  # with TLS 1.3 a server may just hang up on it
            error = opinion if isinstance(opinion, CertificateRejected) else error
        if isinstance(error, CertificateRejected | AuthenticationFailed):
            self._way_is_fine()
            self._say(self._refused(error))
            return
        where, remedy = self._place(error)
        if self._proxy_text and where != "proxy":
            self._say(ok("proxy", self._proxy_text))
        if where in {"proxy", "TLS handshake"} and "name resolution" in self.found:
            self._say(ok("TCP connection", "done"))
        if where == "UCL's answer":
            self._way_is_fine()
        self._say(failed(where, error.message, remedy, Unreachable if isinstance(error, _At) else type(error)))

    def _place(self, error: UCLError) -> tuple[str, str]:
        """Where on the way an error is, and what mends it."""
        if isinstance(error, _At):
            other = f"Check network and firewall. If UCL's URL has changed: {self._by_another_url()}"
            return error.where, error.remedy or other
        if "variable" in error.data:
            return "proxy", error.remedy
        if isinstance(error, UsageError):
            return self.names[0], self._by_another_url()
        if isinstance(error, StorageFailed):
            return "server trust", self._by_another_ca()
        if isinstance(error, ServerNotTrusted) and "speaks no TLS" not in error.message:
            return "server trust", self._trust(error)
        return ("UCL's answer" if "TLS handshake" in self.found else "TLS handshake"), error.remedy

    def _trust(self, error: ServerNotTrusted) -> str:
        if variable := error.data.get("trust_variable"):
            return f"unset {variable}"
        if any(text in error.message for text in _OTHER_CA):
            return self._by_another_ca()
        if any(text in error.message for text in _OTHER_HOST):
            return self._by_another_url()
        return error.remedy

    def _refused(self, error: UCLError) -> Finding:
        name = "client certificate"
        if isinstance(error, AuthenticationFailed) and self._opinion(None) is None:
            found = "the server requests no client certificate, so this is not the certificate-secured Connector URL"
            return failed(name, found, self._by_another_url(), type(error))
        told = self._judged(error)
        if isinstance(told, RetryLater):  # an outage passes: it is too early to establish the connection again
            wait = told.remedy.removesuffix(doctor_hint(self.commands.connection))
            return failed(name, f"{told.message}\n{wait}", self.commands.wait(), type(told))
        return failed(name, told.message, self.commands.establish(), type(told))

    def _judged(self, error: UCLError) -> UCLError:
        """A refusal, or the outage that it is or may be."""
        connection, current = self.commands.connection, self.generation
        return explain_refusal(
            error,
            connection,
            current.credentials,
            current.server_ca,
            director=connection.director_url,
            not_after=current.validity.not_after,
            now=self.clock(),
        )

    def _subject(self, configuration: Configuration) -> Finding:
        used = self.generation.certificate.subject
        if same_subject(used, parse_subject(configuration.subject)):
            return ok("subject", "UCL names the subject in use")
        found = f"UCL names {configuration.subject}, and the certificate in use has {subject_text(used)}"
        return failed("subject", found, self.commands.renew("--force", "--accept-new-subject"), SubjectChanged)

    def _urls(self, configuration: Configuration) -> Finding:
        kept = {"certificate endpoint": self.url, "Director": self.generation.facts.get("directorUrl")}
        told = {
            "certificate endpoint": configuration.certificate_secured_connector_url,
            "Director": configuration.director_url,
        }
        changed = [
            f"the {what} is {url} according to UCL, but {kept[what]} here"
            for what, url in told.items()
            if url and kept[what] and url != kept[what]
        ]
        named = hostname(told["certificate endpoint"])
        agreed = [None, hostname(self.url), self.generation.facts.get("acceptedHost")]
        if named not in agreed:
            return failed("URLs", "; ".join(changed), self.commands.renew("--force", "--accept-new-host"), HostChanged)
        if changed:
            return warning("URLs", "; ".join(changed), self.commands.renew("--force"))
        return ok("URLs", "those that UCL names")


class Way(Reach):
    """The way to a URL of UCL before there is an identity: network, proxy, TLS and trust.

    The call shows no certificate and no token, so that UCL refuses it. That it answers is what counts.
    """

    names: ClassVar[tuple[str, ...]] = WAY
    _trusted = "the CA file"

    def __init__(self, url: str, ca_file: Path | None, clock: Clock, seconds: float = SECONDS) -> None:
        self.url, self._ca_file, self.clock, self.seconds, self.found = url, ca_file, clock, seconds, {}

    @property
    def _server_ca(self) -> Path | None:
        return self._ca_file

    @property
    def _credentials(self) -> None:
        return None

    def _by_another_url(self) -> str:
        return "Check the URL (--url): copy it again from UCL."

    def _by_another_ca(self) -> str:
        return "Give the CA of the server as a PEM file: --ca-file"

    def _call(self) -> None:
        found = "it answers"
        try:
            answer = self._asked("token")
        except RequestRejected:
            found = "it answers with a GraphQL error"
        else:
            if answer.date is not None:
                self.ahead = (answer.date - self.clock()).total_seconds()
        self._way_is_fine()
        self._say(ok("UCL's answer", found))

    def _refused(self, error: UCLError) -> Finding:
        wanted = "a client certificate" if isinstance(error, CertificateRejected) else "a token or a certificate"
        return ok("UCL's answer", f"it answers and asks for {wanted}, as expected")


class _At(UCLError):
    """Where on the way it went wrong."""

    def __init__(self, where: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.where = where


def _on_the_way(error: OSError, where: str) -> _At:
    """What broke a connection off; only one that was there can be reset."""
    text = str(error.strerror or error).lower()
    reset = error.errno in {errno.ECONNRESET, errno.ENOTCONN}
    return _At("TLS handshake" if reset else "TCP connection", f"{where}: {text}")


def _clock(ahead: float) -> Finding:
    difference = timedelta(seconds=abs(ahead))
    if difference <= TOLERANCE:
        return ok("clock", "within 5 min of UCL's")
    way = "behind" if ahead > 0 else "ahead of"
    return warning("clock", f"this machine's clock is {span(difference)} {way} UCL's", "timedatectl set-ntp true")
