"""Whatever goes wrong while a connection is established: there is a whole one or none, and what may be signed is kept.

Every fault meets an establishment at each of its four calls: for a token (at the Director), for the configuration and
for the signature (at the token endpoint), and the one that verifies. No token is ever sent twice in vain, and once the
fault has gone, one more run with access to the Director establishes. By ``make test`` each fault meets one of the
calls that it can spoil, by ``make soak`` all.
"""

from functools import partial

import pytest
from faulty import CASES, Case, accepted, issued, open_to_others, struck
from steps import STEPS, aside, pending_of

from ucl_helpers import forget, renew
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import RetryLater, UCLError, Unreachable
from ucl_helpers.procedures.establishment import DirectorAccess, Establishment, establish
from ucl_sandbox import Sandbox

pytest_plugins = ["procedure_fixtures", "fault_fixtures"]
pytestmark = pytest.mark.usefixtures("quick")

LISTENERS = {"token": "director", "configuration": "token", "sign": "token", "verify": "certificate"}
NEW_CA, NOT_YET, DEAD = Case("server-ca-changed"), "not-yet-valid", Case("connector-url-dead")
SPECIAL = [NEW_CA, DEAD, *(case for case in CASES if case.kind == NOT_YET and case.value)]
COUNTED = "faults tried, each at one call of an establishment, and survived"
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


def director_of(ucl):
    return DirectorAccess(ucl.director_url, ucl.tenant, ucl.application_id, ucl.director_token, ucl.ca_file)


class Attempt:
    """An establishment, step by step, the first of them the Director's."""

    def __init__(self, connection, ucl):
        self._connection, self._ucl = connection, ucl
        self.steps = {"token": self.token, **{name: partial(self.step, name) for name in STEPS}}

    def token(self):
        token = director_of(self._ucl).one_time_token()
        self._establishment = Establishment.begin(self._connection, token, ca_file=self._ucl.ca_file)

    def step(self, name):
        getattr(self._establishment, name)()


def wrongs(ucl, connection, before):
    """What is not as it should be: half a connection, one that UCL refuses, a key that is lost, what is open."""
    found = [f"open to others: {path.name}" for path in open_to_others(connection)]
    kept = pending_of(connection)
    if connection.current is not None:
        try:
            connection.current.check_whole()
            accepted(connection, connection.current)
        except UCLError as error:
            found.append(f"half a connection: {type(error).__name__}")
    elif issued(ucl) - before and not (kept.has_request and kept.read_state().sent):
        found.append("a certificate may have been signed, and its key is lost")
    return found


def keys_of(connection):
    """The keys that are kept: in use, pending, and set aside."""
    generations = [one.path for one in connection.generations()]
    folders = [*generations, pending_of(connection).path, *aside(connection)]
    return [(one / "key.pem").read_bytes() for one in folders if (one / "key.pem").exists()]


def survive(ucl, connection, case, call):
    """What comes of a fault; and that nothing is lost by it, at once and when it has gone."""
    before = issued(ucl)
    error, tries = struck(ucl, Attempt(connection, ucl).steps, call, case, case.at(call, LISTENERS[call]))
    assert wrongs(ucl, connection, before) == []
    assert (connection.current is None) == (error is not None)
    assert {tries.get("configuration", 1), tries.get("sign", 1)} == {1}, "a token was sent again"
    asked_with = keys_of(connection) if issued(ucl) - before else []
    if error is not None:
        assert establish(connection, director_of(ucl), ca_file=ucl.ca_file).outcome == "established"
        assert wrongs(ucl, connection, before) == []
    assert [key for key in asked_with if key not in keys_of(connection)] == []
    moved = case.kind == "connector-url-moved"  # the fault is over, so UCL names the host from before
    assert renew(connection, accept_new_host=moved).outcome == "renewed"
    return error


@pytest.mark.parametrize("case", [case for case in CASES if case not in SPECIAL], ids=lambda case: case.name)
def test_an_establishment_survives(case, ucl, tmp_path, whole, proof):
    calls = case.calls(tuple(LISTENERS))
    if not whole:
        calls = [calls[CASES.index(case) % len(calls)]]
    errors = [survive(ucl, Home(tmp_path / call).new("prod"), case, call) for call in calls]
    proof("wire", COUNTED, len(errors))
    proof("wire", "faults tried that did not stop the establishment", errors.count(None))


def test_a_new_ca_of_the_server_is_given_with_the_next_run(clock, tmp_path, whole, proof):
    calls = list(LISTENERS) if whole else ["sign"]
    for call in calls:
        with Sandbox(clock=clock) as ucl:
            survive(ucl, Home(tmp_path / call).new("prod"), NEW_CA, call)
    proof("wire", COUNTED, len(calls))


def strike(ucl, connection, case, call):
    error, _ = struck(ucl, Attempt(connection, ucl).steps, call, case, case.at(call, LISTENERS[call]))
    return error


def test_a_certificate_that_is_not_valid_yet_is_kept_until_it_is(clock, tmp_path, proof):
    cases = [case for case in SPECIAL if case.kind == NOT_YET]
    for case in cases:
        connection = Home(tmp_path / str(case.value)).new("prod")
        with Sandbox(clock=clock) as ucl:
            error = strike(ucl, connection, case, "sign")
            if case.value > 1:  # else its second may have passed
                assert isinstance(error, RetryLater)
                assert connection.current is None
            waiting = pending_of(connection).certificate() or connection.current.certificate
            assert wrongs(ucl, connection, set()) == []
            ucl._listeners._handshakes.context(None, mutual=True).verify_flags |= NO_CHECK_TIME  # it has passed
            if error:
                assert establish(connection, None).outcome == "established"
            assert connection.current.certificate == waiting
    proof("wire", COUNTED, len(cases))


def test_an_endpoint_that_is_dead_is_left_by_beginning_anew(ucl, tmp_path, proof):
    """UCL alone knows another: nothing works yet, so nothing is lost with what is forgotten."""
    home, before = Home(tmp_path), issued(ucl)
    error = strike(ucl, home.new("prod"), DEAD, "configuration")
    assert isinstance(error, Unreachable)
    assert "ucl forget prod --even-if-valid" in error.remedy
    assert wrongs(ucl, home.connection("prod"), before) == []
    forget(home.connection("prod"), even_if_valid=True)
    assert establish(home.new("prod"), director_of(ucl), ca_file=ucl.ca_file).outcome == "established"
    proof("wire", COUNTED, 1)


# -- twins -------------------------------------------------------------------------------------------------------------


def lose_key(connection):
    (pending_of(connection).path / "key.pem").unlink()


def forget_that_it_was_sent(connection):
    pending_of(connection).update(sent=None)


def open_it(connection):
    (pending_of(connection).path / "key.pem").chmod(0o640)


@pytest.mark.plants_secrets
@pytest.mark.parametrize(
    ("damage", "found"),
    [(lose_key, "its key is lost"), (forget_that_it_was_sent, "its key is lost"), (open_it, "open to others: key.pem")],
)
def test_what_is_lost_or_open_would_be_found(ucl, tmp_path, damage, found):
    connection, before, case = Home(tmp_path / "home").new("prod"), issued(ucl), Case("reset-after-acting")
    error = strike(ucl, connection, case, "sign")
    assert (error.exit_code, wrongs(ucl, connection, before)) == (11, [])
    damage(connection)
    [wrong] = wrongs(ucl, connection, before)
    assert found in wrong


@pytest.mark.plants_secrets
def test_half_a_connection_would_be_found(ucl, tmp_path):
    connection, before = Home(tmp_path / "home").new("prod"), issued(ucl)
    for step in Attempt(connection, ucl).steps.values():
        step()
    assert wrongs(ucl, connection, before) == []
    (connection.current.path / "key.pem").write_bytes(b"")
    assert wrongs(ucl, connection, before) == ["half a connection: StorageFailed"]
