"""A session that moves to a new identity by itself: under load, beside its twins that do not, and when things break."""

import copy
import logging
import pickle
import re
import runpy
import threading
from itertools import cycle
from pathlib import Path

import pytest
import requests
from client_service import PATIENCE, service
from contract_replay import rsa_key
from quick_keys import QUICK_BITS
from requests.auth import HTTPBasicAuth
from steps import install
from tls_servers import HOUR, proxying

from ucl_helpers import renew, revoke
from ucl_helpers.errors import StorageFailed, UCLError, UnknownConnection, UsageError
from ucl_helpers.keys import dump_key, make_key
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.procedures import procedure
from ucl_helpers.procedures.generations import export
from ucl_helpers.wire import client
from ucl_helpers.wire import session as session_module
from ucl_helpers.wire.adapter import Adapter

pytest_plugins = ["procedure_fixtures", "client_fixtures"]
RENEWALS, THREADS = 10, 3


@pytest.fixture
def both(ucl, authority, tmp_path):
    """A file with the CAs of the sandbox's server and of the service."""
    path = tmp_path / "both.pem"
    path.write_bytes(ucl.ca_file.read_bytes() + authority.ca_file.read_bytes())
    return path


@pytest.fixture
def quick(monkeypatch):
    """Renewals with keys that are there already."""
    keys = cycle([make_key(QUICK_BITS), rsa_key()])
    monkeypatch.setattr(procedure, "make_key", lambda _: next(keys))
    monkeypatch.setattr(client, "BACKOFF_SECONDS", ())


def again(connection, ucl, folder):
    """Another generation, without the procedures."""
    install(connection.home, ucl, folder, name=connection.name)
    return connection.current


# -- ten renewals under load -------------------------------------------------------------------------------------------


class Load:
    """Threads that never rest: each asks UCL and the service in turn, and counts what came of it."""

    def __init__(self, session, *asks):
        self.session, self.asks, self.failed = session, asks, []
        self.rounds, self.turn, self.stop = [0] * THREADS, threading.Condition(), False
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(THREADS)]

    def run(self, number):
        while not self.stop:
            for ask in self.asks:
                try:
                    ask(self.session).raise_for_status()
                except (requests.RequestException, UCLError) as error:
                    self.failed.append(error)
            with self.turn:
                self.rounds[number] += 1
                self.turn.notify_all()

    def everybody_went_round(self):
        """Wait until each thread has begun and ended another round."""
        with self.turn:
            wanted = [one + 2 for one in self.rounds]
            assert self.turn.wait_for(
                lambda: all(a >= b for a, b in zip(self.rounds, wanted, strict=True)), timeout=PATIENCE
            )

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        for thread in self.threads:
            thread.join()


def at_ucl(connection):
    url = connection.url
    return lambda session: session.post(url, json={"query": CONFIGURATION}, timeout=PATIENCE)


def at(service):
    return lambda session: session.get(service.url, timeout=PATIENCE)


@pytest.mark.usefixtures("quick")
def test_ten_renewals_under_load_and_not_one_request_fails(connection, clock, mine, both, proof):
    with connection.session(ca_file=both) as session:
        marks = [connection.current.fingerprint]
        with Load(session, at_ucl(connection), at(mine)) as load:
            for number in range(RENEWALS):
                load.everybody_went_round()
                clock.set(seconds=2 * number - 60)  # within a second two certificates for one key would be the same
                assert renew(connection).outcome == "renewed"
                marks.append(connection.current.fingerprint)
                assert at(mine)(session).text == marks[-1]
            load.everybody_went_round()
        for mark in marks[:-1]:
            for thread in mine.attending[mark]:
                thread.join(PATIENCE)
                assert not thread.is_alive()
        assert session.generation == connection.current
    assert load.failed == []
    assert set(mine.shown()) == set(marks)
    assert len(set(marks)) == RENEWALS + 1
    proof("session", "renewals under load", RENEWALS)
    proof("session", "requests meanwhile, to UCL and to a service", 2 * sum(load.rounds))
    proof("session", "of them failed", len(load.failed))


def test_a_plain_session_goes_on_with_the_old_one(connection, ucl, mine, both):
    """Its paths lead to the new files, but its connection was made with the old ones."""
    plain = requests.Session()
    plain.cert = tuple(str(connection.path / "current" / name) for name in ("chain.pem", "key.pem"))
    plain.verify, plain.trust_env = str(both), False
    with plain, connection.session(ca_file=both) as session:
        old = connection.current.fingerprint
        assert [at(mine)(one).text for one in (session, plain)] == [old, old]
        new = again(connection, ucl, both.parent).fingerprint
        assert [at(mine)(one).text for one in (session, plain)] == [new, old]


@pytest.mark.parametrize("wrong", ['key_passphrase = "env:A_KEY"', "not TOML"])
def test_a_new_one_that_cannot_be_opened_stops_nobody(connection, ucl, tmp_path, wrong, monkeypatch):
    settings = connection.path / "settings.toml"
    monkeypatch.setenv("A_KEY", "a passphrase of some length")
    settings.write_text('key_passphrase = "env:A_KEY"')
    export(connection)
    with connection.session() as session:
        assert at_ucl(connection)(session).status_code == 200
        old = session.generation
        again(connection, ucl, tmp_path)
        ask = at_ucl(connection)
        settings.write_text(wrong)
        monkeypatch.setenv("A_KEY", "another passphrase")
        assert (ask(session).status_code, session.generation) == (200, old)
        with pytest.raises(UsageError):
            connection.session()


def test_a_generation_that_another_takes_the_place_of_is_no_damage(connection, monkeypatch):
    """It is gone, with what it was replaced by already current, just when its files are to be read."""
    real = session_module.tls_context

    def late(ca_file, credentials):
        monkeypatch.setattr(session_module, "tls_context", real)
        export(connection, force=True)
        raise StorageFailed("It is gone.")

    monkeypatch.setattr(session_module, "tls_context", late)
    with connection.session() as session:
        assert at_ucl(connection)(session).status_code == 200
        assert session.generation == connection.current


def test_but_it_does_not_run_after_them_for_ever(connection, monkeypatch):
    def late(ca_file, credentials):
        assert len(connection.generations()) < 20
        export(connection, force=True)
        raise StorageFailed("It is gone.")

    monkeypatch.setattr(session_module, "tls_context", late)
    with pytest.raises(StorageFailed, match="It is gone"):
        connection.session()


def test_one_that_is_revoked_is_refused(connection):
    with connection.session() as session:
        assert at_ucl(connection)(session).status_code == 200
        revoke(connection)
        assert at_ucl(connection)(session).status_code == 400


def test_a_request_under_way_is_finished_by_whom_it_was_begun(connection, ucl, mine, authority, tmp_path):
    with connection.session(ca_file=authority.ca_file) as session:
        old = session.generation
        with session.get(f"{mine.url}/slow", stream=True, timeout=PATIENCE) as slow:
            new = again(connection, ucl, tmp_path)
            assert at(mine)(session).text == new.fingerprint
            mine.halves.set()
            assert slow.text == old.fingerprint
        for thread in mine.attending[old.fingerprint]:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_a_request_just_to_be_sent_finds_its_pool_open(connection, ucl, mine, both, monkeypatch):
    """Meanwhile there is a new generation, and another request moves to it."""
    with connection.session(ca_file=both) as session:
        old, shown = session.generation, []

        def renewed_meanwhile(*_, **__):
            monkeypatch.setattr(Adapter, "add_headers", lambda *_, **__: None)
            again(connection, ucl, both.parent)
            shown.append(at(mine)(session).text)

        monkeypatch.setattr(Adapter, "add_headers", renewed_meanwhile)
        shown.append(at(mine)(session).text)
        assert shown == [connection.current.fingerprint, old.fingerprint]


def test_it_goes_back_with_the_connection(connection, ucl, mine, authority, tmp_path):
    with connection.session(ca_file=authority.ca_file) as session:
        old, new = session.generation, again(connection, ucl, tmp_path)
        shown = [at(mine)(session).text]
        connection.switch(old)
        assert [*shown, at(mine)(session).text] == [new.fingerprint, old.fingerprint]


def test_closed_it_begins_anew(connection, mine, authority):
    session = connection.session(ca_file=authority.ca_file)
    for _ in range(2):
        with session:
            assert at(mine)(session).text == connection.current.fingerprint
        for thread in mine.attending[connection.current.fingerprint]:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_without_a_timeout_it_waits_as_any_session_does(connection, mine, authority):
    with connection.session(ca_file=authority.ca_file) as session:
        assert session.get(mine.url).text == connection.current.fingerprint


# -- when a generation cannot be used ----------------------------------------------------------------------------------


def spoil_key(path, folder):
    (path / "key.pem").write_text("no key")


def another_key(path, folder):
    (path / "key.pem").write_bytes(dump_key(make_key(QUICK_BITS)))


def lose_chain(path, folder):
    (path / "chain.pem").unlink()


def spoil_ca(path, folder):
    (path / "server-ca.pem").write_text("no CA")


def lose_all(path, folder):
    path.rename(folder / "pruned")


@pytest.mark.parametrize("damage", [spoil_key, another_key, lose_chain, spoil_ca, lose_all])
def test_a_new_one_that_is_damaged_stops_nobody_and_is_told_once(connection, ucl, tmp_path, damage, caplog):
    ask = at_ucl(connection)
    with connection.session() as session:
        old, new = session.generation, again(connection, ucl, tmp_path)
        kept = tmp_path / "kept"
        for name in ("key.pem", "chain.pem", "server-ca.pem"):
            kept.with_suffix(f".{name}").write_bytes((new.path / name).read_bytes())
        damage(new.path, tmp_path)
        with caplog.at_level(logging.WARNING, "ucl_helpers.wire.session"):
            assert [ask(session).status_code for _ in range(2)] == [200, 200]
        (record,) = caplog.records
        assert f"goes on with generation {old.name}. " in record.getMessage()
        assert (session.generation, str(new.path) in record.getMessage()) == (old, True)
        with pytest.raises(StorageFailed):
            connection.session()
        if damage is lose_all:
            (tmp_path / "pruned").rename(new.path)
        for name in ("key.pem", "chain.pem", "server-ca.pem"):
            (new.path / name).write_bytes(kept.with_suffix(f".{name}").read_bytes())
        assert at_ucl(connection)(session).status_code == 200
        assert session.generation == new


def test_once_the_old_one_has_expired_damage_is_raised(connection, ucl, tmp_path, monkeypatch):
    with connection.session() as session:
        end = session.generation.validity.not_after
        (again(connection, ucl, tmp_path).path / "key.pem").unlink()
        monkeypatch.setattr("ucl_helpers.wire.session.utc_now", lambda: end - HOUR)
        assert at_ucl(connection)(session).status_code == 200
        monkeypatch.setattr("ucl_helpers.wire.session.utc_now", lambda: end)
        with pytest.raises(StorageFailed, match="Could not read key and certificate in"):
            at_ucl(connection)(session)


def test_a_connection_that_is_not_established_or_forgotten_has_no_session(connection):
    with pytest.raises(UnknownConnection, match="not established"):
        connection.home.new("new").session()
    ask = at_ucl(connection)
    with connection.session() as session:
        connection.path.rename(connection.path.with_name("gone"))
        with pytest.raises(UnknownConnection, match="not established"):
            ask(session)


def test_a_ca_file_that_cannot_be_used_is_told_at_once(connection, tmp_path):
    with pytest.raises(StorageFailed, match=r"missing\.pem"):
        connection.session(ca_file=tmp_path / "missing.pem")


# -- trust -------------------------------------------------------------------------------------------------------------


def test_the_server_is_verified_by_what_verifies_ucl_or_by_the_file_given(connection, mine, authority):
    with connection.session() as session:
        assert at_ucl(connection)(session).status_code == 200
        with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            at(mine)(session)
    assert mine.seen == []
    with connection.session(ca_file=str(authority.ca_file)) as session:
        assert at(mine)(session).text == connection.current.fingerprint
        with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            at_ucl(connection)(session)


@pytest.mark.parametrize("given", [{"verify": False}, {"verify": "/ca.pem"}, {"cert": "/identity.pem"}])
def test_neither_verify_nor_cert_is_taken(connection, mine, authority, given):
    with connection.session(ca_file=authority.ca_file) as session:
        with pytest.raises(UsageError, match="no verify, no cert"):
            session.get(mine.url, timeout=PATIENCE, **given)
        for name, value in given.items():
            setattr(session, name, value)
        with pytest.raises(UsageError, match="no verify, no cert"):
            session.get(mine.url, timeout=PATIENCE)
    assert mine.seen == []


def test_the_environment_overrides_neither_trust_nor_headers(connection, mine, authority, both, monkeypatch):
    netrc = both.with_name("netrc")
    netrc.write_text("machine localhost login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(connection.current.server_ca))
    with connection.session(ca_file=authority.ca_file) as session:
        assert at(mine)(session).text == connection.current.fingerprint
        session.auth = HTTPBasicAuth("me", "mine")
        assert at(mine)(session).text == connection.current.fingerprint
    assert ["Authorization" in headers for _, headers, _ in mine.seen] == [False, True]


@pytest.mark.parametrize("given", [{}, {"https": "own"}])
@pytest.mark.parametrize("host", ["elsewhere.invalid", "localhost"])
def test_proxies_are_followed_the_one_given_first(connection, authority, monkeypatch, given, host):
    """One of the environment is not used to this machine itself; one that is given is."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    identity, client_ca = authority.issue("both", hosts=("elsewhere.invalid", "localhost")), connection.current.path
    with (
        service(identity, client_ca / "client-ca.pem") as there,
        proxying() as proxy,
        connection.session(ca_file=authority.ca_file) as session,
    ):
        there.url = there.url.replace("localhost", host)
        way = f"http://127.0.0.1:{proxy.port}"
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1" if given else way)
        session.proxies = dict.fromkeys(given, way)
        assert at(there)(session).text == connection.current.fingerprint
        assert proxy.accepted == (1 if given or host != "localhost" else 0)


@pytest.mark.parametrize("url", ["http://localhost/?token=hidden", "ftp://localhost/hidden"])
def test_it_speaks_https_alone(connection, url):
    with connection.session() as session, pytest.raises(UsageError, match="https and nothing else") as caught:
        session.get(url, timeout=PATIENCE)
    assert "hidden" not in str(caught.value)


def test_a_redirect_is_followed_by_the_caller_or_nobody(connection, mine, identity, authority):
    client_ca = connection.current.path / "client-ca.pem"
    with service(identity, client_ca) as other, connection.session(ca_file=authority.ca_file) as session:
        for ask in (session.get, session.options):
            answered = ask(f"{mine.url}/to?{other.url}/there", allow_redirects=True, timeout=PATIENCE)
            assert (answered.status_code, answered.is_redirect) == (307, True)
        assert (other.seen, other.attending) == ([], {})
        assert session.send(answered.next, timeout=PATIENCE).text == connection.current.fingerprint
        assert [path for path, _, _ in other.seen] == ["/there"]


def test_what_the_page_tells_to_write_works(connection, monkeypatch):
    monkeypatch.setenv("UCL_HOME", str(connection.home.path))
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "use-from-python.md").read_text("utf-8")
    program = connection.home.path / "program.py"
    url = "https://orders.example/api/v1/orders"
    assert url in page
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    session, *_others, files, _steps = blocks  # test_following.py and test_readme.py run the others
    program.write_text((session + files).replace(url, connection.url))
    made = runpy.run_path(str(program))
    assert made["answer"].status_code == 422  # let in; but a GET without a query
    assert made["generation"] == connection.current


def test_it_goes_to_no_other_process(connection):
    with connection.session() as session:
        for take in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=r"call connection\.session\(\) there"):
                take(session)
