"""Proxies: a variable that names none, one that answers without end or not at all, and one that is only slow."""

import json
import re
import signal
import socket
import ssl
import subprocess
import threading
from contextlib import nullcontext, suppress

import pytest
from command_line import UCL, environment
from cryptography import x509
from steps import go, install
from tls_servers import DROPS, PAUSE, QUERY, Authority, Cut, Drip, accepting, ec_key, proxying, result, serving

from ucl_helpers import Establishment, establish, renew
from ucl_helpers.errors import BadAnswer, NewTokenNeeded, ServerNotTrusted, UCLError, Unreachable, UsageError
from ucl_helpers.keys import Credentials
from ucl_helpers.models import OneTimeToken
from ucl_helpers.wire import diagnosis
from ucl_helpers.wire.client import MAX_RECEIVED_BYTES, Client
from ucl_helpers.wire.proxy import Proxy, proxy_for
from ucl_helpers.wire.sockets import CallLimits, open_socket
from ucl_helpers.wire.tls import tls_context

pytest_plugins = ["procedure_fixtures"]

HOST, PASSWORD = "elsewhere.invalid", "pa55w0rd"
URL = f"https://{HOST}/connector/graphql"
VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def no_variable_is_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "server CA")


@pytest.fixture(scope="module")
def identity(ca):
    return ca.issue("elsewhere", hosts=(HOST, "localhost"))


# -- what the variables say --------------------------------------------------------------------------------------------

UNUSABLE = {
    "no host but a password": f"http://user:{PASSWORD}@",
    "a scheme alone": "http://",
    "a port alone": "http://:3128",
    "a port alone, without a scheme": ":3128",
    "a port that is too large": "http://host:99999",
    "port 0": "http://host:0",
    "a port that is no number": f"http://user:{PASSWORD}@host:port",
    "two words": "see intranet",
    "a path": f"http://user:{PASSWORD}@host:3128/proxy",
    "a query": f"http://host:3128?password={PASSWORD}",
    "a password with #": f"http://user:{PASSWORD}#1@host:3128",
    "a password with /": f"http://user:{PASSWORD}/1@host:3128",
    "half an IPv6 address": "http://[::1",
    "an automatic configuration": "pac+http://host/proxy.pac",
    "socks5": f"socks5://user:{PASSWORD}@host:1080",
    "socks5h": "socks5h://host:1080",
    "a file": "file:///etc/proxy",
    "a slash too few": "http:/host:3128",
    "a line break": "http://host:3128\n",
}


@pytest.mark.parametrize("value", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_a_usage_error_that_names_the_variable(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=rf"\A{variable} is not the URL") as caught:
        Client(URL, "certificate")
    assert "http://USER:PASSWORD@HOST:PORT" in caught.value.remedy
    assert PASSWORD not in f"{caught.value} {caught.value.data}"


USABLE = {
    "http://host:3128": "http://host:3128",
    "host:3128": "http://host:3128",
    "localhost:3128/": "http://localhost:3128",
    "http://host": "http://host:80",
    "https://host": "https://host:443",
    "HTTP://host:3128": "http://host:3128",
    f"http://user:{PASSWORD}@host:3128": "http://host:3128",
    f"user:{PASSWORD}@host:3128": "http://host:3128",
    "http://[::1]:3128": "http://[::1]:3128",
}


@pytest.mark.parametrize(("value", "shown"), USABLE.items())
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_that_can_be_used_shows_itself_without_its_password(monkeypatch, variable, value, shown):
    monkeypatch.setenv(variable, value)
    proxy = proxy_for(URL)
    assert (str(proxy), proxy.variable, proxy.has_password) == (shown, variable, PASSWORD in value)
    assert PASSWORD not in repr(proxy)


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"HTTPS_PROXY": "upper:1", "https_proxy": "lower:1"}, "https_proxy"),
        ({"HTTPS_PROXY": "one:1", "ALL_PROXY": "all:1"}, "HTTPS_PROXY"),
        ({"ALL_PROXY": "all:1", "HTTP_PROXY": "http://"}, "ALL_PROXY"),
    ],
)
def test_the_variable_that_counts_is_the_one_that_is_named(monkeypatch, variables, shown):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(URL).variable == shown


@pytest.mark.parametrize("url", ["https://localhost/", "https://[::1]:8443/", URL])
def test_a_value_that_does_not_count_is_not_read(monkeypatch, url):
    monkeypatch.setenv("HTTPS_PROXY", "http://")
    monkeypatch.setenv("NO_PROXY", HOST)
    assert proxy_for(url) is None


@pytest.mark.parametrize(("value", "code"), [(f"http://user:{PASSWORD}@", 2), ("http://127.0.0.1:1", 3)])
def test_the_command_ends_before_anything_is_called_or_remembered(home, ucl, tmp_path, value, code):
    """Twin: a proxy that only does not listen is tried, and the failed attempt is remembered."""
    connection = install(home, ucl, tmp_path, url=URL)
    done = subprocess.run(
        [UCL, "renew", "prod", "--force", "--json"],
        env=environment(home.path, HTTPS_PROXY=value),
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout)
    assert (done.returncode, said["exitCode"]) == (code, code)
    assert "HTTPS_PROXY" in said["message"]
    assert PASSWORD not in done.stdout + done.stderr
    assert not connection.pending


@pytest.fixture
def establishment(new, ucl, token):
    return Establishment.begin(new, token, ca_file=ucl.ca_file)


@pytest.mark.parametrize(("value", "error"), [("http://", UsageError), ("http://127.0.0.1:1", Unreachable)])
def test_a_one_time_token_is_kept_when_no_proxy_opens_a_way(establishment, monkeypatch, value, error):
    go(establishment, "request")
    establishment.pending.update(token_url=URL)
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(error, match="HTTPS_PROXY"):
        establishment.sign()
    assert establishment.pending.token()


def test_it_is_gone_when_the_connection_breaks_behind_the_proxy(establishment, monkeypatch):
    go(establishment, "request")
    establishment.pending.update(token_url=f"https://{HOST}:1/graphql")
    with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        with pytest.raises(NewTokenNeeded):
            establishment.sign()
    assert not establishment.pending.token()


@pytest.mark.parametrize("value", ["http://127.0.0.1:1", None])
def test_a_token_that_never_left_is_not_said_to_be_used_up(new, ca, monkeypatch, value):
    """The proxy does not answer, or nobody knows the server's name."""
    if value:
        monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(Unreachable) as caught:
        establish(new, OneTimeToken("token", URL), ca_file=ca.ca_file)
    assert "its token is used up" not in caught.value.remedy


def test_a_token_whose_request_may_have_arrived_may_be_used_up(new, ca):
    """The twin."""
    with serving(Cut(b""), identity=ca.issue("localhost")) as server, pytest.raises(Unreachable) as caught:
        establish(new, OneTimeToken("token", server.url), ca_file=ca.ca_file)
    assert "its token is used up" in caught.value.remedy


# -- what a proxy answers ----------------------------------------------------------------------------------------------

OPEN = b"HTTP/1.1 200 -\r\n"


def says(data, then=b""):
    """A proxy that reads CONNECT and answers; with ``then``, again and again until the client hangs up."""

    def handle(client, server, closing):
        with client.makefile("rb") as file:
            while file.readline().strip():
                pass
        client.sendall(data)
        while then and not closing.is_set():
            client.sendall(then)
            server.sent += len(then)
        client.recv(1)

    return handle


def drips(step):
    """A proxy that drips its answer for a minute, then opens no way."""

    def handle(client, server, closing):
        client.recv(1000)
        client.sendall(step.start)
        for _ in range(DROPS):
            if closing.wait(PAUSE):
                return
            client.sendall(step.drop)
        server.dripped_out = True

    return handle


def closes(client, server, closing):
    client.recv(1000)


def closes_unread(client, server, closing):
    """Reset, since something was sent and not read."""
    client.recv(1)


ENDLESS = {
    "drips the status line": drips(Drip(b"HTTP/1.1 200 -", b"-", b"")),
    "drips a header": drips(Drip(OPEN + b"X: ", b"x", b"")),
    "drips headers": drips(Drip(OPEN, b"X: x\r\n", b"")),
    "drips the body of a 407": drips(Drip(b"HTTP/1.1 407 -\r\n\r\n", b"x", b"")),
    "floods a status line": says(b"HTTP/1.1 200 ", b"x" * 65536),
    "floods a header": says(OPEN + b"X: ", b"x" * 65536),
    "floods headers": says(OPEN, b"X: x\r\n" * 10_000),
    "floods interim answers": says(b"", b"HTTP/1.1 100 -\r\n\r\n" * 1000),
    "floods the body of a 407": says(b"HTTP/1.1 407 -\r\n\r\n", b"x" * 65536),
    "is silent": says(b""),
    "is silent in the status line": says(b"HTTP/1.1 2"),
    "is silent in a header": says(OPEN + b"X: x"),
}
ENDED = {
    "closes at once": closes,
    "resets": closes_unread,
    "says half an answer": lambda client, server, closing: (client.recv(1000), client.sendall(b"HTTP/1.1 2")),
    "is another server": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "answers 407": says(b"HTTP/1.1 407 -\r\n\r\n"),
}


def asked(monkeypatch, handle, ca, scheme="http", **options):
    """What comes of a call through a proxy that behaves so; the server it is, and what the client received of it."""
    with accepting(handle) as proxy:
        proxy.sent = 0
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://user:{PASSWORD}@localhost:{proxy.port}")
        with Client(URL, "certificate", ca_file=ca.ca_file, wait=lambda _: None, **options) as client:
            try:
                got = client.call(QUERY).result
            except UCLError as error:
                got = error
            received = MAX_RECEIVED_BYTES - client.context.bounds.room
    return got, proxy, received


@pytest.mark.parametrize("behaviour", [*ENDLESS, *ENDED])
def test_a_proxy_that_opens_no_way_ends_the_call_within_its_bounds(monkeypatch, ca, behaviour):
    error, proxy, received = asked(monkeypatch, (ENDLESS | ENDED)[behaviour], ca, deadline=0.3)
    kind = UsageError if behaviour == "is another server" else Unreachable
    assert (type(error), proxy.dripped_out) == (kind, False)
    assert f"The proxy http://localhost:{proxy.port} (from HTTPS_PROXY)" in error.message
    assert PASSWORD not in f"{error} {error!r} {error.data}"
    assert received < MAX_RECEIVED_BYTES + 2**17


@pytest.mark.parametrize("behaviour", [name for name in ENDLESS if name.startswith("floods")])
def test_a_flood_ends_long_before_the_deadline(monkeypatch, ca, behaviour):
    error, _, received = asked(monkeypatch, ENDLESS[behaviour], ca, deadline=3600, retry=False)
    assert "timed out" not in error.message
    assert received < MAX_RECEIVED_BYTES + 2**17


@pytest.mark.parametrize("drop", [b"-", b"\r\nX: x"])
def test_a_proxy_that_is_only_slow_is_waited_for(monkeypatch, ca, identity, drop):
    slowly = (b"HTTP/1.1 200 -", drop, drop, drop, b"\r\n\r\n")
    with serving(result(), identity=identity) as server, proxying(*slowly) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        url = server.url.replace("localhost", HOST)
        with Client(url, "certificate", ca_file=ca.ca_file, deadline=30) as client:
            assert client.call(QUERY).result == "fine"


STATUS = {
    407: "does not accept the user name and password (407)",
    403: f"does not allow connections to {HOST} (403)",
    502: f"does not reach {HOST} (502)",
    302: f"did not connect to {HOST} (302)",
}


@pytest.mark.parametrize(("status", "text"), STATUS.items())
def test_a_status_is_told_as_the_proxys_and_asked_for_again_only_where_that_may_help(monkeypatch, ca, status, text):
    error, proxy, _ = asked(monkeypatch, says(b"HTTP/1.1 %d It is a secret\r\n\r\n" % status), ca, deadline=30)
    assert text in error.message
    assert (error.data["proxy_status"], "secret" in str(error)) == (status, False)
    assert proxy.accepted == (1 if 400 <= status < 500 else 5)


def test_without_a_password_407_asks_for_one(monkeypatch, ca):
    with accepting(says(b"HTTP/1.1 407 -\r\n\r\n")) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"localhost:{proxy.port}")
        with Client(URL, "certificate", ca_file=ca.ca_file) as client, pytest.raises(Unreachable) as caught:
            client.call(QUERY)
    assert "wants a user name and password (407)" in caught.value.message
    assert f"http://USER:PASSWORD@localhost:{proxy.port} in ALL_PROXY" in caught.value.remedy


@pytest.mark.parametrize("host", ["proxy.example", "::1"])
def test_what_407_says_to_write_is_a_url_that_can_be_used(monkeypatch, host):
    proxy = Proxy(host, 8080, "http", "HTTPS_PROXY", has_password=False, url="")
    what, remedy = diagnosis._tunnel_status(407, proxy, HOST)
    assert what == "wants a user name and password"
    monkeypatch.setenv("HTTPS_PROXY", re.search(r"http:\S+", remedy)[0])
    used = proxy_for(URL)
    assert (used.host, used.port, used.has_password) == (host, 8080, True)


# -- a proxy over TLS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy_ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("proxy"), "proxy CA")


@pytest.fixture
def proxy_tls(proxy_ca, monkeypatch):
    """The context of an https proxy that the system trusts, and that asks for a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(proxy_ca.issue("proxy"))
    context.load_verify_locations(proxy_ca.ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy_ca.ca_file))
    return context


def credentials_of(path):
    return Credentials(path, path, x509.load_pem_x509_certificates(path.read_bytes())[0])


def test_a_proxy_over_tls_is_verified_by_the_system_and_shown_no_identity(monkeypatch, ca, identity, proxy_tls):
    own = credentials_of(ca.issue("client", hosts=(), key=ec_key(2)))
    with serving(result(), identity=identity, client_ca=ca.ca_file) as server, proxying(tls=proxy_tls) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        url = server.url.replace("localhost", HOST)
        with Client(url, "certificate", ca_file=ca.ca_file, credentials=own) as client:
            assert [client.call(QUERY).result, client.call(QUERY).result] == ["fine", "fine"]
        assert (proxy.accepted, len(server.requests), proxy.certificates) == (1, 2, [None])


def test_a_proxy_over_tls_that_the_system_does_not_trust_is_told_as_such(monkeypatch, ca, proxy_tls):
    monkeypatch.delenv("SSL_CERT_FILE")
    with proxying(tls=proxy_tls) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://user:{PASSWORD}@localhost:{proxy.port}")
        with Client(URL, "certificate", ca_file=ca.ca_file) as client, pytest.raises(ServerNotTrusted) as caught:
            client.call(QUERY)
        assert (proxy.accepted, proxy.requests) == (1, [])
    assert caught.value.message.startswith(
        f"The proxy https://localhost:{proxy.port} (from HTTPS_PROXY) is not trusted"
    )
    assert "--ca-file" not in caught.value.remedy


def test_a_proxy_that_speaks_no_tls_is_a_usage_error_after_one_try(monkeypatch, ca):
    error, proxy, _ = asked(monkeypatch, silently(b"HTTP/1.1 400 -\r\n\r\n"), ca, scheme="https", deadline=30)
    assert (type(error), proxy.accepted) == (UsageError, 1)
    assert error.remedy == "Write http:// in place of https:// in HTTPS_PROXY."


def silently(handshake):
    def handle(client, server, closing):
        client.recv(10_000)
        client.sendall(handshake)
        client.recv(1)

    return handle


def over_tls(context, handle):
    def wrapped(client, server, closing):
        with context.wrap_socket(client, server_side=True) as secured:
            handle(secured, server, closing)

    return wrapped


HALF_A_RECORD = b"\x16\x03\x03\x40\x00"
ENDLESS_TLS = {
    "says no hello": silently(b""),
    "begins a handshake": silently(HALF_A_RECORD),
    "drips a handshake": drips(Drip(HALF_A_RECORD, b"x", b"")),
}


@pytest.mark.parametrize("handle", ENDLESS_TLS.values(), ids=ENDLESS_TLS)
def test_a_handshake_with_a_proxy_ends_with_the_deadline(monkeypatch, ca, handle):
    error, proxy, _ = asked(monkeypatch, handle, ca, scheme="https", deadline=0.3)
    assert (type(error), proxy.dripped_out) == (Unreachable, False)
    assert "timed out" in error.message


@pytest.mark.parametrize("handle", [*ENDLESS.values(), *ENDED.values()], ids=[*ENDLESS, *ENDED])
def test_a_proxy_over_tls_that_opens_no_way_ends_the_call_too(monkeypatch, ca, proxy_tls, handle, request):
    error, proxy, received = asked(monkeypatch, over_tls(proxy_tls, handle), ca, scheme="https", deadline=0.5)
    kind = UsageError if "another server" in request.node.name else Unreachable
    assert (type(error), proxy.dripped_out) == (kind, False)
    assert f"The proxy https://localhost:{proxy.port} (from HTTPS_PROXY)" in error.message
    assert received < MAX_RECEIVED_BYTES + 2**17


# -- behind the proxy --------------------------------------------------------------------------------------------------

DRIPPING = Drip(b"HTTP/1.1 200 -\r\n\r\n", b" ", b'{"data": {"result": "fine"}}')
TRAILERS = b"X: x\r\n" * (MAX_RECEIVED_BYTES // 5)
FLOOD = b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + TRAILERS


@pytest.fixture(params=["none", "http", "https"])
def way(request, proxy_tls, monkeypatch):
    """The scheme of a proxy on the way, and the proxy; none is on the way to this machine itself."""
    with proxying(tls=proxy_tls if request.param == "https" else None) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"{request.param}://localhost:{proxy.port}")
        yield request.param, proxy


@pytest.mark.parametrize(("script", "kind"), [(DRIPPING, Unreachable), (FLOOD, BadAnswer)], ids=["drips", "floods"])
def test_what_the_server_answers_is_bounded_with_and_without_a_proxy(way, ca, identity, script, kind):
    scheme, proxy = way
    with serving(script, identity=identity) as server:
        url = server.url if scheme == "none" else server.url.replace("localhost", HOST)
        deadline = 0.5 if kind is Unreachable else 30
        with Client(url, "certificate", ca_file=ca.ca_file, deadline=deadline, retry=False) as client:
            with pytest.raises(kind) as caught:
                client.call(QUERY)
            assert client.context.bounds.room > -(2**17)
        assert (server.dripped_out, proxy.accepted) == (False, scheme != "none")
    assert url in caught.value.message
    assert "proxy http" not in caught.value.message


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("handle", ENDLESS_TLS.values(), ids=ENDLESS_TLS)
def test_a_handshake_with_the_server_ends_with_the_deadline(monkeypatch, ca, handle, through):
    with accepting(handle) as server, proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        url = server.url.replace("localhost", HOST) if through else server.url
        with (
            Client(url, "certificate", ca_file=ca.ca_file, deadline=0.3) as client,
            pytest.raises(Unreachable) as caught,
        ):
            client.call(QUERY)
        assert (server.dripped_out, proxy.accepted) == (False, through)
    assert f"No answer from {url}: timed out" in caught.value.message


def test_a_server_that_does_not_read_ends_the_call_too(ca, identity):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)

    def handle(client, server, closing):
        with context.wrap_socket(client, server_side=True):
            closing.wait()

    with (
        accepting(handle) as server,
        Client(server.url, "certificate", ca_file=ca.ca_file, deadline=0.5) as client,
        pytest.raises(Unreachable, match="timed out"),
    ):
        client.call(QUERY, {"csr": "x" * 20_000_000})


@pytest.mark.parametrize("seconds", [-1, 30])
def test_after_the_deadline_nothing_is_connected(seconds):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        with suppress(TimeoutError):
            open_socket("localhost", listening.getsockname()[1], 10, CallLimits(seconds)).close()
        with nullcontext() if seconds > 0 else pytest.raises(BlockingIOError):
            listening.accept()[0].close()


@pytest.mark.parametrize("seconds", [-1, 30])
def test_after_the_deadline_no_handshake_begins(seconds):
    """However long the socket itself would wait: the proxy may have used up the time that was left."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        context = tls_context(None, None)
        context.bounds = CallLimits(seconds)
        ours.settimeout(0.1)
        with pytest.raises(TimeoutError):
            context.wrap_socket(ours, server_hostname="localhost")
        theirs.setblocking(False)
        ours.close()
        assert (theirs.recv(1) == b"\x16") == (seconds > 0)


@pytest.mark.parametrize("expired", [False, True])
def test_after_the_deadline_nothing_is_sent(ca, identity, expired):
    with serving(result(), identity=identity) as server:
        context = tls_context(ca.ca_file, None)
        raw = socket.create_connection(("127.0.0.1", server.port))
        with context.wrap_socket(raw, server_hostname="localhost") as connection:
            context.bounds = CallLimits(-1 if expired else 30)
            with pytest.raises(TimeoutError) if expired else nullcontext():
                connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
                assert connection.recv(4) == b"HTTP"
    assert len(server.requests) == (not expired)


# -- a renewal, its lock, and signals ----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(home, ucl, tmp_path):
    """A connection to a host that only a proxy finds."""
    return install(home, ucl, tmp_path, url=URL)


@pytest.mark.parametrize("behaviour", ["drips a header", "floods headers", "is silent"])
def test_a_renewal_ends_within_the_deadline_and_frees_its_lock(elsewhere, monkeypatch, behaviour):
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "deadline", 0.5)
    with accepting(ENDLESS[behaviour]) as proxy:
        proxy.sent = 0
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        with pytest.raises(Unreachable, match=r"The proxy http://localhost:\d+ \(from HTTPS_PROXY\)"):
            renew(elsewhere)
    assert (proxy.dripped_out, bool(elsewhere.pending)) == (False, False)
    with elsewhere.lock.held(wait=0):
        pass


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("behaviour", ["drips a header", "drips headers", "is silent"])  # a 407 may end at once
def test_a_signal_ends_a_renewal_that_waits_for_a_proxy(elsewhere, home, sent, behaviour):
    met = threading.Event()

    def handle(client, server, closing):
        met.set()
        ENDLESS[behaviour](client, server, closing)

    with accepting(handle) as proxy:
        proxy.sent = 0
        way = {"HTTPS_PROXY": f"http://localhost:{proxy.port}"}
        command = [UCL, "renew", "prod", "--force"]
        with subprocess.Popen(command, env=environment(home.path, **way), stderr=subprocess.PIPE, text=True) as process:
            met.wait()
            process.send_signal(sent)
            _, said = process.communicate()
    assert 128 + sent in {process.returncode, 128 - process.returncode}  # a shell shows either as 128 and the signal
    assert "Traceback" not in said
    with elsewhere.lock.held(wait=0):
        assert elsewhere.journal() == []
