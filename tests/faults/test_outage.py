"""An outage of UCL is not a loss: at each call nothing is given up, and afterwards the same key is certified.

The sandbox has the outage as recorded: the Connector refuses every certificate and token, and the Director answers 502
(its process is down) or with an error that proves nothing (its database is down). The twins are refusals that are a
loss: revoked elsewhere, the client deleted, revoked by this toolkit.
"""

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from steps import STEPS, Clock, aside, go, install, pending_of
from tls_servers import Authority, answer, proxying, serving

from ucl_helpers import Establishment, Renewal, establish, forget, renew, revoke, status_of
from ucl_helpers.connection.attempts import remembered
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import (
    AuthenticationFailed,
    NotYetAccepted,
    Outage,
    PossibleOutage,
    Refused,
    RetryLater,
    UCLError,
    Unreachable,
    UsageError,
    Waiting,
)
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operate.monitoring import verdict
from ucl_helpers.procedures.acceptance import ask_director, explain_by_director, explain_refusal
from ucl_helpers.procedures.establishment import DirectorAccess
from ucl_helpers.tables import moment
from ucl_sandbox.faults.plans import Fault

pytest_plugins = ["procedure_fixtures", "fault_fixtures"]
pytestmark = pytest.mark.usefixtures("quick")
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
PROCESS, DATABASE = Fault("outage"), Fault("outage", value="database")
KINDS = {"process": (PROCESS, Outage), "database": (DATABASE, PossibleOutage)}
CALLS = {"configuration": "configuration", "sign": "sign", "verify": "verify"}


@pytest.fixture(autouse=True)
def it_ends(ucl, clock):
    yield
    ucl.faults.clear()
    clock.set()


def knows_director(connection, ucl):
    """As after an establishment: the configuration has named the Director."""
    url = ucl.certificate_secured_connector_url.replace("/connector/", "/director/")
    path = connection.current.path / "connection.json"
    path.write_text(path.read_text().replace("}", f', "directorUrl": "{url}"}}', 1))
    return connection


@pytest.fixture
def prod(home, ucl, clock, tmp_path):
    """A connection whose identity is an hour old."""
    clock.set(hours=-1)
    connection = knows_director(install(home, ucl, tmp_path), ucl)
    clock.set()
    return connection


@pytest.fixture
def director(ucl):
    return DirectorAccess(ucl.director_url, ucl.tenant, ucl.application_id, ucl.director_token, ucl.ca_file)


def signed(ucl):
    return len(ucl._memory._rows("SELECT * FROM certificates"))


def fails(kind, act, *arguments, **options):
    with pytest.raises(kind) as caught:
        act(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value


def kept_key(connection):
    return pending_of(connection).key_path.read_bytes()


# -- renew: at each of its calls ---------------------------------------------------------------------------------------


@pytest.mark.kind("outages: a renewal, at each call")
@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_a_renewal_loses_nothing_and_goes_on_with_the_same_key(prod, ucl, call, what):
    fault, kind = KINDS[what]
    before, after = prod.current, {"configuration": 0, "sign": 1, "verify": 2}[call]
    ucl.faults.set([replace(fault, after=after)])
    error = fails(NotYetAccepted if (call, what) == ("verify", "database") else kind, renew, prod)
    assert (error.exit_code, prod.current, aside(prod)) == (3, before, [])
    key = kept_key(prod) if call != "configuration" else None
    fails(NotYetAccepted if (call, what) == ("verify", "database") else kind, renew, prod)
    ucl.faults.clear()
    count = signed(ucl)
    assert renew(prod).outcome == "renewed"
    assert key in {None, (prod.current.path / "key.pem").read_bytes()}
    assert signed(ucl) - count == (0 if call == "verify" else 1)
    assert remembered(prod).refused_since is None


@pytest.mark.kind("outages: a renewal, at each call")
def test_a_proven_outage_says_so_and_names_what_to_do(prod, ucl):
    ucl.faults.set([PROCESS])
    error = fails(Outage, renew, prod)
    assert error.message.startswith("UCL is down")
    assert f"its Director at {prod.director_url} answers 502" in error.message
    assert "Do not establish the connection again" in error.remedy
    assert "ucl doctor prod" in error.remedy
    assert (error.data["outage"], error.data["director_status"]) == ("proven", 502)


@pytest.mark.kind("outages: a renewal, at each call")
def test_one_that_is_not_proven_names_both_the_outage_first(prod, ucl):
    ucl.faults.set([DATABASE])
    error = fails(PossibleOutage, renew, prod)
    first, *others = error.data["causes"]
    assert first.startswith("an outage of UCL")
    assert "the client certificate was revoked" in others
    assert "Wait and run it again" in error.remedy
    assert error.data["outage"] == "possible"


@pytest.mark.kind("outages: a renewal, at each call")
def test_a_due_run_waits_in_an_outage_as_after_any_failure(home, ucl, clock, tmp_path):
    clock.set(days=-80)
    due = knows_director(install(home, ucl, tmp_path), ucl)
    clock.set()
    ucl.faults.set([PROCESS])
    fails(Outage, renew, due, only_if_due=True)
    fails(Waiting, renew, due, only_if_due=True)
    fails(Outage, renew, due, only_if_due=True, clock=Clock(minutes=2))


# -- what the Director says --------------------------------------------------------------------------------------------


def asked(prod, url):
    return ask_director(url, prod.current.credentials, prod.current.server_ca)


DIRECTORS = {
    "process down": (PROCESS, True, 502),
    "500": (Fault("http-500"), True, 500),
    "503": (Fault("http-503"), True, 503),
    "504": (Fault("http-504"), True, 504),
    "it hangs up": (Fault("reset-before-reading"), True, None),
    "database down": (DATABASE, False, None),
    "401": (Fault("http-401"), False, None),
    "403": (Fault("http-403"), False, None),
    "404": (Fault("http-404"), False, None),
    "429": (Fault("http-429"), False, None),
    "408": (Fault("http-408"), False, None),
    "400": (Fault("http-400-empty"), False, None),
    "a web page": (Fault("html-200"), False, None),
    "an empty body": (Fault("empty-body"), False, None),
    "no trust": (Fault("server-certificate-unknown-ca"), False, None),
}


@pytest.mark.kind("outages: what the Director says")
@pytest.mark.parametrize("case", DIRECTORS)
def test_a_5xx_or_no_answer_proves_an_outage_and_nothing_else_does(prod, ucl, case):
    fault, proof, status = DIRECTORS[case]
    ucl.faults.set([replace(fault, at="director")])
    found = asked(prod, ucl.director_url)
    assert (found.proof, found.status, found.accepted) == (proof, status, False)


@pytest.mark.kind("outages: what the Director says")
def test_nobody_there_proves_it_too_and_a_name_without_an_address_does_not(prod):
    assert asked(prod, "https://localhost:9/director/graphql").proof
    assert not asked(prod, "https://director.invalid/graphql").proof


@pytest.mark.kind("outages: what the Director says")
def test_a_proxy_that_refuses_proves_nothing(prod, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert not asked(prod, "https://director.example/graphql").proof


@pytest.mark.kind("outages: what the Director says")
@pytest.mark.parametrize(
    "case",
    [
        (407, True, False, None),
        *((status, True, True, None) for status in (500, 502, 503, 504)),
        *((status, False, True, status) for status in (502, 503)),  # the twin: no proxy on the way
    ],
)
def test_an_answer_that_may_be_a_proxys_proves_nothing_for_ever(prod, tmp_path, monkeypatch, case):
    status, through, proof, told = case
    ca = Authority(tmp_path / "ca", "CA")
    identity = ca.issue("server", hosts=("ucl.invalid", "localhost"))
    with serving(answer(status), identity=identity) as server, proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        url = server.url.replace("localhost", "ucl.invalid") if through else server.url
        found = ask_director(url, prod.current.credentials, ca.ca_file)
    assert (found.proof, found.status) == (proof, told)
    assert ("or the proxy http://localhost" in found.text) is (through and proof)


@pytest.mark.kind("outages: what the Director says")
@pytest.mark.parametrize("url", [None, "http://localhost/director", "not a URL"])
def test_without_a_url_that_can_be_called_nobody_is_asked(prod, ucl, url):
    ucl.faults.set([Fault("http-502", at="director")])
    assert not asked(prod, url).proof
    assert ucl.faults.struck.get("http-502", 0) == 0


@pytest.mark.kind("outages: what the Director says")
def test_it_is_asked_once(prod, ucl):
    told = prod.current.path / "connection.json"
    told.write_text(told.read_text().replace(prod.director_url, ucl.director_url))
    ucl.faults.set([Fault("http-400-empty", at="certificate"), Fault("http-502", at="director")])
    fails(Outage, renew, prod)
    assert ucl.faults.struck == {"http-400-empty": 1, "http-502": 1}


@pytest.mark.kind("outages: what the Director says")
def test_a_director_that_accepts_the_certificate_does_not_end_the_wait(prod, ucl):
    ucl.faults.set([Fault("http-400-empty", at="certificate", operation="configuration")])
    error = fails(PossibleOutage, renew, prod)
    assert "accepts the certificate" in error.message


@pytest.mark.kind("outages: what the Director says")
def test_silence_is_no_proof_for_ever(prod, ucl):
    """A firewall could explain it as well: then the time that policy gives decides."""
    path = prod.current.path / "connection.json"
    path.write_text(path.read_text().replace(prod.director_url, "https://localhost:9/director"))
    ucl.faults.set([Fault("http-400-empty", at="certificate")])
    fails(Outage, renew, prod)
    fails(Outage, renew, prod, clock=Clock(hours=23))
    error = fails(AuthenticationFailed, renew, prod, clock=Clock(hours=25))
    assert "does not answer" in error.message


UNREACHABLE = "https://localhost:9/director"


def moved(prod, ucl):
    """A Director that this machine has no way to."""
    path = prod.current.path / "connection.json"
    path.write_text(path.read_text().replace(prod.director_url, UNREACHABLE))


@pytest.mark.kind("outages: what the Director says")
@pytest.mark.parametrize("later", [2 * DAY, 30 * DAY])
@pytest.mark.parametrize("renews", [True, False])
def test_a_director_without_a_way_to_it_is_no_dead_end(prod, ucl, later, renews):
    moved(prod, ucl)
    deleted(prod, ucl)
    token = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
    if renews:
        fails(Outage, renew, prod)
    fails(Outage, establish, prod, token, ca_file=ucl.ca_file)  # the twin: too early
    fails(Outage, revoke, prod)
    fails(PossibleOutage, revoke, prod, clock=at(later))  # settled by the next refusal
    token = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
    assert establish(prod, token, ca_file=ucl.ca_file, clock=at(later)).outcome == "established"


# -- policy: for how long ----------------------------------------------------------------------------------------------


def at(ahead):
    return Clock(seconds=ahead.total_seconds())


LATER = [
    (10 * MINUTE, PossibleOutage, "WARNING"),
    (DAY - MINUTE, PossibleOutage, "WARNING"),
    (DAY + MINUTE, AuthenticationFailed, "CRITICAL"),
    (40 * DAY, AuthenticationFailed, "CRITICAL"),
]


@pytest.mark.kind("outages: for how long")
@pytest.mark.parametrize(("later", "kind", "word"), LATER)
def test_what_is_not_proven_is_temporary_for_a_day_at_most(prod, ucl, later, kind, word):
    ucl.faults.set([DATABASE])
    fails(PossibleOutage, renew, prod)
    assert verdict(status_of(prod)).word == "WARNING"
    error = fails(kind, renew, prod, clock=at(later))
    assert error.exit_code == (3 if kind is PossibleOutage else 4)
    assert verdict(status_of(prod, at(later))).word == word
    assert any("outage" in cause for cause in error.data["causes"])
    assert any("revoked" in cause for cause in error.data["causes"])


@pytest.mark.kind("outages: for how long")
def test_after_that_it_names_both_explanations_and_still_tries(prod, ucl):
    ucl.faults.set([DATABASE])
    fails(PossibleOutage, renew, prod)
    error = fails(AuthenticationFailed, renew, prod, clock=at(DAY + MINUTE))
    assert "Ask UCL's operator whether there is an outage" in error.remedy
    assert "ucl establish prod" in error.remedy
    ucl.faults.clear()
    assert renew(prod, clock=at(DAY + 2 * MINUTE)).outcome == "renewed"
    assert verdict(status_of(prod)).word == "OK"


@pytest.mark.kind("outages: for how long")
def test_a_proven_outage_is_temporary_until_the_certificate_expires(prod, ucl):
    ucl.faults.set([PROCESS])
    for later in (timedelta(0), 10 * MINUTE, 2 * DAY, 80 * DAY):
        assert fails(Outage, renew, prod, clock=at(later)).exit_code == 3
    assert verdict(status_of(prod, at(10 * MINUTE))).word == "WARNING"
    assert verdict(status_of(prod, at(2 * DAY))).word == "CRITICAL"
    ucl.faults.set([DATABASE])  # the time begins again with the last proof
    error = fails(PossibleOutage, renew, prod, clock=at(80 * DAY + MINUTE))
    status = status_of(prod, at(80 * DAY + MINUTE))
    assert status.as_json()["refusalEnds"][:16] == error.data["refusal_ends"][:16]
    assert "counts as a loss" in error.remedy
    assert moment(status.refusal_ends) in dict(status.rows())["refused"]
    assert moment(status.refusal_ends) in error.remedy
    assert verdict(status).word == "CRITICAL"


@pytest.mark.kind("outages: for how long")
def test_what_is_about_to_expire_is_critical_at_once(prod, ucl):
    ucl.faults.set([PROCESS])
    fails(Outage, renew, prod, clock=at(85 * DAY))
    assert verdict(status_of(prod, at(85 * DAY))).word == "CRITICAL"


@pytest.mark.kind("outages: for how long")
def test_the_beginning_survives_the_journal_and_ends_with_the_next_answer(prod, ucl):
    ucl.faults.set([DATABASE])
    fails(PossibleOutage, renew, prod)
    (prod.path / "journal.jsonl").write_text("")
    fails(AuthenticationFailed, renew, prod, clock=at(DAY + MINUTE))
    ucl.faults.set([Fault("http-503", at="certificate", operation="sign")])
    fails_retry(renew, prod, clock=at(DAY + MINUTE))  # the configuration was answered
    assert remembered(prod).refused_since is None
    ucl.faults.set([DATABASE])
    fails(PossibleOutage, renew, prod, clock=at(DAY + MINUTE))


def fails_retry(act, *arguments, **options):
    with pytest.raises(RetryLater):
        act(*arguments, **options)


@pytest.mark.kind("outages: for how long")
def test_what_breaks_off_meanwhile_does_not_begin_it_again(prod, ucl):
    ucl.faults.set([DATABASE])
    fails(PossibleOutage, renew, prod)
    ucl.faults.set([Fault("reset-before-reading", at="certificate")])
    fails(Unreachable, renew, prod, clock=at(12 * timedelta(hours=1)))
    ucl.faults.set([DATABASE])
    fails(AuthenticationFailed, renew, prod, clock=at(DAY + MINUTE))


# -- twins: a loss -----------------------------------------------------------------------------------------------------


def revoked_elsewhere(prod, ucl):
    mark, name = prod.current.fingerprint, common_name(prod.current.certificate.subject)
    ucl._memory.revoke(mark, name, prod.current.validity.not_after)


def deleted(prod, ucl):
    ucl._memory.delete_system_auth(common_name(prod.current.certificate.subject))


@pytest.mark.kind("outages: twins that are a loss")
@pytest.mark.parametrize("lose", [revoked_elsewhere, deleted])
def test_what_is_lost_is_said_to_be_after_that_time(prod, ucl, lose):
    lose(prod, ucl)
    assert fails(PossibleOutage, renew, prod).exit_code == 3
    error = fails(AuthenticationFailed, renew, prod, clock=at(DAY + MINUTE))
    assert error.exit_code == 4
    assert len(error.data["causes"]) > 3


@pytest.mark.kind("outages: twins that are a loss")
@pytest.mark.parametrize("fault", [None, PROCESS, DATABASE])
def test_a_revocation_of_our_own_is_never_taken_for_an_outage(prod, ucl, fault):
    error = AuthenticationFailed("Refused.", url=prod.url, outage="possible")
    how = {"director": prod.director_url, "not_after": prod.current.validity.not_after, "now": datetime.now(UTC)}
    ask = (error, prod, prod.current.credentials, prod.current.server_ca)
    assert explain_refusal(*ask, **how) is not error  # the twin
    revoke(prod)
    ucl.faults.set([fault] if fault else [])
    assert fails(Refused, renew, prod).exit_code == 4
    ours = explain_refusal(*ask, **how)
    assert (type(ours), ours.data.get("outage")) == (AuthenticationFailed, None)
    assert explain_by_director(*ask, now=datetime.now(UTC)) is error


# -- establish ---------------------------------------------------------------------------------------------------------

ESTABLISH = {"token": ("*", 0), "configuration": ("token", 0), "sign": ("token", 1), "verify": ("certificate", 0)}


@pytest.mark.kind("outages: an establishment, at each call")
@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("call", ESTABLISH)
def test_an_establishment_loses_nothing_and_goes_on_with_the_same_key(new, ucl, director, call, what):
    fault, _ = KINDS[what]
    listener, after = ESTABLISH[call]
    token = director.one_time_token() if call != "token" else None
    faults = [replace(fault, at=listener, after=after)]
    ucl.faults.set([*faults, replace(fault, at="director")] if call == "verify" else faults)
    error = None
    with pytest.raises(RetryLater) as caught:
        establish(new, token or director, ca_file=ucl.ca_file)
    error = caught.value
    assert (error.exit_code, new.current, aside(new)) == (3, None, [])
    key = kept_key(new) if call in {"sign", "verify"} else None
    ucl.faults.clear()
    count = signed(ucl)
    again = None if call in {"sign", "verify"} else token or director
    assert establish(new, again, ca_file=ucl.ca_file).outcome == "established"
    assert key in {None, (new.current.path / "key.pem").read_bytes()}
    assert signed(ucl) - count == (0 if call == "verify" else 1)


@pytest.mark.kind("outages: an establishment, at each call")
@pytest.mark.parametrize("later", [10 * MINUTE, DAY + MINUTE, 80 * DAY])
@pytest.mark.parametrize("what", KINDS)
def test_what_is_signed_is_kept_for_as_long_as_it_is_valid(new, ucl, director, later, what):
    fault, kind = KINDS[what]
    establishment = Establishment.begin(new, director.one_time_token(), ca_file=ucl.ca_file)
    new_one = go(establishment, "decode").fingerprint
    ucl.faults.set([fault])
    fails_retry(establishment.verify)
    expected = AuthenticationFailed if kind is PossibleOutage and later > DAY else kind
    error = fails(expected, establish, new, None, clock=at(later))
    assert (new.current, aside(new), bool(pending_of(new).answer())) == (None, [], True)
    assert error.exit_code == (4 if expected is AuthenticationFailed else 3)
    if error.exit_code == 4:
        assert error.remedy.startswith("The new identity is kept. Ask UCL's operator whether there is an outage.")
        assert error.remedy.count("ucl establish new tries") == error.remedy.count("lost") == 1
        assert "UCL has refused it since" in error.message
    ucl.faults.clear()
    assert establish(new, None, clock=at(later)).facts["fingerprint"] == new_one


@pytest.mark.kind("outages: an establishment, at each call")
@pytest.mark.parametrize("step", ["request", "decode"])
@pytest.mark.parametrize("bits", [None, 3072, 2048])
def test_the_key_length_of_the_interrupted_run_need_not_be_repeated(new, ucl, director, step, bits):
    """Without one it is that run's. The twin asks for another."""
    establishment = Establishment.begin(new, director.one_time_token(), key_length=3072, ca_file=ucl.ca_file)
    go(establishment, step)
    key, resumed = kept_key(new), bits != 2048
    if resumed:
        establish(new, None, key_length=bits)
    else:
        establish(new, director, key_length=bits, ca_file=ucl.ca_file)
    assert ((new.current.path / "key.pem").read_bytes() == key) is resumed


@pytest.mark.kind("outages: an establishment, at each call")
def test_then_a_new_token_gives_it_up(new, ucl, director):
    establishment = Establishment.begin(new, director.one_time_token(), ca_file=ucl.ca_file)
    lost = go(establishment, "decode")
    ucl._memory.delete_system_auth(common_name(lost.certificate.subject))
    fails_retry(establishment.verify)
    token = director.one_time_token()
    fails(PossibleOutage, establish, new, token, clock=at(11 * MINUTE))  # the twin: too early
    assert (bool(pending_of(new).answer()), aside(new)) == (True, [])
    fails(AuthenticationFailed, establish, new, None, clock=at(DAY + 11 * MINUTE))
    outcome = establish(new, director, ca_file=ucl.ca_file, clock=at(DAY + 12 * MINUTE))
    assert (outcome.outcome, len(aside(new))) == ("established", 1)


@pytest.mark.kind("outages: an establishment, at each call")
@pytest.mark.parametrize("bearer", [True, False])
def test_it_is_given_up_only_with_the_new_token_at_hand(new, ucl, director, bearer):
    establishment = Establishment.begin(new, director.one_time_token(), ca_file=ucl.ca_file)
    new_one, late = go(establishment, "decode").fingerprint, at(DAY + 11 * MINUTE)
    ucl.faults.set([DATABASE])
    fails_retry(establishment.verify)
    expired = OneTimeToken("x" * 86 + "==", ucl.connector_url, late() - MINUTE)
    with pytest.raises((PossibleOutage, UsageError)):
        establish(new, director if bearer else expired, ca_file=ucl.ca_file, clock=late)
    assert (bool(pending_of(new).answer()), aside(new)) == (True, [])
    ucl.faults.clear()
    assert establish(new, None, clock=late).facts["fingerprint"] == new_one


@pytest.mark.kind("outages: an establishment, at each call")
@pytest.mark.parametrize("what", ["certificate", "token"])
def test_what_was_refused_before_is_not_held_against_a_new_certificate(prod, ucl, director, what):
    later = 2 * DAY
    deleted(prod, ucl)
    if what == "certificate":
        fails(PossibleOutage, renew, prod)
    else:
        ucl.faults.set([replace(DATABASE, at="token")])
        token = director.one_time_token()
        fails(PossibleOutage, establish, prod, replace(token, expires_at=datetime.now(UTC) + DAY), ca_file=ucl.ca_file)
    assert (remembered(prod).refused_since is None) is (what == "token")
    ucl.faults.clear()
    token = director.one_time_token(at(later))
    establishment = Establishment.begin(prod, token, ca_file=ucl.ca_file, clock=at(later))
    go(establishment, "decode")
    assert remembered(prod).refused_since is None
    ucl.faults.set([DATABASE])
    fails(NotYetAccepted, establishment.verify)
    fails(PossibleOutage, establish, prod, None, clock=at(later + 12 * MINUTE))
    assert remembered(prod).refused_since > at(later - MINUTE)()


@pytest.mark.kind("outages: an establishment, at each call")
@pytest.mark.parametrize("what", KINDS)
def test_nothing_is_established_again_in_an_outage(prod, ucl, director, what):
    fault, _ = KINDS[what]
    token = director.one_time_token()
    ucl.faults.set([fault])
    for access in (token, director):
        fails_retry(establish, prod, access, ca_file=ucl.ca_file)
    ucl.faults.set([replace(fault, at="certificate", times=1), replace(fault, at="director", times=1)])
    with pytest.raises((UsageError, Outage, PossibleOutage)):  # it ends between the question and the token
        establish(prod, token, ca_file=ucl.ca_file)
    assert pending_of(prod).answer() is None
    assert len(prod.generations()) == 1


@pytest.mark.kind("outages: an establishment, at each call")
def test_what_is_lost_is_established_again_at_once(prod, ucl, director):
    """The twin: UCL accepts the token and still refuses the certificate."""
    deleted(prod, ucl)
    assert establish(prod, director, ca_file=ucl.ca_file).outcome == "established"


@pytest.mark.kind("outages: an establishment, at each call")
def test_a_bare_token_that_is_refused_may_still_be_good(new, ucl, token):
    ucl.faults.set([replace(DATABASE, at="token")])
    token = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
    error = fails(AuthenticationFailed, establish, new, token, ca_file=ucl.ca_file)
    assert "the token is still good" in error.remedy
    assert any("outage" in cause for cause in error.data["causes"])
    ucl.faults.clear()
    assert establish(new, token, ca_file=ucl.ca_file).outcome == "established"


@pytest.mark.kind("outages: an establishment, at each call")
def test_a_token_that_names_when_it_expires_is_a_temporary_failure_until_then(new, ucl):
    now = datetime.now(UTC)
    token = OneTimeToken(ucl.one_time_token(), ucl.connector_url, now + 5 * MINUTE)
    ucl.faults.set([DATABASE])
    error = fails(PossibleOutage, establish, new, token, ca_file=ucl.ca_file)
    assert "costs nothing" in error.remedy
    ucl.faults.set([Fault("http-503", at="token")])
    error = fails(UsageError, establish, new, token, ca_file=ucl.ca_file, clock=lambda: now + 6 * MINUTE)
    assert "Get a new one-time token" in error.remedy
    assert ucl.faults.struck == {}
    ucl.faults.clear()
    assert establish(new, token, ca_file=ucl.ca_file).outcome == "established"


# -- revoke ------------------------------------------------------------------------------------------------------------


@pytest.mark.kind("outages: a revocation")
@pytest.mark.parametrize("everything", [False, True])
def test_a_revocation_in_an_outage_revokes_nothing_and_says_so(prod, ucl, everything):
    ucl.faults.set([PROCESS])
    for _ in range(2):
        error = fails(Outage, revoke, prod, everything=everything)
        assert error.exit_code == 3
        assert prod.revoked() == {}
    ucl.faults.clear()
    assert revoke(prod, everything=everything).outcome == "revoked"


@pytest.mark.kind("outages: a revocation, from each of its calls on")
@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("after", range(6))
def test_an_outage_that_begins_within_a_revocation_of_all_is_not_taken_for_a_loss(prod, ucl, after, what):
    """Two calls try the certificates, and two revoke them; the last is asked about again, so no outage is left out."""
    renew(prod)
    ucl.faults.set([replace(KINDS[what][0], after=after)])
    certificates = {generation.fingerprint for generation in prod.generations()}
    if after >= 4:
        revoke(prod, everything=True)
    else:
        error = fails(KINDS[what][1], revoke, prod, everything=True)
        assert error.exit_code == 3
        assert not prod.verdicts().having("refused")
        with pytest.raises(UsageError):
            forget(prod)
    ucl.faults.clear()
    assert revoke(prod, everything=True).exit_code == 0
    assert prod.revoked().keys() == certificates
    assert all(map(ucl._memory.is_revoked, certificates))


@pytest.mark.kind("outages: a revocation")
@pytest.mark.parametrize("lost", ["reset-before-reading", "reset-after-acting"])
def test_a_repeated_one_is_not_settled_by_an_outage(prod, ucl, lost):
    ucl.faults.set([Fault(lost, at="certificate")])
    fails(Unreachable, revoke, prod)
    ucl.faults.set([PROCESS])
    fails(Outage, revoke, prod)
    assert prod.revoked() == {}
    ucl.faults.clear()
    assert revoke(prod).outcome == "revoked"
    assert list(prod.revoked()) == [prod.current.fingerprint]


@pytest.mark.kind("outages: a revocation")
def test_steps_are_the_same_as_the_whole(prod, ucl):
    ucl.faults.set([replace(PROCESS, after=1)])
    with closing(Renewal.begin(prod)) as renewal:
        renewal.configuration()
        renewal.request()
        fails(Outage, renewal.sign)
    ucl.faults.clear()
    with closing(Renewal.begin(prod)) as renewal:
        assert go(renewal, STEPS[-1]).outcome == "renewed"


@pytest.mark.kind("outages: a revocation")
def test_every_error_survives_its_way_to_another_process(prod, ucl):
    import pickle

    for fault, kind in KINDS.values():
        ucl.faults.set([fault])
        error = fails(kind, renew, prod)
        other = pickle.loads(pickle.dumps(error))  # noqa: S301 — our own
        assert isinstance(other, UCLError)
        assert (str(other), other.data) == (str(error), error.data)
