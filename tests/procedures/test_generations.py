"""Exports made anew, and keys that are encrypted on disk: switched on, changed and switched off, killed or not."""

import shutil
from functools import partial

import pytest
from certificates import NOW
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from quick_keys import QUICK_BITS
from secrets_watch import CANARY
from stored import KilledError, chain, grow_old, install, key_of, killed_after, names

from ucl_helpers.connection.generation import fingerprint_or_none
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import make_csr, parse_subject
from ucl_helpers.errors import InvalidSettings, KeyLocked, StorageFailed
from ucl_helpers.keys import is_sealed, load_key
from ucl_helpers.models import Configuration
from ucl_helpers.procedures.generations import encrypt_keys, export
from ucl_helpers.procedures.revocation import valid_identities
from ucl_helpers.procedures.rollback import _choose

ASKED = Configuration("O=Org,CN=client", "rsa2048", None, None)
ENCRYPTED = 'key_passphrase = "env:KEY"\n'
EXPORTS = '[exports]\ncombined = true\npkcs12 = "env:P12"\n'


@pytest.fixture(autouse=True)
def passphrases(monkeypatch):
    monkeypatch.setenv("KEY", CANARY)
    monkeypatch.setenv("P12", CANARY + "-of-p12")
    unproved = partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)  # primes are slow to prove
    monkeypatch.setattr("ucl_helpers.keys.load_pem_private_key", unproved)


def choose(connection, text):
    (connection.path / "settings.toml").write_text(text)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Three identities in plain, the second of them in use; one is pending and one was set aside."""
    connection = Home(tmp_path_factory.mktemp("template")).new("mine")
    for number in range(3):
        install(connection, number)
    connection.switch(connection.generations()[1])
    for number in (3, 4):
        begin(connection.pending, number)
    return connection.home.path


@pytest.fixture
def mine(template, tmp_path):
    return copied(template, tmp_path / "home")


def copied(template, home):
    shutil.copytree(template, home, symlinks=True)
    return Home(home).connection("mine")


def begin(pending, number):
    pending.begin("renew", "000002-0123456789ab", ASKED, bits=QUICK_BITS, server_ca=None)
    pending.keep_request(key_of(number), make_csr(key_of(number), parse_subject(ASKED.subject)))
    pending.update(sent="2026-03-01")
    pending.keep_chain(chain(number))


def keys(connection):
    """Every private key that lies there in any form, by the folder that holds it, as PEM."""
    found = {}
    for path in sorted(connection.path.rglob("*")):
        if path.is_file() and not path.is_symlink() and b"PRIVATE KEY" in path.read_bytes():
            found.setdefault(path.parent, []).append(path.read_bytes())
    return found


def in_plain(connection):
    return [folder.name for folder, pems in keys(connection).items() if any(b"BEGIN PRIVATE" in one for one in pems)]


def opened(connection, secret):
    """The keys that this passphrase opens, by folder: of which identity they are, with the number of places."""
    publics = {key_of(number).public_key().public_numbers(): number for number in range(2)}
    for folder, pems in keys(connection).items():
        for pem in pems:
            key = load_key(pem, secret)
            yield folder.parent.name, publics[key.public_key().public_numbers()]


def marks(connection):
    return [one.fingerprint for one in connection.generations()]


def assert_all_encrypted(connection, before, secret=CANARY):
    """As before, but for the passphrase."""
    assert in_plain(connection) == []
    assert len(list(opened(connection, secret.encode()))) == 8  # two in each generation, one pending and one aside
    assert (marks(connection), fingerprint_or_none(connection.current)) == before
    for one in connection.generations():
        one.check_whole()
    assert connection.pending.key().private_numbers() == key_of(4).private_numbers()
    assert [one.key().private_numbers() for one in connection.aside()] == [key_of(3).private_numbers()]


def before(connection):
    return marks(connection), fingerprint_or_none(connection.current)


# -- exports -----------------------------------------------------------------------------------------------------------


def test_exports_are_made_without_a_new_certificate_and_the_old_generation_stays(mine):
    choose(mine, EXPORTS)
    old = mine.current
    outcome = export(mine)
    assert (outcome.outcome, outcome.facts["exports"]) == ("exported", "combined.pem, identity.p12")
    assert mine.current.name == f"{old.name}.1"
    assert mine.current.fingerprint == old.fingerprint
    assert mine.current.facts == old.facts
    assert names(old.path) == sorted(set(names(mine.current.path)) - {"combined.pem", "identity.p12"})
    assert mine.journal()[-1]["event"] == "exported"


def test_when_all_is_as_wanted_nothing_is_made_unless_it_is_forced(mine):
    choose(mine, EXPORTS)
    export(mine)
    lines, made = len(mine.journal()), mine.current
    assert export(mine).outcome == "nothing-to-export"
    assert (len(mine.journal()), mine.current) == (lines, made)
    assert export(mine, force=True).outcome == "exported"
    assert mine.current.name == f"{made.stem}.2"


@pytest.mark.parametrize(
    "change",
    [
        lambda mine, _: choose(mine, ""),
        lambda mine, _: choose(mine, EXPORTS + 'encrypted_key = "env:P12"\n'),
        lambda _, environment: environment.setenv("P12", "another passphrase"),
        lambda mine, _: (mine.current.path / "combined.pem").write_text("changed by hand"),
        lambda mine, _: (mine.current.path / "identity.p12").chmod(0o400),
    ],
    ids=["none wanted", "one more", "another passphrase", "spoiled", "another mode"],
)
def test_what_differs_is_made_anew(mine, change, monkeypatch):
    choose(mine, EXPORTS)
    export(mine)
    change(mine, monkeypatch)
    assert export(mine).outcome == "exported"
    assert export(mine).outcome == "nothing-to-export"


def test_what_was_rebuilt_goes_when_it_is_a_day_old_and_the_identity_stays(mine):
    choose(mine, EXPORTS)
    export(mine)
    assert len(mine.generations()) == 4
    grow_old(mine)
    export(mine, force=True)  # what was in use a moment ago stays as well
    assert [one.name[6:7] + one.name[19:] for one in mine.generations()] == ["-", "-.1", "-.2", "-"]
    grow_old(mine)
    mine.prune()
    assert [one.order[:2] for one in mine.generations()] == [(1, 0), (2, 2), (3, 0)]


def test_the_next_identity_has_them_and_a_rebuilt_one_is_numbered_before_it(mine):
    choose(mine, EXPORTS)
    export(mine)
    new = install(mine, 5)
    assert {"combined.pem", "identity.p12"} < set(names(new.path))
    assert new.name.startswith("000004-")
    assert mine.generations()[-1] == new


def test_going_back_leads_to_another_identity_and_not_to_other_exports(mine):
    choose(mine, EXPORTS)
    install(mine, 5)
    export(mine, force=True)
    chosen = _choose(mine, None, now())
    assert chosen.order[0] == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[exports]\npkcs12 = "env:LOST"\n', "exports.pkcs12 of mine: the environment variable LOST is empty"),
        ('[exports]\nencrypted_key = "file:/lost"\n', "exports.encrypted_key of mine: the file /lost cannot be read"),
        ('key_passphrase = "env:LOST"\n', "key_passphrase of mine: the environment variable LOST is empty"),
        ('key_passphrase = "env:LONG"\n', "key_passphrase of mine is longer than 1024 bytes"),
    ],
)
def test_a_reference_that_leads_nowhere_names_setting_and_connection_and_changes_nothing(mine, text, told, monkeypatch):
    monkeypatch.setenv("LONG", "x" * 1025)
    choose(mine, text)
    there = names(mine.path / "generations"), mine.current
    for act in (lambda: export(mine), lambda: install(mine, 5)):
        with pytest.raises(InvalidSettings, match=told):
            act()
    assert (names(mine.path / "generations"), mine.current) == there


def test_what_is_damaged_is_not_exported(mine):
    choose(mine, EXPORTS)
    (mine.current.path / "identity.pem").write_text("gone")
    with pytest.raises(StorageFailed, match=r"identity\.pem is not whole"):
        export(mine)


# -- the key at rest ---------------------------------------------------------------------------------------------------


def test_switched_on_every_key_is_replaced_and_nothing_else_changes(mine):
    choose(mine, ENCRYPTED)
    told = before(mine)
    assert len(in_plain(mine)) == 5
    outcome = export(mine)
    assert (outcome.outcome, outcome.facts["key"]) == ("exported", "encrypted")
    assert_all_encrypted(mine, told)
    assert len(mine.generations()) == 3
    assert export(mine).outcome == "nothing-to-export"


def test_the_next_procedure_encrypts_what_lies_there_in_plain(mine):
    told = before(mine)
    encrypt_keys(mine)
    assert len(in_plain(mine)) == 5  # the settings do not want it
    choose(mine, ENCRYPTED)
    encrypt_keys(mine)
    assert_all_encrypted(mine, told)
    assert [one["event"] for one in mine.journal()] == ["keys-encrypted"]
    encrypt_keys(mine)
    assert len(mine.journal()) == 1


def test_a_new_generation_and_request_are_encrypted_from_their_first_moment(tmp_path):
    new = Home(tmp_path / "home").new("new")
    choose(new, ENCRYPTED + EXPORTS)
    install(new, 0)
    begin(new.pending, 1)
    assert in_plain(new) == []
    assert is_sealed((new.current.path / "identity.pem").read_bytes())
    assert b"BEGIN ENCRYPTED" in (new.current.path / "combined.pem").read_bytes()
    new.current.check_whole()


def test_another_passphrase_takes_the_former_one(mine, monkeypatch):
    choose(mine, ENCRYPTED)
    told = before(mine)
    export(mine)
    monkeypatch.setenv("KEY", "another passphrase")
    with pytest.raises(KeyLocked, match="is encrypted, with another passphrase"):
        export(mine)
    with pytest.raises(KeyLocked):
        export(mine, former=lambda: b"neither")
    assert_all_encrypted_still(mine)
    assert export(mine, former=CANARY.encode).outcome == "exported"
    assert_all_encrypted(mine, told, "another passphrase")


def assert_all_encrypted_still(connection):
    assert len(list(opened(connection, CANARY.encode()))) == 8


def test_switched_off_takes_the_former_one_too(mine):
    choose(mine, ENCRYPTED)
    told = before(mine)
    export(mine)
    choose(mine, "")
    with pytest.raises(KeyLocked, match="is encrypted, and key_passphrase is not set"):
        export(mine)
    assert_all_encrypted_still(mine)
    assert export(mine, former=CANARY.encode).facts["key"] == "in plain"
    assert len(in_plain(mine)) == 5
    assert before(mine) == told


CHANGES = 82  # of the file system, from the first to the last; then all that is left is a line in the journal


def test_killed_at_any_change_nothing_is_lost_and_the_next_run_finishes_it(template, tmp_path, whole, proof):
    some = range(CHANGES) if whole else (2, 27, 43, 55, 66, 75, 79)
    for changes in some:
        mine = copied(template, tmp_path / str(changes))
        choose(mine, ENCRYPTED)
        told = before(mine)
        with pytest.raises(KilledError), killed_after(changes):
            export(mine)
        assert fingerprint_or_none(mine.current) == told[1]
        assert set(marks(mine)) == set(told[0])
        mine.current.check_whole()
        assert {one.key().private_numbers() for one in (mine.pending, *mine.aside())} == {
            key_of(number).private_numbers() for number in (3, 4)
        }
        assert export(mine).outcome == "exported"
        assert_all_encrypted(mine, told)
        assert not list(mine.path.rglob(".*"))
    proof("crash", "switches to encrypted keys killed", len(some))


def now():
    return NOW


def test_what_is_public_takes_no_passphrase(mine, monkeypatch):
    choose(mine, ENCRYPTED)
    listed = sorted(one.fingerprint for one in valid_identities(mine, now))
    export(mine)
    monkeypatch.delenv("KEY")
    status = status_of(mine, now)
    assert (status.state, status.fingerprint, status.problem) == ("valid", mine.current.fingerprint, None)
    assert sorted(one.fingerprint for one in valid_identities(mine, now)) == listed
    assert len(listed) == 5
    (mine.current.path / "key.pem").write_bytes((mine.current.path / "key.pem").read_bytes()[:300])
    assert status_of(mine, now).state == "damaged"


def test_a_wrong_passphrase_is_not_taken_for_damage(mine, monkeypatch):
    choose(mine, ENCRYPTED)
    export(mine)
    monkeypatch.setenv("KEY", "wrong")
    for act in (mine.current.check_whole, mine.current.key, mine.pending.key, mine.pending.drop_unusable_request):
        with pytest.raises(KeyLocked, match="another passphrase"):
            act()
    assert mine.pending.key_path.exists()
    assert mine.current.is_readable


def test_what_is_damaged_or_locked_is_left_and_told(mine, monkeypatch):
    first, _, third = mine.generations()
    (first.path / "chain.pem").unlink()
    choose(mine, ENCRYPTED)
    outcome = export(mine)
    assert "chain.pem is not whole" in outcome.facts["warnings"]
    assert in_plain(mine) == [first.name]
    shutil.copytree(mine.generations()[2].path, kept := mine.path / "kept")
    monkeypatch.setenv("KEY", "another passphrase")
    export(mine, former=CANARY.encode)
    shutil.rmtree(mine.generations()[2].path)
    kept.rename(third.path)
    assert "with another passphrase" in export(mine).facts["warnings"]
    assert is_sealed((third.path / "key.pem").read_bytes())
