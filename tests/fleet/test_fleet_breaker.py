"""A fleet stops asking an endpoint that fails for several connections alike, and goes on with all others."""

import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from command_line import Shell
from fleet_tasks import renewed
from steps import pending_of

from tools.make_fleet import make_fleet
from ucl_helpers.clock import utc_now
from ucl_helpers.connection.attempts import recording_attempt, remembered
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    Busy,
    CertificateRejected,
    RateLimited,
    RequestRejected,
    RetryLater,
    ServerNotTrusted,
    StorageFailed,
    UCLError,
    Unavailable,
    Unreachable,
    UsageError,
    Waiting,
)
from ucl_helpers.fleet.executors import Workers
from ucl_helpers.fleet.pacing import ALIKE, CONFIRMED, Breaker, endpoint_of, verdict
from ucl_helpers.fleet.plan import Plan, alone, plan
from ucl_helpers.fleet.report import failure
from ucl_helpers.fleet.run import renew_fleet
from ucl_sandbox import Fault, Sandbox

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "fleet-outcome.schema.json"
NAMES = [f"c{number:03d}" for number in range(200)]
JOBS = 4
HERE, THERE = "https://here:443", "https://there:444"


# -- the rule ----------------------------------------------------------------------------------------------------------


def told(*results):
    """Say of a breaker what came back, a second apart: s(ilent), r(efuses), o(k), n(othing said)."""
    breaker = Breaker()
    for number, letter in enumerate("".join(results)):
        said = {"s": "silent", "r": "refuses"}.get(letter)
        breaker.record(str(number), said, renewed=letter == "o", started=number, now=number + 0.5)
    return breaker


@pytest.mark.parametrize(
    ("results", "opens"),
    [
        ("ss", False),
        ("sss", True),
        ("sosnss", True),
        ("ssosso", False),
        ("snsns", True),
        ("rrr", False),
        ("rrrr", False),
        ("rrrrr", True),
        ("rrrorrrorrro", False),
        ("rsrsr", True),
        ("nnnnnnnnnn", False),
        ("oooooooooo", False),
    ],
)
def test_so_many_in_a_row_are_enough(results, opens):
    assert told(results).is_open == opens


def test_refusals_of_what_was_begun_before_the_suspicion_decide_nothing():
    breaker = Breaker()
    for number in range(20):
        breaker.record(str(number), "refuses", renewed=False, started=0, now=1)
    assert (breaker.is_suspected, breaker.is_open) == (True, False)
    for number in range(CONFIRMED):
        breaker.record(f"later {number}", "refuses", renewed=False, started=2, now=3)
    assert breaker.is_open


def test_one_connection_that_is_tried_again_and_again_is_one():
    breaker = Breaker()
    for now in range(20):
        breaker.record("c1", "silent", renewed=False, started=now, now=now)
    assert not breaker.is_open


def test_what_was_under_way_when_it_opened_does_not_close_it():
    breaker = told("sss")
    breaker.record("late", None, renewed=True, started=0, now=9)
    assert breaker.is_open


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Unreachable("a"), "silent"),
        (Unavailable("a", status=502), "silent"),
        (RetryLater("a", outage="proven", director_status=502), "silent"),
        (RetryLater("a", outage="proven"), "refuses"),  # a Director that is silent may be behind a firewall
        (RetryLater("a", outage="possible"), "refuses"),
        (AuthenticationFailed("a", status=400), "refuses"),
        (AuthenticationFailed("a", status=403), "refuses"),
        (CertificateRejected("a"), "refuses"),
        (ServerNotTrusted("a"), "refuses"),
        (BadAnswer("a"), "refuses"),
        (RequestRejected("a"), None),
        (RateLimited("a"), None),
        (Waiting("a"), None),
        (Busy("a"), None),
        (StorageFailed("a"), None),
        (UsageError("a"), None),
    ],
)
def test_what_an_error_says_of_the_endpoint(error, says):
    assert verdict(error) == says


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://UCL.example/graphql", "https://ucl.example:443"),
        ("https://ucl.example:8443/a?b", "https://ucl.example:8443"),
        ("https://user:word@ucl.example/", "https://ucl.example:443"),
        ("https://ucl.example:port/", ""),
        ("nothing", ""),
        (None, ""),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(url, endpoint):
    assert endpoint_of(url) == endpoint


# -- the run, with threads in the place of workers ---------------------------------------------------------------------

ERRORS = {
    "unreachable": Unreachable("Nobody is there.", url=f"{HERE}/graphql"),
    "503 with Retry-After": Unavailable("Not now.", url=f"{HERE}/graphql", status=503, retry_after=0.01),
    "refused": AuthenticationFailed("No.", url=f"{HERE}/graphql", status=400),
    "proven outage": RetryLater("Down.", url=f"{HERE}/graphql", outage="proven", director_status=502),
    "possible outage": RetryLater("Down?", url=f"{HERE}/graphql", outage="possible"),
}


@pytest.fixture
def fleet(tmp_path):
    """Renews connections ``a…`` of one endpoint and ``b…`` of another; those that are named fail in the given way."""

    def renew(error, failing, names, threads=1, earlier=None):
        asked = []

        def task(home, name, base, force, again):
            asked.append(name)
            return failure(ERRORS[error]) if failing(name) else renewed()

        endpoints = {name: HERE if name.startswith("a") else THERE for name in names}
        plan = Plan(Home(tmp_path), False, dict.fromkeys(names), endpoints=endpoints, failures=earlier or {})
        with ThreadPoolExecutor(threads) as pool:
            return asked, renew_fleet(plan, Workers(pool, lambda: threads), rate=1e6, task=task)

    return renew


A, B = ([f"{letter}{number:03d}" for number in range(50)] for letter in "ab")


@pytest.mark.kind("fleet: an endpoint that fails for all")
@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("error", ERRORS)
def test_it_is_not_asked_any_more_and_others_are(fleet, error, threads):
    asked, outcome = fleet(error, lambda name: name.startswith("a"), A + B, threads)
    assert len({name for name in asked if name.startswith("a")}) <= ALIKE + CONFIRMED + 2 * threads
    assert {name for name in asked if name.startswith("b")} == set(B)
    assert (outcome.counts["renewed"], outcome.stopped) == (len(B), None)
    assert list(outcome.endpoints) == [HERE]
    found = outcome.endpoints[HERE]
    assert sorted(found.failed + found.left) == A
    assert str(outcome).count(HERE) == 1
    assert len(str(outcome).splitlines()) < 10
    assert outcome.exit_code == (4 if error == "refused" else 3)
    assert outcome.results[found.left[-1]].exit_code == 3


@pytest.mark.kind("fleet: some connections that fail for themselves")
@pytest.mark.parametrize(
    "failing", [["a000"], A[:4], A[-4:], A[::2], A[20:30]], ids=["one", "first", "last", "half", "neighbours"]
)
def test_some_that_are_refused_stop_no_other(fleet, failing):
    asked, outcome = fleet("refused", lambda name: name in failing, A)
    assert sorted(asked) == A
    assert outcome.endpoints == {}
    assert (outcome.counts["renewed"], sorted(outcome.failures)) == (len(A) - len(failing), failing)


@pytest.mark.kind("fleet: some connections that fail for themselves")
@pytest.mark.parametrize("known", [True, False])
def test_the_other_end_is_that_of_those_that_did_not_fail_before(fleet, known):
    ends, lost = A[:3], A[-10:]
    earlier = dict.fromkeys(lost, 5) if known else {}
    asked, outcome = fleet("refused", lambda name: name in ends + lost, A, earlier=earlier)
    assert set(A[3:-10]) <= set(asked) if known else len(asked) == ALIKE + CONFIRMED
    assert outcome.counts["renewed"] == (len(A) - 13 if known else 0)


def test_who_failed_least_in_earlier_runs_is_asked_first(home):
    for name in ("c000", "c002"):
        with suppress(UCLError), home.connection(name).lock.held(), recording_attempt(home.connection(name), utc_now):
            raise AuthenticationFailed("No.", status=400)
    with alone(home):
        planned = plan(home, ["c00[0-3]"], force=True)
    assert list(planned.bases) == ["c001", "c003", "c000", "c002"]


# -- for real ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet") / "home"
    make_fleet(folder, NAMES, validity=timedelta(hours=24), age=timedelta(hours=13), processes=1, keys=2)
    return Home(folder)


@pytest.fixture(scope="module")
def ucl(made):
    with Sandbox(made.path / "sandbox") as running:
        yield running


@pytest.fixture
def home(made, ucl, tmp_path):
    """A copy of the fleet; its connections follow the same sandbox, without a fault when the test is over."""
    shutil.copytree(made.path / "connections", tmp_path / "home" / "connections", symlinks=True)
    (tmp_path / "home").chmod(0o700)
    yield Home(tmp_path / "home")
    ucl.faults.clear()


def renew(home, *arguments):
    said = Shell(home.path).ucl("fleet", "renew", *arguments, "--rate", "1000", "--jobs", str(JOBS), "--json")
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(said.json)
    return said


FAULTS = {
    "the Director is down": Fault("outage"),
    "its database is down": Fault("outage", value="database"),
    "the gateway says 502": Fault("http-502"),
    "the gateway says 503, later": Fault("http-503", value=1),
    "nobody listens": Fault("refused", at="certificate"),
    "connections are reset": Fault("reset-before-reading"),
}


@pytest.mark.kind("fleet: an endpoint that fails for all")
@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_is_one_report_and_changes_nothing(home, ucl, fault, proof):
    before = {one.name: one.current.name for one in home.connections()}
    ucl.faults.set([FAULTS[fault]])
    said = renew(home)
    (endpoint,) = said.json["endpoints"].values()
    assert (said.code, said.json["counts"]["failed"]) == (3, len(endpoint["failed"]))
    assert len(endpoint["failed"]) <= ALIKE + CONFIRMED + 2 * JOBS
    assert sorted(endpoint["failed"] + endpoint["left"]) == NAMES
    assert endpoint["answers"] == (fault == "its database is down")
    for connection in home.connections():
        assert connection.current.name == before[connection.name]
        assert not pending_of(connection)
        assert connection.aside() == []
        assert bool(remembered(connection).failures) == (connection.name in endpoint["failed"])
    ucl.faults.clear()
    later = renew(home, endpoint["left"][0], endpoint["left"][-1])
    assert (later.code, later.json["counts"]["renewed"]) == (0, 2)
    proof("fleet", "connections of a fleet in an outage, none of them changed", len(NAMES))


def test_a_forced_run_in_an_outage_is_gone_on_with(home, ucl):
    ucl.faults.set([Fault("outage")])
    assert renew(home, "c00*", "--force").code == 3
    ucl.faults.clear()
    again = renew(home, "c00*", "--force")
    assert "Going on with" in again.err
    assert (again.code, again.json["counts"]["renewed"]) == (0, 10)


@pytest.mark.kind("fleet: some connections that fail for themselves")
@pytest.mark.parametrize("revoked", [["c005"], ["c000", "c001", "c002", "c003"]], ids=["one", "neighbours"])
def test_connections_that_are_revoked_stop_no_other(home, ucl, revoked):
    marks = [(home.connection(name).current.fingerprint,) for name in revoked]
    with closing(sqlite3.connect(ucl.state / "state.sqlite")) as state, state:
        state.executemany("UPDATE certificates SET revoked_at = '2026-01-01T00:00:00Z' WHERE fingerprint = ?", marks)
    said = renew(home, "c00*", "c199")
    with closing(sqlite3.connect(ucl.state / "state.sqlite")) as state, state:
        state.executemany("UPDATE certificates SET revoked_at = NULL WHERE fingerprint = ?", marks)
    assert said.json["endpoints"] == {}
    assert (said.json["counts"]["failed"], said.json["counts"]["renewed"]) == (len(revoked), 11 - len(revoked))


@pytest.mark.kind("fleet: an endpoint that fails for all")
def test_of_two_landscapes_the_one_that_is_well_goes_on(home, ucl, made, tmp_path):
    shutil.copytree(made.path / "sandbox", tmp_path / "other", ignore=shutil.ignore_patterns("*.lock", "ready.json"))
    with Sandbox(tmp_path / "other") as other:
        for name in NAMES[5:]:
            settings = home.connection(name).path / "settings.toml"
            settings.write_text(settings.read_text().replace(str(ucl.state), str(other.state)))
        other.faults.set([Fault("outage")])
        said = renew(home)
    assert (said.code, said.json["counts"]["renewed"]) == (3, 5)
    assert list(said.json["endpoints"]) == [endpoint_of(other.certificate_secured_connector_url)]
