"""Sockets that keep to what a call may still take, in time and in bytes: TCP, TLS to a proxy, TLS to the server."""

import math
import socket
import ssl
import time
from typing import Any


class AnswerTooLarge(OSError):
    """A peer sent more than a call accepts."""


class NoTunnel(OSError):
    """The way to the server ended at a proxy; ``__cause__`` says how.

    Args:
        status: the HTTP status that it answered to CONNECT, or None.
        oddity: what was wrong with an answer that is not HTTP, as a name of :mod:`http.client`; else None.
        speaks_http: whether that answer began as HTTP does.
    """

    def __init__(self, status: int | None, oddity: str | None, *, speaks_http: bool = False) -> None:
        super().__init__("the proxy opened no tunnel")
        self.status, self.oddity, self.speaks_http = status, oddity, speaks_http


class CallLimits:
    """What a call may still take: the moment it ends, and how many bytes it may receive.

    One object per client. The sockets of all layers consult it: TCP, TLS to a proxy, TLS to the server. Without a call
    under way nothing is bounded. *Not* bounded: name resolution, which the system's resolver ends.

    Attributes:
        until: by ``time.monotonic()``, in seconds.
        room: bytes, decrypted where the socket is a TLS one. The bytes that a proxy says in plain text count as well.
    """

    def __init__(self, seconds: float = math.inf, room: float = math.inf) -> None:
        self.until, self.room = time.monotonic() + seconds, room

    def limit(self, connection: socket.socket) -> None:
        """Let the connection's next operation end at ``until``; raises TimeoutError when that has passed."""
        remaining = self.until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out before the answer was complete")
        if remaining < math.inf:
            connection.settimeout(min(remaining, connection.gettimeout() or remaining))

    def count(self, received: int) -> None:
        """Subtract what was received; raises AnswerTooLarge when no room is left."""
        self.room -= received
        if self.room < 0:
            raise AnswerTooLarge("the answer is larger than a call accepts")


class PlainSocket(socket.socket):
    """A TCP socket that keeps to ``bounds``: what a proxy answers to CONNECT comes in here, before any TLS."""

    bounds: CallLimits

    def connect(self, address: Any, /) -> None:
        """Connect; the timeout ends with ``bounds``."""
        self.bounds.limit(self)
        super().connect(address)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Every way to read what a proxy says ends here."""
        self.bounds.limit(self)
        received = super().recv_into(*args, **kwargs)
        self.bounds.count(received)
        return received

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        """All parts together end in time: CPython applies the timeout to the whole."""
        self.bounds.limit(self)
        super().sendall(*args, **kwargs)


class _TLSSocket(ssl.SSLSocket):
    """As :class:`PlainSocket`. CPython ends each handshake, read and send after the timeout, however it drips."""

    context: "Context"

    def do_handshake(self, block: bool = False) -> None:
        self.context.bounds.limit(self)
        super().do_handshake(block)

    def read(self, *args: Any, **kwargs: Any) -> Any:  # both recv and recv_into end here
        self.context.bounds.limit(self)
        received: Any = super().read(*args, **kwargs)
        self.context.bounds.count(received if isinstance(received, int) else len(received))
        return received

    def send(self, *args: Any, **kwargs: Any) -> int:  # sendall calls it for each part
        self.context.bounds.limit(self)
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().sendall(*args, **kwargs)
        except (ssl.SSLEOFError, ConnectionError):  # which of them, depends on the version of OpenSSL and on timing
            self.recv(1)  # a server that refuses us hangs up before we are done; its alert, with the reason, is there
            raise

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        try:
            return super().recv(*args, **kwargs)
        except ConnectionError:  # reset before the handshake: CPython would leave it open
            self.close()
            raise


class Context(ssl.SSLContext):
    """A context whose connections keep to ``bounds``."""

    bounds: CallLimits

    def __init__(self, protocol: int = ssl.PROTOCOL_TLS_CLIENT) -> None:
        del protocol  # __new__ takes it
        self.sslsocket_class, self.bounds = _TLSSocket, CallLimits()


def open_socket(host: str, port: int, timeout: float | None, bounds: CallLimits) -> PlainSocket:
    """Connect to the first of a host's addresses that accepts, within ``bounds``.

    Args:
        host: a name or an address.
        port: TCP.
        timeout: seconds for each address, and then for each operation; None for no limit but ``bounds``.
        bounds: of the call.

    Raises:
        OSError: no address accepts, or there is none (``socket.gaierror``); TimeoutError: none did in time.
    """
    failure: OSError = OSError("the name has no address")
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("invalid host name") from None
    for family, kind, protocol, _, address in addresses:
        try:
            connection = PlainSocket(family, kind, protocol)
        except OSError as error:  # for example an IPv6 address, on a machine without IPv6
            failure = error
            continue
        connection.bounds = bounds
        try:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure
