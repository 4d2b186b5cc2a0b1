"""Who pours without end, or comes and says nothing, is shown out: others are served meanwhile, memory is bounded."""

import base64
import socket
import ssl
from contextlib import ExitStack, suppress
from itertools import chain, repeat
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from contract_replay import CONFIGURATION, SIGN, Landscape, graphql
from processes import DEADLINE, forget_peak, held, wait_until

from ucl_helpers.wire.client import Client
from ucl_sandbox import Sandbox, listeners

pytest_plugins = ["flood_fixtures"]
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what /proc shows")
CONFIGURE = graphql(CONFIGURATION)
ENTERED = "POST /connector/graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = 3 * 1024 * 1024  # bytes that are taken
ROOM = BODY - 1000
HEAVY = {
    "a list of ones": ('{"query": "{__typename}", "variables": {"a": [' + "1," * (ROOM // 2) + "1]}}", 200),
    "many names": ('{"query": "{__typename}", "variables": {' + '"":0,' * (ROOM // 5) + '"":0}}', 200),
    "a deep list": ("[" * ROOM, 400),
    "noughts": ("\0" * ROOM, 400),
    "one long name": (graphql("{" + "x" * ROOM + "}"), 422),
    "one long string": (graphql('{ __type(name: "' + "x" * ROOM + '") { name } }'), 200),
    "blanks": (graphql("," * ROOM + "{ __typename }"), 200),
    "a CSR of ends": (graphql(SIGN, csr=base64.b64encode(b"\n-----END " * (ROOM // 14)).decode()), 200),
    "a CSR of headers": (graphql(SIGN, csr=base64.b64encode(b"-----BEGIN X-----\na:\n" * (ROOM // 28)).decode()), 200),
}


@pytest.mark.parametrize("heavy", HEAVY)
def test_a_heavy_body_is_answered(client, bounded, others_served, heavy, proof):
    body, status = HEAVY[heavy]
    with others_served():
        assert client.call(body).status == status
    proof("door", "heavy bodies answered", 1)


def entered(url, context, head):
    """A TLS connection on which the beginning of a request has been sent."""
    parts = urlsplit(url)
    plain = socket.create_connection(("127.0.0.1", parts.port), DEADLINE)
    tls = context.wrap_socket(plain, server_hostname="localhost")
    tls.sendall(head.encode())
    return tls


def poured(tls, drops, most):
    """Sends until the other side has had enough; how many bytes that were, and what it said."""
    sent, told = 0, b""
    with tls, suppress(OSError):
        for drop in drops:
            tls.sendall(drop)
            sent += len(drop)
            if sent > most:
                break
        told = tls.recv(100)
    return sent, told


CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
ENDLESS = {
    "a body that says it is too long": (f"Content-Length: {BODY + 1}\r\n\r\n", b"x" * 1000),
    "a body of a billion gigabytes": ("Content-Length: 1000000000000000000\r\n\r\n", b"x" * 1000),
    "a body in chunks without end": ("Transfer-Encoding: chunked\r\n\r\n", CHUNK),
    "one chunk without end": ("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFF\r\n", b"x" * 0x10000),
    "headers without end": ("", b"A: " + b"x" * 1000 + b"\r\n"),
    "a header without end": ("A: ", b"x" * 1000),
    "a length and chunks": ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"),
    "a length below nothing": ("Content-Length: -1\r\n\r\n", b"x"),
}


@pytest.mark.parametrize("endpoint", ["connector_url", "director_url", "certificate_secured_connector_url"])
@pytest.mark.parametrize("flood", ENDLESS)
@pytest.mark.usefixtures("bounded")
def test_what_has_no_end_is_cut_off(client, others_served, endpoint, flood, proof):
    head, drop = ENDLESS[flood]
    with others_served():
        tls = entered(getattr(client.landscape.ucl, endpoint), client.context, ENTERED + head)
        sent, told = poured(tls, repeat(drop), 16 * BODY)
    assert sent < 16 * BODY
    assert told[:12] in {b"", b"HTTP/1.1 400"}
    proof("door", "requests without end cut off", 1)


def test_what_has_an_end_is_answered(client):
    body = CONFIGURE.encode() + b" " * 0x10000
    head = f"{ENTERED}Transfer-Encoding: chunked\r\n\r\n"
    tls = entered(client.landscape.ucl.certificate_secured_connector_url, client.context, head)
    _, told = poured(tls, [f"{len(body):X}\r\n".encode(), body, b"\r\n0\r\n\r\n"], 16 * BODY)
    assert told.startswith(b"HTTP/1.1 200")


def test_memory_that_was_taken_for_a_moment_is_seen():
    forget_peak("self")
    before = held()
    bytearray(64 * 1024 * 1024).clear()
    assert held().peak - before.memory > 60


# -- those who only wait -----------------------------------------------------------------------------------------------


def silent(ucl, context):
    """Connections on which nothing more comes: at every stage of a request, at every listener, again and again."""
    urls = [ucl.connector_url, ucl.director_url, ucl.certificate_secured_connector_url]
    for url in chain.from_iterable(repeat(urls)):
        plain = socket.create_connection(("127.0.0.1", urlsplit(url).port), DEADLINE)
        yield plain
        begun = socket.create_connection(("127.0.0.1", urlsplit(url).port), DEADLINE)
        begun.sendall(b"\x16\x03\x01\x02\x00\x01")
        yield begun
        yield entered(url, context, "")
        yield entered(url, context, ENTERED + "A: ")
        yield entered(url, context, ENTERED + "Content-Length: 1000\r\n\r\n{")
        yield entered(url, context, ENTERED + "Transfer-Encoding: chunked\r\n\r\n5\r\n{")


@pytest.mark.usefixtures("bounded")
def test_hundreds_that_never_finish_hold_nobody_up(client, others_served, whole, proof):
    landscape = client.landscape
    count, idle = 600 if whole else 150, held(landscape.ucl.pid).descriptors
    with ExitStack() as stack:
        waiting = silent(landscape.ucl, client.context)
        for _ in range(count):
            stack.enter_context(next(waiting))
        wait_until(lambda: held(landscape.ucl.pid).descriptors >= idle + count)
        with others_served() as answered:
            assert client.call(CONFIGURE).status == 200
        proof("door", "connections that never finished, while others were served", count)
        assert answered
    wait_until(lambda: held(landscape.ucl.pid).descriptors <= idle)


def test_their_patience_is_not_endless(tmp_path, monkeypatch, proof):
    """It is a minute; here it is shorter. A client that is only slow to ask again does not notice."""
    monkeypatch.setattr(listeners, "_PATIENCE", 0.3)
    with Sandbox() as ucl, ExitStack() as stack:
        there = Landscape(ucl, ucl.one_time_token)
        waiting = silent(ucl, there.establish(tmp_path).context)
        held_open = [stack.enter_context(next(waiting)) for _ in range(18)]
        assert [ended(one) for one in held_open] == [True] * len(held_open)
        headers = {"Authorization": f"Bearer {ucl.director_token}", "Tenant": ucl.tenant}
        with Client(ucl.director_url, "director", ca_file=ucl.ca_file, headers=headers, retry=False) as slow:
            for _ in range(3):
                assert slow.call("{ result: viewer { id } }").result
                with entered(ucl.director_url, there.context, "") as later:
                    assert ended(later)
        assert len({one.connection for one in ucl.requests if one.listener == "director"}) == 3
    proof("door", "connections that never finished, ended by the sandbox", len(held_open))


def ended(connection):
    """Whether the other side ends a connection, which is waited for."""
    try:
        return connection.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True
