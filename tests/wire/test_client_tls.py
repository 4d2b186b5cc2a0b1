"""Who trusts whom: each handshake that works beside its twins that fail for one reason."""

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from contract_replay import Established, Landscape, rsa_key
from cryptography import x509
from tls_servers import HOUR, QUERY, Authority, ec_key, proxying, result, serving

from ucl_helpers.connection.store import Home
from ucl_helpers.errors import (
    AuthenticationFailed,
    CertificateRejected,
    ServerNotTrusted,
    UCLError,
    Unreachable,
)
from ucl_helpers.keys import Credentials
from ucl_helpers.operate.doctor import diagnose_way
from ucl_helpers.operations import CONFIGURATION, REVOKE
from ucl_helpers.urls import is_loopback
from ucl_helpers.wire.client import Client
from ucl_helpers.wire.proxy import proxy_for
from ucl_helpers.wire.tls import tls_context
from ucl_sandbox import Sandbox


class Clock:
    """The sandbox's clock, for `NotBefore`; TLS goes by the system's."""

    ahead = timedelta(0)

    def __call__(self):
        return datetime.now(UTC) + self.ahead


@pytest.fixture(scope="module")
def clock():
    return Clock()


@pytest.fixture(scope="module")
def ucl(clock):
    with Sandbox(clock=clock, validity=HOUR) as running:
        yield running


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "server CA")


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "another CA")


@pytest.fixture(scope="module")
def server_identity(ca):
    return ca.issue("server")


def credentials_of(path):
    return Credentials(path, path, x509.load_pem_x509_certificates(path.read_bytes())[0])


def establish(ucl, folder, clock, *, ahead=timedelta(0)):
    clock.ahead = ahead
    established: Established = Landscape(ucl, ucl.one_time_token).establish(folder)
    clock.ahead = timedelta(0)
    return credentials_of(established.identity)


def ask(url, ca_file, credentials=None, operation=QUERY, **options):
    """The answer's result, or the error."""
    options = {"retry": False, **options}
    with Client(url, "certificate", ca_file=ca_file, credentials=credentials, **options) as client:
        try:
            return client.call(operation).result
        except UCLError as error:
            return error


def is_refused(error):
    """An alert says so; with TLS 1.3 it may get lost in the reset that follows it, and then the remedy says so."""
    lost = type(error) is Unreachable and "client certificate" in error.remedy
    return lost or type(error) is CertificateRejected


# -- our certificate, at the sandbox -----------------------------------------------------------------------------------


def at_sandbox(ucl, credentials, operation=CONFIGURATION):
    return ask(ucl.certificate_secured_connector_url, ucl.ca_file, credentials, operation)


def test_a_signed_certificate_is_accepted(ucl, tmp_path, clock):
    assert "certificateSigningRequestInfo" in at_sandbox(ucl, establish(ucl, tmp_path, clock))


def test_none_is_a_refused_handshake(ucl):
    assert is_refused(at_sandbox(ucl, None))


def test_one_of_another_ca_is_a_refused_handshake(ucl, other_ca):
    assert is_refused(at_sandbox(ucl, credentials_of(other_ca.issue("stranger", key=rsa_key()))))


def test_an_expired_one_is_a_refused_handshake_that_says_since_when(ucl, tmp_path, clock):
    expired = establish(ucl, tmp_path, clock, ahead=timedelta(hours=-2))
    error = at_sandbox(ucl, expired)
    assert type(error) is CertificateRejected
    assert f"expired {expired.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%S}" in error.message


def test_a_revoked_one_is_refused_and_revocation_is_among_the_causes(ucl, tmp_path, clock):
    credentials = establish(ucl, tmp_path, clock, ahead=timedelta(minutes=-10))
    assert at_sandbox(ucl, credentials, REVOKE) is True
    error = at_sandbox(ucl, credentials)
    assert type(error) is AuthenticationFailed
    assert "the client certificate was revoked" in error.data["causes"]


def test_a_young_one_that_is_refused_is_told_to_wait_first(ucl, tmp_path, clock):
    credentials = establish(ucl, tmp_path, clock)
    assert at_sandbox(ucl, credentials, REVOKE) is True
    assert "try again in 5 minutes" in at_sandbox(ucl, credentials).data["causes"][0]


def test_the_client_ca_does_not_verify_the_server(ucl, tmp_path, clock):
    credentials = establish(ucl, tmp_path, clock)
    client_ca = ucl.state / "client-root.pem"
    assert type(ask(ucl.certificate_secured_connector_url, client_ca, credentials)) is ServerNotTrusted


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("issuer", ["ca", "other_ca", None])
def test_either_protocol_tells_a_refused_client(request, ca, server_identity, version, issuer):
    """With TLS 1.3 the client has finished the handshake before the server says no."""
    authority, accepted = issuer and request.getfixturevalue(issuer), issuer == "ca"
    credentials = credentials_of(authority.issue("client", hosts=(), key=ec_key(2))) if authority else None
    with serving(
        result(), identity=server_identity, client_ca=ca.ca_file, maximum_version=ssl.TLSVersion[version]
    ) as server:
        got = ask(server.url, ca.ca_file, credentials)
        assert len(server.requests) == accepted
    assert (got == "fine") if accepted else is_refused(got)


# -- the server's certificate ------------------------------------------------------------------------------------------


def test_a_server_that_verifies_is_asked(ca, server_identity):
    with serving(result(), identity=server_identity) as server:
        assert ask(server.url, ca.ca_file) == "fine"
        assert ask(server.url.replace("localhost", "127.0.0.1"), ca.ca_file) == "fine"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"hosts": ("example.com", "127.0.0.1")}, "another host"),
        ({"hosts": ()}, "another host"),
        ({"valid": (-2 * HOUR, -HOUR)}, "expired"),
        ({"valid": (HOUR, 2 * HOUR)}, "not valid yet"),
    ],
)
def test_a_certificate_that_does_not_fit_is_not_trusted_and_nothing_is_sent(ca, made, said):
    with serving(result(), identity=ca.issue("odd", **made)) as server:
        error = ask(server.url, ca.ca_file, retry=True)
        assert (server.requests, server.accepted) == ([], 1)
    assert type(error) is ServerNotTrusted
    assert said in error.message
    assert "x-request-id" not in error.message  # UCL's log has nothing of it


@pytest.mark.parametrize("hosts", [None, ("localhost",)])
def test_a_common_name_is_no_host_name(ca, hosts):
    """RFC 9525: only the subjectAltName counts."""
    with serving(result(), identity=ca.issue("localhost", hosts=hosts)) as server:
        got = ask(server.url, ca.ca_file)
        assert len(server.requests) == (hosts is not None)
    assert got == "fine" if hosts else (type(got) is ServerNotTrusted and "no subjectAltName names" in got.message)


def test_an_unknown_ca_is_not_trusted(ca, other_ca, server_identity):
    with serving(result(), identity=server_identity) as server:
        error = ask(server.url, other_ca.ca_file)
        assert type(error) is type(ask(server.url, None)) is ServerNotTrusted
        assert "CA is unknown" in error.message
        assert server.requests == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("version", "spoken"), [("TLSv1_1", False), ("TLSv1_2", True)])
def test_a_server_of_yesterday_is_refused(ca, server_identity, version, *, spoken):
    only = ssl.TLSVersion[version]
    old = {"ciphers": "ALL:@SECLEVEL=0", "minimum_version": only, "maximum_version": only}
    with serving(result(), identity=server_identity, **old) as server:
        got = ask(server.url, ca.ca_file)
        assert len(server.requests) == spoken
    assert (got == "fine") if spoken else type(got) is ServerNotTrusted


# -- one connection, one handshake -------------------------------------------------------------------------------------


def test_two_calls_share_a_connection_and_a_new_client_begins_anew(ca, server_identity):
    with serving(result(), identity=server_identity) as server:
        with Client(server.url, "certificate", ca_file=ca.ca_file) as client:
            assert client.call(QUERY).request_id != client.call(QUERY).request_id
            assert server.accepted == 1
            with Client(server.url, "certificate", ca_file=ca.ca_file) as another:
                another.call(QUERY)
            assert (server.accepted, len(server.requests)) == (2, 3)
        assert ask(server.url, ca.ca_file) == "fine"
        assert server.resumed == [False] * 3


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_session_could_be_resumed_there(ca, server_identity, version):
    """What the test above would see if a client did."""
    only = ssl.TLSVersion[version]
    with serving(result(), identity=server_identity, maximum_version=only) as server:
        context, session = tls_context(ca.ca_file, None), None
        for _ in range(2):
            raw = socket.create_connection(("127.0.0.1", server.port))
            with context.wrap_socket(raw, session=session, server_hostname="localhost") as connection:
                connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
                connection.recv(100)
                session = connection.session
        assert server.resumed == [False, True]


def test_closing_a_client_closes_its_connection_though_an_error_of_it_is_kept(ca, server_identity):
    with serving(b"HTTP/1.1 400 -\r\nContent-Length: 0\r\n\r\n", identity=server_identity) as server:
        error = ask(server.url, ca.ca_file)
    assert type(error) is AuthenticationFailed  # the server's thread has been joined: it saw the end


# -- what the environment cannot do ------------------------------------------------------------------------------------


def test_the_environment_overrides_neither_trust_nor_headers(ca, other_ca, server_identity, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other_ca.ca_file))
    own = {"Authorization": "Bearer mine"}
    with (
        serving(result(), identity=server_identity) as server,
        Client(server.url, "director", ca_file=ca.ca_file, headers=own) as client,
    ):
        client.call(QUERY)
        assert server.requests[0].headers["authorization"] == "Bearer mine"
        with Client(server.url, "director", ca_file=ca.ca_file) as plain:
            plain.call(QUERY)
        assert "authorization" not in server.requests[1].headers
        assert client.context.get_ca_certs(binary_form=True) == [ssl.PEM_cert_to_DER_cert(ca.ca_file.read_text())]
    with serving(result(), identity=other_ca.issue("server")) as stranger:
        assert type(ask(stranger.url, ca.ca_file)) is ServerNotTrusted
        assert ask(stranger.url, None) == "fine"  # the system's trust is OpenSSL's, which does look at SSL_CERT_FILE


def _missing(folder):
    return folder / "missing"


def _empty(folder):
    (folder / "empty.pem").touch()
    return folder / "empty.pem"


def _text(folder):
    (folder / "text.pem").write_text("no certificate\n")
    return folder / "text.pem"


def _folder(folder):
    (folder / "folder").mkdir()
    return folder / "folder"


def _nothing(_):
    return ""


SYSTEM_TRUST = [
    *(("SSL_CERT_FILE", made) for made in (_missing, _empty, _text, _folder, _nothing)),
    *(("SSL_CERT_DIR", made) for made in (_missing, _empty, _folder, _nothing)),
]


@pytest.mark.kind("the right culprit: a variable that leads away from the system's CAs")
@pytest.mark.parametrize("case", SYSTEM_TRUST)
def test_a_variable_that_names_no_ca_is_named(ca, server_identity, tmp_path, monkeypatch, case):
    variable, made = case
    value = made(tmp_path)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(variable, str(value))
    with serving(result(), identity=server_identity) as server:
        error = ask(server.url, None)
        assert type(error) is ServerNotTrusted
        assert f" {variable} names {value or 'nothing'}, where OpenSSL finds no CA." in error.message
        assert error.remedy.startswith(f"Correct {variable}, or remove it: unset {variable}.")
        finding = diagnose_way(Home(tmp_path / "home"), server.url, seconds=5)["server trust"]
        assert (finding.status, finding.remedy) == ("failed", f"unset {variable}")
        assert str(value) in finding.found
        assert ask(server.url, ca.ca_file) == "fine"  # which does not go by the system's CAs


@pytest.mark.parametrize("usable", ["file", "folder"])
def test_a_variable_that_names_other_cas_is_not(other_ca, server_identity, tmp_path, monkeypatch, usable):
    """The twin."""
    if usable == "file":
        monkeypatch.setenv("SSL_CERT_FILE", str(other_ca.ca_file))
    else:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
        (tmp_path / "01234567.0").write_bytes(other_ca.ca_file.read_bytes())
    with serving(result(), identity=server_identity) as server:
        error = ask(server.url, None)
    assert (type(error), "SSL_CERT" in str(error)) == (ServerNotTrusted, False)


ELSEWHERE = "elsewhere.invalid"


@pytest.fixture
def elsewhere(ca):
    """A server of a host that only a proxy finds."""
    with serving(result(), identity=ca.issue("elsewhere", hosts=(ELSEWHERE, "localhost", "127.0.0.1"))) as server:
        server.url = server.url.replace("localhost", ELSEWHERE)
        yield server


@pytest.fixture(autouse=True)
def no_host_is_excepted(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("scheme", ["HTTPS_PROXY", "https_proxy"])
def test_a_proxy_passes_on_what_it_cannot_read(ca, other_ca, elsewhere, monkeypatch, scheme):
    with proxying() as proxy:
        monkeypatch.setenv(scheme, f"http://someone:hidden@127.0.0.1:{proxy.port}")
        with Client(elsewhere.url, "certificate", ca_file=ca.ca_file) as client:
            assert [client.call(QUERY).result, client.call(QUERY).result] == ["fine", "fine"]
            assert len(client.context.get_ca_certs()) == 1
        assert (proxy.accepted, elsewhere.accepted) == (1, 1)
        assert "Proxy-Authorization" in proxy.requests[0].headers
        assert "proxy-authorization" not in elsewhere.requests[0].headers
        error = ask(elsewhere.url, other_ca.ca_file)
        assert (proxy.accepted, type(error)) == (2, ServerNotTrusted)
        monkeypatch.setenv("NO_PROXY", ELSEWHERE)
        assert type(ask(elsewhere.url, ca.ca_file)) is Unreachable
        assert proxy.accepted == 2


@pytest.mark.parametrize(("host", "through"), [("localhost", 0), ("127.0.0.1", 0), (ELSEWHERE, 1)])
def test_no_proxy_is_used_to_this_machine_itself(ca, elsewhere, monkeypatch, host, through):
    """The sandbox is reached whatever the environment says: to a proxy its own loopback is what it would find there."""
    with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert ask(elsewhere.url.replace(ELSEWHERE, host), ca.ca_file) == "fine"
        assert (proxy.accepted, elsewhere.accepted) == (through, 1)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "[::1]")),
        *((host, False) for host in ("localhost.example", "126.0.0.1", "10.0.0.1", "[::2]", "127.0.0.1.example")),
    ],
)
def test_what_this_machine_itself_is(host, here, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    url = f"https://{host}:8443/graphql"
    assert (is_loopback(url), proxy_for(url) is None) == (here, here)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 407 -\r\n\r\n", b"HTTP/1.1 502 -\r\n\r\n", b""])
def test_a_proxy_that_does_not_let_us_through_is_no_answer(ca, elsewhere, monkeypatch, greeting):
    with proxying(greeting) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://someone:hidden@127.0.0.1:{proxy.port}")
        error = ask(elsewhere.url, ca.ca_file, deadline=1)
        assert elsewhere.requests == []
    assert type(error) is Unreachable
    assert "hidden" not in f"{error} {error!r} {error.data}"
