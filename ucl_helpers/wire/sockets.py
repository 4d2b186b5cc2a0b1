"""Provide sockets (TCP and TLS) that end a call when it takes too long or receives too many bytes."""

import math
import socket
import ssl
import time
from contextlib import ExitStack
from typing import Any


class AnswerTooLarge(OSError):
    """A peer sent more than a call accepts."""


class NoTunnel(OSError):
    """A proxy opened no tunnel to the server; ``__cause__`` says why.

    Args:
        status: the HTTP status of the proxy's answer to CONNECT, or None.
        oddity: the class of :mod:`http.client` that names the problem of an answer that is not HTTP; else None.
        speaks_http: whether that answer began as HTTP does.
    """

    def __init__(self, status: int | None, oddity: str | None, *, speaks_http: bool = False) -> None:
        super().__init__("the proxy opened no tunnel")
        self.status, self.oddity, self.speaks_http = status, oddity, speaks_http


class CallLimits:
    """The limits of a call: the moment when it must end, and the bytes that it may still receive.

    Each client has one object. The sockets of all layers use it (TCP, TLS to a proxy, TLS to the server). Outside of a
    call there are no limits. *Not* limited: name resolution, which the system's resolver ends.

    Attributes:
        until: the moment when the call must end, in seconds of ``time.monotonic()``.
        room: the bytes that the call may still receive, decrypted on a TLS socket. The bytes that a proxy sends in
            plain text count too.
    """

    def __init__(self, seconds: float = math.inf, room: float = math.inf) -> None:
        self.until, self.room = time.monotonic() + seconds, room

    def limit(self, connection: socket.socket) -> None:
        """Set the connection's timeout so that its next operation ends at ``until``. Raises TimeoutError after that."""
        remaining = self.until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out before the answer was complete")
        if remaining < math.inf:
            connection.settimeout(min(remaining, connection.gettimeout() or remaining))

    def count(self, received: int) -> None:
        """Subtract the bytes received. Raises AnswerTooLarge if no room is left."""
        self.room -= received
        if self.room < 0:
            raise AnswerTooLarge("the answer is larger than a call accepts")


class PlainSocket(socket.socket):
    """A TCP socket within ``bounds``. It receives a proxy's answer to CONNECT, before any TLS."""

    bounds: CallLimits

    def connect(self, address: Any, /) -> None:
        """Connect within the time of ``bounds``."""
        self.bounds.limit(self)
        super().connect(address)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive bytes within ``bounds``. Each method that reads a proxy's answer calls this one."""
        self.bounds.limit(self)
        received = super().recv_into(*args, **kwargs)
        self.bounds.count(received)
        return received

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        """Send all data within the time of ``bounds``, because CPython applies the timeout to all parts together."""
        self.bounds.limit(self)
        super().sendall(*args, **kwargs)


class _TLSSocket(ssl.SSLSocket):
    """A TLS socket within ``bounds``. CPython ends each operation after the timeout, even if bytes arrive slowly."""

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
    """An SSL context whose connections stay within ``bounds``."""

    bounds: CallLimits

    def __init__(self, protocol: int = ssl.PROTOCOL_TLS_CLIENT) -> None:
        del protocol  # __new__ takes it
        self.sslsocket_class, self.bounds = _TLSSocket, CallLimits()


def open_socket(host: str, port: int, timeout: float | None, bounds: CallLimits) -> PlainSocket:
    """Connect to the first address of a host that accepts the connection, within ``bounds``.

    Args:
        host: a name or an address.
        port: TCP.
        timeout: seconds for each address, and then for each operation; None for no limit but ``bounds``.
        bounds: the limits of the call.

    Raises:
        OSError: no address accepts, or there is none (``socket.gaierror``). TimeoutError: none accepted in time.
    """
    failure: OSError = OSError("the name has no address")
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("invalid host name") from None
    for family, kind, protocol, _, address in addresses:
        try:
            with ExitStack() as unless_connected:
                connection = unless_connected.enter_context(PlainSocket(family, kind, protocol))
                connection.bounds = bounds
                connection.settimeout(timeout)
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                unless_connected.pop_all()
                return connection
        except OSError as error:  # also an IPv6 address, on a machine without IPv6
            failure = error
    raise failure
