"""A client that takes what comes, byte by byte, and says how it ended: sockets and TLS, nothing of ours."""

import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from contract_replay import JSON_TYPE


@dataclass(frozen=True)
class Seen:
    """What came over one connection; ``end`` is "closed", "reset", "refused", a verify code or a TLS reason."""

    end: str
    raw: bytes = b""
    pieces: int = 0

    @property
    def status(self) -> int | None:
        return int(self.raw.split(None, 2)[1]) if self.raw else None

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines)

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def length(self) -> int:
        """What Content-Length promises."""
        return int(self.headers["Content-Length"])

    @property
    def whole(self) -> bool:
        return self.end == "closed" and len(self.body) == self.length

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, context: ssl.SSLContext, body: str = "", headers: dict[str, str] | None = None, method: str = "POST"
) -> Seen:
    """Send one request over a connection of its own and take all that comes."""
    parts = urlsplit(url)
    given = {"Host": parts.netloc, **JSON_TYPE, **(headers or {}), "Content-Length": len(body.encode())}
    lines = [f"{method} {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    request = "\r\n".join([*lines, "Connection: close", "", body]).encode()
    received: list[bytes] = []
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as plain:
            _converse(plain, context, str(parts.hostname), request, received)
        end = "closed"
    except ssl.SSLCertVerificationError as error:
        end = f"verify {error.verify_code}"
    except ssl.SSLError as error:
        end = str(error.reason)
    except ConnectionRefusedError:
        end = "refused"
    except (ConnectionResetError, BrokenPipeError):
        end = "reset"
    return Seen(end, b"".join(received), len(received))


def _converse(plain: socket.socket, context: ssl.SSLContext, host: str, request: bytes, received: list[bytes]) -> None:
    """TLS in memory over a bare socket: an ``SSLSocket`` takes a reset for an end."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = context.wrap_bio(incoming, outgoing, server_hostname=host)

    def take() -> None:
        while True:
            received.append(secured.read(65536))

    for act in (secured.do_handshake, lambda: secured.write(request), take):
        while not _done(act):
            _pour(outgoing, plain)
            data = plain.recv(65536)
            if not data:
                return
            incoming.write(data)
        _pour(outgoing, plain)


def _done(act: Callable[[], object]) -> bool:
    try:
        act()
    except ssl.SSLWantReadError:
        return False
    return True


def _pour(outgoing: ssl.MemoryBIO, plain: socket.socket) -> None:
    if outgoing.pending:  # sending nothing tells of a reset before what came with it is read
        plain.sendall(outgoing.read())
