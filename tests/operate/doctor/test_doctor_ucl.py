"""What is wrong with UCL's server, with what it makes of our certificate, or with its answer is named, it alone."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from examined import mended, named, right_url, typed, well
from meddler import Reply, answers, changes, refused
from quick_keys import QUICK_BITS
from steps import Clock, install, tree
from tls_servers import Authority, answer, serving

from ucl_helpers import renew, revoke
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import PossibleOutage
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.wire.client import Client

pytest_plugins = ["procedure_fixtures", "doctor_fixtures"]
HOUR = timedelta(hours=1)


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(at, ucl, tmp_path):
    """A connection whose server plays a script with a certificate of its own; its CA is trusted."""

    def connect(server, authority):
        prod = at(server.url)
        (prod.current.path / "server-ca.pem").write_bytes(authority.ca_file.read_bytes())
        return prod

    return connect


def test_a_server_whose_ca_is_unknown_and_giving_that_ca_mends_it(secure, ucl, tmp_path, count):
    (secure.current.path / "server-ca.pem").write_bytes(Authority(tmp_path / "other", "other").ca_file.read_bytes())
    finding = named(secure, "server trust", "its CA is unknown here", code=5)
    mended(finding, secure, SERVER_CA_FILE=str(ucl.ca_file))
    count(mended=1)


SERVERS = {
    "another host": ({"hosts": ("elsewhere.example",)}, "another host"),
    "expired": ({"valid": (-2 * HOUR, -HOUR)}, "has expired"),
    "not yet valid": ({"valid": (HOUR, 2 * HOUR)}, "not valid yet"),
}


@pytest.mark.parametrize("fault", SERVERS)
def test_a_server_with_a_certificate_that_will_not_do(served, ucl, tmp_path, fault, count):
    defect, text = SERVERS[fault]
    authority = Authority(tmp_path / "server", "its CA")
    with serving(answer(), identity=authority.issue("server", **defect)) as server:
        prod = served(server, authority)
        finding = named(prod, "server trust", text, code=5)
        assert server.requests == []
    if fault == "another host":
        (prod.current.path / "server-ca.pem").write_bytes(ucl.ca_file.read_bytes())
        assert typed(finding.remedy, prod, **right_url(ucl)).returncode == 0
        well(prod)
    count(mended=fault == "another host")


@pytest.mark.parametrize("text", ["", "no PEM"])
def test_a_ca_file_that_is_none(secure, ucl, text, count):
    (secure.current.path / "server-ca.pem").write_text(text)
    finding = named(secure, "server trust", "CA file cannot be used", code=10)
    mended(finding, secure, SERVER_CA_FILE=str(ucl.ca_file))
    count(mended=1)


# -- the certificate ---------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_know_our_ca(served, tmp_path, count):
    authority = Authority(tmp_path / "server", "its CA")
    options = {"identity": authority.issue("server"), "client_ca": authority.ca_file}
    with serving(answer(), **options) as server:
        prod = served(server, authority)
        finding = named(prod, "client certificate", "does not know the CA", code=4)
    assert "ucl establish prod" in finding.remedy
    count()


def test_a_certificate_that_was_revoked_here(secure, ucl, count):
    revoke(secure)
    finding = named(secure, "revocation", "revoked, 20", code=4)
    assert "refused: see revocation" in diagnose(secure)["client certificate"].found
    established_anew(finding, secure, ucl)
    count(mended=1)


def test_a_certificate_that_was_revoked_elsewhere(secure, ucl, count):
    revoke(secure)
    with secure.lock.held():
        secure.judge(secure.current.fingerprint, None)
    waited(secure, "was revoked")
    established_anew(named(secure, "client certificate", "was revoked", code=4), secure, ucl)
    count(mended=1)


DELETE = "mutation ($id: ID!) { result: deleteSystemAuthForApplication(authID: $id) { id } }"


def test_a_client_that_was_deleted(home, ucl, tmp_path, count):
    prod = install(home, ucl, tmp_path)
    headers = {"Authorization": f"Bearer {ucl.director_token}", "Tenant": ucl.tenant}
    with Client(ucl.director_url, "director", ca_file=ucl.ca_file, headers=headers) as director:
        director.call(DELETE, {"id": common_name(prod.current.certificate.subject)})
    waited(prod, "its client was deleted")
    established_anew(named(prod, "client certificate", "its client was deleted", code=4), prod, ucl)
    count(mended=1)


def waited(prod, text):
    """A refusal may be an outage at first; then UCL has refused for so long that it counts as a loss."""
    finding = named(prod, "client certificate", text, "outage of UCL", "Do not establish", code=3)
    assert finding.remedy.startswith("Wait. When UCL is back: ucl renew prod")
    assert "ucl doctor" not in finding.found
    with pytest.raises(PossibleOutage):
        renew(prod, clock=Clock(days=-2))


def established_anew(finding, prod, ucl):
    """By the command that is named, its token given otherwise than by hand."""
    assert "--token prompt" in finding.remedy
    remedy = finding.remedy.replace("prompt", "env:T")
    mended_by = typed(
        f"{remedy} --key-length {QUICK_BITS}", prod, CONNECTOR_URL=ucl.connector_url, T=ucl.one_time_token()
    )
    assert mended_by.returncode == 0, mended_by
    well(prod)


def test_the_url_of_the_token_endpoint(at, ucl, count):
    prod = at(ucl.connector_url)
    finding = named(prod, "client certificate", "not the certificate-secured Connector URL", code=4)
    mended(finding, prod, **right_url(ucl))
    count(mended=1)


def test_a_certificate_that_has_expired(home, ucl, clock, tmp_path, count):
    clock.set(days=-91)
    prod = install(home, ucl, tmp_path)
    clock.set()
    established_anew(named(prod, "validity", "expired 1 d", code=4), prod, ucl)
    count(mended=1)


def test_a_certificate_that_is_not_valid_yet(home, ucl, clock, tmp_path, count):
    clock.set(hours=2)
    prod = install(home, ucl, tmp_path)
    clock.set()
    named(prod, "validity", "not valid yet", code=3)
    count()


def test_a_certificate_that_is_due_is_a_warning_and_renewing_mends_it(home, ucl, clock, tmp_path, count):
    clock.set(days=-70)
    prod = install(home, ucl, tmp_path)
    clock.set()
    mended(named(prod, "validity", "due since", status="warning"), prod)
    count(mended=1)


@pytest.mark.parametrize(("ahead", "text"), [({"hours": -2}, "behind UCL's"), ({"minutes": 7}, "ahead of UCL's")])
def test_a_clock_that_is_wrong(secure, ahead, text, count):
    named(secure, "clock", text, status="warning", clock=Clock(**ahead))
    count()


def test_a_clock_that_is_wrong_is_told_with_a_refusal_as_well(secure, between, count):
    date = ("Date", format_datetime(datetime.now(UTC), usegmt=True))
    between.on("configuration", lambda forward, call: Reply(503, b"", (date,)))
    named(secure, "UCL's answer", "503", code=3, clock=Clock(hours=-2), also=["clock"])
    count()


# -- the answer --------------------------------------------------------------------------------------------------------

ANSWERS = {
    "503": (answers(503), "cannot answer now (503)", 3),
    "429": (answers(429), "slow down", 3),
    "418": (answers(418), "answered 418", 12),
    "errors": (answers(200, errors=[{"message": "out of \x1b[31mtea"}]), "out of", 4),
    "nothing": (answers(200), "neither data nor an error", 3),
    "no configuration": (answers(200, 7), "not an object", 12),
    "lost": (lambda forward, call: None, "No answer", 3),
}


@pytest.mark.parametrize("fault", ANSWERS)
def test_an_answer_that_will_not_do(secure, between, fault, count):
    plan, text, code = ANSWERS[fault]
    between.on("configuration", plan)
    assert "\x1b" not in str(named(secure, "UCL's answer", text, code=code))
    count()


def test_401_is_a_refusal(secure, between, count):
    between.on("configuration", answers(401))
    named(secure, "client certificate", "(401)", code=4)
    between.on("configuration", refused)
    named(secure, "client certificate", "(400)", code=3)
    count()


def test_another_subject_is_wanted(secure, between, count):
    subject = "O=Other,OU=OrgUnit,L=locality,ST=province,C=DE,CN=x"
    between.on("configuration", changes(certificateSigningRequestInfo={"subject": subject, "keyAlgorithm": "rsa2048"}))
    finding = named(secure, "subject", "O=Other", code=7)
    assert finding.remedy.startswith("ucl renew prod --force --accept-new-subject")
    count()


def test_another_host_is_consented_to_by_the_renewal_that_is_named(at, ucl, count):
    named_by_ucl = ucl.certificate_secured_connector_url
    prod = at(named_by_ucl.replace("localhost", "127.0.0.1"))
    finding = named(prod, "URLs", "the certificate endpoint is https://localhost", code=7)
    assert finding.remedy.startswith("ucl renew prod --force --accept-new-host")
    mended(finding, prod)
    assert prod.url == named_by_ucl
    count(mended=1)


def test_urls_that_have_changed_are_taken_over_by_a_renewal(at, secure, between, ucl, count):
    url = between.certificate_secured_connector_url
    between.on(
        "configuration", changes(managementPlaneInfo={"certificateSecuredConnectorURL": None, "directorURL": None})
    )
    well(secure)
    (secure.current.path / "connection.json").write_text(json.dumps({"connectorUrl": f"{url}?old"}))
    finding = named(secure, "URLs", "the certificate endpoint is", status="warning")
    mended(finding, secure)
    assert secure.url == url
    count(mended=1)


def test_one_call_is_made_and_offline_none(secure, between):
    before = tree(secure.path)
    well(secure)
    assert [call.operation for call in between.calls] == ["configuration"]
    assert "token" not in between.calls[0].body["query"]
    well(secure, offline=True)
    assert len(between.calls) == 1
    assert tree(secure.path) == before
