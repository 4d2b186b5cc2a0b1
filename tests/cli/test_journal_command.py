"""``ucl journal``: one line for each event, the newest last, in UTC; and as it stands there for programs."""

import pytest
from command_line import Shell

from ucl_helpers.connection.store import Home

MARK = "3fa9c1" * 10


@pytest.fixture
def connection(tmp_path):
    made = Home(tmp_path).new("prod")
    made.record("established", fingerprint=MARK, previous=None, generation="000001-3fa9c1")
    made.record("answer-rejected", reason="not what\nwas asked for\x1b[2J", count=1)
    with (made.path / "journal.jsonl").open("a") as file:
        file.write('{"event": "from elsewhere", "time": "2026-01-31T12:00:00+02:00"}\n{"time": 5}\n{"cut off')
    return made


@pytest.fixture
def shell(connection):
    return Shell(connection.home.path)


def test_each_event_has_a_line_and_the_newest_is_the_last(shell, connection):
    said = shell.ucl("journal", "prod")
    assert (said.code, said.err) == (0, "")
    first, second, third, last, lost = said.out.splitlines()
    assert first.split() == [
        connection.journal()[0]["time"][:19] + "Z",
        *("established", f"fingerprint={MARK[:16]}", "generation=000001-3fa9c1"),
    ]
    assert second.split(maxsplit=2)[2] == r'reason="not what was asked for\\x1b[2J"  count=1'
    assert third == "2026-01-31T10:00:00Z  from elsewhere"
    assert last.split() == ["unknown", "None"]
    assert lost == "Lines were lost: 1 cannot be read."


def test_of_many_the_last_can_be_asked_for(shell):
    assert len(shell.ucl("journal", "prod", "-n", "2").out.splitlines()) == 2 + 1  # the last says that one is lost
    assert shell.ucl("journal", "prod", "-n", "99").out == shell.ucl("journal", "prod").out
    assert shell.ucl("journal", "prod", "-n", "0").code == 2


def test_for_programs_it_is_what_stands_there(shell, connection):
    assert shell.ucl("journal", "prod", "--json").json == connection.journal()
    assert shell.ucl("journal", "prod", "--json", "-n", "1").json == connection.journal()[-1:]


def test_where_nothing_has_happened_it_says_so(shell, connection):
    (connection.path / "journal.jsonl").unlink()
    assert shell.ucl("journal", "prod").out == "Nothing has happened to prod yet.\n"
    assert shell.ucl("journal", "prod", "--json").json == []
    assert shell.ucl("journal", "nobody").code == 2
