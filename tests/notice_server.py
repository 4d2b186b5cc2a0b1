"""A server that notices are sent to."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from secrets_watch import command_lines

SECRET = "canary-in-a-url"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.server.seen += [one for one in command_lines() if SECRET in one]
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def notice_server():
    """A server that keeps what it received, and which command lines it saw with the secret of its URL in them."""
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.received, server.seen, server.status = [], [], 200
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
