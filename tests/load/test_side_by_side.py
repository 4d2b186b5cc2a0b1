"""Very many connections are renewed side by side by several processes: none is lost, none gets another's identity."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest
from processes import own_process
from steps import install

from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import UCLError
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.wire.client import Client

PROCESSES = 8
RENEW = """
import sys
from ucl_helpers.procedures.renewal import renew
from ucl_helpers.connection.store import Home

home = Home(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[2:]:
    print(name, renew(home.connection(name)).outcome, flush=True)
"""


def marks(connection):
    """Its generations: the fingerprint of each and whose it is, by the certificate."""
    return {one.fingerprint: common_name(one.certificate.subject) for one in connection.generations()}


def issued(ucl):
    """Every certificate that the sandbox has signed, and for which client."""
    with closing(sqlite3.connect(f"file:{ucl.state / 'state.sqlite'}?mode=ro", uri=True)) as state:
        return dict(state.execute("SELECT fingerprint, system_auth_id FROM certificates"))


def wrongs(home, first, known):
    """What is not as it should be.

    ``first`` says of each connection which certificate it began with, and whose that is; ``known`` what was issued.
    """
    found, seen = [], {}
    for name, (old, client) in first.items():
        connection = home.connection(name)
        try:
            current = connection.require_current()
            current.check_whole()
            with Client(
                connection.url, "certificate", ca_file=current.server_ca, credentials=current.credentials
            ) as asked:
                told = asked.call(CONFIGURATION).result["certificateSigningRequestInfo"]["subject"]
        except UCLError as error:
            found.append((name, type(error).__name__))
            continue
        seen |= marks(connection)
        here = common_name(current.certificate.subject)
        facts = {
            "another's certificate": here != client,
            "the sandbox takes it for another": not told.endswith(f"CN={client}"),
            "not renewed": current.fingerprint == old,
            "not by the sandbox": known.get(current.fingerprint) != here,
            "something is pending": (connection.path / "pending").exists(),
        }
        found += [(name, what) for what, wrong in facts.items() if wrong]
    return found + [("nobody", "a certificate that is nowhere")] * len(known.keys() - seen)


@pytest.fixture(scope="module")
def landscape(tmp_path_factory, whole):
    """The sandbox, the home, how each connection began, and what the processes said."""
    folder = tmp_path_factory.mktemp("load")
    home = Home(folder / "home")
    with own_process(folder) as ucl:
        names = [f"c{number:04d}" for number in range(1000 if whole else 40)]
        connections = [install(home, ucl, folder, name=name) for name in names]
        first = {one.name: next(iter(marks(one).items())) for one in connections}
        with ExitStack() as stack:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            commands = [[sys.executable, "-c", RENEW, home.path, *names[one::PROCESSES]] for one in range(PROCESSES)]
            running = [stack.enter_context(subprocess.Popen(command, **pipes)) for command in commands]
            assert [one.stdout.readline() for one in running] == ["ready\n"] * PROCESSES
            for one in running:
                one.stdin.write("go\n")
                one.stdin.flush()
            told = [line.split() for one in running for line in one.stdout]
        yield ucl, home, first, told


def test_none_is_lost_and_none_mixed_up(landscape, proof):
    ucl, home, first, told = landscape
    assert sorted(told) == [[name, "renewed"] for name in first]
    assert len({client for _, client in first.values()}) == len(first)
    known = issued(ucl)
    lost = wrongs(home, first, known)
    assert lost == []
    assert len(known) == 2 * len(first)
    proof("load", "connections renewed side by side", len(told))
    proof("load", "of them lost or mixed up", len(lost))


def swap(one, other, _):
    """Two connections have each other's generation in use."""
    for name in ("current", "generations"):
        here, there, between = one.path / name, other.path / name, one.path / "between"
        here.rename(between), there.rename(here), between.rename(there)


def lose(one, *_):
    (one.current.path / "key.pem").unlink()


def go_back(one, *_):
    one.switch(one.generations()[0])


def leave_pending(one, *_):
    (one.path / "pending").mkdir()


def forget(one, _, known):
    del known[one.current.fingerprint]


def sign_for_nobody(one, _, known):
    known["ab" * 32] = "somebody"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (swap, ["another's certificate", "the sandbox takes it for another"] * 2),
        (lose, ["StorageFailed", "a certificate that is nowhere", "a certificate that is nowhere"]),
        (go_back, ["not renewed"]),
        (leave_pending, ["something is pending"]),
        (forget, ["not by the sandbox"]),
        (sign_for_nobody, ["a certificate that is nowhere"]),
    ],
)
def test_planted_damage_is_found(landscape, tmp_path, damage, what):
    ucl, home, first, _ = landscape
    few = dict(list(first.items())[:3])
    copy = Home(tmp_path)
    for name in few:
        shutil.copytree(home.connection(name).path, tmp_path / "connections" / name, symlinks=True)
    known = {mark: client for mark, client in issued(ucl).items() if client in {whose for _, whose in few.values()}}
    assert wrongs(copy, few, known) == []
    damage(*copy.connections()[:2], known)
    assert [one for _, one in wrongs(copy, few, known)] == what
