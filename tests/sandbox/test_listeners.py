"""The handshakes: each success beside its twin that fails for one reason."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from contract_replay import (
    CONFIGURATION,
    DEFAULT_TYPE,
    NO_ANSWER,
    Answer,
    Established,
    Landscape,
    fields_of_subject,
    graphql,
    name_of,
    rsa_key,
    send,
    trusting,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from ucl_sandbox import Sandbox

NOW = datetime.now(UTC)
CONFIGURE = graphql(CONFIGURATION)


class Clock:
    """The sandbox's clock, for `NotBefore`; TLS goes by the system's."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def landscape(clock: Clock) -> Iterator[Landscape]:
    with Sandbox(clock=clock, validity=timedelta(hours=1)) as ucl:
        yield Landscape(ucl, ucl.one_time_token)


@pytest.fixture
def client(landscape: Landscape, tmp_path: Path, clock: Clock) -> Established:
    clock.now = datetime.now(UTC)
    return landscape.establish(tmp_path)


def with_identity(client: Established, pem: bytes, name: str = "other.pem") -> Answer:
    path = client.identity.with_name(name)
    path.write_bytes(pem)
    client.context = trusting(client.landscape.ucl.ca_file, path)
    return client.call(CONFIGURE)


def key_pem() -> bytes:
    plain = serialization.NoEncryption()
    return rsa_key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def forged(landscape: Landscape, client_id: str, signer: str = "client-intermediate.pem", **subject: str) -> bytes:
    """A certificate of the sandbox's own CA that the Connector has not signed."""
    ca_pem = (landscape.ucl.state / signer).read_bytes()
    ca, now = x509.load_pem_x509_certificate(ca_pem), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name_of(fields_of_subject(client_id, **subject)))
        .issuer_name(ca.subject)
        .public_key(rsa_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(serialization.load_pem_private_key(ca_pem, None), hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


# -- the client's certificate ------------------------------------------------------------------------------------------


def test_a_signed_certificate_is_accepted(client: Established) -> None:
    assert client.call(CONFIGURE).status == 200


def test_the_leaf_alone_is_accepted(client: Established) -> None:
    leaf = x509.load_pem_x509_certificates(client.chain)[0].public_bytes(serialization.Encoding.PEM)
    assert with_identity(client, key_pem() + leaf).status == 200


def test_no_certificate_is_not(client: Established) -> None:
    client.context = client.landscape.context
    assert client.call(CONFIGURE) == NO_ANSWER


def test_one_of_a_foreign_ca_is_not(client: Established, tmp_path: Path) -> None:
    with Sandbox() as foreign:
        (tmp_path / "foreign").mkdir()
        stranger = Landscape(foreign, foreign.one_time_token).establish(tmp_path / "foreign")
    assert with_identity(client, stranger.identity.read_bytes()) == NO_ANSWER


def test_one_of_the_server_ca_is_not(client: Established) -> None:
    server = forged(client.landscape, client.client_id, "server-root.pem")
    assert with_identity(client, key_pem() + server) == NO_ANSWER


@pytest.mark.parametrize(
    ("signed", "accepted"),
    [(timedelta(minutes=-59), True), (timedelta(hours=-2), False), (timedelta(hours=1), False)],
    ids=["in time", "expired", "not yet valid"],
)
def test_one_out_of_time_is_not(
    landscape: Landscape, tmp_path: Path, clock: Clock, signed: timedelta, *, accepted: bool
) -> None:
    clock.now = datetime.now(UTC) + signed
    client = landscape.establish(tmp_path)
    clock.now = datetime.now(UTC)
    assert (client.call(CONFIGURE) != NO_ANSWER) is accepted


@pytest.mark.parametrize(
    ("subject", "status"),
    [({}, 200), ({"O": "Other"}, 400), ({"C": "PL"}, 400), ({"CN": "nobody"}, 400), ({"OU": "x", "L": "y"}, 400)],
)
def test_the_right_ca_is_not_enough(client: Established, subject: dict[str, str], status: int) -> None:
    """A wrong subject is no TLS failure, but the empty 400."""
    answer = with_identity(client, key_pem() + forged(client.landscape, client.client_id, **subject))
    assert answer.status == status
    assert status == 200 or answer == Answer(400, DEFAULT_TYPE, "")


def test_a_deleted_client_is_refused(client: Established) -> None:
    assert client.call(CONFIGURE).status == 200
    client.landscape.ucl._memory.delete_system_auth(client.client_id)
    assert client.call(CONFIGURE) == Answer(400, DEFAULT_TYPE, "")


def test_revoking_one_of_two_leaves_the_other(client: Established, clock: Clock) -> None:
    clock.now -= timedelta(minutes=1)
    other = client.renew()
    revoke = graphql("mutation { result: revokeCertificate }")
    assert other.call(revoke).result is True
    assert [other.call(CONFIGURE).status, client.call(CONFIGURE).status] == [400, 200]
    assert other.call(revoke) == Answer(400, DEFAULT_TYPE, "")


def test_a_token_is_not_looked_at_here(client: Established) -> None:
    other = client.landscape.new_token()
    assert client.client_id in client.call(CONFIGURE, {"connector-token": other}).body
    assert client.landscape.at_token(CONFIGURE, other).status == 200


# -- the protocol and the server's certificate -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_protocols_are_spoken(client: Established, version: ssl.TLSVersion) -> None:
    client.context.minimum_version = client.context.maximum_version = version
    assert client.call(CONFIGURE).status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize("endpoint", ["director_url", "connector_url", "certificate_secured_connector_url"])
def test_an_old_protocol_is_not(client: Established, endpoint: str) -> None:
    context = client.context
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert send(getattr(client.landscape.ucl, endpoint), context, CONFIGURE) == NO_ANSWER


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_server_bears_its_names(landscape: Landscape, host: str) -> None:
    url = landscape.ucl.connector_url.replace("localhost", host)
    assert send(url, landscape.context, CONFIGURE).status == 400


def test_the_client_ca_does_not_verify_the_server(landscape: Landscape) -> None:
    context = trusting(landscape.ucl.state / "client-root.pem")
    assert send(landscape.ucl.connector_url, context, CONFIGURE) == NO_ANSWER


def test_it_listens_on_loopback_only(landscape: Landscape) -> None:
    assert urlsplit(landscape.ucl.connector_url).hostname == "localhost"
    listening = Path("/proc/net/tcp").read_text("ascii") if Path("/proc/net/tcp").exists() else ""
    port = f":{urlsplit(landscape.ucl.connector_url).port:04X}"
    addresses = {
        line.split()[1].partition(":")[0] for line in listening.splitlines()[1:] if line.split()[1].endswith(port)
    }
    assert addresses <= {"0100007F"}
