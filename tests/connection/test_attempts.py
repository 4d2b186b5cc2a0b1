"""What is remembered of attempts: by every procedure, across runs, and what the next due run makes of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from meddler import Reply, changes, lost_on_the_way_back, refused
from quick_keys import QUICK_BITS
from steps import Clock, go, in_other_hands, pending_of, tree
from stored import locked_out

from ucl_helpers import Establishment, Renewal, establish, renew, rollback, status_of
from ucl_helpers.connection import attempts, files
from ucl_helpers.connection.attempts import Attempts, record_check, remembered
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import (
    BadAnswer,
    Busy,
    HostChanged,
    InvalidSettings,
    NewTokenNeeded,
    PossibleOutage,
    RateLimited,
    Refused,
    StorageFailed,
    SubjectChanged,
    UCLError,
    UnknownConnection,
    Unreachable,
    Waiting,
)
from ucl_helpers.procedures.generations import export
from ucl_helpers.tables import moment

pytest_plugins = ["procedure_fixtures"]
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NEW_SUBJECT = {"subject": "O=Org,OU=OrgUnit,L=locality,ST=province,C=PL,CN=somebody", "keyAlgorithm": "rsa2048"}
NEW_PLACE = {"directorURL": None, "certificateSecuredConnectorURL": "https://elsewhere.example/graphql"}


def failing(connection, between, answer=lost_on_the_way_back, operation="configuration", **how):
    """A renewal that fails; its error."""
    between.on(operation, answer)
    with pytest.raises(UCLError) as caught:
        renew(connection, **how)
    return caught.value


def after(seconds):
    """An answer that asks to come again later."""
    return lambda forward, call: Reply(429, b"", (("Retry-After", str(seconds)),))


def kept(connection):
    return connection.path / "attempts.json"


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_of_a_connection_that_nobody_tried_nothing_is_known(secure):
    assert remembered(secure) == Attempts()
    assert not kept(secure).exists()


def test_a_look_is_remembered_and_nothing_else(secure):
    now = datetime.now(UTC)
    assert renew(secure, only_if_due=True, clock=lambda: now).outcome == "not-due"
    assert remembered(secure) == Attempts(last_looked=now)
    assert kept(secure).stat().st_mode & 0o777 == 0o600


def test_a_failure_is_remembered_whole(due, between):
    now = datetime.now(UTC)
    error = failing(due, between, clock=lambda: now)
    known = remembered(due)
    assert (known.last_looked, known.last_attempt, known.last_success) == (now, now, None)
    assert (known.failures, known.failing_since, known.generation) == (1, now, due.current.stem)
    assert known.last_error == attempts.Failure("Unreachable", error.message, 3, now)
    assert MINUTE / 2 < known.not_before - now <= MINUTE


def test_failures_are_counted_until_one_succeeds(due, between):
    first = Clock(minutes=-30)
    failing(due, between, clock=first)
    since = remembered(due).failing_since
    for count in (2, 3):
        failing(due, between, answer=refused)
        assert remembered(due).failures == count
    assert remembered(due).failing_since == since
    assert remembered(due).last_error.error == "PossibleOutage"
    assert renew(due).outcome == "renewed"
    known = remembered(due)
    assert (known.failures, known.last_error, known.not_before, known.failing_since) == (0, None, None, None)
    assert known.last_success == due.current.created


def test_by_steps_it_is_the_same(due, between):
    between.on("sign", lost_on_the_way_back)
    renewal = Renewal.begin(due, only_if_due=True)
    go(renewal, "request")
    attempt = remembered(due)
    assert (attempt.failures, attempt.last_attempt) == (0, attempt.last_looked)
    with pytest.raises(Unreachable):
        renewal.sign()
    assert remembered(due) == replace(attempt, failures=1, **{name: getattr(remembered(due), name) for name in FAILED})
    go(renewal, since="sign")
    assert remembered(due).failures == 0


FAILED = ("failing_since", "last_error", "not_before", "generation")
KINDS = {
    "refused": (PossibleOutage, lambda between: between.on("configuration", refused)),
    "another host": (
        HostChanged,
        lambda between: between.on("configuration", changes(managementPlaneInfo=NEW_PLACE)),
    ),
    "another subject": (
        SubjectChanged,
        lambda between: between.on("configuration", changes(certificateSigningRequestInfo=NEW_SUBJECT)),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_needs_a_person_is_remembered_and_tried_again_as_well(due, between, kind):
    error, spoil = KINDS[kind]
    spoil(between)
    with pytest.raises(error):
        renew(due)
    known = remembered(due)
    assert (known.failures, known.last_error.error) == (1, error.__name__)
    assert renew(due, only_if_due=True, clock=Clock(minutes=1)).outcome == "renewed"


def test_what_a_run_meets_before_its_first_call_counts_as_well(due):
    due.record("revoked", fingerprint=due.current.fingerprint)
    with pytest.raises(Refused):
        renew(due, only_if_due=True)
    assert remembered(due).last_error.error == "Refused"
    (due.current.path / "key.pem").unlink()
    with pytest.raises(StorageFailed):
        renew(due, only_if_due=True)
    assert (remembered(due).failures, remembered(due).last_error.exit_code) == (2, 10)


def test_what_says_nothing_of_ucl_is_no_failure(secure, home):
    with in_other_hands(secure), pytest.raises(Busy):
        renew(secure)
    (secure.path / "settings.toml").write_text("keep = 0")
    with pytest.raises(InvalidSettings):
        renew(secure)
    assert remembered(secure).failures == 0
    with pytest.raises(UnknownConnection):
        renew(home.new("new"))
    assert remembered(home.connection("new")) == Attempts()


def test_of_a_rehearsal_nothing_is_remembered(due, between):
    renewal = Renewal.begin(due, rehearsal=True)
    go(renewal, "request")
    renewal.close()
    between.on("configuration", refused)
    with pytest.raises(PossibleOutage):
        Renewal.begin(due, rehearsal=True).configuration()
    assert not kept(due).exists()


def test_no_secret_is_kept_and_no_text_without_end(due, between, monkeypatch):
    long = "x" * 10_000
    monkeypatch.setattr(Renewal, "_ask_configuration", lambda *_: (_ for _ in ()).throw(Unreachable(long)))
    with pytest.raises(Unreachable):
        renew(due)
    assert remembered(due).last_error.message == long[: attempts.MESSAGE_LENGTH]
    assert kept(due).stat().st_size < 2000


# -- establishing ------------------------------------------------------------------------------------------------------


def test_an_establishment_is_remembered(new, token, ucl, between):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(NewTokenNeeded):
        establish(new, token, ca_file=ucl.ca_file)
    known = remembered(new)
    assert (known.failures, known.last_error.error, known.generation) == (1, "NewTokenNeeded", None)
    assert status_of(new).attempts == known


def test_a_token_that_is_not_there_yet_is_no_failure(new, token, ucl):
    with pytest.raises(NewTokenNeeded):
        establish(new, None, ca_file=ucl.ca_file)
    assert remembered(new).failures == 0
    establish(new, token, ca_file=ucl.ca_file)
    known = remembered(new)
    assert (known.failures, known.last_success) == (0, new.current.created)


def test_an_establishment_waits_for_nobody(new, another, ucl, between):
    between.on("configuration", after(3600))
    with pytest.raises(RateLimited):
        establish(new, another(), ca_file=ucl.ca_file)
    assert remembered(new).next_try(datetime.now(UTC))
    assert establish(new, another(), ca_file=ucl.ca_file).outcome == "established"


# -- the next due run --------------------------------------------------------------------------------------------------


def test_it_waits_and_says_why_and_until_when(due, between):
    now = datetime.now(UTC)
    failing(due, between, clock=lambda: now)
    calls = len(between.calls)
    with pytest.raises(Waiting, match="prod has failed once; the last error was Unreachable: No answer") as told:
        renew(due, only_if_due=True, clock=lambda: now + MINUTE / 4)
    assert told.value.exit_code == 3
    assert told.value.data["not_before"] == moment(remembered(due).not_before)
    assert "ucl renew prod --force" in told.value.remedy
    assert len(between.calls) == calls
    assert remembered(due).failures == 1
    assert remembered(due).last_looked == now + MINUTE / 4


def test_after_a_lasting_failure_it_ends_with_the_same_exit_code(due, between):
    """A scheduler must not take the runs of the pause for a success."""
    between.on("configuration", lambda forward, call: Reply(200, b"<html>"))
    with pytest.raises(BadAnswer):
        renew(due)
    with pytest.raises(Waiting, match="the last error was BadAnswer") as caught:
        renew(due, only_if_due=True)
    assert caught.value.exit_code == BadAnswer.exit_code


def test_once_it_has_expired_waiting_is_not_advised(due, between):
    expired = due.current.validity.not_after
    failing(due, between, clock=lambda: expired + MINUTE)
    with pytest.raises(Waiting, match="the last error was Unreachable") as caught:
        renew(due, only_if_due=True, clock=lambda: expired + 5 * MINUTE / 4)
    assert caught.value.exit_code == 4
    assert caught.value.remedy == (
        "The certificate has expired, so waiting does not help. To come back: ucl establish prod --token prompt"
    )


def test_it_tells_how_often_and_since_when(due, between):
    for _ in range(3):
        failing(due, between)
    with pytest.raises(Waiting, match=r"has failed 3 times since 20.*Z;"):
        Renewal.begin(due, only_if_due=True)


def test_after_the_pause_or_by_force_it_is_tried(due, between):
    failing(due, between)
    failing(due, between)  # without only_if_due it does not wait
    assert len(between.seen("configuration")) == 2
    assert renew(due, only_if_due=True, clock=Clock(minutes=2)).outcome == "renewed"


def test_what_only_waits_to_be_verified_waits_as_well(secure, between):
    renewal = Renewal.begin(secure)
    go(renewal, "decode")
    between.on("configuration", refused)
    with pytest.raises(UCLError):
        renewal.verify()
    with pytest.raises(Waiting):
        Renewal.begin(secure, only_if_due=True)
    assert pending_of(secure).answer()
    assert renew(secure, only_if_due=True, clock=Clock(minutes=1)).outcome == "renewed"
    assert len(between.seen("sign")) == 1


def test_the_servers_word_is_heeded_by_the_next_run(due, between):
    now = datetime.now(UTC)
    assert failing(due, between, after(1800), clock=lambda: now).data["retry_after"] == 1800
    for later in (timedelta(0), 20 * MINUTE, 30 * MINUTE - timedelta(seconds=1)):
        with pytest.raises(Waiting):
            renew(due, only_if_due=True, clock=lambda later=later: now + later)
    assert renew(due, only_if_due=True, clock=lambda: now + 31 * MINUTE).outcome == "renewed"


def test_without_it_the_next_run_would_have_tried(due, between):
    """The twin: the same failure, and a server that asks for nothing."""
    now = datetime.now(UTC)
    failing(due, between, lambda forward, call: Reply(429, b"", ()), clock=lambda: now)
    assert renew(due, only_if_due=True, clock=lambda: now + MINUTE).outcome == "renewed"


@pytest.mark.parametrize("back", [MINUTE, DAY])
def test_a_clock_that_was_set_back_keeps_nobody_waiting(due, between, back):
    failing(due, between, after(86_400), clock=Clock(seconds=back.total_seconds()))
    assert renew(due, only_if_due=True).outcome == "renewed"


def test_of_another_generation_the_failures_do_not_count(due, between, home):
    renew(due)
    failing(due, between)
    assert remembered(due).failures == 1
    rollback(due)
    assert remembered(due).failures == 0
    assert renew(due, only_if_due=True).outcome == "renewed"


def test_of_the_same_identity_with_its_files_made_anew_they_count(due, between):
    failing(due, between, after(1800))
    before = remembered(due)
    assert export(due, force=True).outcome == "exported"
    assert due.current.name.endswith(".1")
    assert remembered(due) == before
    with pytest.raises(Waiting):
        renew(due, only_if_due=True)


def test_a_run_that_was_killed_after_the_switch_has_succeeded(due, between, monkeypatch):
    """The failures end with the one rename: there is no second write that could be lost."""
    failing(due, between)
    written = kept(due).read_bytes()
    renewal = Renewal.begin(due)
    go(renewal, "verify")
    monkeypatch.setattr(due, "record", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        renewal.activate()
    assert json.loads(written)["failures"] == json.loads(kept(due).read_bytes())["failures"] == 1
    assert remembered(due).failures == 0
    assert not status_of(due).due.due


# -- loops -------------------------------------------------------------------------------------------------------------


def test_a_certificate_that_is_due_from_birth_is_not_renewed_over_and_over(secure, clock, between):
    """The server's clock is 80 days behind ours, so all that it signs is due by ours."""
    clock.set(days=-80)
    assert renew(secure).outcome == "renewed"
    assert secure.due_of(secure.current.certificate, datetime.now(UTC)).due
    assert renew(secure, only_if_due=True).outcome == "not-due"
    assert "min_interval = 1 h since it came into use" in status_of(secure).due.reason
    assert renew(secure, only_if_due=True, clock=Clock(minutes=59)).outcome == "not-due"
    assert renew(secure, only_if_due=True, clock=Clock(minutes=61)).outcome == "renewed"


def test_the_setting_is_followed(secure, clock):
    (secure.path / "settings.toml").write_text(f'key_length = {QUICK_BITS}\nmin_interval = "1d"')
    clock.set(days=-80)
    renew(secure)
    assert "min_interval = 1 d" in status_of(secure).due.reason
    assert renew(secure, only_if_due=True, clock=Clock(hours=23)).outcome == "not-due"


@pytest.mark.parametrize("created", [None, 5, "", "yesterday", "2026-01-01T00:00:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_that_cannot_be_read_does_not_count(due, created):
    path = due.current.path / "connection.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": created}))
    assert due.current.created is None
    assert due.due(datetime.now(UTC)).due


# -- it is in nobody's way ---------------------------------------------------------------------------------------------

JUNK = [b"", b"{", b"[]", b'{"failures": -1}', b'{"failures": 3, "last_error": {}}', b"\xff" * 100, b"[" * 100_000]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_a_damaged_file_says_nothing_and_is_replaced(due, junk):
    kept(due).write_bytes(junk)
    assert remembered(due) == Attempts()
    assert status_of(due).state == "due"
    assert renew(due, only_if_due=True).outcome == "renewed"
    assert remembered(due).last_attempt is not None


def test_where_it_cannot_be_written_nothing_is_stopped(due, monkeypatch):
    write = files.write

    def full(path, data, mode=0o600):
        if path.name == "attempts.json":
            raise StorageFailed("No space left on device.")
        write(path, data, mode)

    monkeypatch.setattr(files, "write", full)
    record_check(due, datetime.now(UTC))
    assert renew(due, only_if_due=True).outcome == "renewed"
    assert not kept(due).exists()


def test_a_look_is_left_out_where_nobody_may_write_or_another_is_at_work(secure, home):
    with locked_out(secure.path):
        record_check(secure, datetime.now(UTC))
        assert remembered(secure) == Attempts()
    with in_other_hands(secure):
        record_check(home.connection("prod"), datetime.now(UTC))
    before = tree(home.path)
    record_check(Connection(home, "nobody"), datetime.now(UTC))
    assert (tree(home.path), kept(secure).exists()) == (before, False)
    now = datetime.now(UTC)
    record_check(secure, now)
    assert remembered(secure) == Attempts(last_looked=now)


def test_the_status_tells_it_all(due, between):
    failing(due, between, clock=(now := Clock()))
    told, known = status_of(due, now).as_json(), remembered(due)
    assert told["failures"] == 1
    assert datetime.fromisoformat(told["nextTry"]) == known.not_before.replace(microsecond=0)
    assert (told["lastError"]["error"], told["lastError"]["exitCode"]) == ("Unreachable", 3)
    assert told["lastAttempt"] == told["lastLooked"] <= told["failingSince"]  # an attempt takes time to fail
    assert told["lastSuccess"] is None
    shown = dict(status_of(due).rows())["failed"]
    assert shown.startswith("1 in a row since ")
    assert "next try not before" in shown
    renew(due)
    told = status_of(due).as_json()
    assert (told["failures"], told["lastError"], told["nextTry"]) == (0, None, None)
    assert datetime.fromisoformat(told["lastSuccess"]) == due.current.created
    assert "failed" not in dict(status_of(due).rows())


def test_an_establishment_that_goes_on_is_one_attempt_more(new, another, ucl, between):
    go(Establishment.begin(new, another(), ca_file=ucl.ca_file), "sign")
    first = remembered(new).last_attempt
    assert establish(new, None, ca_file=ucl.ca_file).outcome == "established"
    assert remembered(new).last_attempt > first
