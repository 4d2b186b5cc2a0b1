"""Calls by what Python brings along, ``ssl`` and ``http.client``: the least that a call can cost a Python program."""

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from benchmarks.serving import Bench


def tls(on: Bench) -> ssl.SSLContext:
    """A context that trusts the server and has the shell's identity loaded."""
    context = ssl.create_default_context(cafile=on.access.ca_file)
    context.load_cert_chain(on.folder / "shell" / "identity.pem")
    return context


def connected(on: Bench, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """A new TLS connection to the certificate endpoint: a full handshake, no session is resumed."""
    where = urlsplit(on.url)
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, context=context)
    connection.connect()
    return connection


def called(connection: http.client.HTTPSConnection, on: Bench, query: str, variables: Mapping[str, Any]) -> bytes:
    """One operation over it; returns the answer's body."""
    body = json.dumps({"query": query, "variables": variables})
    connection.request("POST", urlsplit(on.url).path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == http.client.OK
    return answer.read()
