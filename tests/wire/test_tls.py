"""What a connection is made from: an https URL, a CA file, key and certificate."""

import os
import select
import socket
import ssl
import struct
import threading

import pytest
from contract_replay import rsa_key
from cryptography import x509
from secrets_watch import CANARY
from tls_servers import Authority

from ucl_helpers.errors import InvalidSettings, KeyLocked, StorageFailed, UsageError
from ucl_helpers.keys import Credentials, dump_key
from ucl_helpers.urls import check_url
from ucl_helpers.wire.client import Client
from ucl_helpers.wire.tls import tls_context


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/graphql",
        "HTTP://localhost/graphql?token=hidden",
        "localhost/graphql",
        "https://",
        "https:///graphql",
        "https://localhost:0/",
        "https://localhost:99999/",
        "https://localhost:x/",
        "https://user:hidden@localhost/",
        "https://@localhost/",
        "https://local host/",
        "https://localhost/\n",
        "https://localhost/\x00",
        "file:///etc/passwd",
        "https://[::1",
        "",
        None,
    ],
)
def test_what_is_no_https_url_is_refused(url):
    with pytest.raises(UsageError, match="https") as caught:
        Client(url, "certificate")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://localhost/graphql", "HTTPS://127.0.0.1:8443", "https://[::1]:1/"])
def test_an_https_url_stays_as_it_is(url):
    assert check_url(url) == url


@pytest.mark.parametrize("content", [None, b"", b"text", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageFailed, match=r"ca\.pem"):
        tls_context(path, None)


def test_a_directory_is_no_ca_file(tmp_path):
    with pytest.raises(StorageFailed, match="cannot be used"):
        tls_context(tmp_path, None)


def test_key_and_certificate_must_belong_together_and_be_there(tmp_path):
    ca = Authority(tmp_path / "ca", "CA")
    mine = ca.issue("mine", key=rsa_key())
    good = Credentials(mine, mine, x509.load_pem_x509_certificates(mine.read_bytes())[0])
    assert tls_context(None, good)
    for key_file, problem in {
        ca.issue("not mine"): r"cannot be used: \[SSL",
        tmp_path / "missing.pem": "Could not read key and certificate in .*: No such file",
    }.items():
        with pytest.raises(StorageFailed, match=problem):
            tls_context(None, Credentials(good.certificate_file, key_file, good.certificate))
    with pytest.raises(StorageFailed):
        tls_context(None, Credentials(good.certificate_file, tmp_path, good.certificate))


def lost():
    raise InvalidSettings("key_passphrase of prod: the file gone cannot be read.")


def test_an_encrypted_key_is_opened_by_its_passphrase_and_by_no_other(tmp_path):
    mine = Authority(tmp_path / "ca", "CA").issue("mine", key=rsa_key())
    certificate, encrypted = x509.load_pem_x509_certificates(mine.read_bytes())[0], tmp_path / "encrypted.pem"
    encrypted.write_bytes(dump_key(rsa_key(), CANARY.encode()))
    right = Credentials(mine, encrypted, certificate, CANARY.encode)
    assert tls_context(None, right)
    assert CANARY not in f"{right}{right!r}"
    for passphrase, why in {
        lambda: None: "is not set",
        lambda: b"wrong": "another passphrase",
        lost: "file gone",
    }.items():
        with pytest.raises((KeyLocked, InvalidSettings), match=why):
            tls_context(None, Credentials(mine, encrypted, certificate, passphrase))
    encrypted.write_bytes(encrypted.read_bytes()[:400])
    with pytest.raises(StorageFailed, match="cannot be used"):
        tls_context(None, right)


def test_a_connection_that_is_reset_before_the_handshake_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        select.select([ours], [], [])
        descriptor = ours.fileno()
        with pytest.raises(ConnectionResetError):
            tls_context(None, None).wrap_socket(ours, server_hostname="localhost")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def send_on(connection):
    while True:
        connection.sendall(b"request")


def meets(ca, hang_up):
    """What a client meets that sends on after ``hang_up`` has ended the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=lambda: hang_up(listening.accept()[0]))
        server.start()
        raw = socket.create_connection(listening.getsockname())
        with tls_context(ca.ca_file, None).wrap_socket(raw, server_hostname="localhost") as ours:
            server.join()
            with pytest.raises((ssl.SSLError, ConnectionError)) as met:
                send_on(ours)
    return met.value


def test_why_a_server_hung_up_is_heard_by_who_goes_on_sending(tmp_path):
    ca = Authority(tmp_path / "ca", "CA")
    identity = ca.issue("server")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(identity)

    def silently(connection):
        server.wrap_socket(connection, server_side=True).close()

    def with_an_alert(connection):
        with connection, pytest.raises(ssl.SSLError):
            server.wrap_socket(connection, server_side=True)

    assert isinstance(meets(ca, silently), ssl.SSLEOFError | ConnectionError)
    server.verify_mode = ssl.CERT_REQUIRED
    assert "CERTIFICATE_REQUIRED" in meets(ca, with_an_alert).reason
