"""A service of the user's own that asks for a client certificate."""

import hashlib
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

from tls_servers import accepting, answer

PATIENCE = 120


@dataclass
class Service:
    """What a service has seen: by request, the path, the headers and the certificate's fingerprint."""

    url: str
    seen: list = field(default_factory=list)
    attending: dict = field(default_factory=dict)  # fingerprint → the threads of its connections

    def shown(self):
        return [mark for _, _, mark in self.seen]


@contextmanager
def service(identity, client_ca):
    """It lets in whom ``client_ca`` has certified, and answers with the fingerprint that it was shown.

    The path says more: ``/to?URL`` redirects, ``/slow`` sends the second half of its answer when ``halves`` is set.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_REQUIRED

    def handle(raw, server, _):
        raw.settimeout(10 * PATIENCE)  # whoever rests for a while finds the connection open
        with context.wrap_socket(raw, server_side=True) as connection, connection.makefile("rb") as file:
            mark = hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()
            here.attending.setdefault(mark, []).append(threading.current_thread())
            while request := file.readline().split():
                headers = dict(line.decode().rstrip().split(": ", 1) for line in iter(file.readline, b"\r\n"))
                path, _, rest = request[1].decode().partition("?")
                here.seen.append((path, headers, mark))
                said = answer(307, b"", {"Location": rest}) if path == "/to" else answer(200, mark.encode())
                connection.sendall(said[:-32])
                if path == "/slow":
                    here.halves.wait(PATIENCE)
                connection.sendall(said[-32:])

    with accepting(handle) as server:
        here = Service(f"https://localhost:{server.port}")
        here.halves = threading.Event()
        yield here
