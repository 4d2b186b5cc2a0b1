"""The sandbox as an object: its state folder, its ports, its certificates' validity, what it notes."""

import contextlib
import http.client
import json
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from contract_replay import CONFIGURATION, JSON_TYPE, Landscape, graphql, rsa_key, trusting
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ucl_sandbox import RunningSandbox, Sandbox, SandboxError
from ucl_sandbox.server import _candidates

REVOKE = graphql("mutation { result: revokeCertificate }")


def landscape_of(ucl: RunningSandbox) -> Landscape:
    return Landscape(ucl, ucl.one_time_token)


def ports_of(ucl: RunningSandbox) -> list[int | None]:
    urls = (ucl.director_url, ucl.connector_url, ucl.certificate_secured_connector_url)
    return [urlsplit(url).port for url in urls]


# -- the state folder --------------------------------------------------------------------------------------------------


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "state") as before:
        kept, revoked = (landscape_of(before).establish(folder) for folder in _folders(tmp_path, "kept", "revoked"))
        assert revoked.call(REVOKE).result is True
        token = before.one_time_token()
        ports = ports_of(before)
    with Sandbox(tmp_path / "state") as after:
        assert ports_of(after) == ports
        same = ("director_token", "tenant", "application_id", "ca_file", "state")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
        assert landscape_of(after).at_token(graphql(CONFIGURATION), token).status == 200
        for client, status in ((kept, 200), (revoked, 400)):
            client.context = trusting(after.ca_file, client.identity)
            assert client.call(graphql(CONFIGURATION)).status == status


def _folders(parent: Path, *names: str) -> list[Path]:
    for name in names:
        (parent / name).mkdir()
    return [parent / name for name in names]


def test_one_process_owns_a_state_folder(tmp_path: Path) -> None:
    with Sandbox(tmp_path), pytest.raises(SandboxError, match=r"in use by another sandbox \(process \d+\)"):
        Sandbox(tmp_path).__enter__()
    with Sandbox(tmp_path) as ucl:
        assert ucl.state == tmp_path


def test_the_ca_layout_of_a_state_folder_stays(tmp_path: Path) -> None:
    with Sandbox(tmp_path, ca_layout="root"):
        pass
    with pytest.raises(SandboxError, match="made with the CA layout 'root'"):
        Sandbox(tmp_path, ca_layout="intermediate").__enter__()
    with Sandbox(tmp_path, ca_layout="root"):
        pass


def test_only_the_owner_can_read_the_state(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "state") as ucl:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ucl.state.iterdir()}
        assert stat.S_IMODE(ucl.state.stat().st_mode) == 0o700
    assert {"client-root.pem", "client-intermediate.pem", "server-root.pem", "server.pem", "ready.json"} <= set(modes)
    assert {name for name, mode in modes.items() if mode & 0o077} <= {"state.sqlite-shm", "state.sqlite-wal"}


def test_a_temporary_state_goes_away() -> None:
    with Sandbox() as ucl:
        assert ucl.ca_file.exists()
    assert not ucl.state.exists()


def test_the_application_of_the_ready_file_is_always_there(tmp_path: Path) -> None:
    with Sandbox(tmp_path) as ucl:
        ucl._memory.unregister(ucl.application_id)
    with Sandbox(tmp_path) as again:
        assert again.application_id != ucl.application_id
        assert again.one_time_token()


# -- ports -------------------------------------------------------------------------------------------------------------


def test_ports_lie_outside_the_ephemeral_range() -> None:
    lowest, highest = 32768, 60999
    with contextlib.suppress(OSError):
        lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split())
    assert not set(_candidates()) & set(range(lowest, highest + 1))
    with Sandbox() as ucl:
        assert set(ports_of(ucl)) <= set(_candidates())


def test_a_port_that_is_taken_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    with Sandbox(tmp_path) as ucl:
        director, token, certificate = ports_of(ucl)
    with socket.create_server(("127.0.0.1", token or 0)), Sandbox(tmp_path) as ucl:
        replaced = ports_of(ucl)
        assert replaced == [director, replaced[1], certificate]
        assert replaced[1] != token
        assert landscape_of(ucl).configure()
    with Sandbox(tmp_path) as ucl:
        assert ports_of(ucl) == replaced


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "validity", [timedelta(seconds=5), timedelta(hours=24), timedelta(days=90), timedelta(days=7300)]
)
def test_certificates_are_as_the_real_ones(validity: timedelta, tmp_path: Path) -> None:
    asked = datetime.now(UTC).replace(microsecond=0)
    with Sandbox(validity=validity) as ucl:
        client = landscape_of(ucl).establish(tmp_path)
    leaf, intermediate, root = x509.load_pem_x509_certificates(client.chain)
    assert leaf.serial_number == 2
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == validity
    assert timedelta() <= leaf.not_valid_before_utc - asked <= timedelta(seconds=10)
    assert leaf.public_key() == rsa_key().public_key()
    assert leaf.subject.rfc4514_string() == f"CN={client.client_id},OU=OrgUnit,O=Org,L=locality,ST=province,C=DE"
    found = {type(extension.value): extension.critical for extension in leaf.extensions}
    assert found == {x509.KeyUsage: True, x509.ExtendedKeyUsage: False, x509.AuthorityKeyIdentifier: False}
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)


def test_another_validity_holds_for_new_certificates(tmp_path: Path) -> None:
    lifetimes = []
    for days in (1, 2):
        with Sandbox(tmp_path / "state", validity=timedelta(days=days)) as ucl:
            leaf = x509.load_pem_x509_certificates(landscape_of(ucl).establish(tmp_path).chain)[0]
        lifetimes.append((leaf.not_valid_after_utc - leaf.not_valid_before_utc).days)
    assert lifetimes == [1, 2]


def test_one_key_in_one_second_gets_the_very_same_certificate(tmp_path: Path) -> None:
    """Serial number, times and signature are the same then: so it is with the real one."""
    moment = [datetime.now(UTC) - timedelta(minutes=1)]
    with Sandbox(clock=lambda: moment[0]) as ucl:
        client = landscape_of(ucl).establish(tmp_path)
        assert client.renew().chain == client.chain
        moment[0] += timedelta(seconds=1)
        assert client.renew().chain != client.chain


# -- what it tells -----------------------------------------------------------------------------------------------------


def test_no_secret_is_shown() -> None:
    with Sandbox() as ucl:
        token = ucl.one_time_token()
        landscape_of(ucl).at_token(graphql(CONFIGURATION), token)
        told = repr(ucl) + repr(ucl.requests)
    assert ucl.connector_url in told
    assert token not in told
    assert ucl.director_token not in told


def test_requests_tell_a_kept_connection_from_a_new_one() -> None:
    with Sandbox() as ucl:
        parts = urlsplit(ucl.connector_url)
        for _ in range(2):
            connection = http.client.HTTPSConnection("localhost", parts.port, context=trusting(ucl.ca_file))
            with contextlib.closing(connection):
                for _ in range(2):
                    connection.request("POST", parts.path, graphql(CONFIGURATION), JSON_TYPE)
                    connection.getresponse().read()
        noted = ucl.requests
    assert [(one.listener, one.method, one.path, one.status) for one in noted] == [
        ("token", "POST", parts.path, 400)
    ] * 4
    numbers = [one.connection for one in noted]
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def test_the_ready_file_is_there_while_it_runs(tmp_path: Path) -> None:
    with Sandbox(tmp_path) as ucl:
        content = json.loads((tmp_path / "ready.json").read_text("utf-8"))
        assert content["connectorUrl"] == ucl.connector_url
        assert content["directorToken"] == ucl.director_token
    assert not (tmp_path / "ready.json").exists()


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_the_director_is_healthy(path: str) -> None:
    with Sandbox() as ucl:
        parts = urlsplit(ucl.director_url)
        connection = http.client.HTTPSConnection("localhost", parts.port, context=trusting(ucl.ca_file))
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"UP" if path == "/healthz" else b"")
