"""A man in the middle: real TLS to the client, real TLS to the sandbox, and it may lose or change what passes.

It bears the sandbox's own server certificate. To the sandbox it speaks as the client, with the key it reads off the
client's disk: so it sits where a gateway sits, and the sandbox sees the identities it would see anyway.
"""

import base64
import contextlib
import http.client
import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from secrets_watch import CANARY

from ucl_helpers.models import fingerprint
from ucl_sandbox import RunningSandbox

_CLIENT_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_DIGITAL_SIGNATURE = x509.KeyUsage(True, *[False] * 8)
OPERATIONS = {
    "signCertificateSigningRequest": "sign",
    "revokeCertificate": "revoke",
    "requestOneTimeToken": "token",
    "configuration": "configuration",
}


@dataclass(frozen=True)
class Reply:
    """What goes back to the client."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def but(self, **result: Any) -> "Reply":
        """The same answer with fields of its ``data.result`` replaced."""
        answer = json.loads(self.body)
        answer["data"]["result"] |= result
        return replace(self, body=json.dumps(answer).encode())


@dataclass(frozen=True)
class Call:
    """A request as it came by."""

    operation: str
    body: dict[str, Any] = field(repr=False)
    token: str | None = field(repr=False)
    fingerprint: str | None
    connection: int
    resumed: bool
    ca: Path = field(repr=False)


Meddling = Callable[[Callable[[], Reply], Call], Reply | None]


def passes(forward: Callable[[], Reply], call: Call) -> Reply:
    return forward()


def lost_on_the_way_back(forward: Callable[[], Reply], call: Call) -> None:
    """It arrives and is acted on; the connection breaks before the answer."""
    forward()


def lost_on_the_way(forward: Callable[[], Reply], call: Call) -> None:
    """It never arrives."""


def refused(forward: Callable[[], Reply], call: Call) -> Reply:
    return Reply(400)


def answers(status: int, result: Any = None, **rest: Any) -> Meddling:
    body = json.dumps({"data": {"result": result}, **rest}).encode() if status == 200 else b""
    return lambda forward, call: Reply(status, body)


def changes(**result: Any) -> Meddling:
    return lambda forward, call: forward().but(**result)


def signs(days: tuple[int, int] = (0, 90), **defects: Any) -> Meddling:
    """UCL's own CA signs what nobody asked for: another ``key`` or ``subject``, or at other times (days from now)."""

    def sign(forward: Callable[[], Reply], call: Call) -> Reply:
        reply = forward()
        csr = x509.load_pem_x509_csr(base64.b64decode(call.body["variables"]["csr"]))
        asked = json.loads(reply.body)["data"]["result"]
        ca = base64.b64decode(asked["caCertificate"])
        signer, now = x509.load_pem_x509_certificates(ca)[0], datetime.now(UTC)
        client = (
            x509.CertificateBuilder(serial_number=2)
            .subject_name(defects.get("subject", csr.subject))
            .public_key(defects.get("key", csr.public_key()))
            .issuer_name(signer.subject)
            .not_valid_before(now + timedelta(days[0]))
            .not_valid_after(now + timedelta(days[1]))
            .add_extension(_CLIENT_AUTH, critical=False)
            .add_extension(_DIGITAL_SIGNATURE, critical=True)
            .sign(load_pem_private_key(call.ca.read_bytes(), None), hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )
        client_text, chain = (base64.b64encode(pem).decode() for pem in (client, client + ca))
        return reply.but(clientCertificate=client_text, certificateChain=chain)

    return sign


class Meddler:
    """``with Meddler(ucl, home) as between:`` — and everything that is reached through its URLs stays with it."""

    def __init__(self, ucl: RunningSandbox, home: Path) -> None:
        self.ucl, self.home = ucl, home
        self.calls: list[Call] = []
        self.faults: list[BaseException | None] = []
        self._plans: dict[str, list[Meddling]] = {}
        self._servers: dict[str, _Server] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for name in ("director_url", "connector_url", "certificate_secured_connector_url"):
                server = _Server(self, getattr(self.ucl, name), mutual=name.startswith("certificate"))
                self._servers[name] = stack.enter_context(server.running())
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()
        assert self.faults == []

    @property
    def director_url(self) -> str:
        return self._servers["director_url"].url

    @property
    def connector_url(self) -> str:
        return self._servers["connector_url"].url

    @property
    def certificate_secured_connector_url(self) -> str:
        return self._servers["certificate_secured_connector_url"].url

    def on(self, operation: str, *meddlings: Meddling) -> None:
        """What the next calls of an operation meet, one after another; those after them pass."""
        self._plans[operation] = list(meddlings)

    def seen(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    def handle(self, server: "_Server", headers: dict[str, str], body: bytes, tls: ssl.SSLSocket) -> Reply | None:
        peer = tls.getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(peer) if peer else None
        told = json.loads(body)
        operation = next(short for name, short in OPERATIONS.items() if name in told["query"])
        mark = fingerprint(certificate) if certificate else None
        number = server.connections.index(tls)
        token, ca = headers.get("connector-token"), self.ucl.state / "client-intermediate.pem"
        call = Call(operation, told, token, mark, number, bool(tls.session_reused), ca)
        self.calls.append(call)
        context = ssl.create_default_context(cafile=self.ucl.ca_file)
        if certificate:
            context.load_cert_chain(*self._identity(certificate), password=CANARY)  # asked for if the key is encrypted
        plan = self._plans.get(operation) or [passes]
        return plan.pop(0)(lambda: self._rewritten(server.forward(context, headers, body)), call)

    def _identity(self, certificate: x509.Certificate) -> tuple[Path, Path]:
        """Chain and key of the client, from its disk."""
        for chain in [*self.home.rglob("chain*.pem"), *self.home.rglob("identity.pem")]:
            if certificate.public_bytes(Encoding.PEM) in chain.read_bytes():
                for key in (chain, chain.with_name("key.pem")):
                    if key.exists() and b"PRIVATE KEY" in key.read_bytes():
                        return chain, key
        raise LookupError("no such identity lies on the client's disk")

    def _rewritten(self, reply: Reply) -> Reply:
        body = reply.body
        for server in self._servers.values():
            body = body.replace(server.target.encode(), server.url.encode())
        return replace(reply, body=body)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, meddler: Meddler, target: str, *, mutual: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.meddler, self.target = meddler, target
        self.url = urlsplit(target)._replace(netloc=f"localhost:{self.server_port}").geturl()
        self.connections: list[ssl.SSLSocket] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(meddler.ucl.state / "server.pem")
        if mutual:
            self._context.verify_mode = ssl.CERT_REQUIRED
            for authority in ("client-root.pem", "client-intermediate.pem"):
                self._context.load_verify_locations(meddler.ucl.state / authority)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.server_close()

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        plain, address = self.socket.accept()
        tls = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self.connections.append(tls)
        return tls, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that fails is the client's business; anything else is a fault of the test."""
        if not isinstance(error := sys.exception(), OSError):
            self.meddler.faults.append(error)

    def forward(self, context: ssl.SSLContext, headers: dict[str, str], body: bytes) -> Reply:
        parts = urlsplit(self.target)
        upstream = http.client.HTTPSConnection("localhost", parts.port, context=context, timeout=30)
        with contextlib.closing(upstream):
            upstream.request("POST", parts.path, body, {k: v for k, v in headers.items() if k.lower() != "host"})
            response = upstream.getresponse()
            kept = [(name, value) for name, value in response.getheaders() if name != "Content-Length"]
            return Reply(response.status, response.read(), tuple(kept))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece, or the kernel waits between them

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.server.meddler.handle(self.server, dict(self.headers), body, self.connection)
        if reply is None:
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        for name, value in (*reply.headers, ("Content-Length", str(len(reply.body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
