"""Every kind of fault is seen on the wire by a client that is none of ours, strikes as often as it is told, acts on
the request or does not as the catalogue says, and leaves the next call alone."""

import gzip
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import urlsplit

import pytest
from contract_replay import (
    CONFIGURATION,
    SIGN,
    Landscape,
    csr_pem,
    encoded,
    fields_of_subject,
    graphql,
    name_of,
    trusting,
)
from wire_watch import Seen, ask

from ucl_sandbox import Fault, Faults, Sandbox
from ucl_sandbox.faults.catalogue import CATALOGUE

CONFIGURE = graphql(CONFIGURATION)
RIGHT = {"certificateChain", "caCertificate", "clientCertificate"}
BLIND = {
    "refused": "refused",
    "reset-in-handshake": "reset",
    "reset-before-reading": "reset",
    "tls-alert": "TLSV1_ALERT_INTERNAL_ERROR",
    "server-certificate-expired": "verify 10",
    "server-certificate-wrong-host": "verify 62",
    "server-certificate-unknown-ca": "verify 20",
}


@pytest.fixture(scope="module")
def ucl():
    seconds, start = count(), datetime.now(UTC) - timedelta(hours=2)
    with Sandbox(clock=lambda: start + timedelta(seconds=next(seconds))) as running:
        yield running


@pytest.fixture(scope="module")
def client(ucl, tmp_path_factory):
    return Landscape(ucl, ucl.one_time_token).establish(tmp_path_factory.mktemp("client"))


@pytest.fixture(autouse=True)
def quiet(ucl):
    yield
    ucl.faults.clear()


def sign(client):
    csr = graphql(SIGN, csr=encoded(csr_pem(name_of(fields_of_subject(client.client_id)))))
    return ask(client.landscape.ucl.certificate_secured_connector_url, client.context, csr)


def configure(client):
    return ask(client.landscape.ucl.certificate_secured_connector_url, client.context, CONFIGURE)


def issued(ucl):
    return ucl._memory._rows("SELECT count(*) AS number FROM certificates")[0]["number"]


def signed(seen):
    return seen.status == 200 and seen.whole and set(seen.json["data"]["result"]) == RIGHT


def until(fact):
    """Wait for what another thread is about to do."""
    while not fact():
        threading.Event().wait(0.01)


# -- after the request has been read -----------------------------------------------------------------------------------


def status(number, retry_after=None):
    return lambda seen: seen.whole and (seen.status, seen.headers.get("Retry-After")) == (number, retry_after)


def redirect(number, start, end="/connector/graphql"):
    def seen_so(seen):
        target = seen.headers.get("Location", "")
        return seen.status == number and target.startswith(start) and target.endswith(end)

    return seen_so


def says(text):
    return lambda seen: seen.whole and seen.status == 200 and seen.body == text


def no_json(seen):
    try:
        return not seen.json
    except ValueError:
        return seen.whole and seen.status == 200 and b"certificateChain" in seen.body


def bomb(seen):
    if seen.headers.get("Content-Encoding") != "gzip":
        return False
    with gzip.open(io.BytesIO(seen.body)) as unpacked:
        text = json.load(unpacked)["data"]["result"]
    return seen.whole and len(text) == 20_000_000 > 500 * len(seen.body)


def errors(seen):
    return signed(seen) and "errors" in seen.json and seen.json["errors"][0]["message"] == "told"


def nothing(seen):
    return seen == Seen("reset")


SEEN = {
    "reset-after-reading": nothing,
    "reset-after-acting": nothing,
    "reset-in-mid-answer": lambda seen: seen.end == "reset" and seen.status == 200 and 0 < len(seen.body) < seen.length,
    "http-400-empty": lambda seen: seen.whole and (seen.status, seen.body) == (400, b""),
    "outage": lambda seen: seen.whole and (seen.status, seen.body) == (400, b""),
    **{f"http-{number}": status(number) for number in (401, 403, 404, 408, 413, 429, 500, 502, 503, 504)},
    ("http-429", 7): status(429, "7"),
    ("http-503", "Fri, 31 Dec 2049 23:59:59 GMT"): status(503, "Fri, 31 Dec 2049 23:59:59 GMT"),
    "redirect-same-host": redirect(307, "https://localhost:", "/moved/connector/graphql"),
    ("redirect-other-host", 302): redirect(302, "https://127.0.0.1:"),
    ("redirect-to-http", 308): redirect(308, "http://localhost:"),
    "wrong-content-type": lambda seen: signed(seen) and seen.headers["Content-Type"] == "text/html",
    "html-200": lambda seen: seen.status == 200 and seen.body.startswith(b"<!DOCTYPE html>"),
    "html-502": lambda seen: seen.status == 502 and seen.body.startswith(b"<!DOCTYPE html>"),
    "json-broken": no_json,
    "json-truncated": no_json,
    "json-short": lambda seen: seen.end == "closed" and seen.status == 200 and 0 < len(seen.body) < seen.length,
    ("json-huge", 3): lambda seen: (
        seen.whole and seen.length == 3_000_000 and set(seen.json["data"]["result"]) == {"a"}
    ),
    ("json-nested", 500): lambda seen: seen.whole and seen.body.count(b"[") == 500 and seen.json["data"]["result"],
    ("gzip-bomb", 20): bomb,
    "empty-body": says(b""),
    "empty-object": says(b"{}"),
    "data-null": says(b'{"data":null}'),
    "data-empty": says(b'{"data":{}}'),
    "result-null": says(b'{"data":{"result":null}}'),
    "missing-fields": says(b'{"data":{"result":{}}}'),
    ("missing-fields", "caCertificate"): lambda seen: RIGHT - set(seen.json["data"]["result"]) == {"caCertificate"},
    "wrong-types": lambda seen: list(seen.json["data"]["result"].values()) == [17, 17, 17],
    ("wrong-types", "caCertificate"): lambda seen: list(seen.json["data"]["result"].values()).count(17) == 1,
    ("errors-beside-data", "told"): errors,
}
CASES = [(name, None, look) if isinstance(name, str) else (*name, look) for name, look in SEEN.items()]


@pytest.mark.parametrize(("kind", "value", "looks_so"), CASES)
def test_a_fault_is_seen_and_has_acted_or_not_and_the_next_call_is_well(ucl, client, proof, *, kind, value, looks_so):
    before = issued(ucl)
    ucl.faults.set([Fault(kind, at="certificate", operation="sign", times=1, value=value)])
    assert configure(client).status == 200
    assert looks_so(sign(client))
    assert ucl.requests[-1].fault == kind
    assert issued(ucl) - before == CATALOGUE[kind].acted
    assert signed(sign(client))
    assert not looks_so(sign(client))
    assert ucl.faults.struck == {kind: 1}
    proof("wire", "faults seen on the wire by an independent client", 1)


def test_an_answer_drips(ucl, client):
    ucl.faults.set([Fault("slow-drip", value=0.0001)])
    seen = configure(client)
    assert seen.whole
    assert seen.json["data"]["result"]["token"]
    assert seen.pieces == len(seen.raw)
    ucl.faults.clear()
    assert configure(client).pieces < 10


def test_a_black_hole_lasts_until_the_faults_change(ucl, client):
    before = issued(ucl)
    ucl.faults.set([Fault("black-hole", operation="sign")])
    with ThreadPoolExecutor() as pool:
        fallen = pool.submit(sign, client)
        until(lambda: ucl.faults.struck)
        assert configure(client).status == 200
        assert not fallen.done()
        ucl.faults.clear()
        assert fallen.result() == Seen("closed")
    assert issued(ucl) == before


def test_a_black_hole_ends_with_the_sandbox():
    with ThreadPoolExecutor() as pool:
        with Sandbox(faults=Faults([Fault("black-hole")])) as ucl:
            fallen = pool.submit(ask, ucl.connector_url, trusting(ucl.ca_file), CONFIGURE)
            until(lambda: ucl.faults.struck)
        assert fallen.result() == Seen("closed")


@pytest.mark.parametrize("kind", ["data-null", "missing-fields", "gzip-bomb", "json-huge"])
def test_a_refusal_is_not_dressed_up(ucl, kind):
    ucl.faults.set([Fault(kind)])
    seen = ask(ucl.connector_url, trusting(ucl.ca_file), CONFIGURE, {"connector-token": "unknown"})
    assert (seen.status, seen.body) == (400, b"")


# -- before the request has been read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["director", "token", "certificate"])
@pytest.mark.parametrize("kind", BLIND)
def test_a_listener_fails_before_it_reads_and_the_others_do_not(ucl, client, proof, kind, at):
    urls = {"director": ucl.director_url, "token": ucl.connector_url}
    urls["certificate"] = ucl.certificate_secured_connector_url
    noted = len(ucl.requests)
    ucl.faults.set([Fault(kind, at=at)])
    seen = {name: ask(url, client.context, CONFIGURE) for name, url in urls.items()}
    assert seen[at].end == BLIND[kind]
    assert len(ucl.requests) == noted + 2
    ucl.faults.clear()
    seen[at] = ask(urls[at], client.context, CONFIGURE)
    assert [one.status for one in seen.values()] == [400, 400, 200]
    proof("wire", "faults seen on the wire by an independent client", 1)


def test_the_alert_can_be_chosen(ucl, client):
    ucl.faults.set([Fault("tls-alert", value="certificate_revoked")])
    assert configure(client).end == "SSLV3_ALERT_CERTIFICATE_REVOKED"


def test_refusing_ends_kept_connections_too_and_keeps_the_port(ucl, client):
    url = urlsplit(ucl.certificate_secured_connector_url)
    with (
        socket.create_connection(("127.0.0.1", url.port), timeout=30) as plain,
        client.context.wrap_socket(plain, server_hostname="localhost") as kept,
    ):
        kept.sendall(f"GET {url.path}?query={{__typename}} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        ucl.faults.set([Fault("refused")])
        assert kept.recv(65536) == b""
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", url.port))


def test_the_servers_ca_changes_once_and_for_good(tmp_path):
    with Sandbox(tmp_path) as ucl:
        old = trusting(ucl.ca_file)
        assert ask(ucl.connector_url, old).status == 400
        ucl.faults.set([Fault("server-ca-changed")])
        assert ask(ucl.director_url, old).end == "verify 20"
        ucl.faults.clear()
        changed = ucl.ca_file.read_bytes()
        assert [ask(url, old).end for url in (ucl.connector_url, ucl.director_url)] == ["verify 20"] * 2
        assert [ask(url, trusting(ucl.ca_file)).status for url in (ucl.connector_url, ucl.director_url)] == [400] * 2
    with Sandbox(tmp_path) as again:
        assert again.ca_file.read_bytes() == changed
        assert ask(again.connector_url, old).end == "verify 20"


# -- the URLs ----------------------------------------------------------------------------------------------------------


HOW = {
    "null": lambda _: None,
    "empty": lambda _: "",
    "http": lambda url: "http" + url.removeprefix("https"),
    "dead": lambda url: f"https://127.0.0.1:1{urlsplit(url).path}",
    "moved": lambda url: url.replace("localhost", "127.0.0.1"),
}


def plane(client):
    return configure(client).json["data"]["result"]["managementPlaneInfo"]


@pytest.mark.parametrize("which", ["director", "connector"])
@pytest.mark.parametrize("how", HOW)
def test_a_url_of_the_configuration_is_another(ucl, client, proof, how, which):
    field, other = ("directorURL", "certificateSecuredConnectorURL")[:: 1 if which == "director" else -1]
    right = plane(client)
    ucl.faults.set([Fault(f"{which}-url-{how}", times=1)])
    assert plane(client) == {other: right[other], field: HOW[how](right[field])}
    assert plane(client) == right
    proof("wire", "faults seen on the wire by an independent client", 1)


def test_a_url_can_be_chosen(ucl, client):
    ucl.faults.set([Fault("director-url-dead", value="https://ucl.invalid/graphql")])
    assert plane(client)["directorURL"] == "https://ucl.invalid/graphql"


def test_where_it_has_moved_it_works(ucl, client):
    ucl.faults.set([Fault("connector-url-moved")])
    moved = plane(client)["certificateSecuredConnectorURL"]
    assert ask(moved, client.context, CONFIGURE).status == 200


def test_every_kind_is_tried():
    urls = {f"{which}-url-{how}" for which in ("director", "connector") for how in HOW}
    tried = {kind for kind, *_ in CASES} | set(BLIND) | urls | {"slow-drip", "black-hole", "server-ca-changed"}
    assert {kind for kind, what in CATALOGUE.items() if what.family != "certificate"} == tried
