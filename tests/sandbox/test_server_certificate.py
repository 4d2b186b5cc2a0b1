"""The sandbox's own server certificates: they keep every rule of RFC 5280, and are made anew before they expire.

Clients are strict here, as Python 3.13 is by default. Each success has a twin that the same client refuses.
"""

import ssl
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import requests
from contract_replay import CONFIGURATION, DEFAULT_TYPE, NO_ANSWER, Answer, Landscape, graphql, send
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from requests.adapters import HTTPAdapter

from ucl_sandbox import Fault, Sandbox

pytestmark = pytest.mark.kind("server certificates: RFC 5280, and renewed in time")
REFUSED = Answer(400, DEFAULT_TYPE, "")
CONFIGURE = graphql(CONFIGURATION)
DAY = timedelta(days=1)
LOOPBACK = [x509.DNSName("localhost")]


def strict(ca_file, identity=None):
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    if identity is not None:
        context.load_cert_chain(identity)
    return context


def urls(ucl):
    return [ucl.connector_url, ucl.director_url]


class Clock:
    """Moved by hand."""

    def __init__(self):
        self.now = datetime.now(UTC)

    def __call__(self):
        return self.now


def shown_by(ucl):
    """The certificate that a new connection is shown."""
    where = urlsplit(ucl.connector_url)
    pem = ssl.get_server_certificate((where.hostname, where.port), ca_certs=str(ucl.ca_file))
    return x509.load_pem_x509_certificate(pem.encode())


# -- RFC 5280 ----------------------------------------------------------------------------------------------------------


def test_strict_clients_accept_every_listener(tmp_path):
    with Sandbox() as ucl:
        for url in urls(ucl):
            assert send(url, strict(ucl.ca_file)).status == 400
        client = Landscape(ucl, ucl.one_time_token).establish(tmp_path)
        client.context = strict(ucl.ca_file, client.identity)
        assert client.call(CONFIGURE).status == 200
        assert client.call_director(CONFIGURE).status == 422


class Strict(HTTPAdapter):
    """What `requests` does by default on Python 3.13."""

    def init_poolmanager(self, *args, **options):
        super().init_poolmanager(*args, **options, ssl_context=strict(None))


@pytest.mark.parametrize("trusting", [True, False], ids=["with the CA file", "without it"])
def test_requests_needs_nothing_but_the_ca_file(trusting):
    with Sandbox() as ucl, requests.Session() as session:
        session.trust_env = False
        session.mount("https://", Strict())
        health = ucl.director_url.replace("/director/graphql", "/healthz")
        if trusting:
            assert session.get(health, verify=str(ucl.ca_file)).text == "UP"
        else:
            with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
                session.get(health)


@pytest.mark.parametrize("changed", [False, True], ids=["as made", "after its CA has changed"])
def test_each_certificate_of_the_chain_has_what_the_rfc_demands(tmp_path, changed):
    """RFC 5280: sections 4.1.2.2 (serial number), 4.2.1.1 to 4.2.1.3, 4.2.1.6 and 4.2.1.9."""
    with Sandbox(tmp_path) as ucl:
        if changed:
            ucl.faults.set([Fault("server-ca-changed")])
            assert send(ucl.connector_url, strict(ucl.ca_file)) == NO_ANSWER
        leaf, root = shown_by(ucl), x509.load_pem_x509_certificate(ucl.ca_file.read_bytes())
    for certificate in (leaf, root):
        assert certificate.version is x509.Version.v3
        assert 0 < certificate.serial_number < 1 << 159
    key_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    issuer_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert issuer_id.value.key_identifier == key_id.value.digest
    assert not issuer_id.critical
    assert not key_id.critical
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, usage.value.key_cert_sign) == (True, True, True)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert x509.DNSName("localhost") in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    leaf.verify_directly_issued_by(root)


def without(folder, *left_out):
    """A server certificate of the folder's CA that is right but for the extensions that are left out."""
    root = x509.load_pem_x509_certificate((folder / "server-root.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "server-root.pem").read_bytes(), None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )
    for extension in (
        x509.SubjectAlternativeName(LOOPBACK),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()),
    ):
        if not isinstance(extension, left_out):
            builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private


@pytest.mark.parametrize(
    ("left_out", "answer"), [((), REFUSED), ((x509.AuthorityKeyIdentifier,), NO_ANSWER)], ids=["whole", "without"]
)
def test_a_strict_client_refuses_one_without_authority_key_identifier(tmp_path, left_out, answer):
    with Sandbox(tmp_path) as ucl:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (tmp_path / "server.pem").write_bytes(without(tmp_path, *left_out))
        context.load_cert_chain(tmp_path / "server.pem")
        ucl._listeners._handshakes._contexts[None, False] = context
        assert send(ucl.connector_url, strict(ucl.ca_file), CONFIGURE) == answer
        lenient = ssl.create_default_context(cafile=ucl.ca_file)
        lenient.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert send(ucl.connector_url, lenient, CONFIGURE) == REFUSED


def test_a_state_folder_with_such_a_certificate_gets_a_right_one_when_it_is_started(tmp_path):
    with Sandbox(tmp_path) as ucl:
        trusted = ucl.ca_file.read_bytes()
    (tmp_path / "server.pem").write_bytes(without(tmp_path, x509.AuthorityKeyIdentifier))
    with Sandbox(tmp_path) as ucl:
        assert send(ucl.connector_url, strict(ucl.ca_file), CONFIGURE) == REFUSED
        assert ucl.ca_file.read_bytes() == trusted, "connections that trust this CA go on"


# -- more than a year --------------------------------------------------------------------------------------------------


def test_a_sandbox_that_runs_for_years_renews_its_own_certificate_without_a_restart():
    clock = Clock()
    start, seen = clock.now, []
    with Sandbox(clock=clock) as ucl:
        trusted = ucl.ca_file.read_bytes()
        for day in range(0, 1200, 25):
            clock.now = start + day * DAY
            assert send(ucl.connector_url, strict(ucl.ca_file)) == REFUSED
            certificate = shown_by(ucl)
            assert certificate.not_valid_before_utc <= start
            assert certificate.not_valid_after_utc > clock.now + 29 * DAY
            seen.append(certificate.serial_number)
        assert ucl.ca_file.read_bytes() == trusted
    assert len(set(seen)) == 4, "it is renewed about once a year"


@pytest.mark.parametrize(
    ("days", "renewed"), [(0, False), (334, False), (336, True), (400, True), (4000, True), (-400, True)]
)
def test_it_is_renewed_a_month_before_it_expires_and_not_earlier(days, renewed):
    clock = Clock()
    with Sandbox(clock=clock) as ucl:
        before = shown_by(ucl)
        clock.now += days * DAY
        assert (shown_by(ucl) != before) is renewed
        assert shown_by(ucl) == shown_by(ucl)


def test_a_fault_of_the_certificate_still_strikes_after_a_renewal(tmp_path):
    clock = Clock()
    with Sandbox(tmp_path, clock=clock) as ucl:
        for _ in range(2):
            ucl.faults.set([Fault("server-certificate-expired", at="token", times=1)])
            assert send(ucl.connector_url, strict(ucl.ca_file)) == NO_ANSWER
            assert send(ucl.connector_url, strict(ucl.ca_file)) == REFUSED
            clock.now += 400 * DAY
