"""Where a connection stands, in one word, read from disk alone."""

from datetime import datetime

import pytest
from meddler import lost_on_the_way_back
from quick_keys import QUICK_BITS
from steps import Clock, go, install, judged, pending_of, tree

from ucl_helpers import Establishment, Renewal, policy, renew, status_of
from ucl_helpers.errors import Unreachable

pytest_plugins = ["procedure_fixtures"]


@pytest.mark.parametrize(
    ("days", "word"), [(-2, "not yet valid"), (0, "valid"), (50, "valid"), (65, "due"), (89, "due"), (90, "expired")]
)
def test_each_state_of_a_certificate_has_its_word(secure, between, days, word):
    status = status_of(secure, Clock(days=days))
    assert (status.state, status.as_json()["state"]) == (word, word)
    assert status.caption() == f"prod: {word}"
    assert status.due.due is (word in {"due", "expired"})
    assert between.calls == []


def test_nothing_is_changed_by_looking(secure):
    with secure.lock.held():
        before = tree(secure.path)
        status_of(secure.home.connection("prod"))
    assert tree(secure.path) == before


def test_it_tells_what_is_in_use(secure, between):
    status, current = status_of(secure), secure.current
    assert (status.fingerprint, status.generation) == (current.fingerprint, current.name)
    assert status.url == between.certificate_secured_connector_url
    told = status.as_json()
    assert (told["subject"], told["pending"], told["problem"]) == (status.subject, None, None)
    assert status.subject.endswith(current.certificate.subject.rfc4514_string().split(",", 1)[0])
    assert datetime.fromisoformat(told["notAfter"]) == current.validity.not_after
    assert "left)" in str(status)
    assert "left)" not in str(status_of(secure, Clock(days=91)))


def test_revoked_goes_before_all_else(secure):
    judged(secure)
    assert status_of(secure).state == status_of(secure, Clock(days=91)).state == "revoked"
    judged(secure, mark="of another")
    assert status_of(secure).state == "revoked"


def test_that_another_one_was_revoked_does_not_count(secure):
    judged(secure, mark="of another")
    assert status_of(secure).state == "valid"


def test_practice_is_marked(home, ucl, secure, tmp_path):
    practice = home.new("practice")
    practice.write_settings({"sandbox": str(ucl.state / "ready.json")})
    assert status_of(practice).caption() == "practice: not established (sandbox, for practice)"
    assert not status_of(secure).sandbox


DAMAGES = {
    "key.pem": lambda folder: (folder / "current" / "key.pem").write_text("gone"),
    "chain.pem": lambda folder: (folder / "current" / "chain.pem").write_text("gone"),
    "identity.pem": lambda folder: (folder / "current" / "identity.pem").unlink(),
    "connection.json": lambda folder: (folder / "current" / "connection.json").write_text("[]"),
    "generations": lambda folder: (folder / "generations").rename(folder / "moved"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_and_not_raised(secure, damage):
    damage(secure.path)
    status = status_of(secure)
    assert (status.state, status.fingerprint) == ("damaged", None)
    assert status.problem
    assert status.problem in str(status)


@pytest.mark.parametrize("what", ["a value", "a folder"])
def test_settings_that_cannot_be_used_are_no_damage(secure, what):
    path = secure.path / "settings.toml"
    path.write_text("keep = 0")
    if what == "a folder":
        path.unlink()
        path.mkdir()
    status = status_of(secure)
    assert status.state == "settings not usable"
    assert ("line 1" if what == "a value" else "is a folder") in status.problem


def test_what_is_under_way_is_told_at_each_stage(secure, between):
    assert status_of(secure).pending is None
    go(Renewal.begin(secure), "request")
    assert status_of(secure).pending.endswith(": begun")
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        renew(secure)
    assert status_of(secure).pending.endswith(": sent for signing")
    go(Renewal.begin(secure), "sign")
    status, since = status_of(secure), pending_of(secure).read_state().created.replace("+00:00", "Z")
    assert status.pending == f"renew since {since}: signed, to be verified"
    assert ("under way", status.pending) in status.rows()
    renew(secure)
    assert status_of(secure).pending is None


def test_so_it_is_with_what_was_never_established(home, ucl, token):
    new = home.new("new")
    assert (status_of(new).state, status_of(new).pending) == ("not established", None)
    go(Establishment.begin(new, token, ca_file=ucl.ca_file, key_length=QUICK_BITS), "sign")
    assert status_of(new).state == "not established"
    assert status_of(new).pending.startswith("establish since")


def test_a_state_that_cannot_be_read_may_have_been_sent(secure):
    go(Renewal.begin(secure), "request")
    (pending_of(secure).path / "state.json").write_text("{")
    assert status_of(secure).pending == "damaged since unknown: sent for signing"
    assert status_of(secure).state == "valid"
    (pending_of(secure).path / "state.json").unlink()
    (pending_of(secure).path / "state.json").mkdir()
    assert "state.json" in status_of(secure).problem


def test_the_due_date_is_that_of_the_settings(home, ucl, clock, between, tmp_path):
    clock.set(days=-61)
    connection = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    by_rule = status_of(connection).due.reason
    (connection.path / "settings.toml").write_text('renew_before = "30d"')
    status = status_of(connection)
    by_setting = status.validity.not_after - status.due.at
    assert (by_setting.days, status.due.reason) == (30, "renew_before = 30 d")
    assert by_rule.startswith(f"{policy.SHARE[1]} of 90 d")
