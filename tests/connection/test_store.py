"""Generations on disk: what is written, what is switched to, what is pruned, and what is damaged."""

import pytest
from stored import FILES, chain, grow_old, identity_pem, install, key_of, names

from ucl_helpers.connection import files
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed
from ucl_helpers.models import fingerprint


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def connection(home):
    return home.new("mine")


# -- generations -------------------------------------------------------------------------------------------------------


def test_a_generation_is_whole_private_and_current(connection):
    new = install(connection, 0, source="test")
    assert connection.current == new
    assert (connection.path / "current").readlink().parts == ("generations", new.name)
    assert {one.name: one.stat().st_mode & 0o777 for one in new.path.iterdir()} == dict.fromkeys(FILES, 0o600)
    assert (new.path / "identity.pem").read_bytes() == identity_pem(0)
    assert new.name == f"000001-{fingerprint(chain(0)[0])[:12]}"
    assert (new.chain, new.client_ca, new.facts["source"]) == (chain(0), chain(0)[1:], "test")
    assert new.server_ca.read_bytes() == b"the server's CA"
    assert names(connection.path / "generations") == [new.name]


def test_what_is_not_given_is_not_there(connection):
    facts = {"connectorUrl": "https://localhost/connector/graphql"}
    new = connection.install(key_of(0), chain(0)[:1], (), None, facts)
    assert (new.client_ca, new.server_ca, new.facts) == ((), None, facts)
    assert set(names(new.path)) == FILES - {"client-ca.pem", "server-ca.pem"}


def test_the_next_generation_counts_on_and_the_one_before_stays(connection):
    before = install(connection, 0)
    after = install(connection, 1)
    assert [one.name for one in connection.generations()] == [before.name, after.name]
    assert after.name.startswith("000002-")
    assert before.is_readable
    connection.switch(before)
    assert connection.current == before


def test_a_generation_that_was_cut_off_before_the_switch_is_used(connection, monkeypatch):
    install(connection, 0)
    with monkeypatch.context() as patch:
        patch.setattr(files, "swap_symlink", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            install(connection, 1)
    assert connection.current.fingerprint == fingerprint(chain(0)[0])
    assert install(connection, 1) == connection.current
    assert len(connection.generations()) == 2


def test_unless_it_is_damaged(connection):
    damaged = install(connection, 1)
    install(connection, 0)
    (damaged.path / "identity.pem").unlink()
    assert install(connection, 1).name == f"000003-{fingerprint(chain(1)[0])[:12]}"
    assert connection.current.is_readable


def test_what_is_no_generation_is_left_alone(connection):
    folder = connection.path / "generations"
    others = [".gitkeep", ".hidden.abcd1234", "notes.txt", "zzz", "000009", "old-000001-aabbccddeeff"]
    for name in others:
        (folder / name).touch()
    files.temporary(folder / "ours").mkdir()
    new = install(connection, 0)
    assert connection.generations() == [new]
    assert names(folder) == sorted([*others, new.name])


def damage(name, content):
    def act(generation):
        path = generation.path / name
        path.unlink()
        if content is not None:
            path.write_bytes(content(path) if callable(content) else content)

    return act


def make_a_folder(generation):
    (generation.path / "key.pem").unlink()
    (generation.path / "key.pem").mkdir()


@pytest.mark.plants_secrets  # damaged files are written anew, open to others
@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (damage("key.pem", None), "key.pem"),
        (damage("key.pem", b"not a key"), "key.pem"),
        (damage("key.pem", identity_pem(1)), "do not belong together"),
        (make_a_folder, "key.pem"),
        (damage("chain.pem", None), "chain.pem"),
        (damage("chain.pem", b""), "chain.pem"),
        (damage("identity.pem", None), "identity.pem"),
        (damage("identity.pem", identity_pem(0)[:-40]), "identity.pem"),
        (damage("identity.pem", identity_pem(2)), "identity.pem"),
    ],
)
def test_a_damaged_generation_is_not_switched_to(connection, harm, named):
    damaged = install(connection, 0)
    current = install(connection, 1)
    harm(damaged)
    damaged = connection.generations()[0]
    assert not damaged.is_readable
    with pytest.raises(StorageFailed, match=named):
        connection.switch(damaged)
    assert connection.current == current
    assert current.is_readable


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff"])
def test_damaged_facts_are_named(connection, content):
    damage("connection.json", content)(install(connection, 0))
    with pytest.raises(StorageFailed, match=r"connection\.json is not whole"):
        _ = connection.current.facts


def test_the_millionth_generation_is_newer_than_the_one_before(connection):
    first = install(connection, 0)
    last_of_six_digits = first.path.with_name(first.name.replace("000001", "999999"))
    first.path.rename(last_of_six_digits)
    connection.switch(Generation(last_of_six_digits))
    newer = [install(connection, 1), install(connection, 2)]
    assert [one.name.split("-")[0] for one in newer] == ["1000000", "1000001"]
    assert connection.generations() == [Generation(last_of_six_digits), *newer]


# -- pruning -----------------------------------------------------------------------------------------------------------


def numbers(connection):
    return [int(one.name[:6]) for one in connection.generations()]


def test_the_newest_identities_stay(connection):
    connection.write_settings({"keep": 3})
    for number in range(4):
        install(connection, number)
        grow_old(connection)
    install(connection, 4)
    assert numbers(connection) == [3, 4, 5]


def test_none_goes_that_is_younger_than_a_day(connection):
    connection.write_settings({"keep": 2})
    for number in range(4):
        install(connection, number)
    assert numbers(connection) == [1, 2, 3, 4]
    grow_old(connection, days=23 / 24)
    install(connection, 4)
    assert numbers(connection) == [1, 2, 3, 4, 5]
    grow_old(connection, days=2 / 24)
    install(connection, 5)
    assert numbers(connection) == [5, 6]


def test_copies_of_one_identity_count_once(connection):
    connection.write_settings({"keep": 2})
    install(connection, 0)
    for _ in range(3):
        (install(connection, 1).path / "identity.pem").unlink()
    install(connection, 1)
    grow_old(connection)
    connection.prune()
    assert numbers(connection) == [1, 2, 3, 4, 5]
    install(connection, 2)
    assert numbers(connection) == [2, 3, 4, 5, 6]


def test_the_current_one_never_goes(connection):
    connection.write_settings({"keep": 2})
    oldest = install(connection, 0)
    for number in range(1, 4):
        install(connection, number)
    connection.switch(oldest)
    grow_old(connection)
    connection.prune()
    assert (numbers(connection), connection.current) == ([1, 3, 4], oldest)
