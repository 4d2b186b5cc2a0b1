"""The doctor before there is a connection: home folder, network, proxy and trust, at a URL that is given."""

import json

import pytest
from command_line import Shell
from tls_servers import Authority, accepting, answer, serving

from ucl_sandbox import Sandbox

pytest_plugins = ["doctor_fixtures", "procedure_fixtures"]


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path / "home", tmp_path)


def findings(said):
    return {one["name"]: (one["status"], one["remedy"]) for one in said.json["findings"]}


@pytest.mark.kind("the right culprit: the doctor before there is a connection")
@pytest.mark.parametrize("which", ["connector_url", "certificate_secured_connector_url", "director_url"])
def test_a_url_of_ucl_is_well_and_no_token_is_used(shell, ucl, which):
    token = ucl.one_time_token()
    said = shell.ucl("doctor", "--url", getattr(ucl, which), "--ca-file", ucl.ca_file, "--json")
    assert said.code == 0, said
    found = findings(said)
    assert {found[name][0] for name in ("URL", "name resolution", "TCP connection", "TLS handshake")} == {"ok"}
    assert (found["server trust"][0], found["UCL's answer"][0]) == ("ok", "ok")
    where = ("--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file)
    assert shell.ucl("establish", "prod", "--token", "env:T", *where, T=token).code == 0


FAULTS = {
    "no https": ("http://localhost/graphql", 2, "URL"),
    "an unknown name": ("https://ucl.invalid/graphql", 3, "name resolution"),
    "a closed port": ("https://localhost:1/graphql", 3, "TCP connection"),
}


@pytest.mark.kind("the right culprit: the doctor before there is a connection")
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_on_the_way_is_named(shell, fault):
    url, code, name = FAULTS[fault]
    said = shell.ucl("doctor", "--url", url, "--json")
    assert said.code == code, said
    assert findings(said)[name][0] == "failed"
    assert findings(said)[name][1]


@pytest.mark.kind("the right culprit: the doctor before there is a connection")
@pytest.mark.parametrize(("ca", "code"), [(None, 5), ("none.pem", 10), ("empty.pem", 10), ("other.pem", 5)])
def test_a_server_that_is_not_trusted_is_named(shell, ucl, tmp_path, ca, code):
    (tmp_path / "empty.pem").touch()
    (tmp_path / "other.pem").write_bytes(Authority(tmp_path / "ca", "other CA").ca_file.read_bytes())
    said = shell.ucl("doctor", "--url", ucl.connector_url, *(("--ca-file", tmp_path / ca) if ca else ()), "--json")
    assert said.code == code, said
    assert "--ca-file" in findings(said)["server trust"][1]


@pytest.mark.kind("the right culprit: the doctor before there is a connection")
@pytest.mark.parametrize(("step", "code"), [(answer(503), 3), (answer(404), 12), (answer(200, b"<html>"), 12)])
def test_a_server_that_is_none_of_ucls_is_named(shell, tmp_path, step, code):
    ca = Authority(tmp_path / "ca", "CA")
    with serving(step, identity=ca.issue("server")) as server:
        said = shell.ucl("doctor", "--url", server.url, "--ca-file", ca.ca_file, "--json")
    assert (said.code, findings(said)["UCL's answer"][0], findings(said)["server trust"][0]) == (code, "failed", "ok")


@pytest.mark.kind("the right culprit: the doctor before there is a connection")
def test_a_proxy_that_refuses_is_named(shell):
    def handle(client, server, closing):
        client.recv(4096)
        client.sendall(b"HTTP/1.1 407 -\r\nContent-Length: 0\r\n\r\n")

    with accepting(handle) as proxy:
        address = f"http://user:pa55w0rd@127.0.0.1:{proxy.port}"
        said = shell.ucl("doctor", "--url", "https://ucl.invalid/graphql", "--json", HTTPS_PROXY=address)
    assert said.code == 3
    assert findings(said)["proxy"][0] == "failed"
    assert "pa55w0rd" not in said.out


def test_it_is_used_with_a_url_or_a_connection(shell, ucl):
    shell.establish("prod", ucl)
    for arguments in (("prod", "--url", ucl.connector_url), ("--ca-file", "x"), ("--offline", "--url", "https://x/")):
        said = shell.ucl("doctor", *arguments, "--json")
        assert (said.code, json.loads(said.out)["error"]) == (2, "UsageError")
