"""The way in: sockets that listen or refuse, and which certificate a connection is shown."""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from tornado.netutil import add_accept_handler

from ucl_private_files import read_regular
from ucl_sandbox.ca import change_server_ca, make_server_certificate, make_wrong_server_certificate
from ucl_sandbox.faults import Fault
from ucl_sandbox.ports import bound_like

_BACKLOG = 128
_RENEWED_BEFORE = timedelta(days=30)
_SHOWN = "server-certificate-"
_DEFAULT_ALERT = "internal_error"
_REASONS = {
    "HTTP_REQUEST": "it speaks HTTP without TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no client certificate",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not one that is accepted here",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the server CA",
}


def in_plain_words(record: logging.LogRecord) -> bool:
    """A filter for tornado's log: a handshake that failed, told by OpenSSL's words, becomes a sentence of its own."""
    error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "it broke off"
        record.msg = "A client's TLS handshake failed: %s."
        record.args = (_REASONS.get(reason, reason.replace("_", " ").lower()),)
    return True


def in_loop(work: Callable[[], None]) -> Callable[[], None]:
    """Makes a function of the running event loop one that any thread may call; it returns when the work is done."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    async def begun() -> None:
        work()

    def call() -> None:
        if threading.get_ident() == thread:
            work()
        else:
            asyncio.run_coroutine_threadsafe(begun(), loop).result()

    return call


class Door:
    """One listener's sockets; to be used within a running event loop.

    Args:
        sockets: They listen already.
        came: Is given each connection with the address it comes from.
    """

    def __init__(self, sockets: list[socket.socket], came: Callable[[socket.socket, Any], None]) -> None:
        self._sockets, self._came = list(sockets), came
        self._removers: list[Callable[[], None]] = []

    def open(self) -> None:
        """Lets connections in."""
        if not self._removers:
            for listening in self._sockets:
                listening.listen(_BACKLOG)
            self._removers = [add_accept_handler(listening, self._came) for listening in self._sockets]

    def shut(self) -> None:
        """Refuses connections, and keeps the port."""
        self._ignore()
        for place, listening in enumerate(self._sockets):
            address = listening.family, listening.getsockname()[:2]
            listening.close()
            self._sockets[place] = bound_like(address)

    def close(self) -> None:
        """Gives the port up."""
        self._ignore()
        for one in self._sockets:
            one.close()

    def _ignore(self) -> None:
        for remove in self._removers:
            remove()
        self._removers = []


class Handshakes:
    """The TLS contexts of the listeners: the right ones, and those of faults.

    The listeners' certificate is made here, and made anew a month before it expires. It is valid by the system's clock,
    by which clients go, and by the sandbox's.

    Args:
        folder: The state folder.
        client_ca: The certificates that a client's certificate may come from, as PEM.
        clock: Gives the sandbox's time (aware).

    Attributes:
        ca_file: The CA certificate that verifies the listeners.
    """

    def __init__(
        self, folder: Path, client_ca: bytes, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._folder, self._client_ca, self._clock = folder, client_ca.decode(), clock
        self._contexts: dict[tuple[Fault | None, bool], ssl.SSLContext] = {}
        self._make_certificate()

    def context(self, fault: Fault | None, *, mutual: bool) -> ssl.SSLContext:
        """The context for a new connection; `mutual` asks the client for a certificate.

        A fault that is not of the handshake gets the right one. When the server's CA changes, it does so here.
        """
        if fault is not None and fault.kind == "server-ca-changed":
            change_server_ca(self._folder)
            self._make_certificate()
        elif not self._since <= min(times := self._times()) <= max(times) < self._until - _RENEWED_BEFORE:
            self._make_certificate()
        if fault is not None and fault.kind != "tls-alert" and not fault.kind.startswith(_SHOWN):
            fault = None
        key = fault, mutual
        if key not in self._contexts:
            self._contexts[key] = self._make(fault, mutual=mutual)
        return self._contexts[key]

    def _times(self) -> tuple[datetime, datetime]:
        return datetime.now(UTC), self._clock()

    def _make_certificate(self) -> None:
        """Makes the listeners' certificate anew, for the connections that come from now on."""
        self._certificate, self.ca_file = make_server_certificate(self._folder, *self._times())
        made = x509.load_pem_x509_certificate(read_regular(self._certificate, follow=False))
        self._since, self._until = made.not_valid_before_utc, made.not_valid_after_utc
        self._contexts.clear()

    def _make(self, fault: Fault | None, *, mutual: bool) -> ssl.SSLContext:
        certificate = self._certificate
        if fault is not None and fault.kind.startswith(_SHOWN):
            wrong = fault.kind.removeprefix(_SHOWN)
            certificate = make_wrong_server_certificate(self._folder, datetime.now(UTC), wrong)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate)
        if fault is not None and fault.kind == "tls-alert":
            alert = ssl.AlertDescription[f"ALERT_DESCRIPTION_{fault.value or _DEFAULT_ALERT}".upper()]
            context.sni_callback = lambda *_: alert
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self._client_ca)
        return context
