"""Over years of daily renewals neither generations nor journal grow without end, and nothing that counts is lost."""

import pytest
from stored import grow_old, install

from ucl_helpers.connection import journal, store
from ucl_helpers.connection.journal import old_events, verdicts_in
from ucl_helpers.connection.store import Home


@pytest.fixture
def connection(tmp_path):
    return Home(tmp_path).new("prod")


@pytest.fixture
def few(monkeypatch):
    """Ten events are kept where a thousand are otherwise."""
    monkeypatch.setattr(journal, "KEEP_EVENTS", 10)


def marks(connection):
    return [one.get("fingerprint") for one in connection.journal()]


def lines(connection):
    return (connection.path / "journal.jsonl").read_bytes().splitlines()


def unnumbered(connection):
    return [{name: value for name, value in one.items() if name != journal.NUMBER} for one in connection.journal()]


def test_years_of_renewals_stay_small(connection, monkeypatch, whole, proof):
    days, kept = (1500, 1000) if whole else (60, 20)
    monkeypatch.setattr(journal, "KEEP_EVENTS", kept)
    most, generations = 0, 0
    for day in range(days):
        connection.record("signing-requested", pending="0" * 16)
        new = install(connection, day)
        connection.record("renewed", fingerprint=new.fingerprint, previous="0" * 64, generation=new.name)
        grow_old(connection, days=2)
        most, generations = max(most, len(lines(connection))), max(generations, len(connection.generations()))
    assert kept < most <= 2 * kept + 2
    assert generations == connection.read_settings().keep
    assert marks(connection)[-1] == connection.current.fingerprint
    proof("load", "renewals after which generations and journal were pruned", days)


def test_what_tells_of_revocations_is_never_lost(connection, few):
    connection.record("revoked", fingerprint="gone")
    connection.record("revoke-intended", fingerprint="perhaps")
    connection.record("revoke-intended", fingerprint="refused")
    connection.record("revoke-refused", fingerprint="refused")
    for number in range(20):
        connection.record("renewed", fingerprint=str(number))
    told, known = unnumbered(connection), verdicts_in(old_events(connection.path))
    connection.sweep()
    assert unnumbered(connection) == [*told[:2], *told[-10:]]
    assert verdicts_in(old_events(connection.path)) == known
    assert {mark: one.status for mark, one in known.items()} == {"gone": "revoked", "perhaps": "asked"}
    assert connection.lost_events() is None


def test_without_revocations_only_the_newest_are_kept(connection, few):
    for number in range(21):
        connection.record("renewed", fingerprint=str(number))
    connection.sweep()
    assert marks(connection) == [str(number) for number in range(11, 21)]


def test_a_short_journal_is_left_as_it_is(connection, few):
    for number in range(20):
        connection.record("renewed", fingerprint=str(number))
    with (connection.path / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"event": "tor')
    before = (connection.path / "journal.jsonl").read_bytes()
    connection.sweep()
    assert (connection.path / "journal.jsonl").read_bytes() == before


def test_a_journal_that_cannot_be_written_anew_stays(connection, few, monkeypatch):
    for number in range(21):
        connection.record("renewed", fingerprint=str(number))
    before = lines(connection)
    monkeypatch.setattr(store.files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(store.StorageFailed, match="Make room"):
        connection.sweep()
    assert lines(connection) == before


def test_young_generations_stay_however_many(connection):
    for number in range(12):
        install(connection, number)
    assert len(connection.generations()) == 12
