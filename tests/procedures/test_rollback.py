"""Going back to an earlier generation, tried before it becomes current; and forgetting a connection."""

import pytest
from meddler import answers, lost_on_the_way, refused
from steps import Clock, events, go, in_other_hands, install, judged, pending_of, tree

from ucl_helpers import Renewal, forget, renew, revoke, rollback, status_of
from ucl_helpers.errors import (
    Busy,
    CertificateRejected,
    PossibleOutage,
    StorageFailed,
    Unavailable,
    UnknownConnection,
    Unreachable,
    UsageError,
)

pytest_plugins = ["procedure_fixtures"]


def renewed(connection, times):
    """The names of its generations after some renewals, oldest first."""
    for _ in range(times):
        renew(connection)
    return [one.name for one in connection.generations()]


# -- rollback ----------------------------------------------------------------------------------------------------------


def test_rolling_back_tries_the_earlier_one_and_switches(secure, between):
    first, second = renewed(secure, 1)
    old, new = (one.fingerprint for one in secure.generations())
    between.calls.clear()
    outcome = rollback(secure)
    assert (outcome.outcome, outcome.facts["generation"], secure.current.name) == ("rolled-back", first, first)
    assert (outcome.facts["previous_fingerprint"], outcome.facts["fingerprint"]) == (new, old)
    assert [(call.operation, call.fingerprint, call.resumed) for call in between.calls] == [
        ("configuration", old, False)
    ]
    assert events(secure)[-1] == "rolled-back"
    assert rollback(secure).facts["generation"] == second
    assert renew(secure).outcome == "renewed"


def test_the_files_that_the_settings_ask_for_are_written_first(secure):
    """Programs that read them keep working."""
    first, _ = renewed(secure, 1)
    (secure.path / "settings.toml").write_text("[exports]\ncombined = true\n")
    outcome = rollback(secure)
    assert (outcome.facts["generation"], outcome.facts["warnings"]) == (f"{first}.1", None)
    current = secure.require_current()
    assert (current.path / "combined.pem").read_bytes() == b"".join(
        (current.path / name).read_bytes() for name in ("chain.pem", "key.pem")
    )
    assert current.stem == first


def test_a_reference_that_leads_nowhere_does_not_stop_a_rollback(secure):
    first, _ = renewed(secure, 1)
    (secure.path / "settings.toml").write_text('[exports]\npkcs12 = "env:NOT_SET"\n')
    outcome = rollback(secure)
    assert (outcome.outcome, secure.current.name) == ("rolled-back", first)
    assert "NOT_SET" in outcome.facts["warnings"]
    assert outcome.facts["warnings"].endswith("To write them: ucl export prod")


@pytest.mark.parametrize(
    ("trouble", "error"), [(refused, PossibleOutage), (answers(503), Unavailable), (lost_on_the_way, Unreachable)]
)
def test_what_ucl_does_not_accept_is_not_switched_to(secure, between, trouble, error):
    renewed(secure, 1)
    before = tree(secure.path)
    between.on("configuration", trouble)
    with pytest.raises(error):
        rollback(secure)
    assert tree(secure.path) == before


@pytest.mark.parametrize("wanted", ["1", "000001", "whole name"])
def test_a_generation_is_named_by_its_number_or_its_name(secure, wanted):
    first, second, third = renewed(secure, 2)
    assert secure.current.name == third
    assert rollback(secure, first if wanted == "whole name" else wanted).facts["generation"] == first
    assert rollback(secure, "2").facts["generation"] == second


@pytest.mark.parametrize("wanted", ["2", "9", "", "0", "x", "000001-"])
def test_a_generation_that_is_not_there_is_an_error_that_lists_those_there_are(secure, wanted):
    first, _ = renewed(secure, 1)
    with pytest.raises(UsageError, match=f"Others: {first}"):
        rollback(secure, wanted)


def test_by_default_the_newest_is_taken_that_is_whole_valid_and_not_revoked(home, ucl, clock, between, tmp_path):
    for days in (-3, -91, -2, -1, 0):
        clock.set(days=days)
        folder = tmp_path / str(days)
        folder.mkdir()
        connection = install(home, ucl, folder, url=between.certificate_secured_connector_url)
    usable, expired, revoked, damaged, current = connection.generations()
    judged(connection, mark=revoked.fingerprint)
    (damaged.path / "chain.pem").write_text("gone")
    assert rollback(connection).facts["generation"] == usable.name
    rollback(connection)
    assert connection.current == current
    for generation, error in ((expired, CertificateRejected), (damaged, StorageFailed)):
        with pytest.raises(error):
            rollback(connection, generation.name)
    assert connection.current == current


@pytest.mark.parametrize("facts", ["{}", '{"connectorUrl": 5}', '{"connectorUrl": "http://localhost/"}'])
def test_a_generation_without_a_usable_url_is_damaged(secure, facts):
    first, second, _ = renewed(secure, 2)
    (secure.path / "generations" / second / "connection.json").write_text(facts)
    assert rollback(secure).facts["generation"] == first
    (secure.require_current().path / "connection.json").write_text(facts)
    with pytest.raises(StorageFailed, match=r"connection\.json is not whole"):
        renew(secure)


def test_alone_there_is_nothing_to_go_back_to(secure):
    with pytest.raises(UsageError, match=r"Others: none\. If all are lost: ucl establish prod"):
        rollback(secure)


@pytest.mark.parametrize("lost", ["key.pem", "chain.pem", "connection.json", "the link"])
def test_rolling_back_mends_what_is_damaged(secure, lost):
    first, second = renewed(secure, 1)
    if lost == "the link":
        (secure.path / "current").unlink()
    else:
        (secure.current.path / lost).write_text("gone")
        assert status_of(secure).state == "damaged"
    assert rollback(secure, "1").facts["generation"] == first
    assert status_of(secure).state == "valid"
    assert second in {one.name for one in secure.generations()}


# -- forget ------------------------------------------------------------------------------------------------------------


def test_what_ucl_still_accepts_is_not_forgotten(secure):
    go(Renewal.begin(secure), "sign")
    before = tree(secure.path)
    with pytest.raises(UsageError, match="has 2 identities that UCL may still accept"):
        forget(secure)
    assert tree(secure.path) == before


def test_unless_that_is_meant(secure):
    outcome = forget(secure, even_if_valid=True)
    assert (outcome.outcome, secure.path.exists()) == ("forgotten", False)
    assert list(secure.path.parent.iterdir()) == []
    with pytest.raises(UnknownConnection):
        secure.home.connection("prod")


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_what_is_of_no_use_any_more_is(secure, how):
    if how == "revoked":
        revoke(secure, everything=True)
    forget(secure, clock=Clock(days=91 if how == "expired" else 0))
    assert not secure.path.exists()


def test_what_is_damaged_can_be_forgotten(secure):
    (secure.current.path / "key.pem").write_text("gone")
    with pytest.raises(UsageError, match="an identity that UCL may still accept"):
        forget(secure)  # identity.pem holds its key as well
    (secure.current.path / "identity.pem").write_text("gone")
    forget(secure)
    assert not secure.path.exists()


def test_while_another_process_is_at_work_nothing_is_rolled_back_or_forgotten(secure):
    renewed(secure, 1)
    before = tree(secure.path)
    with in_other_hands(secure):
        for attempt in (rollback, lambda one: forget(one, even_if_valid=True)):
            with pytest.raises(Busy):
                attempt(secure)
    assert tree(secure.path) == before
    assert not pending_of(secure)
