"""Small real TLS servers with a CA of their own: they play a script, one step for each request, and count."""

import json
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from certificates import USAGES
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ucl_helpers.errors import UCLError
from ucl_helpers.wire.client import Client

QUERY = "query { result: viewer { id } }"
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
PAUSE = 0.01  # seconds between two drops
DROPS = 6000  # a minute of them: who waits for the end is given a whole answer


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


KEY_USAGE_OF_A_CA = x509.KeyUsage(**{usage: usage in {"key_cert_sign", "crl_sign"} for usage in USAGES})


class Authority:
    """A throw-away CA; `ca_file` is what to trust, `issue` writes a key with its certificate into one file."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.name, self._key = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), ec_key()
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._sign(self.name, self._key, constraint, (-HOUR, HOUR))
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] | None = ("localhost", "127.0.0.1"),
        valid: tuple[timedelta, timedelta] = (-HOUR, HOUR),
        key: Any = None,
    ) -> Path:
        """``hosts`` become the subjectAltName; None leaves that extension out."""
        key = key or ec_key(1)
        names = [x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts or ()]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternative = None if hosts is None else x509.SubjectAlternativeName(names)
        certificate = self._sign(subject, key, alternative, valid)
        path = self.folder / f"{name}.pem"
        path.write_bytes(pem_of(key) + certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _sign(
        self, subject: x509.Name, key: Any, extension: x509.ExtensionType | None, valid: tuple[timedelta, timedelta]
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.not_valid_before(NOW + valid[0]).not_valid_after(NOW + valid[1])
        builder = builder.serial_number(x509.random_serial_number())
        is_ca = isinstance(extension, x509.BasicConstraints)
        builder = builder.add_extension(extension, critical=is_ca) if extension else builder
        builder = builder.add_extension(KEY_USAGE_OF_A_CA, critical=True) if is_ca else builder
        public = self._key.public_key()
        identifier = x509.SubjectKeyIdentifier if is_ca else x509.AuthorityKeyIdentifier  # RFC 5280, 4.2.1.1 and .2
        own = identifier.from_public_key(public) if is_ca else identifier.from_issuer_public_key(public)
        return builder.add_extension(own, critical=False).sign(self._key, hashes.SHA256())


# -- the steps of a script ---------------------------------------------------------------------------------------------


def answer(status: int = 200, body: object = b"", headers: Mapping[str, str] | None = None, **more: str) -> bytes:
    """A whole answer; what is not bytes becomes JSON. `None` as a header's value leaves that header out."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Length": str(len(data)), **(headers or {}), **more}
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in named.items() if value is not None)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def result(value: object = "fine", **headers: str) -> bytes:
    return answer(200, {"data": {"result": value}}, headers)


@dataclass(frozen=True)
class Cut:
    """Send this much, then end the connection: a clean end, or a reset."""

    sent: bytes = b""
    reset: bool = False


@dataclass(frozen=True)
class Drip:
    """Send `drop` again and again for a minute, with a pause after each, then a whole answer."""

    start: bytes
    drop: bytes
    end: bytes


@dataclass(frozen=True)
class Request:
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass
class Server:
    """What a server has seen so far."""

    url: str
    port: int
    accepted: int = 0  # TCP connections
    resumed: list[bool] = field(default_factory=list)  # of each finished handshake
    requests: list[Request] = field(default_factory=list)
    certificates: list[bytes | None] = field(default_factory=list)  # that clients of an https proxy showed
    dripped_out: bool = False  # a client waited for the end of a drip


@contextmanager
def serving(*script: object, identity: Path, client_ca: Path | None = None, **options: Any) -> Iterator[Server]:
    """A server on a free port of 127.0.0.1; its last step is repeated. `options` are set on its `SSLContext`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    if ciphers := options.pop("ciphers", None):
        context.set_ciphers(ciphers)
    for name, value in options.items():
        setattr(context, name, value)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    steps = iter(script)

    def handle(raw: socket.socket, server: Server, closing: threading.Event) -> None:
        with context.wrap_socket(raw, server_side=True) as connection:
            server.resumed.append(bool(connection.session_reused))
            while (request := _read_request(connection)) is not None:
                server.requests.append(request)
                if not _play(connection, next(steps, script[-1]), server, closing):
                    return

    with accepting(handle) as server:
        yield server


@contextmanager
def accepting(handle: Callable[[socket.socket, Server, threading.Event], None]) -> Iterator[Server]:
    """Hand each connection to `handle` in a thread; all are joined at the end, when the clients have closed theirs."""
    closing, threads = threading.Event(), list[threading.Thread]()

    def attend(connection: socket.socket) -> None:
        with connection, suppress(OSError, ssl.SSLError):
            handle(connection, server, closing)

    def accept() -> None:
        with suppress(OSError):
            while not closing.is_set():
                connection, _ = listening.accept()
                server.accepted += 1
                connection.settimeout(30)
                threads.append(threading.Thread(target=attend, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = Server(f"https://localhost:{port}/graphql", port)
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield server
        finally:
            closing.set()
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            threads[0].join()
            for thread in threads:
                thread.join()


def _read_request(connection: socket.socket) -> Request | None:
    with connection.makefile("rb") as file:
        if not file.readline():
            return None
        lines = iter(lambda: file.readline().decode("latin-1").strip(), "")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Request(headers, json.loads(file.read(int(headers.get("content-length", "0")))))


def _play(connection: socket.socket, step: object, server: Server, closing: threading.Event) -> bool:
    """Play one step; True if the connection stays."""
    match step:
        case bytes():
            connection.sendall(step)
            return True
        case Cut(sent, reset):
            connection.sendall(sent)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        case Drip(start, drop, end):
            connection.sendall(start)
            for _ in range(DROPS):
                if closing.wait(PAUSE):
                    return False
                connection.sendall(drop)
            connection.sendall(end)
            server.dripped_out = True
    return False


class Stage:
    """A CA and a server's identity, to play scripts with."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority(folder, "server CA")
        self.identity = self.ca.issue("server")

    def play(
        self, *script: object, endpoint: Any = "certificate", variables: Any = None, **options: Any
    ) -> tuple[Any, Server, list[float]]:
        """Call a server that plays a script: what came of it (or the error), the server, the pauses between tries."""
        pauses: list[float] = []
        with (
            serving(*script, identity=self.identity) as server,
            Client(server.url, endpoint, ca_file=self.ca.ca_file, wait=pauses.append, **options) as client,
        ):
            try:
                return client.call(QUERY, variables), server, pauses
            except UCLError as error:
                return error, server, pauses


# -- a proxy -----------------------------------------------------------------------------------------------------------


@contextmanager
def proxying(*greeting: bytes, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """An HTTP proxy that knows CONNECT: it passes bytes on, and sees none of what they say.

    For it every host is this machine, so that there can be one that is not loopback by its name. It answers CONNECT
    with the parts of ``greeting``, a pause between them. With ``tls`` it is an https proxy.
    """

    def handle(client: socket.socket, server: Server, closing: threading.Event) -> None:
        if tls is not None:
            client = tls.wrap_socket(client, server_side=True)
            server.certificates.append(client.getpeercert(binary_form=True))
        with client, client.makefile("rb", buffering=0) as file:
            _, _, port = file.readline().split()[1].decode().rpartition(":")
            lines = iter(lambda: file.readline().decode().strip(), "")
            server.requests.append(Request(dict(line.partition(": ")[::2] for line in lines), {}))
            for part in greeting or (b"HTTP/1.1 200 -\r\n\r\n",):
                client.sendall(part)
                closing.wait(PAUSE if greeting[1:] else 0)
            with socket.create_connection(("127.0.0.1", int(port))) as upstream:
                _pass_on(client, upstream)

    with accepting(handle) as server:
        yield server


def _pass_on(client: socket.socket, upstream: socket.socket) -> None:
    """Both ways, until one of them ends."""
    while True:
        pending = isinstance(client, ssl.SSLSocket) and client.pending()
        for source in [client] if pending else select.select([client, upstream], [], [], 30)[0]:
            if not (data := source.recv(65536)):
                return
            (upstream if source is client else client).sendall(data)
