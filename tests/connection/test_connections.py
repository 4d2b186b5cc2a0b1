"""Connections by name: their home, their settings and journal, their URL, and what of it cannot be read."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from stored import URL, install, locked_out, names

from ucl_helpers.connection import files
from ucl_helpers.connection.settings import Settings
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import InvalidSettings, StorageFailed, UnknownConnection, UsageError


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def connection(home):
    return home.new("mine")


# -- the home folder ---------------------------------------------------------------------------------------------------


def test_the_home_is_what_is_given_or_the_environments_or_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("UCL_HOME", raising=False)
    assert Home().path.is_relative_to(tmp_path / "user")
    monkeypatch.setenv("UCL_HOME", "~/ucl")
    assert Home().path == tmp_path / "user" / "ucl"
    monkeypatch.chdir(tmp_path)
    assert Home("here").path == tmp_path / "here"


def test_the_home_of_nobody_is_an_error():
    with pytest.raises(UsageError, match="no-such-user"):
        Home("~no-such-user/ucl")


@pytest.mark.parametrize("name", ["a", "A-1_2.b", "0", "x" * 64, "UPPER"])
def test_a_name_that_can_be(home, name):
    assert home.new(name).name == name
    assert home.connection(name).path == home.path / "connections" / name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-option", "_x", "a/b", "../a", "a b", "a\n", "ü", "x" * 65, "a\x00", "a:b"]
)
def test_a_name_that_cannot(home, name):
    for act in (home.new, home.connection):
        with pytest.raises(UsageError, match="cannot name a connection"):
            act(name)
    assert not home.path.exists()


def test_connections_are_listed_by_name_and_nothing_else_is(home):
    assert home.connections() == []
    for name in ("b", "a"):
        home.new(name)
    for other in (".hidden", "not a name"):
        (home.path / "connections" / other).mkdir()
    (home.path / "connections" / "file").touch()
    assert [one.name for one in home.connections()] == ["a", "b"]
    with pytest.raises(UnknownConnection, match=r"'c' .*there: a, b"):
        home.connection("c")


def test_a_new_connection_is_private_and_not_established(home):
    connection = home.new("mine")
    assert [path.stat().st_mode & 0o777 for path in (home.path, connection.path)] == [0o700] * 2
    assert (connection.current, connection.generations(), connection.journal()) == (None, [], [])
    with pytest.raises(UnknownConnection, match="not established"):
        connection.require_current()


def test_what_a_killed_removal_left_of_a_connection_is_finished_when_it_is_old(home, monkeypatch):
    grave = files.temporary(home.new("gone").path)
    home.connection("gone").path.rename(grave)
    home.new("mine")
    assert grave.exists()
    later = files.time.time() + 90_000
    monkeypatch.setattr(files.time, "time", lambda: later)
    home.new("mine")
    assert names(home.path / "connections") == ["mine"]


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_a_folder_that_is_closed_to_us_is_an_error_that_names_it(home, connection):
    install(connection, 0)
    connection.record("x")
    connection.write_settings({"keep": 3})
    reads = [
        lambda: connection.current,
        connection.read_settings,
        connection.journal,
        connection.generations,
        connection.revoked,
        home.connections,
    ]
    with locked_out(home.path):
        for read in reads:
            with pytest.raises(StorageFailed, match="Permission denied"):
                read()
    assert all(read() for read in reads[:-2])


@pytest.mark.parametrize(
    ("name", "read", "error"),
    [
        ("settings.toml", Connection.read_settings, InvalidSettings),
        ("journal.jsonl", Connection.journal, StorageFailed),
        ("current", lambda connection: connection.current, StorageFailed),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_an_error_that_names_it(connection, name, read, error):
    (connection.path / name).mkdir()
    with pytest.raises(error, match=name):
        read(connection)


def test_a_copied_connection_whose_link_became_a_folder_is_not_taken_for_a_new_one(connection):
    new = install(connection, 0)
    (connection.path / "current").unlink()
    new.path.rename(connection.path / "current")
    with pytest.raises(StorageFailed, match="is not a symlink"):
        connection.require_current()


def test_a_link_to_nowhere_is_a_generation_that_is_not_whole(connection):
    (connection.path / "current").symlink_to("generations/000009-aaaaaaaaaaaa")
    with pytest.raises(StorageFailed, match="not whole"):
        connection.require_current().check_whole()


# -- settings, journal, URL --------------------------------------------------------------------------------------------


def test_settings_are_read_anew_and_the_users_are_not_overwritten(connection):
    assert connection.read_settings() == Settings()
    connection.write_settings({})
    assert not (connection.path / "settings.toml").exists()
    connection.write_settings({"keep": 3})
    connection.write_settings({"keep": 4})
    assert connection.read_settings().keep == 3
    (connection.path / "settings.toml").write_text('renew_before = "30d"  # überall', "utf-8")
    assert connection.read_settings() == Settings(renew_before=timedelta(days=30))


def test_settings_that_are_not_utf_8_are_invalid(connection):
    (connection.path / "settings.toml").write_bytes("# überall\n".encode("latin-1"))
    with pytest.raises(InvalidSettings, match=r"settings\.toml is not UTF-8 at byte 2"):
        connection.read_settings()


def test_the_journal_tells_what_happened_and_leaves_out_what_is_no_line(connection):
    connection.record("one", fingerprint="ü\n")
    with (connection.path / "journal.jsonl").open("ab") as journal:
        journal.write(b'\xff\n[]\n\n"text"\n{"event": "tor')
    connection.record("two", number=1, nothing=None)
    first, second = connection.journal()
    assert (first["event"], first["fingerprint"]) == ("one", "ü\n")
    assert (second["event"], second["number"], second["nothing"]) == ("two", 1, None)
    assert datetime.fromisoformat(second["time"]).tzinfo == UTC


def test_a_connection_for_practice_follows_its_sandbox_while_it_runs(connection, tmp_path):
    ready = tmp_path / "ready.json"
    install(connection, 0)
    assert (connection.url, connection.is_sandbox) == (URL, False)
    connection.write_settings({"sandbox": str(ready)})
    assert (connection.url, connection.is_sandbox) == (URL, True)
    for other in ("", "[]", "{}", "\xff"):
        ready.write_text(other, "latin-1")
        assert connection.url == URL
    ready.write_text(json.dumps({"certificateSecuredConnectorUrl": "https://localhost:1/"}))
    assert connection.url == "https://localhost:1/"
    ready.write_text(json.dumps({"certificateSecuredConnectorUrl": "http://localhost:1/"}))
    with pytest.raises(UsageError, match="https"):
        _ = connection.url
