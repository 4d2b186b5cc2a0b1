"""What a proxy does in UCL's place is told as the proxy's: with its address, its variable and never its password."""

import ssl

import pytest
from command_line import Shell
from tls_servers import Authority, accepting, answer, serving

from ucl_helpers.errors import UsageError
from ucl_helpers.wire.proxy import proxy_for

PASSWORD = "pa55w0rd"
HOST = "ucl.invalid"
OPENED = b"HTTP/1.1 200 -\r\n\r\n"


def says(*parts):
    """A proxy that reads CONNECT, answers with the first part, reads on, and answers with the next."""

    def handle(client, server, closing):
        for part in parts:
            client.recv(4096)
            client.sendall(part)

    return handle


def refusal(status):
    return says(b"HTTP/1.1 %d -\r\nContent-Length: 0\r\n\r\n" % status)


ANSWERS = {
    "407": (refusal(407), 3, "does not accept the user name and password (407)"),
    "403": (refusal(403), 3, f"does not allow connections to {HOST} (403)"),
    "502": (refusal(502), 3, f"does not reach {HOST} (502)"),
    "504": (refusal(504), 3, f"does not reach {HOST} (504)"),
    "another protocol": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), 2, "is no HTTP proxy"),
    "a page in place of TLS": (says(OPENED, b"HTTP/1.1 200 OK\r\n\r\n<html>"), 5, "goes through the proxy"),
    "no TLS": (says(OPENED), 3, "goes through the proxy"),
}
SETTINGS = {
    "no URL": "see intranet",
    "socks5": f"socks5://user:{PASSWORD}@host:1080",
    "socks4": "socks4://host:1080",
    "another scheme": f"ftp://user:{PASSWORD}@host:21",
    "no host": f"http://user:{PASSWORD}@",
    "a port that is none": f"http://user:{PASSWORD}@host:port",
    "an empty label": "http://proxy..example:3128",
    "a label that is too long": f"http://{'x' * 64}.example:3128",
}
ADDRESSES = {
    f"socks5://user:{PASSWORD}@proxy.example:1080": "socks5://proxy.example:1080",
    f"SOCKS5H://{PASSWORD}@[2001:db8::1]:1080/": "socks5h://[2001:db8::1]:1080",
    "socks4://proxy.example": "socks4://proxy.example",
    f"ftp://user:{PASSWORD}@proxy.example:21": "ftp://proxy.example:21",
    f"http://user:{PASSWORD}#/?@proxy.example:3128": "http://proxy.example:3128",
    f"http://user:x@{PASSWORD}/@proxy.example:3128": "http://proxy.example:3128",
    "http://proxy.example:99999": "http://proxy.example:99999",
    f"http://proxy.example:3128/path?{PASSWORD}": "http://proxy.example:3128",
    f"user:{PASSWORD}@proxy..example:3128": "http://proxy..example:3128",
}
NO_ADDRESSES = [
    f"http://user:{PASSWORD}",
    f"user:{PASSWORD}",
    f"http://user:{PASSWORD}@",
    f"http://proxy.example:3128:user:{PASSWORD}",
    f"socks5://proxy.example:3128?secret=x@{PASSWORD}",
    f"see {PASSWORD}",
]
AWAY = {
    "a name that nobody knows": (f"http://user:{PASSWORD}@proxy.invalid:3128", "cannot be found"),
    "a port where nothing listens": (f"http://user:{PASSWORD}@127.0.0.1:1", "cannot be reached"),
}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What ``ucl establish`` says with a proxy in a variable."""

    def ask(value, variable="HTTPS_PROXY", token="x" * 86 + "=="):
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        where = ("--token", "env:T", "--connector-url", f"https://{HOST}/connector/graphql")
        said = Shell(tmp_path / "home").ucl("establish", "a", *where, T=token, **{variable: value})
        assert PASSWORD not in said.out + said.err
        return said

    return ask


@pytest.mark.kind("the right culprit: what a proxy answers")
@pytest.mark.parametrize("token", ["x" * 86 + "==", "x"], ids=["a token", "a token of the wrong length"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_told_as_the_proxys(asked, name, token):
    handle, code, text = ANSWERS[name]
    with accepting(handle) as proxy:
        said = asked(f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}", token=token)
    assert said.code == code, said
    assert f"proxy http://127.0.0.1:{proxy.port} (from HTTPS_PROXY)" in said.err
    assert text in said.err
    assert proxy.accepted == 1


@pytest.mark.kind("the right culprit: a proxy's setting")
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_cannot_work_is_a_usage_error(asked, name, variable):
    said = asked(SETTINGS[name], variable)
    assert said.code == 2, said
    assert f"{variable} is not the URL of an HTTP proxy" in said.err
    assert "NO_PROXY" in said.err


@pytest.mark.kind("the right culprit: a proxy's setting")
@pytest.mark.parametrize("value", ADDRESSES)
def test_scheme_host_and_port_of_it_are_named(monkeypatch, value):
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UsageError) as caught:
        proxy_for(f"https://{HOST}/")
    told = caught.value.message
    assert told.startswith(f"HTTPS_PROXY is not the URL of an HTTP proxy: it names {ADDRESSES[value]}")
    assert told.endswith("; socks is not supported." if "socks" in value.lower() else ADDRESSES[value] + ".")
    assert PASSWORD not in str(caught.value)
    assert "user" not in told


@pytest.mark.parametrize("value", NO_ADDRESSES)
def test_what_may_be_a_secret_is_not(monkeypatch, value):
    """The twin."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UsageError) as caught:
        proxy_for(f"https://{HOST}/")
    assert "it names" not in caught.value.message
    assert PASSWORD not in str(caught.value)


@pytest.mark.kind("the right culprit: a proxy that is not there")
@pytest.mark.parametrize("name", AWAY)
def test_a_proxy_that_is_not_there_is_told_as_such(asked, name):
    value, text = AWAY[name]
    said = asked(value, "ALL_PROXY")
    assert said.code == 3, said
    assert "(from ALL_PROXY)" in said.err
    assert text in said.err
    assert "NO_PROXY" in said.err


INSIDE = {
    "403": (answer(403, b"<html>blocked"), "Or the proxy"),
    "407": (answer(407), "does not accept the user name and password (407)"),
    "503": (answer(503), "Or the proxy"),
    "a page": (answer(200, b"<html>blocked"), "Or the proxy"),
}


@pytest.mark.kind("the right culprit: a proxy that looks into TLS")
@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("name", INSIDE)
def test_an_answer_inside_tls_may_be_the_proxys_if_there_is_one(tmp_path, monkeypatch, name, through):
    from tls_servers import QUERY, proxying

    from ucl_helpers.errors import UCLError
    from ucl_helpers.wire.client import Client

    for variable in ("https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    step, text = INSIDE[name]
    ca = Authority(tmp_path / "ca", "CA")
    identity = ca.issue("server", hosts=(HOST, "localhost"))
    with serving(step, identity=identity) as server, proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@localhost:{proxy.port}")
        url = server.url.replace("localhost", HOST) if through else server.url
        with Client(url, "certificate", ca_file=ca.ca_file, retry=False) as client, pytest.raises(UCLError) as caught:
            client.call(QUERY)
    assert (text in caught.value.message) is through
    assert (f"proxy http://localhost:{proxy.port} (from HTTPS_PROXY)" in caught.value.message) is through
    assert PASSWORD not in f"{caught.value} {caught.value.data}"


@pytest.mark.kind("the right culprit: a proxy that looks into TLS")
def test_a_certificate_of_the_proxys_own_is_told_as_perhaps_its(asked, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Authority(tmp_path / "proxy", "proxy CA").issue("any", hosts=(HOST,)))

    def handle(client, server, closing):
        client.recv(4096)
        client.sendall(OPENED)
        context.wrap_socket(client, server_side=True).close()

    with accepting(handle) as proxy:
        said = asked(f"http://127.0.0.1:{proxy.port}")
    assert said.code == 5, said
    assert f"proxy http://127.0.0.1:{proxy.port} (from HTTPS_PROXY)" in said.err
