"""Each fault that the sandbox knows and that a configuration call can meet is named, where it is and by what one would
look for; when it is gone, nothing is wrong."""

import pytest
from examined import named, well
from steps import install

from ucl_helpers import Home
from ucl_sandbox import Sandbox
from ucl_sandbox.faults.catalogue import CATALOGUE
from ucl_sandbox.faults.plans import Fault

CONCERNED = {name for name, kind in CATALOGUE.items() if kind.family != "certificate"}  # those are of signing
FOR_GOOD = {name for name, kind in CATALOGUE.items() if kind.once}
TLS, TRUST, CERTIFICATE, ANSWER = "TLS handshake", "server trust", "client certificate", "UCL's answer"
NAMED = {
    "refused": ("TCP connection", "connection refused", 3),
    "reset-in-handshake": (TLS, "reset by peer", 3),
    "reset-before-reading": (ANSWER, "No answer", 3),
    "reset-after-reading": (ANSWER, "No answer", 3),
    "reset-after-acting": (ANSWER, "No answer", 3),
    "reset-in-mid-answer": (ANSWER, "No answer", 3),
    "black-hole": (ANSWER, "timed out", 3),
    "slow-drip": (ANSWER, "timed out", 3),
    "tls-alert": (TLS, "No answer", 3),
    "server-certificate-expired": (TRUST, "has expired", 5),
    "server-certificate-wrong-host": (TRUST, "for another host", 5),
    "server-certificate-unknown-ca": (TRUST, "its CA is unknown", 5),
    "server-ca-changed": (TRUST, "its CA is unknown", 5),
    "http-400-empty": (CERTIFICATE, "refused to authenticate us (400)", 3),
    "outage": (CERTIFICATE, "UCL is down", 3),
    "http-401": (CERTIFICATE, "(401)", 4),
    "http-403": (CERTIFICATE, "(403)", 4),
    "http-404": (ANSWER, "answered 404", 12),
    "http-408": (ANSWER, "(408)", 3),
    "http-413": (ANSWER, "(413)", 4),
    "http-429": (ANSWER, "slow down (429)", 3),
    "http-500": (ANSWER, "(500)", 3),
    "http-502": (ANSWER, "(502)", 3),
    "http-503": (ANSWER, "(503)", 3),
    "http-504": (ANSWER, "(504)", 3),
    "redirect-same-host": (ANSWER, "not followed", 12),
    "redirect-other-host": (ANSWER, "not followed", 12),
    "redirect-to-http": (ANSWER, "not followed", 12),
    "html-200": (ANSWER, "a web page", 12),
    "html-502": (ANSWER, "(502)", 3),
    "json-broken": (ANSWER, "not JSON", 12),
    "json-truncated": (ANSWER, "not JSON", 12),
    "json-short": (ANSWER, "No answer", 3),
    "json-huge": (ANSWER, "larger than", 12),
    "json-nested": (ANSWER, "not JSON", 12),
    "gzip-bomb": (ANSWER, "larger than", 12),
    "empty-body": (ANSWER, "nothing at all", 3),
    "empty-object": (ANSWER, "neither data nor an error", 3),
    "data-null": (ANSWER, "neither data nor an error", 3),
    "data-empty": (ANSWER, "neither data nor an error", 3),
    "result-null": (ANSWER, "neither data nor an error", 3),
    "missing-fields": (ANSWER, "UCL's answer", 12),
    "wrong-types": (ANSWER, "UCL's answer", 12),
    "errors-beside-data": (ANSWER, "rejected the request", 4),
    "director-url-http": ("URLs", "the Director is http:", 0),
    "director-url-dead": ("URLs", "the Director is", 0),
    "director-url-moved": ("URLs", "the Director is https://127.0.0.1", 0),
    "connector-url-http": ("URLs", "the certificate endpoint is http:", 0),
    "connector-url-dead": ("URLs", "the certificate endpoint is", 7),
    "connector-url-moved": ("URLs", "the certificate endpoint is https://127.0.0.1", 7),
}
HARMLESS = {
    *("wrong-content-type", "director-url-null", "director-url-empty"),
    *("connector-url-null", "connector-url-empty"),
}
VALUES = {"json-huge": 8, "gzip-bomb": 8}
PATIENCE = {"black-hole": 0.5, "slow-drip": 0.5}


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def prod(ucl, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    prod = install(Home(folder / "home"), ucl, folder)
    facts = prod.current.path / "connection.json"
    facts.write_text(facts.read_text().replace("}", f', "directorUrl": "{director_of(ucl)}"}}'))
    return prod


def director_of(ucl):
    """The Director as the certificate endpoint names it."""
    return ucl.certificate_secured_connector_url.replace("/connector/", "/director/")


@pytest.fixture(autouse=True)
def nothing_strikes_any_more(ucl, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    ucl.faults.clear()


def test_every_fault_of_the_catalogue_is_tried():
    assert set(NAMED) | HARMLESS == CONCERNED
    assert set(NAMED) & HARMLESS == set()


@pytest.mark.parametrize("kind", sorted(NAMED, key=lambda kind: kind in FOR_GOOD))
def test_a_fault_is_named(prod, ucl, kind, proof):
    name, text, code = NAMED[kind]
    ucl.faults.set([Fault(kind, at="*" if kind == "outage" else "certificate", value=VALUES.get(kind))])
    told = {"status": "warning"} if code == 0 else {"code": code}
    named(prod, name, text, **told, **({"seconds": PATIENCE[kind]} if kind in PATIENCE else {}))
    ucl.faults.clear()
    if kind in FOR_GOOD:
        (prod.current.path / "server-ca.pem").write_bytes(ucl.ca_file.read_bytes())
    well(prod)
    proof("doctor", "faults of the sandbox named", 1)


@pytest.mark.parametrize("kind", sorted(HARMLESS))
def test_what_does_no_harm_is_no_fault(prod, ucl, kind):
    ucl.faults.set([Fault(kind, at="certificate")])
    well(prod)
    assert ucl.faults.struck == {kind: 1}
