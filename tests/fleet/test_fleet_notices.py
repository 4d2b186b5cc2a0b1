"""An outage is one notice for the whole fleet; what is wrong with one connection is told for each."""

import shutil
from datetime import timedelta
from types import SimpleNamespace

import pytest
from command_line import Shell
from notice_server import notice_server

from tools.make_fleet import make_fleet
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import AuthenticationFailed, Outage, StorageFailed, Unavailable, Unreachable
from ucl_helpers.fleet.task import forget_notice, notify_once
from ucl_helpers.operate import notices
from ucl_sandbox import Fault, Sandbox

NAMES = [f"c{number}" for number in range(6)]
OUTAGE, DISK = Unavailable("Down.", status=502), StorageFailed("Full.")
REFUSED = AuthenticationFailed("No.", status=400)


@pytest.fixture
def server():
    with notice_server() as server:
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet") / "home"
    make_fleet(folder, NAMES, validity=timedelta(hours=24), age=timedelta(hours=13), processes=1, keys=2)
    return Home(folder)


@pytest.fixture
def home(made, server, tmp_path, monkeypatch):
    """A copy of the fleet; its connections tell the server, and the last one tells it by another URL."""
    shutil.copytree(made.path / "connections", tmp_path / "home" / "connections", symlinks=True)
    (tmp_path / "home").chmod(0o700)
    for name in NAMES:
        url = "OTHER_URL" if name == NAMES[-1] else "NOTICE_URL"
        with (tmp_path / "home" / "connections" / name / "settings.toml").open("a") as settings:
            settings.write(f'[notices]\nurls = ["env:{url}"]\n')
    monkeypatch.setattr(notices, "LIMIT_SECONDS", 300)  # the machine may be busy
    for name in ("NOTICE_URL", "OTHER_URL"):
        monkeypatch.setenv(name, f"json://127.0.0.1:{server.server_port}/{name}/")
    return Home(tmp_path / "home")


@pytest.mark.parametrize("error", [OUTAGE, Unreachable("Nobody.")])
def test_that_an_endpoint_fails_is_told_once_to_each_recipient(home, server, error):
    for name in NAMES:
        notify_once(home.connection(name), error)
    assert len(server.received) == 2  # NOTICE_URL and OTHER_URL


@pytest.mark.parametrize("error", [DISK, REFUSED])
def test_what_is_wrong_with_each_connection_is_told_for_each(home, server, error):
    for name in NAMES:
        notify_once(home.connection(name), error)
    assert len(server.received) == len(NAMES)


def test_the_next_outage_is_told_again(home, server):
    for name in ("c0", "c1"):
        notify_once(home.connection(name), OUTAGE)
    forget_notice(home.connection("c2"))
    for name in ("c3", "c4"):
        notify_once(home.connection(name), OUTAGE)
    assert len(server.received) == 2


@pytest.mark.parametrize(("words", "count"), [(["WARNING", "WARNING"], 1), (["WARNING", "CRITICAL", "CRITICAL"], 2)])
def test_an_outage_that_becomes_critical_is_told_once_more(home, server, monkeypatch, words, count):
    for name, word in zip(NAMES, words, strict=False):
        monkeypatch.setattr(notices, "verdict", lambda _, word=word: SimpleNamespace(word=word))
        notify_once(home.connection(name), Outage("Down.", outage="proven", director_status=502))
    assert len(server.received) == count


def test_what_could_not_be_told_is_told_by_the_next(home, server):
    server.status = 500
    notify_once(home.connection("c0"), OUTAGE)
    server.received.clear()
    server.status = 200
    notify_once(home.connection("c1"), OUTAGE)
    assert len(server.received) == 1


def test_without_a_recipient_nothing_is_noted(made):
    notify_once(made.connection("c0"), OUTAGE)
    forget_notice(made.connection("c0"))
    assert not (made.path / "fleet").exists()


@pytest.mark.parametrize("fault", [Fault("outage"), Fault("outage", value="database")], ids=["process", "database"])
def test_a_fleet_tells_an_outage_once_and_that_it_forget_notice(home, made, server, fault):
    shell = Shell(home.path)
    with Sandbox(made.path / "sandbox") as ucl:
        ucl.faults.set([fault])
        assert [shell.ucl("fleet", "renew", "c[0-4]", "--force").code for _ in range(2)] == [3, 3]
        assert len(server.received) == 1
        ucl.faults.clear()
        assert shell.ucl("fleet", "renew", "c[0-4]", "--force").code == 0
    assert len(server.received) == 2
