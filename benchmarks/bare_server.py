"""A TLS server that does nothing else: ``python bare_server.py STATE LENGTH``.

It shakes hands as the sandbox of that state folder does, client certificate and all, and answers each request with
LENGTH bytes. It writes its port once it listens, and ends when it is ended. One connection at a time.
"""

import re
import select
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path

from ucl_sandbox.ca import ClientCa
from ucl_sandbox.listeners import Handshakes
from ucl_sandbox.server import listen

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def answer(stream: ssl.SSLSocket, body: bytes) -> None:
    """Answer every request on a connection, until its other end closes it."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    received = b""
    while part := stream.recv(65536):
        received += part
        before, end, after = received.partition(b"\r\n\r\n")
        found = LENGTH.search(before)
        if end and len(after) >= (int(found[1]) if found else 0):
            stream.sendall(head + body)
            received = b""


def main() -> None:
    """Serve."""
    state, length = Path(sys.argv[1]), int(sys.argv[2])
    handshakes = Handshakes(state, ClientCa(state, "intermediate").pem)
    context = handshakes.context(None, mutual=True)
    sockets = listen(None)
    for one in sockets:
        one.listen()
    print(sockets[0].getsockname()[1], flush=True)
    while True:
        for ready in select.select(sockets, [], [])[0]:
            connection, _ = ready.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else answers wait for the other's ACK
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
                answer(stream, b"x" * length)


if __name__ == "__main__":
    main()
