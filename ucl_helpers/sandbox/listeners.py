"""Three TLS listeners on loopback: the Director, the token endpoint, the certificate endpoint.

TLS 1.2 or later. The certificate endpoint requires a client certificate of the client CA in the handshake; with
TLS 1.3 a client may see its refusal only when it reads the answer.
"""

import itertools
import socket
import ssl
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from http.client import responses as reasons
from pathlib import Path
from typing import cast

from cryptography import x509
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from ucl_helpers.sandbox.connector import Connector
from ucl_helpers.sandbox.director import Director
from ucl_helpers.sandbox.landscape import ClientCertificate, Landscape
from ucl_helpers.sandbox.transport import Request, Response

DIRECTOR_PATH, CONNECTOR_PATH = "/director/graphql", "/connector/graphql"
LEGACY_PATH = "/v1/applications/signingRequests/info"
_BODY_LIMIT = 16 * 1024 * 1024
_LOG_LENGTH = 1000
_SECRET_HEADERS = {"authorization", "connector-token", "cookie"}

Route = Callable[[Request, HTTPServerRequest], Response]


@dataclass(frozen=True)
class Received:
    """One request as the sandbox saw it.

    Attributes:
        connection: Counts TLS connections from 1; the same number means the same connection.
        resumed: Whether the connection's handshake was abbreviated.
        headers: Without those that carry secrets.
    """

    listener: str
    method: str
    path: str
    headers: Mapping[str, str]
    status: int
    connection: int
    resumed: bool


class Listeners:
    """Serves a landscape; to be used within a running event loop.

    Args:
        landscape: What to serve.
        server_certificate: The file with the listeners' certificate and key.
        client_ca: The certificates that a client's certificate may come from, as PEM.
    """

    def __init__(self, landscape: Landscape, server_certificate: Path, client_ca: bytes) -> None:
        self.received: deque[Received] = deque(maxlen=_LOG_LENGTH)
        self._clock = landscape.clock
        self._connections: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._servers: list[HTTPServer] = []
        self._plain, self._mutual = _context(server_certificate), _context(server_certificate)
        self._mutual.verify_mode = ssl.CERT_REQUIRED
        self._mutual.load_verify_locations(cadata=client_ca.decode())
        self._connector, self._director = Connector(landscape), Director(landscape)

    def start(
        self, director: list[socket.socket], token: list[socket.socket], certificate: list[socket.socket]
    ) -> None:
        """Starts serving on sockets that listen already."""
        connector, management = self._connector, self._director
        self._serve(
            "director",
            director,
            self._plain,
            {
                DIRECTOR_PATH: lambda request, _: management.by_bearer(request),
                "/healthz": lambda *_: Response(200, b"UP"),
                "/livez": lambda *_: Response(200),
                "/readyz": lambda *_: Response(200),
            },
        )
        self._serve(
            "token",
            token,
            self._plain,
            {
                CONNECTOR_PATH: lambda request, _: connector.by_token(request),
            },
        )
        self._serve(
            "certificate",
            certificate,
            self._mutual,
            {
                CONNECTOR_PATH: lambda request, raw: connector.by_certificate(request, _peer(raw)),
                DIRECTOR_PATH: lambda request, raw: management.by_certificate(request, _peer(raw)),
            },
        )

    async def stop(self) -> None:
        """Stops listening and closes every connection."""
        for server in self._servers:
            server.stop()
        for server in self._servers:
            await server.close_all_connections()

    def _serve(
        self, name: str, sockets: list[socket.socket], context: ssl.SSLContext, routes: Mapping[str, Route]
    ) -> None:
        def answer(raw: HTTPServerRequest) -> None:
            route = routes.get(raw.path)
            body = raw.body if isinstance(raw.body, bytes) else b""
            request = Request(str(raw.method), raw.headers, raw.query, body)
            response = route(request, raw) if route else Response(404)
            self._note(name, raw, response)
            self._write(raw, response)

        server = HTTPServer(answer, ssl_options=context, max_buffer_size=_BODY_LIMIT)
        server.add_sockets(sockets)
        self._servers.append(server)

    def _write(self, raw: HTTPServerRequest, response: Response) -> None:
        headers = HTTPHeaders(
            {
                "Content-Type": response.content_type,
                "Content-Length": str(len(response.body)),
                "Date": format_datetime(self._clock(), usegmt=True),
                **response.headers,
            }
        )
        connection = cast(HTTP1Connection, raw.connection)
        start = ResponseStartLine("HTTP/1.1", response.status, reasons.get(response.status, ""))
        connection.write_headers(start, headers, response.body)
        connection.finish()

    def _note(self, listener: str, raw: HTTPServerRequest, response: Response) -> None:
        stream = cast(HTTP1Connection, raw.connection).stream
        number = self._connections.get(stream) or next(self._numbers)
        self._connections[stream] = number
        resumed = bool(getattr(stream.socket, "session_reused", False))
        headers = {name: value for name, value in raw.headers.items() if name.lower() not in _SECRET_HEADERS}
        self.received.append(Received(listener, str(raw.method), raw.path, headers, response.status, number, resumed))


def _context(server_certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(server_certificate)
    return context


def _peer(raw: HTTPServerRequest) -> ClientCertificate:
    der = raw.get_ssl_certificate(binary_form=True)
    if not isinstance(der, bytes):
        raise TypeError("the handshake has required a client certificate")
    return ClientCertificate(x509.load_der_x509_certificate(der))
