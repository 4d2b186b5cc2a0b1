"""Whatever goes wrong on the wire: the identity in use stays, nothing is lost, and the next run renews.

Every fault that the sandbox knows meets a real renewal, at each of its three calls that it can spoil. What comes of it
is the table of docs/reference/faults.md, line by line. ``UCL_WRITE_TABLE=1 pytest tests/faults/test_wire.py`` writes it
again. With ``-k KIND`` it writes the lines of that kind.
"""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest
from faulty import (
    ANEW,
    CALLS,
    CASES,
    SIGNS,
    VERIFIES,
    Case,
    Met,
    accepted,
    go_on,
    issued,
    meet,
    met_of,
    open_to_others,
    wrongs,
)
from quick_keys import RestingKeys
from steps import install, pending_of, tree

from ucl_helpers import renew
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import NotYetAccepted, RetryLater, ServerNotTrusted
from ucl_helpers.procedures.importing import import_identity, read_identity
from ucl_sandbox import Sandbox
from ucl_sandbox.faults.catalogue import CATALOGUE

pytest_plugins = ["procedure_fixtures", "fault_fixtures"]
pytestmark = pytest.mark.usefixtures("quick")

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
HEAD = (
    "| fault | at | outcome | exit code | tried again at once | the next run | what the user reads |",
    "|---|---|---|---|---|---|---|",
)
THEN = {"configuration": ANEW, "sign": SIGNS, "verify": VERIFIES}
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


@pytest.fixture(scope="module")
def template(ucl, clock, tmp_path_factory):
    """A home with a connection whose identity is an hour old."""
    folder = tmp_path_factory.mktemp("template")
    clock.set(hours=-1)
    install(Home(folder / "home"), ucl, folder)
    clock.set()
    return folder / "home"


@pytest.fixture
def connections(template, tmp_path):
    """Connections of the same identity, each in a home of its own."""

    def copies():
        for number in range(len(CALLS)):
            home = tmp_path / str(number)
            shutil.copytree(template, home, symlinks=True)
            yield Home(home).connection("prod")

    return copies()


@pytest.fixture(scope="module")
def table():
    """The committed lines by fault. If that is asked for, the lines of this run replace those of the same faults."""
    head, _, rest = PAGE.read_text("utf-8").partition("\n".join(HEAD) + "\n")
    committed, made = {}, {}
    for line in rest.splitlines():
        committed.setdefault(line.split(" | ")[0], []).append(line)
    yield committed, made
    if os.environ.get("UCL_WRITE_TABLE"):
        lines = [line for case in CASES for line in made.get(case.name) or committed.get(first_cell(case), ())]
        PAGE.write_text("\n".join([head.rstrip("\n"), "", *HEAD, *lines, ""]), "utf-8")


def first_cell(case):
    """How a line about a fault begins."""
    return f"| `{case.kind}`{case.name.removeprefix(case.kind)}"


def keep_in(table, case, met):
    """Compare the lines about a fault with the committed ones; calls of which the same is told share one."""
    told = {}
    for call, one in met.items():
        again = f"{one.tries - 1} times" if one.tries > 1 else "no"
        told.setdefault((one.outcome, str(one.exit_code), again, one.says), []).append((call, one.then))
    committed, made = table
    made[case.name] = [
        f"{first_cell(case)} | {', '.join(call for call, _ in calls)} | {outcome} "
        f"| {code} | {again} | {', '.join(dict.fromkeys(then for _, then in calls))} | {says} |"
        for (outcome, code, again, says), calls in told.items()
    ]
    if os.environ.get("UCL_WRITE_TABLE"):
        return
    known = committed.get(first_cell(case))
    assert known == made[case.name], f"{PAGE} says otherwise: see the top of this file for how to write it again"


def survive(ucl, connection, case, call):
    """What comes of a fault; and that nothing is lost by it, at once and when it has gone."""
    old, before = connection.current, issued(ucl)
    kept = tree(old.path)
    met = meet(ucl, connection, case, call)
    assert wrongs(ucl, connection, old, kept, before) == []
    if met.outcome == "renewed":
        assert connection.current != old
    else:
        assert connection.current == old
        assert met.then == (VERIFIES if met.outcome == "NotYetAccepted" else THEN[call])
        go_on(connection)
        assert wrongs(ucl, connection, old, kept) == []
    return met


NOT_YET = {case.value: case for case in CASES if case.kind == "not-yet-valid"}
CHANGED_CA = Case("server-ca-changed")
SPECIAL = [NOT_YET[1], NOT_YET[150], CHANGED_CA]


@pytest.mark.parametrize("case", [case for case in CASES if case not in SPECIAL], ids=lambda case: case.name)
def test_a_renewal_survives(case, ucl, connections, table, proof):
    met = {
        call: survive(ucl, connection, case, call) for call, connection in zip(case.calls(), connections, strict=False)
    }
    told(table, proof, case, met)


def told(table, proof, case, met):
    proof("wire", "faults tried, each at one call of a renewal, and survived", len(met))
    proof("wire", "faults tried that did not stop the renewal", sum(one.outcome == "renewed" for one in met.values()))
    keep_in(table, case, met)


def refused(connection):
    """What is said when the certificate is not taken yet. An alert may get lost: then it looks like a break."""
    errors = (error_of(connection) for _ in range(20))
    return next(one for one in errors if isinstance(one, NotYetAccepted))


def error_of(connection):
    with pytest.raises(RetryLater) as caught:
        renew(connection)
    return caught.value


def wait_for(certificate):
    """Until it is valid."""
    Event().wait((certificate.not_valid_before_utc - datetime.now(UTC)).total_seconds())


def test_a_certificate_that_is_not_valid_yet_by_a_second_is_used_a_second_later(ucl, connections, table, proof):
    connection = next(connections)
    old, before = connection.current, issued(ucl)
    kept = tree(old.path)
    met = meet(ucl, connection, NOT_YET[1], "sign")
    if met.outcome != "renewed":  # the second may have passed meanwhile
        assert (met.exit_code, met.then) == (RetryLater.exit_code, VERIFIES)
        wait_for(pending_of(connection).certificate())
        go_on(connection)
    assert wrongs(ucl, connection, old, kept, before) == []
    assert len(issued(ucl) - before) == 1
    told(table, proof, NOT_YET[1], {"sign": Met("renewed", 0, 1, "", "verifies again, if it came too early")})


def test_a_certificate_that_is_not_valid_yet_by_minutes_is_kept_until_it_is(ucl, connections, table, proof, whole):
    connection = next(connections)
    old, before = connection.current, issued(ucl)
    kept = tree(old.path)
    meet(ucl, connection, NOT_YET[150], "sign")
    waiting = pending_of(connection).certificate()
    met = met_of(refused(connection), 1, connection)
    assert connection.current == old
    assert pending_of(connection).certificate() == waiting
    assert wrongs(ucl, connection, old, kept, before) == []
    if whole:
        wait_for(waiting)
    else:  # as if the minutes had passed for the server's TLS
        ucl._listeners._handshakes.context(None, mutual=True).verify_flags |= NO_CHECK_TIME
    go_on(connection)
    assert len(issued(ucl) - before) == 1
    told(table, proof, NOT_YET[150], {"sign": met})


def test_a_new_ca_of_the_server_is_given_by_importing_the_identity_once_more(clock, tmp_path, table, proof):
    met = {}
    for call in CALLS:
        folder = tmp_path / call
        folder.mkdir()
        with Sandbox(clock=clock) as ucl:
            clock.set(hours=-1)
            connection = install(Home(folder / "home"), ucl, folder)
            clock.set()
            old = connection.current
            kept = tree(old.path)
            met[call] = meet(ucl, connection, CHANGED_CA, call)
            assert (connection.current, met[call].then) == (old, THEN[call])
            with pytest.raises(ServerNotTrusted):
                renew(connection)
            used = read_identity(old.path / "key.pem", old.path / "chain.pem")
            import_identity(connection.home, "prod", used, connection.url, ca_file=ucl.ca_file)
            assert renew(connection).outcome == "renewed"
            assert tree(old.path) == kept
            assert accepted(connection, connection.current)
            assert open_to_others(connection) == []
    told(table, proof, CHANGED_CA, met)


def test_no_fault_is_left_out(table):
    committed, _ = table
    assert {case.kind for case in CASES} == set(CATALOGUE)
    assert list(committed) == [first_cell(case) for case in CASES]


def test_no_two_certificates_of_a_second_are_for_the_same_key():
    """They would be equal, and ``issued`` would miss the later one."""
    now = [0.0]
    keys = RestingKeys(lambda: now[0])
    first = [next(keys) for _ in range(3)]
    now[0] = 2.0
    later = [next(keys) for _ in range(3)]
    assert later[:2] == first[:2]
    assert later[2] not in first  # its successor has only just been handed out


def break_key(connection):
    (connection.current.path / "key.pem").write_bytes(b"")


def open_it(connection):
    (connection.current.path / "key.pem").chmod(0o640)


def lose_key(connection):
    shutil.rmtree(connection.path / "pending")


@pytest.mark.plants_secrets
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (break_key, ["has changed", "old identity: StorageFailed", "current identity: StorageFailed"]),
        (open_it, ["open to others: key.pem"]),
        (lose_key, ["its key is lost"]),
    ],
)
def test_what_is_lost_or_open_would_be_found(ucl, connections, damage, found):
    connection = next(connections)
    old, before = connection.current, issued(ucl)
    kept = tree(old.path)
    meet(ucl, connection, Case("reset-after-acting"), "sign")
    assert wrongs(ucl, connection, old, kept, before) == []
    damage(connection)
    assert [
        one for one, two in zip(wrongs(ucl, connection, old, kept, before), found, strict=True) if two not in one
    ] == []


def test_another_line_than_the_committed_one_is_found(table, monkeypatch):
    monkeypatch.delenv("UCL_WRITE_TABLE", raising=False)
    committed, _ = table
    case, met = CASES[0], Met("renewed", 0, 1, "", "")
    with pytest.raises(AssertionError, match="says otherwise"):
        keep_in((committed, {}), case, {"sign": met})
