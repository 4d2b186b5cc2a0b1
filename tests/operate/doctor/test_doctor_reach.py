"""What is wrong on the way to UCL is named, it alone, at the step where it is; of a proxy, host and port are told."""

import json
import socket
import ssl

import pytest
from examined import bad, named, right_url, typed, well
from tls_servers import PAUSE, accepting, proxying

from ucl_helpers.clock import utc_now
from ucl_helpers.errors import Unreachable
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.operate.doctor.reach import Reach
from ucl_sandbox import Fault

pytest_plugins = ["procedure_fixtures", "doctor_fixtures"]


# -- the way -----------------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_knows(at, ucl, count):
    finding = named(at("https://nothing.invalid/graphql"), "name resolution", "nothing.invalid", code=3)
    assert "ucl import prod" in finding.remedy
    count()


def test_nobody_listens(at, count):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    named(at(f"https://localhost:{port}/graphql"), "TCP connection", f"localhost:{port}: connection refused", code=3)
    count()


def test_the_url_that_is_kept_is_of_another_port_and_importing_it_with_the_right_one_mends_that(at, ucl, count):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    prod = at(f"https://localhost:{port}/graphql")
    remedy = named(prod, "TCP connection", code=3).remedy.partition("has changed: ")[2]
    assert typed(remedy, prod, **right_url(ucl)).returncode == 0
    well(prod)
    count(mended=1)


def hangs_up(raw, server, closing):
    raw.recv(1)


def speaks_no_tls(raw, server, closing):
    raw.recv(1000)
    raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(("behaviour", "text", "code"), [(hangs_up, "No answer", 3), (speaks_no_tls, "no TLS", 5)])
def test_a_handshake_that_fails(at, behaviour, text, code, count):
    with accepting(behaviour) as server:
        named(at(server.url), "TLS handshake", text, code=code)
    count()


def test_a_connection_that_is_gone_before_the_handshake_is_no_handshake(at):
    """It may be reset between the two, and is then no longer connected: ``wrap_socket`` makes no handshake with it."""
    with accepting(hangs_up) as server:
        way = Reach(server.url, utc_now)
        with socket.socket() as never_connected, pytest.raises(Unreachable, match="connection reset by peer"):
            way._handshake(never_connected, None)


def test_nothing_comes_at_all(at, count):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://localhost:{listening.getsockname()[1]}/graphql"
        named(at(url), "TLS handshake", "timed out", code=3, seconds=0.2)
    count()


# -- the proxy ---------------------------------------------------------------------------------------------------------


HOST = "elsewhere.invalid"


@pytest.fixture
def elsewhere(at, ucl):
    """A connection to a host that only a proxy finds; the URL that UCL names is another."""
    ucl.faults.set([Fault("server-certificate-wrong-host", at="certificate")])  # it is for this one
    yield at(ucl.certificate_secured_connector_url.replace("localhost", HOST))
    ucl.faults.clear()


def test_a_proxy_is_told_by_host_alone(elsewhere, monkeypatch, count):
    with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cr3t@localhost:{proxy.port}")
        diagnosis = diagnose(elsewhere)
        assert bad(diagnosis) == {"URLs": "failed"}
        assert diagnosis["proxy"].found == f"localhost:{proxy.port}, by HTTPS_PROXY"
        assert {diagnosis[name].found for name in ("name resolution", "TCP connection")} == {"done by the proxy"}
        assert diagnosis["TLS handshake"].found == "done"
        assert ["Proxy-Authorization" in request.headers for request in proxy.requests] == [True]
        monkeypatch.setenv("NO_PROXY", HOST)
        diagnosis_without = diagnose(elsewhere)
        assert diagnosis_without["proxy"].found == "none: NO_PROXY excepts this host from HTTPS_PROXY"
        assert bad(diagnosis_without) == {"name resolution": "failed"}
        assert len(proxy.requests) == 1
    assert "s3cr3t" not in str(diagnosis) + json.dumps(diagnosis.as_json())


def test_the_sandbox_is_reached_whatever_proxy_there_is(secure, monkeypatch):
    with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        assert well(secure)["proxy"].found == "none to this machine itself"
        assert proxy.accepted == 0


PROXIES = {
    "refuses": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "does not allow connections to elsewhere.invalid (403)",
        3,
    ),
    "wants a password": (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "does not accept the user name and password (407)",
        3,
    ),
    "is none": (b"SSH-2.0-OpenSSH_9.2\r\n", "is no HTTP proxy: it answers in another protocol", 2),
}


@pytest.mark.parametrize("fault", PROXIES)
def test_a_proxy_that_lets_nobody_through(elsewhere, monkeypatch, fault, count):
    greeting, text, code = PROXIES[fault]

    def handle(raw, server, closing):
        raw.recv(10_000)
        raw.sendall(greeting)

    with accepting(handle) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cr3t@localhost:{proxy.port}")
        finding = named(elsewhere, "proxy", f"localhost:{proxy.port}", text, code=code)
    assert "s3cr3t" not in str(finding)
    count()


@pytest.mark.parametrize("drop", [b"x", b""])
def test_a_proxy_that_drips_or_says_nothing(elsewhere, monkeypatch, drop, count):
    def handle(raw, server, closing):
        raw.recv(10_000)
        raw.sendall(b"HTTP/1.1 200 -\r\nX: ")
        while not closing.wait(PAUSE):
            raw.sendall(drop)

    with accepting(handle) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        named(elsewhere, "proxy", f"localhost:{proxy.port}", "timed out", code=3, seconds=0.3)
    count()


def test_a_proxy_over_tls_that_the_system_does_not_trust(elsewhere, ucl, monkeypatch, count):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ucl.state / "server.pem")
    with proxying(tls=context) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        named(elsewhere, "proxy", f"https://localhost:{proxy.port}", "is not trusted", code=5)
    count()


def test_a_proxy_over_tls_that_speaks_none(elsewhere, monkeypatch, count):
    with accepting(speaks_no_tls) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        named(elsewhere, "proxy", f"https://localhost:{proxy.port}", "speaks no TLS", code=2)
    count()


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("http://u:s3cr3t@nothing.invalid:3128", {"name": "proxy", "code": 3}),
        ("http://u:s3cr3t@localhost:1", {"name": "proxy", "code": 3}),
        ("http://u:s3cr3t@[", {"name": "proxy", "code": 2}),
        ("http://u:s3cr3t@", {"name": "proxy", "code": 2}),
    ],
)
def test_a_proxy_that_cannot_be_reached(elsewhere, monkeypatch, count, proxy, expected):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    finding = named(elsewhere, **expected)
    assert "s3cr3t" not in str(finding) + finding.remedy
    count()
