"""Another host of the certificate endpoint needs the user's consent; another path or port is stored and recorded."""

import json
import re
from urllib.parse import urlsplit

import pytest
from command_line import Shell
from meddler import changes, lost_on_the_way_back
from quick_keys import QUICK_BITS
from steps import events, go, install, pending_of, tree

from ucl_helpers import Renewal, establish, renew, rollback
from ucl_helpers.errors import HostChanged, SubjectChanged, Unreachable
from ucl_helpers.procedures.importing import import_identity, read_identity
from ucl_helpers.urls import hostname

pytest_plugins = ["procedure_fixtures"]

OTHER = "127.0.0.1"
DEAD = f"https://{OTHER}:9/connector/graphql"


def moved(connection, **parts):
    """The URL of a connection with another host, port or path."""
    url = urlsplit(connection.url)
    place = f"{parts.get('host', url.hostname)}:{parts.get('port', url.port)}"
    return url._replace(netloc=place, path=parts.get("path", url.path)).geturl()


def names(between, url, times=1):
    """Let UCL name this URL in its next configurations."""
    plane = {"directorURL": "https://director.example/graphql", "certificateSecuredConnectorURL": url}
    between.on("configuration", *[changes(managementPlaneInfo=plane)] * times)


# -- which hosts are the same ------------------------------------------------------------------------------------------

SAME = {
    "case": ("https://UCL.Example/a", "https://ucl.example/b"),
    "a final dot": ("https://ucl.example./", "https://ucl.example/"),
    "the default port": ("https://ucl.example:443/", "https://ucl.example/"),
    "another port": ("https://ucl.example:8443/", "https://ucl.example/"),
    "IDNA": ("https://bücher.example/", "https://xn--bcher-kva.example/"),
    "IDNA in capitals": ("https://BÜCHER.example/", "https://XN--BCHER-KVA.example/"),
    "an address in two forms": ("https://[0:0:0:0:0:0:0:1]/", "https://[::1]/"),
}
OTHERS = {
    "below": ("https://ucl.example.evil/", "https://ucl.example/"),
    "before": ("https://evilucl.example/", "https://ucl.example/"),
    "the parent": ("https://example/", "https://ucl.example/"),
    "IDNA 2003 would say the same": ("https://faß.example/", "https://fass.example/"),
    "a name and its address": ("https://localhost/", "https://127.0.0.1/"),
    "a backslash": ("https://evil.example\\.ucl.example/", "https://ucl.example/"),
    "the other slash": ("https://evil.example/ucl.example", "https://ucl.example/"),
    "a letter that looks alike": ("https://u\u0441l.example/", "https://ucl.example/"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_the_same_host(one, other):
    assert hostname(one) == hostname(other) is not None


@pytest.mark.parametrize(("one", "other"), OTHERS.values(), ids=OTHERS)
def test_another_host(one, other):
    assert hostname(one) != hostname(other) is not None
    assert hostname(one) is not None


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "http://ucl.example/",
        "https://",
        "https://user@ucl.example/",
        "https://a b/",
        "https://localhost/?token=x",
    ],
)
def test_a_url_that_is_never_called_has_no_host(url):
    assert hostname(url) is None


# -- refused -----------------------------------------------------------------------------------------------------------


def test_another_host_needs_consent_and_is_not_called(secure, between):
    before, known = tree(secure.path), secure.url
    names(between, moved(secure, host=OTHER))
    with pytest.raises(HostChanged, match=rf"names the host {OTHER} .*, instead of localhost") as changed:
        renew(secure)
    assert (changed.value.exit_code, changed.value.data["host"]) == (7, OTHER)
    assert [call.operation for call in between.calls] == ["configuration"]
    assert [one["error"] for one in secure.journal()] == ["HostChanged"]
    (secure.path / "journal.jsonl").unlink()
    assert (tree(secure.path), secure.url) == (before, known)


def test_with_consent_the_new_host_is_called_stored_and_recorded(secure, between):
    known, named = secure.url, moved(secure, host=OTHER)
    names(between, named)
    assert renew(secure, accept_new_host=True).outcome == "renewed"
    assert secure.url == named
    assert secure.journal()[-1] == {
        **secure.journal()[-1],
        "event": "endpoint-changed",
        "previous": known,
        "url": named,
    }
    assert "acceptedHost" not in secure.current.facts
    names(between, named)
    assert renew(secure).outcome == "renewed"
    assert events(secure).count("endpoint-changed") == 1


def test_the_host_before_needs_consent_again(secure, between):
    known, named = secure.url, moved(secure, host=OTHER)
    names(between, named)
    renew(secure, accept_new_host=True)
    names(between, known)
    with pytest.raises(HostChanged, match=rf"names the host localhost .*, instead of {OTHER}"):
        renew(secure)


@pytest.mark.parametrize("consents", [{"accept_new_subject": True}, {"accept_new_host": True}, {}])
def test_consent_to_one_is_no_consent_to_the_other(secure, between, consents):
    subject = {"subject": "O=Org,OU=OrgUnit,L=locality,ST=province,C=PL,CN=somebody", "keyAlgorithm": "rsa2048"}
    plane = {"directorURL": None, "certificateSecuredConnectorURL": moved(secure, host=OTHER)}
    between.on("configuration", changes(certificateSigningRequestInfo=subject, managementPlaneInfo=plane))
    with pytest.raises(SubjectChanged if "accept_new_host" in consents else HostChanged):
        renew(secure, **consents)
    assert between.seen("sign") == []


@pytest.mark.parametrize(
    ("part", "value"), [("path", "/elsewhere/graphql"), ("port", 9), ("host", "LOCALHOST"), ("host", "localhost.")]
)
def test_on_the_same_host_no_consent_is_needed(secure, between, part, value):
    names(between, moved(secure, **{part: value}))
    assert renew(secure).outcome == "renewed"


def test_another_path_is_called_stored_and_recorded(secure, between):
    known, named = secure.url, moved(secure, path="/elsewhere/graphql")
    names(between, named)
    renew(secure)
    last = secure.journal()[-1]
    assert (secure.url, last["event"], last["previous"], last["url"]) == (named, "endpoint-changed", known, named)


@pytest.mark.parametrize("url", [None, "http://127.0.0.1/graphql", "no URL"])
def test_a_url_that_is_never_called_needs_no_consent(secure, between, url):
    known = secure.url
    names(between, url)
    assert renew(secure).outcome == "renewed"
    assert (secure.url, "endpoint-changed" in events(secure)) == (known, False)


# -- consent is given once ---------------------------------------------------------------------------------------------


def test_where_the_new_host_fails_the_consent_is_kept_with_the_known_one(secure, between):
    known = secure.url
    names(between, DEAD)
    assert "failed (Unreachable)" in renew(secure, accept_new_host=True).facts["warnings"]
    assert (secure.url, secure.current.facts["acceptedHost"]) == (known, OTHER)
    names(between, DEAD)
    assert renew(secure).outcome == "renewed"
    assert secure.current.facts["acceptedHost"] == OTHER
    names(between, moved(secure, host="[::1]"))
    with pytest.raises(HostChanged, match=r"names the host ::1"):
        renew(secure)


def test_a_rollback_goes_back_to_the_host_before(secure, between):
    known = secure.url
    names(between, moved(secure, host=OTHER))
    renew(secure, accept_new_host=True)
    rollback(secure)
    assert secure.url == known
    names(between, moved(secure, host=OTHER))
    with pytest.raises(HostChanged):
        renew(secure)


def test_a_damaged_memory_of_consent_is_none(secure, between):
    facts = secure.current.path / "connection.json"
    facts.write_text(json.dumps({**secure.current.facts, "acceptedHost": [OTHER]}))
    names(between, moved(secure, host=OTHER))
    with pytest.raises(HostChanged):
        renew(secure)


# -- a renewal that was interrupted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("agreed", [True, False])
def test_a_request_without_an_answer_is_kept_when_the_host_has_changed_meanwhile(secure, between, agreed):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        renew(secure)
    csr = pending_of(secure).csr()
    names(between, moved(secure, host=OTHER))
    if agreed:
        assert renew(secure, accept_new_host=True).outcome == "renewed"
    else:
        with pytest.raises(HostChanged):
            renew(secure)
        assert (pending_of(secure).csr(), len(between.seen("sign"))) == (csr, 1)


def test_the_next_run_knows_what_was_agreed_to(secure, between):
    named = moved(secure, host=OTHER)
    names(between, named)
    renewal = Renewal.begin(secure, accept_new_host=True)
    go(renewal, "sign")
    renewal.close()
    assert renew(secure).outcome == "renewed"
    assert secure.url == named


def test_an_answer_that_was_signed_before_consent_was_needed_waits_for_it(secure, between):
    """As the version before would have left it: it did not ask."""
    named = moved(secure, host=OTHER)
    names(between, named)
    renewal = Renewal.begin(secure, accept_new_host=True)
    go(renewal, "sign")
    renewal.close()
    pending_of(secure).update(accepted_host=None)
    seen = len(between.calls)
    with pytest.raises(HostChanged):
        renew(secure)
    assert (len(between.calls), pending_of(secure).answer() is not None) == (seen, True)
    assert renew(secure, accept_new_host=True).outcome == "renewed"
    assert (secure.url, len(between.seen("sign"))) == (named, 1)


def test_consent_outlives_an_answer_that_was_lost(secure, between):
    names(between, moved(secure, host=OTHER), times=2)
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        renew(secure, accept_new_host=True)
    assert renew(secure).outcome == "renewed"


def test_consent_in_a_rehearsal_is_none_to_a_renewal(secure, between):
    names(between, moved(secure, host=OTHER), times=2)
    rehearsal = Renewal.begin(secure, accept_new_host=True, rehearsal=True)
    go(rehearsal, "request")
    rehearsal.close()
    with pytest.raises(HostChanged):
        renew(secure)


# -- establishing, commands, fleets ------------------------------------------------------------------------------------


def test_an_establishment_takes_the_host_that_it_is_told(new, ucl, between, token):
    url = between.certificate_secured_connector_url.replace("localhost", OTHER)
    names(between, url)
    assert establish(new, token, ca_file=ucl.ca_file).outcome == "established"
    assert new.url == url
    assert "endpoint-changed" not in events(new)


@pytest.mark.parametrize("host", [OTHER, "localhost"])
def test_an_import_keeps_the_host_that_the_user_gives_and_says_what_a_renewal_will_ask(secure, ucl, between, host):
    paths = secure.current.path / "key.pem", secure.current.path / "chain.pem"
    identity = read_identity(*paths)
    url = between.certificate_secured_connector_url.replace("localhost", host)
    outcome = import_identity(secure.home, "imported", identity, url, ca_file=ucl.ca_file)
    imported = secure.home.connection("imported")
    assert imported.url == url
    imported.write_settings({"key_length": QUICK_BITS})
    if host == "localhost":
        assert outcome.facts["warnings"] is None
        assert renew(imported).outcome == "renewed"
    else:
        assert "UCL names the host localhost" in outcome.facts["warnings"]
        with pytest.raises(HostChanged):
            renew(imported)


@pytest.mark.parametrize(("parameters", "code"), [((), 7), (("-p", "accept_new_host", "true"), 0)])
def test_the_notebook_refuses_with_7_and_takes_the_parameter(secure, between, tmp_path, parameters, code):
    named = moved(secure, host=OTHER)
    names(between, named)
    shell = Shell(secure.home.path, tmp_path)
    said = shell.ucl("run", "02_maintain_connection", "-p", "connection", "prod", *parameters, "--json")
    assert (said.code, said.json.get("error")) == (code, "HostChanged" if code else None)
    assert (secure.url == named) is (code == 0)


@pytest.mark.parametrize("flag", [(), ("--accept-new-host",)])
def test_the_command_refuses_with_7_and_takes_the_flag(secure, between, flag):
    named, shell = moved(secure, host=OTHER), Shell(secure.home.path)
    names(between, named)
    said = shell.ucl("renew", "prod", "--force", "--json", *flag)
    assert (said.code, said.json.get("error")) == ((0, None) if flag else (7, "HostChanged"))
    assert (secure.url == named) is bool(flag)


def test_the_command_that_the_error_names_renews_a_connection_that_is_not_due(secure, between):
    named, shell = moved(secure, host=OTHER), Shell(secure.home.path)
    names(between, named, times=2)
    remedy = shell.ucl("renew", "prod", "--force", "--json").json["remedy"]
    words = re.search(r"ucl (renew prod [^,]*),", remedy)[1].split()
    assert (shell.ucl(*words, "--json").json["outcome"], secure.url) == ("renewed", named)


@pytest.mark.parametrize("flag", [(), ("--accept-new-host",)])
def test_a_rehearsal_asks_for_consent_too(secure, between, flag):
    names(between, moved(secure, host=OTHER))
    said = Shell(secure.home.path).ucl("renew", "prod", "--dry-run", *flag)
    assert (said.code, len(between.seen("sign"))) == (0 if flag else 7, 0)


def test_a_fleet_refuses_this_connection_and_renews_the_others(secure, home, ucl, between, tmp_path):
    (tmp_path / "other").mkdir()
    other = install(home, ucl, tmp_path / "other", name="other")  # which is not reached through the man in the middle
    names(between, moved(secure, host=OTHER))
    said = Shell(home.path).ucl("fleet", "renew", "--force", "--json")
    results = said.json["connections"]
    assert (said.code, results["prod"]["error"]["class"], results["prod"]["exitCode"]) == (7, "HostChanged", 7)
    assert (results["other"]["outcome"], len(secure.generations()), len(other.generations())) == ("renewed", 1, 2)
