"""The three TLS listeners on loopback: the Director, the token endpoint and the certificate endpoint.

They require TLS 1.2 or later. The certificate endpoint requires a client certificate of the client CA in the handshake.
With TLS 1.3 a client may notice a refusal only when it reads the answer. `Door` opens and shuts a listener's sockets,
`Handshakes` chooses the server certificate of a connection, and `Listeners` answers requests.
"""

import asyncio
import itertools
import logging
import socket
import ssl
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.client import responses as reasons
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.netutil import add_accept_handler

from ucl_private_files import read_regular
from ucl_sandbox.ca import change_server_ca, make_server_certificate, make_wrong_server_certificate
from ucl_sandbox.connector import Connector
from ucl_sandbox.control import FAULTS_PATH, LIMIT_PATH, answer_faults, answer_limit
from ucl_sandbox.director import Director
from ucl_sandbox.faults.injection import Place, Script, abort, during_outage, inject, operation_of, play, reset
from ucl_sandbox.faults.plans import Fault
from ucl_sandbox.landscape import ClientCertificate, Landscape
from ucl_sandbox.transport import Request, Response

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
    """Replace OpenSSL's text about a failed handshake by a sentence. This is a filter for tornado's log."""
    error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "it broke off"
        record.msg = "A client's TLS handshake failed: %s."
        record.args = (_REASONS.get(reason, reason.replace("_", " ").lower()),)
    return True


def in_loop(work: Callable[[], None]) -> Callable[[], None]:
    """Return a function that any thread may call to do work in the running event loop, and to wait for its end."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    async def begun() -> None:
        work()

    def call() -> None:
        if threading.get_ident() == thread:
            work()
        else:
            asyncio.run_coroutine_threadsafe(begun(), loop).result()

    return call


def bound_like(closed: tuple[socket.AddressFamily, tuple[str, int]]) -> socket.socket:
    """Return a socket that keeps a port but does not listen, so that connections are refused.

    Args:
        closed: The family and address of a listening socket that has been closed.
    """
    family, address = closed
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


class Door:
    """The sockets of one listener. It must be used within a running event loop.

    Args:
        sockets: Listening sockets.
        came: Called with each new connection and its peer's address.
    """

    def __init__(self, sockets: list[socket.socket], came: Callable[[socket.socket, Any], None]) -> None:
        self._sockets, self._came = list(sockets), came
        self._removers: list[Callable[[], None]] = []

    def open(self) -> None:
        """Accept connections."""
        if not self._removers:
            for listening in self._sockets:
                listening.listen(_BACKLOG)
            self._removers = [add_accept_handler(listening, self._came) for listening in self._sockets]

    def shut(self) -> None:
        """Refuse connections, but keep the port."""
        self._ignore()
        for place, listening in enumerate(self._sockets):
            address = listening.family, listening.getsockname()[:2]
            listening.close()
            self._sockets[place] = bound_like(address)

    def close(self) -> None:
        """Close the sockets and release the port."""
        self._ignore()
        for listening in self._sockets:
            listening.close()

    def _ignore(self) -> None:
        for remove in self._removers:
            remove()
        self._removers = []


class Handshakes:
    """The TLS contexts of the listeners, both the right ones and those of faults.

    This class creates the listeners' certificate, and replaces it a month before it expires. The certificate is valid
    according to the system's clock, which clients use, and according to the sandbox's clock.

    Args:
        folder: The state folder.
        client_ca: The CA certificates that verify client certificates, as PEM.
        clock: Returns the sandbox's time (aware).

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
        """Return the context for a new connection. `mutual` requires a client certificate.

        For a fault that does not affect the handshake, this is the right context. For the fault `server-ca-changed`, it
        creates the new CA.
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
        """Create a new certificate for all later connections."""
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


DIRECTOR_PATH, CONNECTOR_PATH = "/director/graphql", "/connector/graphql"
LEGACY_PATH = "/v1/applications/signingRequests/info"
_GRAPHQL_PATHS, _CALLS = {DIRECTOR_PATH, CONNECTOR_PATH}, {"GET", "POST"}
_BODY_LIMIT = 3 * 1024 * 1024
_PATIENCE = 60.0  # seconds to wait for a whole head, and as many for its body
_LOG_LENGTH = 1000
_SECRET_HEADERS = {"authorization", "connector-token", "cookie"}

Route = Callable[[Request, HTTPServerRequest], Response]


@dataclass(frozen=True)
class Received:
    """One request to the sandbox.

    Attributes:
        status: The status of the answer. 0 if a fault prevented a whole answer.
        connection: The number of its TLS connection, counted from 1.
        resumed: Whether the connection resumed a TLS session.
        headers: The headers that carry no secrets.
        fault: The kind of the fault that struck, if any.
        operation: The operation according to `operation_of`.
    """

    listener: str
    method: str
    path: str
    headers: Mapping[str, str]
    status: int
    connection: int
    resumed: bool
    fault: str | None = None
    operation: str = "other"


class Listeners:
    """The listeners of one sandbox. They must be used within a running event loop.

    Args:
        landscape: The data of the sandbox.
        folder: The state folder.

    Attributes:
        ca_file: The CA certificate that verifies the listeners.
    """

    def __init__(self, landscape: Landscape, folder: Path) -> None:
        self.received: deque[Received] = deque(maxlen=_LOG_LENGTH)
        self._clock, self._faults, self._limit = landscape.clock, landscape.faults, landscape.limit
        self._connections: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._peers: weakref.WeakKeyDictionary[IOStream, bytes | None] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._servers: list[HTTPServer] = []
        self._doors: dict[str, Door] = {}
        self._handshakes = Handshakes(folder, landscape.ca.pem, landscape.clock)
        self.ca_file = self._handshakes.ca_file
        self._connector, self._director = Connector(landscape), Director(landscape)
        self._control: Route = lambda request, _: answer_faults(landscape.faults, landscape.state.bearer, request)
        self._limit_route: Route = lambda request, _: answer_limit(landscape.limit, landscape.state.bearer, request)
        self._idle: weakref.WeakSet[IOStream] = weakref.WeakSet()
        self._playing: set[asyncio.Task[None]] = set()
        self._played: weakref.WeakSet[IOStream] = weakref.WeakSet()

    def start(
        self, director: list[socket.socket], token: list[socket.socket], certificate: list[socket.socket]
    ) -> None:
        """Start serving on listening sockets."""
        connector, management = self._connector, self._director
        self._serve(
            "director",
            director,
            {
                DIRECTOR_PATH: lambda request, _: management.by_bearer(request),
                FAULTS_PATH: self._control,
                LIMIT_PATH: self._limit_route,
                "/healthz": lambda *_: Response(200, b"UP"),
                "/livez": lambda *_: Response(200),
                "/readyz": lambda *_: Response(200),
            },
        )
        self._serve("token", token, {CONNECTOR_PATH: lambda request, _: connector.by_token(request)})
        self._serve(
            "certificate",
            certificate,
            {
                CONNECTOR_PATH: lambda request, raw: connector.by_certificate(request, self._peer(raw)),
                DIRECTOR_PATH: lambda request, raw: management.by_certificate(request, self._peer(raw)),
            },
        )
        self._apply_faults()
        self._unwatch = self._faults.watch(in_loop(self._apply_faults))

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        self._unwatch()
        for door in self._doors.values():
            door.close()
        for server in self._servers:
            await server.close_all_connections()

    def _serve(self, name: str, sockets: list[socket.socket], routes: Mapping[str, Route]) -> None:
        server = HTTPServer(
            partial(self._answer, name, routes),
            max_buffer_size=_BODY_LIMIT,
            idle_connection_timeout=_PATIENCE,
            body_timeout=_PATIENCE,
        )
        self._servers.append(server)
        self._doors[name] = Door(sockets, partial(self._let_in, name, server))

    def _answer(self, name: str, routes: Mapping[str, Route], raw: HTTPServerRequest) -> None:
        stream = cast(HTTP1Connection, raw.connection).stream
        self._idle.discard(stream)
        body = raw.body if isinstance(raw.body, bytes) else b""
        request = Request(str(raw.method), raw.headers, raw.query, body)
        route = routes.get(raw.path, _not_found)
        fault = refusal = None
        operation = operation_of(request)
        if raw.path in _GRAPHQL_PATHS & set(routes) and request.method in _CALLS:
            refusal = self._limit.refusal() if raw.path == CONNECTOR_PATH else None
            fault = None if refusal else self._faults.draw(name, operation)
        if fault is None:
            response: Response | Script = refusal or route(request, raw)
        elif fault.kind == "outage":
            director = partial(self._without_database, name, raw) if raw.path == DIRECTOR_PATH else None
            response = during_outage(fault.value, request, director)
        else:
            place = Place(stream.socket.getsockname()[1], raw.path)
            response = inject(fault, place, partial(route, request, raw), self._head)
        self._note(name, raw, response, fault, operation)
        if route is self._control and isinstance(response, Response):
            response = Script(
                [self._head(response) + response.body]
            )  # the next call needs a new connection under the new plan
        if isinstance(response, Response):
            self._write(raw, response)
            self._idle.add(stream)
        else:
            self._played.add(stream)
            self._keep(play(stream, response))

    def _without_database(self, name: str, raw: HTTPServerRequest, request: Request) -> Response:
        """Return the Director's answer while its database is down."""
        if name == "director":
            return self._director.by_bearer(request, database=False)
        return self._director.by_certificate(request, self._peer(raw), database=False)

    def _let_in(self, name: str, server: HTTPServer, connection: socket.socket, address: Any) -> None:
        """Begin the handshake of a new connection, with a fault if one strikes."""
        fault = self._faults.draw(name)
        kind = fault.kind if fault else ""
        if kind == "reset-in-handshake":
            abort(connection)
            connection.close()
            return
        context = self._handshakes.context(fault, mutual=name == "certificate")
        try:
            secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except OSError:  # the client has closed the connection
            connection.close()
            return
        stream = SSLIOStream(secured, max_buffer_size=_BODY_LIMIT)
        if kind == "reset-before-reading":
            self._keep(_reset_before_reading(stream))
        else:
            self._keep(self._remember(stream))
            server.handle_stream(stream, address)

    async def _remember(self, stream: SSLIOStream) -> None:
        """Store the client certificate, because a request is acted on even if its client disconnects."""
        with suppress(OSError):  # the client disconnected during the handshake
            await stream.wait_for_handshake()
            self._peers[stream] = stream.socket.getpeercert(binary_form=True)

    def _peer(self, raw: HTTPServerRequest) -> ClientCertificate:
        der = self._peers[cast(HTTP1Connection, raw.connection).stream]
        if der is None:
            raise TypeError("the handshake has required a client certificate")
        return ClientCertificate(x509.load_der_x509_certificate(der))

    def _apply_faults(self) -> None:
        """Open and shut doors according to the plan of faults, and end the connections of the previous plan.

        While there are faults, each call uses a new connection, so that every kind can strike every call.
        """
        for name, door in self._doors.items():
            if self._faults.refuses(name):
                door.shut()
            else:
                door.open()
        for server in self._servers:
            server.conn_params.no_keep_alive = bool(self._faults)
        for stream in [*self._played, *(stream for stream in self._idle if not stream.writing())]:
            stream.close()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task, and keep a reference to it because the event loop keeps none."""
        task = asyncio.ensure_future(work)
        self._playing.add(task)
        task.add_done_callback(self._playing.discard)

    def _write(self, raw: HTTPServerRequest, response: Response) -> None:
        connection = cast(HTTP1Connection, raw.connection)
        start = ResponseStartLine("HTTP/1.1", response.status, reasons.get(response.status, ""))
        connection.write_headers(start, HTTPHeaders(self._headers(response)), response.body)
        connection.finish()

    def _headers(self, response: Response) -> dict[str, str]:
        return {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Date": format_datetime(self._clock(), usegmt=True),
            **response.headers,
        }

    def _head(self, response: Response) -> bytes:
        """Encode the head of an answer that ends its connection."""
        start = f"HTTP/1.1 {response.status} {reasons.get(response.status, '')}"
        headers = {**self._headers(response), "Connection": "close"}
        return "\r\n".join([start, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode("latin-1")

    def _note(
        self, listener: str, raw: HTTPServerRequest, response: Response | Script, fault: Fault | None, operation: str
    ) -> None:
        stream = cast(HTTP1Connection, raw.connection).stream
        number = self._connections.get(stream) or next(self._numbers)
        self._connections[stream] = number
        resumed = bool(getattr(stream.socket, "session_reused", False))
        headers = {name: value for name, value in raw.headers.items() if name.lower() not in _SECRET_HEADERS}
        status = response.status if isinstance(response, Response) else 0
        kind = fault.kind if fault else None
        method, path = str(raw.method), raw.path
        self.received.append(Received(listener, method, path, headers, status, number, resumed, kind, operation))


async def _reset_before_reading(stream: SSLIOStream) -> None:
    with suppress(StreamClosedError, TimeoutError):
        await asyncio.wait_for(stream.wait_for_handshake(), _PATIENCE)
    reset(stream)


def _not_found(*_: object) -> Response:
    return Response(404)
