"""What the tests of cut-off procedures rest on: how strace strikes, and that each kind of damage would be found."""

import os
import shutil
import socket
import sys
from urllib.parse import urlsplit

import pytest
from contract_replay import SIGN, Landscape, csr_pem, encoded, fields_of_subject, graphql, name_of
from examining import TEMPORARY, damages, remains, unsaid
from onlookers import Onlookers
from steps import install, judged
from stored import names
from tracing import UNFIT, calls_in, record, strike

from ucl_helpers.connection.store import Home
from ucl_helpers.procedures.renewal import renew

pytest_plugins = ["cut_off_fixtures"]
with_strace = pytest.mark.skipif(bool(UNFIT), reason=UNFIT)

TWO_FOLDERS = "import os, sys; [os.mkdir(os.path.join(sys.argv[1], one)) for one in ('first', 'second')]; print('end')"
A_THREAD = """
import os, sys, threading
thread = threading.Thread(target=os.mkdir, args=[os.path.join(sys.argv[1], "by-thread")])
thread.start(), thread.join()
"""


# -- strace ------------------------------------------------------------------------------------------------------------


@with_strace
@pytest.mark.parametrize(
    ("how", "code", "there"),
    [("SIGKILL", -9, ["first"]), ("SIGTERM", -15, ["first", "second"]), ("ENOSPC", 1, ["first"])],
)
def test_sigkill_comes_before_the_call_another_signal_after_it_an_error_instead(tmp_path, how, code, there):
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", TWO_FOLDERS, str(home)]
    _, second = [one for one in record(command, {}, home) if one.name == "mkdir"]
    shutil.rmtree(home)
    home.mkdir()
    run = strike(second, how, command, {}, home)
    assert (run.code, run.hit, names(home)) == (code, second, there)


@with_strace
def test_a_call_of_another_thread_would_be_seen(tmp_path):
    made = record([sys.executable, "-c", A_THREAD, str(tmp_path)], {}, tmp_path / "by-thread")
    assert [(one.thread, one.name) for one in made] == [("thread 1", "mkdir")]


def test_a_log_without_times_and_random_names():
    log = """1 execve("/bin/ucl", ...) = 0
1     mkdir("/h/pending", 0700) = 0
1 socket(AF_INET, SOCK_STREAM, 0) = 4<socket:[7]>
1 write(4<socket:[7]>, ""..., 5) = 5
1 openat(AT_FDCWD</>, "/h/.key.pem.0a1b2c3d.tmp", O_WRONLY|O_CREAT, 0600 <unfinished ...>
2 exit(0) = ?
1 <... openat resumed>) = 5</h/.key.pem.0a1b2c3d.tmp>
1 close(5</h/.key.pem.0a1b2c3d.tmp>) = 0
1 close(6</h/pending>) = 0
1 read(4<socket:[7]>, ""..., 5) = ?
"""
    assert [(one.name, one.number, one.role, one.on) for one, _ in calls_in(log, "/h")] == [
        ("mkdir", 1, "/pending, time 1", "file"),
        ("socket", 1, "inet 1", "socket"),
        ("write", 1, "inet 1, after 0 sent", "socket"),
        ("openat", 1, "/.key.pem.tmp, time 1", "file"),
        ("close", 1, "/.key.pem.tmp, time 1", "file"),
        ("read", 1, "inet 1, after 1 sent", "socket"),
    ]


KILLED = """1 openat(AT_FDCWD</>, "/h/now", O_WRONLY|O_CREAT, 0600) = 5</h/now>
1 rename("/h/.now.0a1b2c3d.tmp", "/h/now" <unfinished ...>
2 rename("/h/.{other}.tmp", "/h/now" <unfinished ...>
1 <... rename resumed>)             = ?
2 +++ killed by SIGKILL +++
1 +++ killed by SIGKILL +++
"""


@pytest.mark.parametrize(
    ("other", "threads"), [("now.0a1b2c3d", ["main"]), ("now.4e5f6a7b", ["main", "thread 1"])], ids=["echo", "twin"]
)
def test_a_call_shown_again_for_another_thread_after_sigkill_is_one_call(other, threads):
    """Seen with strace 6.1: the second thread made a key then and called nothing."""
    calls = [one for one, _ in calls_in(KILLED.format(other=other), "/h") if one.name == "rename"]
    assert [one.thread for one in calls] == threads


def test_a_call_that_a_thread_repeats_and_is_killed_in_stays():
    log = """1 fsync(5</h/now>) = 0
1 fsync(5</h/now> <unfinished ...>
1 +++ killed by SIGKILL +++
"""
    assert [one.number for one, _ in calls_in(log, "/h")] == [1, 2]


# -- the sandbox -------------------------------------------------------------------------------------------------------


def test_what_a_client_asked_for_is_done_though_it_was_killed_at_once(ground, tmp_path):
    """As at the real Connector: whoever is killed after asking for a signature has been given one."""
    client = Landscape(ground.ucl, ground.ucl.one_time_token).establish(tmp_path)
    before, url = len(ground.signed), urlsplit(ground.ucl.certificate_secured_connector_url)
    csr = encoded(csr_pem(name_of(fields_of_subject(client.client_id))))
    body = graphql(SIGN, csr=csr)
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((url.hostname, url.port)) as plain:
        secured = client.context.wrap_socket(plain, server_hostname=url.hostname)
        secured.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        secured.close()
    with ground.heard:
        assert ground.heard.wait_for(lambda: len(ground.signed) > before, 60)
    assert ground.signed[-1].subject == ground.signed[before - 1].subject


# -- damages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def connection(ground, tmp_path):
    """Renewed once: there are two generations."""
    made = install(Home(tmp_path / "home"), ground.ucl, tmp_path)
    with ground.quickly(ground.keys_after):
        renew(made)
    return made


def test_a_connection_is_in_order(connection, ground):
    assert [*damages(connection, ground.signed[-2:]), *remains(connection), *unsaid(connection)] == []


def open_to_others(current, other):
    (current / "key.pem").chmod(0o640)


def folder_open_to_others(current, other):
    current.chmod(0o750)


def keys_exchanged(current, other):
    shutil.copyfile(other / "key.pem", current / "key.pem")


def chains_exchanged(current, other):
    shutil.copyfile(other / "chain.pem", current / "chain.pem")


def certificates_exchanged(current, other):
    shutil.copyfile(other / "certificate.pem", current / "certificate.pem")


def chain_in_another_order(current, other):
    leaf, between, root = (current / "chain.pem").read_text().split("-----END CERTIFICATE-----\n")[:3]
    end = "-----END CERTIFICATE-----\n"
    (current / "chain.pem").write_text(end.join([leaf, root, between, ""]))
    (current / "identity.pem").write_bytes((current / "key.pem").read_bytes() + (current / "chain.pem").read_bytes())


def identity_of_two(current, other):
    (current / "identity.pem").write_bytes((other / "key.pem").read_bytes() + (current / "chain.pem").read_bytes())


def cut_short(current, other):
    os.truncate(current / "chain.pem", 1000)


def key_gone(current, other):
    (current / "key.pem").unlink()


def other_key_gone(current, other):
    shutil.rmtree(other)


def link_dangling(current, other):
    (current.parent.parent / "current").unlink()
    (current.parent.parent / "current").symlink_to("generations/000009-0123456789ab")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        pytest.param(open_to_others, "key.pem is open to others", marks=pytest.mark.plants_secrets),
        (folder_open_to_others, "is open to others"),
        (keys_exchanged, "key and certificate do not belong together"),
        (chains_exchanged, "key and certificate do not belong together"),
        (certificates_exchanged, "certificate.pem is not the first of the chain"),
        (chain_in_another_order, "the chain is not one"),
        (identity_of_two, "identity.pem is not its key and its chain"),
        (cut_short, "is not whole"),
        (key_gone, "which was signed, is lost"),
        (other_key_gone, "which was signed, is lost"),
        (link_dangling, "is not whole"),
    ],
)
def test_each_damage_is_found(connection, ground, damage, complaint):
    one, other = ground.signed[-1], ground.signed[-2]
    current, before = connection.current.path, connection.generations()[0].path
    if damage is other_key_gone:  # both are signed for keys of their own, of which one is gone
        assert one.public_key() != other.public_key()
    damage(current, before)
    assert any(complaint in found for found in damages(connection, [one, other]))


@pytest.mark.parametrize("left", [".current.0a1b2c3d.tmp", "generations/.new.0a1b2c3d.tmp", "pending/state.json"])
def test_what_was_left_is_found(connection, left):
    (connection.path / left).parent.mkdir(exist_ok=True)
    (connection.path / left).touch()
    assert len(list(remains(connection))) == 1
    assert bool(TEMPORARY.fullmatch((connection.path / left).name)) is left.endswith(".tmp")


def test_a_refusal_that_no_state_file_explains_is_found(connection, ground):
    ground.ucl._memory.revoke(connection.current.fingerprint, "", connection.current.validity.not_after)
    assert ["is refused" in one for one in unsaid(connection)] == [True]


def test_a_revocation_that_the_server_knows_nothing_of_is_found(connection):
    judged(connection)
    assert ["is accepted" in one for one in unsaid(connection)] == [True]


# -- readers -----------------------------------------------------------------------------------------------------------


def seen_by_readers(ground, connection, damage):
    with Onlookers(ground.ucl.certificate_secured_connector_url, ground.ucl.ca_file) as readers:
        readers.follow(connection.path)
        readers.look()
        damage(connection.current.path, connection.generations()[0].path)
        readers.look()
    return {one.split(":")[0] for one in readers.failures}


@pytest.mark.parametrize(
    ("damage", "by"),
    [
        (lambda *_: None, set()),
        (identity_of_two, {"identity"}),
        (keys_exchanged, {"split", "call"}),
        (link_dangling, {"identity", "split", "call"}),
    ],
    ids=["none", "identity.pem of two", "keys exchanged", "link dangling"],
)
def test_readers_see_what_is_wrong(connection, ground, damage, by):
    assert seen_by_readers(ground, connection, damage) == by


def test_readers_see_a_refusal(connection, ground):
    def revoked(*_):
        ground.ucl._memory.revoke(connection.current.fingerprint, "", connection.current.validity.not_after)

    assert seen_by_readers(ground, connection, revoked) == {"call"}
