"""The effects of faults on answers. A fault returns another answer, or a script of bytes that are sent instead.

Faults change the GraphQL content only of answers with status 200.
"""

import asyncio
import gzip
import json
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from http import HTTPStatus
from typing import Any, Literal

from tornado.iostream import IOStream, StreamClosedError

from ucl_sandbox.faults.catalogue import CATALOGUE, answer_line
from ucl_sandbox.faults.plans import Fault
from ucl_sandbox.transport import JSON, Request, Response


def during_outage(what: object, request: Request, without_database: Callable[[Request], Response] | None) -> Response:
    """Answer a request during an outage.

    Args:
        what: The part that is down: "database", or else the Director's process.
        request: The request to answer.
        without_database: Makes the Director's answer without its database. None for a request to the Connector.
    """
    if without_database is not None:
        return without_database(request) if what == "database" else Response(502)
    # The gateway in front reads the body of a POST before anyone is authenticated.
    return Response(400 if request.method != "POST" or _is_operation(request.body) else 502)


def _is_operation(body: bytes) -> bool:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(decoded, dict) and isinstance(decoded.get("query"), str)


_WORDS = {
    "signCertificateSigningRequest": "sign",
    "revokeCertificate": "revoke",
    "requestOneTimeTokenForApplication": "token",
    "configuration": "configuration",
    "viewer": "viewer",
}
_MEGABYTE, _PIECE = 1_000_000, 64 * 1024
_OPENING, _CLOSING = b'{"data":{"result":', b"}}"
_PAGE = b"<!DOCTYPE html><html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"
_DEAD_HOST = "127.0.0.1:1"  # tcpmux: no program answers there
Ending = Literal["close", "reset", "silence"]


@dataclass(frozen=True)
class Script:
    """A sequence of bytes that is sent instead of an ordinary answer.

    Attributes:
        pieces: The bytes as they are sent.
        ending: The end of the connection: it is closed, reset, or kept open without an answer.
        pause: Seconds between two pieces.
    """

    pieces: Iterable[bytes] = ()
    ending: Ending = "close"
    pause: float = 0.0


@dataclass(frozen=True)
class Place:
    """The port and the path that received a request."""

    port: int
    path: str


def operation_of(request: Request) -> str:
    """Return the operation whose GraphQL field a request names first, or "other"."""
    text = request.query + request.body.decode("utf-8", "replace")
    match = re.search(rf"\b({'|'.join(_WORDS)})\b", text)
    return _WORDS[match[1]] if match else "other"


def inject(
    fault: Fault, place: Place, act: Callable[[], Response], head_of: Callable[[Response], bytes]
) -> Response | Script:
    """Answer a request with a fault.

    Args:
        fault: A fault that strikes after the request is read.
        place: The port and the path of the request.
        act: Acts on the request and returns the right answer. It is called only if the kind of fault acts first.
        head_of: Encodes the head of an answer, with the empty line.
    """
    kind = CATALOGUE[fault.kind]
    answer = act() if kind.acted else Response(200)
    if kind.family == "transport":
        return _by_transport(fault, head_of(answer), answer.body)
    if kind.family == "http":
        return _by_http(fault, place, answer)
    return _in_graphql(fault, answer, head_of) if answer.status == HTTPStatus.OK else answer


def _by_transport(fault: Fault, head: bytes, body: bytes) -> Script:
    whole = head + body
    match fault.kind:
        case "reset-in-mid-answer":
            return Script([whole[: len(head) + len(body) // 2]], "reset")
        case "black-hole":
            return Script(ending="silence")
        case "slow-drip":
            return Script((whole[at : at + 1] for at in range(len(whole))), pause=float(fault.value or 5))
    return Script(ending="reset")


def _by_http(fault: Fault, place: Place, answer: Response) -> Response:
    match fault.kind:
        case "http-400-empty":
            return Response(400)
        case "wrong-content-type":
            return replace(answer, content_type=str(fault.value or "text/html"))
        case "html-200":
            return Response(200, _PAGE % (b"Sign in", b"Sign in to the network"), "text/html")
        case "html-502":
            return Response(502, _PAGE % (b"502 Bad Gateway", b"502 Bad Gateway"), "text/html")
        case "redirect-same-host" | "redirect-other-host" | "redirect-to-http":
            location = {
                "redirect-same-host": f"https://localhost:{place.port}/moved{place.path}",
                "redirect-other-host": f"https://127.0.0.1:{place.port}{place.path}",
                "redirect-to-http": f"http://localhost:{place.port}{place.path}",
            }[fault.kind]
            return Response(int(fault.value or 307), headers={"Location": location})
    _, is_status, digits = fault.kind.partition("http-")
    if not is_status:
        raise NotImplementedError(f"injection.py does nothing for the fault {fault.kind}.")
    status = int(digits)
    headers = {} if fault.value is None else {"Retry-After": str(fault.value)}
    return Response(status, f"{answer_line(status)}\n".encode(), "text/plain", headers)


def _in_graphql(fault: Fault, answer: Response, head_of: Callable[[Response], bytes]) -> Response | Script:
    body = answer.body
    simple = {
        "json-broken": body.replace(b'"', b"'"),
        "json-truncated": body[: len(body) // 2],
        "empty-body": b"",
        "empty-object": b"{}",
        "data-null": b'{"data":null}',
        "data-empty": b'{"data":{}}',
        "result-null": b'{"data":{"result":null}}',
    }
    if fault.kind in simple:
        return replace(answer, body=simple[fault.kind])
    if fault.kind == "json-nested":
        levels = int(fault.value or 100_000)
        return replace(answer, body=_OPENING + b"[" * levels + b"]" * levels + _CLOSING)
    if fault.kind == "json-short":
        return Script([head_of(answer) + body[: len(body) // 2]])
    if fault.kind == "json-huge":
        size = int(float(fault.value or 100) * _MEGABYTE)
        return Script(_huge(head_of(replace(answer, headers=_length(size))), size))
    if fault.kind == "gzip-bomb":
        packed = _packed(float(fault.value or 1000))
        return replace(answer, body=packed, headers={"Content-Encoding": "gzip"})
    content = json.loads(body)
    if fault.kind == "errors-beside-data":
        error = {"message": str(fault.value or "internal system error"), "path": ["result"]}
        content = {"errors": [error], **content}
    else:
        change = _without if fault.kind == "missing-fields" else _otherwise
        data = content["data"] or {}
        content["data"] = {name: change(value, fault.value) for name, value in data.items()}
    return Response(200, json.dumps(content, separators=(",", ":")).encode(), JSON)


def _length(size: int) -> dict[str, str]:
    return {"Content-Length": str(size)}


def _huge(head: bytes, size: int) -> Iterator[bytes]:
    """Yield a JSON answer of this size in pieces, so that it is never in memory as a whole."""
    yield head + _OPENING + b'"'
    remaining = size - len(_OPENING) - len(_CLOSING) - 2
    while remaining > 0:
        yield b"a" * min(remaining, _PIECE)
        remaining -= _PIECE
    yield b'"' + _CLOSING


@cache
def _packed(megabytes: float) -> bytes:
    """Return gzip members (RFC 1952, section 2.2) that unpack to JSON of this size."""
    whole, rest = divmod(int(megabytes * _MEGABYTE), 10 * _MEGABYTE)
    filling = gzip.compress(b"a" * 10 * _MEGABYTE) * whole + gzip.compress(b"a" * rest)
    return gzip.compress(_OPENING + b'"') + filling + gzip.compress(b'"' + _CLOSING)


def _without(value: Any, name: object) -> Any:
    """Return a value without the fields of this name, or without all fields if there is no name."""
    if not isinstance(value, dict):
        return value
    return {key: _without(inner, name) for key, inner in value.items() if name is not None and key != name}


def _otherwise(value: Any, name: object) -> Any:
    """Change the type of the fields of this name, or of all values that are not objects if there is no name."""
    if isinstance(value, dict):
        return {
            key: _otherwise(inner, None if key == name else name) if name is None or name != key else _other(inner)
            for key, inner in value.items()
        }
    return _other(value) if name is None else value


def _other(value: Any) -> Any:
    return 17 if isinstance(value, str | dict) else "true"


def changed_url(fault: Fault, field: str, url: str) -> str | None:
    """Return a URL of the configuration after a fault. `field` is "director" or "connector"."""
    which, _, how = fault.kind.partition("-url-")
    if which != field:
        return url
    host = re.compile(r"(?<=^https://)[^/]*")
    return {
        "null": None,
        "empty": "",
        "http": url.replace("https:", "http:", 1),
        "dead": str(fault.value or host.sub(_DEAD_HOST, url)),
        "moved": str(fault.value or url.replace("//localhost:", "//127.0.0.1:", 1)),
    }[how]


async def play(stream: IOStream, script: Script) -> None:
    """Send a script until it ends or the connection closes."""
    stream.set_nodelay(True)  # so that a reset does not overtake the bytes that were sent before it
    with suppress(StreamClosedError):
        for piece in script.pieces:
            await stream.write(piece)
            if script.pause:
                await asyncio.sleep(script.pause)
        if script.ending == "reset":
            reset(stream)
        elif script.ending == "close":
            stream.close()


def reset(stream: IOStream) -> None:
    """End a connection with a TCP reset."""
    if not stream.closed():
        abort(stream.socket)
    stream.close()


def abort(connection: socket.socket) -> None:
    """Set a connection so that closing it sends a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
