"""What a refusal likely means: real handshakes between two OpenSSL endpoints in memory, and what each comes to."""

import errno
import ipaddress
import socket
import ssl
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from certificates import LEAF, MINUTE, NOW, OTHER, ROOT, SERVER_AUTH, certificate, key, root
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ucl_helpers.crypto import dump_certificates, parse_subject
from ucl_helpers.errors import CertificateRejected, ServerNotTrusted, Unreachable
from ucl_helpers.keys import dump_key
from ucl_helpers.wire.diagnosis import (
    GRACE,
    certificate_causes,
    clock_note,
    may_pass,
    refusal_causes,
    transport_error,
)
from ucl_helpers.wire.tls import tls_context

URL = "https://ucl.example/connector/graphql"
LONG = {"not_before": datetime(2000, 1, 1, tzinfo=UTC), "not_after": datetime(2100, 1, 1, tzinfo=UTC)}
PAST, FUTURE = (
    {**LONG, "not_after": datetime(2001, 1, 1, tzinfo=UTC)},
    {**LONG, "not_before": datetime(2099, 1, 1, tzinfo=UTC)},
)
HOST = [x509.DNSName("ucl.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
SERVER = {
    "subject": parse_subject("CN=ucl.example"),
    "issuer": ROOT,
    "by": "root",
    "extended": (SERVER_AUTH,),
    "names": HOST,
}
CA, OTHER_CA = root(**LONG), root(subject=OTHER, issuer=OTHER, of="other", by="other", **LONG)


def server(**changed):
    return certificate(**{**SERVER, **LONG, **changed})


def client(**changed):
    return certificate(**{"issuer": ROOT, "by": "root", **LONG, **changed})


def pem(*certificates):
    return dump_certificates(*certificates).decode()


def loaded(context, folder, *chain):
    path = folder / "identity.pem"
    path.write_bytes(dump_key(key("leaf")) + dump_certificates(*chain))
    context.load_cert_chain(path)
    return context


def hands_shaken(ours, theirs, host):
    """Our side's error of a handshake and the first read after it, or None."""
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    we = ours.wrap_bio(here, there, server_hostname=host)
    they = theirs.wrap_bio(there, here, server_side=True)
    for _ in range(6):
        try:
            we.do_handshake()
            we.read(1)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return error
        with suppress(ssl.SSLError):
            they.do_handshake()
            they.write(b"!")
    return None


def meeting(
    folder, *, chain=(), trusted=CA, host="ucl.example", sent=(), wanted=None, crl=b"", version=None, flags=0, ours=None
):
    """What comes of it when the server has this chain, and wants (or not) a client certificate of a CA."""
    theirs = loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), folder, *(chain or [server()]))
    if wanted:
        theirs.verify_mode = ssl.CERT_REQUIRED
        (folder / "wanted.pem").write_bytes(dump_certificates(wanted) + crl)
        theirs.load_verify_locations(folder / "wanted.pem")
        theirs.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF if crl else ssl.VERIFY_DEFAULT
    ours = ours or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.verify_flags |= flags
    ours.maximum_version = version or ssl.TLSVersion.MAXIMUM_SUPPORTED
    ours.load_verify_locations(cadata=pem(trusted))
    return hands_shaken(loaded(ours, folder, *sent) if sent else ours, theirs, host)


def told(error, cert=None, now=NOW, *, accepted=False):
    found = transport_error(error, url=URL, certificate=cert, now=now, accepted=accepted)
    assert URL in found.message
    assert {name: value for name, value in found.data.items() if name != "unsent"} | {"unresolved": True} == {
        "url": URL,
        "unresolved": True,
    }
    return found


# -- the server's certificate ------------------------------------------------------------------------------------------


def test_a_server_that_is_trusted_is_no_error(tmp_path):
    assert meeting(tmp_path) is None


@pytest.mark.parametrize(
    ("changed", "problem", "remedy"),
    [
        ({"chain": [server(**PAST)]}, "its certificate has expired", "Compare the clocks"),
        ({"chain": [server(**FUTURE)]}, "its certificate is not valid yet", "Compare the clocks"),
        ({"chain": [server(issuer=SERVER["subject"], by="leaf")]}, "its certificate is self-signed", "--ca-file"),
        ({"trusted": OTHER_CA}, "its CA is unknown here", "signs client certificates"),
        ({"trusted": OTHER_CA, "chain": [server(), CA]}, "its CA is unknown here", "signs client certificates"),
        ({"host": "other.example"}, "its certificate is for another host", "host name"),
        ({"host": "127.0.0.2"}, "its certificate is for another address", "address"),
        ({"chain": [client(names=HOST)]}, "unsuitable certificate purpose", "openssl s_client"),
    ],
    ids=["expired", "not yet", "self-signed", "unknown", "unknown root", "host", "address", "purpose"],
)
def test_a_server_that_is_not_trusted_says_why(tmp_path, changed, problem, remedy):
    error = told(meeting(tmp_path, **changed))
    assert type(error) is ServerNotTrusted
    assert f"is not trusted: {problem}" in error.message.replace("unsupported", "unsuitable")
    assert remedy in error.remedy


def extended(extension, *, critical=False, of=CA, by="root"):
    """A certificate with one extension more, signed again."""
    builder = x509.CertificateBuilder(of.issuer, of.subject, of.public_key(), of.serial_number)
    builder = builder.not_valid_before(of.not_valid_before_utc).not_valid_after(of.not_valid_after_utc)
    for one in of.extensions:
        builder = builder.add_extension(one.value, one.critical)
    return builder.add_extension(extension, critical).sign(key(by), hashes.SHA256())


KEY_ID = x509.SubjectKeyIdentifier.from_public_key(key("root").public_key())
AUTHORITY = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(KEY_ID)
CONFORMING = extended(KEY_ID)
UNMARKED = root(ca=None, usage="", **LONG)
UNMARKED = extended(KEY_ID, of=extended(x509.BasicConstraints(ca=True, path_length=None), of=UNMARKED))
LAX = {  # as many companies' CAs issue them: what OpenSSL says of it when it is strict
    "no Authority Key Identifier": ("Missing Authority Key Identifier", server(), CONFORMING),
    "a CA without Subject Key Identifier": (
        "Missing Subject Key Identifier",
        extended(AUTHORITY, of=server()),
        extended(AUTHORITY),
    ),
    "a CA without key usage": (
        "CA cert does not include key usage extension",
        extended(AUTHORITY, of=server()),
        extended(KEY_ID, of=root(usage="", **LONG)),
    ),
    "a CA whose basic constraints are not critical": (
        "Basic Constraints of CA cert not marked critical",
        extended(AUTHORITY, of=server()),
        UNMARKED,
    ),
}


def test_a_strict_client_accepts_a_server_that_keeps_the_rules(tmp_path):
    chain = [extended(AUTHORITY, of=server())]
    assert meeting(tmp_path, chain=chain, trusted=CONFORMING, flags=ssl.VERIFY_X509_STRICT) is None


@pytest.mark.kind("server certificates: a rule that is broken")
@pytest.mark.parametrize("rule", LAX)
def test_a_server_that_breaks_a_rule_is_accepted_by_us_on_every_python(tmp_path, rule):
    _, leaf, ca = LAX[rule]
    (tmp_path / "ca.pem").write_text(pem(ca))
    context = tls_context(tmp_path / "ca.pem", None)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # ours reads through a socket class that has no BIO
    plain.verify_flags = context.verify_flags
    assert meeting(tmp_path, chain=[leaf], trusted=ca, ours=plain) is None


@pytest.mark.kind("server certificates: a rule that is broken")
@pytest.mark.parametrize("rule", LAX)
def test_a_server_that_a_strict_client_refuses_is_named_as_that(tmp_path, rule):
    says, leaf, ca = LAX[rule]
    error = told(meeting(tmp_path, chain=[leaf], trusted=ca, flags=ssl.VERIFY_X509_STRICT))
    assert type(error) is ServerNotTrusted
    assert "breaks a rule of RFC 5280" in error.message
    assert says in error.message
    assert "must replace it" in error.remedy


@pytest.mark.parametrize(
    ("trusted", "problem"),
    [
        (root(ca=False, usage="key_cert_sign", **LONG), "breaks a rule of RFC 5280 (invalid CA certificate)"),
        (root(usage="digital_signature", **LONG), "breaks a rule of RFC 5280 ("),
        (
            extended(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), critical=True),
            "breaks a rule of RFC 5280 (unhandled critical extension)",
        ),
    ],
    ids=["not a CA", "may not sign", "unknown critical extension"],
)
def test_what_no_client_accepts_stays_refused_and_is_named(tmp_path, trusted, problem):
    error = told(meeting(tmp_path, trusted=trusted))
    assert type(error) is ServerNotTrusted
    assert problem in error.message


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example ESMTP\r\n"])
def test_a_server_that_speaks_no_tls_is_not_trusted(said):
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    here.write(said)
    with pytest.raises(ssl.SSLError) as caught:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(here, there, server_hostname="ucl.example").do_handshake()
    error = told(caught.value)
    assert (type(error), error.remedy) == (ServerNotTrusted, "Check the URL and port.")


# -- our certificate ---------------------------------------------------------------------------------------------------


def revoking(one):
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT)
    builder = builder.last_update(LONG["not_before"]).next_update(LONG["not_after"])
    revoked = x509.RevokedCertificateBuilder(one.serial_number, LONG["not_before"]).build()
    return builder.add_revoked_certificate(revoked).sign(key("root"), hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_certificate_that_is_wanted_is_no_error(tmp_path):
    assert meeting(tmp_path, sent=[client()], wanted=CA) is None


@pytest.mark.parametrize(
    ("changed", "meaning"),
    [
        ({}, "requires a client certificate, and none was sent"),
        ({"version": ssl.TLSVersion.TLSv1_2}, "it may require another client certificate"),
        ({"sent": [client(issuer=OTHER, by="other")]}, "does not know the CA of our client certificate"),
        ({"sent": [client(**PAST)]}, "says our client certificate has expired"),
        ({"sent": [client(extended=(SERVER_AUTH,))]}, "does not accept this kind of client certificate"),
        (
            {"sent": [client()], "wanted": root(usage=None, **LONG), "crl": revoking(client())},
            "says our client certificate was revoked",
        ),
    ],
    ids=["none", "none, TLS 1.2", "unknown CA", "expired", "purpose", "revoked"],
)
def test_an_alert_about_our_certificate_is_explained(tmp_path, changed, meaning):
    error = told(meeting(tmp_path, **{"wanted": CA, **changed}))
    assert type(error) is CertificateRejected
    assert meaning in error.message


@pytest.mark.parametrize(
    ("alert", "kind"),
    [
        ("SSLV3_ALERT_BAD_CERTIFICATE", CertificateRejected),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", CertificateRejected),
        ("TLSV1_ALERT_ACCESS_DENIED", CertificateRejected),
        ("TLSV1_ALERT_DECRYPT_ERROR", CertificateRejected),
        ("TLSV1_ALERT_PROTOCOL_VERSION", ServerNotTrusted),
        ("TLSV1_ALERT_INTERNAL_ERROR", Unreachable),
        (None, Unreachable),
    ],
)
def test_other_alerts(alert, kind):
    error = ssl.SSLError(1, "an alert")
    error.reason = alert
    assert type(told(error)) is kind


def test_what_our_certificate_tells_goes_with_the_alert(tmp_path):
    alert = meeting(tmp_path, sent=[client(**PAST)], wanted=CA)
    assert "Likely: the client certificate expired 2001-01-01" in told(alert, client(**PAST)).message
    assert "Likely" not in told(alert, client()).message


YOUNG = {"not_before": NOW - timedelta(minutes=1), "not_after": NOW + timedelta(days=90)}


@pytest.mark.kind("the right culprit: a certificate that was accepted is not too young")
@pytest.mark.parametrize(
    "broken",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(32, "Broken pipe"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        EOFError(),
        ConnectionError("Remote end closed connection without response: disconnected"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_drops_does_not_blame_the_age_of_a_certificate_that_was_accepted(broken):
    assert "gateway's clock may be behind" in told(broken, client(**YOUNG)).message
    assert "gateway's clock" not in told(broken, client(**YOUNG), accepted=True).message


@pytest.mark.kind("outages: causes of a refusal")
@pytest.mark.parametrize("endpoint", ["certificate", "token"])
@pytest.mark.parametrize("accepted", [False, True])
def test_an_empty_400_names_an_outage_first_if_the_certificate_was_accepted(endpoint, accepted):
    causes = refusal_causes(endpoint, client(**YOUNG), NOW, accepted=accepted)
    assert len([cause for cause in causes if "outage of UCL" in cause]) == 1
    assert ("outage" in causes[0]) is (accepted and endpoint == "certificate")
    assert not any("outage of UCL" in cause for cause in refusal_causes(endpoint, None, NOW, outage=False))


@pytest.mark.kind("outages: what may be one")
@pytest.mark.parametrize(
    ("endpoint", "status", "body", "validity", "outage"),
    [
        ("certificate", 400, b"", YOUNG, True),
        ("certificate", 400, b" \r\n", YOUNG, True),
        ("token", 400, b"", None, True),
        ("certificate", 400, b"{}", YOUNG, False),
        ("certificate", 401, b"", YOUNG, False),
        ("certificate", 403, b"", YOUNG, False),
        ("certificate", 400, b"", PAST, False),
        ("director", 400, b"", None, False),
    ],
)
def test_an_empty_400_may_be_an_outage_unless_the_certificate_has_expired(endpoint, status, body, validity, outage):
    certificate = client(**validity) if validity else None
    assert may_pass(endpoint, status, body, certificate, NOW) is outage


# -- no answer ---------------------------------------------------------------------------------------------------------


class Wrapped(Exception):
    """As HTTP libraries wrap what they meet."""

    def __init__(self, *args, reason=None):
        super().__init__(*args)
        self.reason = reason


def caused_by(error):
    outer = Wrapped("outer")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "wrap",
    [caused_by, Wrapped, lambda one: Wrapped(reason=Wrapped(one)), lambda one: Wrapped("x", caused_by(one))],
)
@pytest.mark.parametrize(
    ("error", "text", "doubt"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused", False),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known", False),
        (TimeoutError("the read timed out"), "timed out", False),
        (ConnectionResetError(104, "Connection reset by peer"), "connection reset by peer", True),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), "connection reset by peer", True),
        (ssl.SSLEOFError(8, "EOF occurred"), "the connection broke off (SSLEOFError)", True),
    ],
)
def test_no_answer_tells_the_innermost_reason(wrap, error, text, doubt):
    found = told(wrap(error))
    assert type(found) is Unreachable
    assert found.message == f"No answer from {URL}: {text}."
    assert ("may also close the connection" in found.remedy) == doubt


def test_a_connection_that_is_gone_before_the_handshake_was_reset():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with suppress(ConnectionResetError):
            ours.recv(1)
        tls = ssl.create_default_context().wrap_socket(ours, server_hostname="ucl.example")
        with tls, pytest.raises(OSError, match="not connected") as caught:
            tls.do_handshake()
    assert told(caught.value).message == f"No answer from {URL}: connection reset by peer."


def test_an_exception_that_contains_itself_is_searched_once():
    error = Wrapped("outer")
    error.__cause__ = error.reason = error
    assert type(told(error)) is Unreachable


HANG_UP = ConnectionResetError(104, "Connection reset by peer")


@pytest.mark.parametrize(
    ("error", "cert", "kind"),
    [
        (HANG_UP, certificate(not_after=NOW), CertificateRejected),
        (Wrapped("Remote end closed: RemoteDisconnected"), certificate(not_after=NOW), CertificateRejected),
        (HANG_UP, certificate(), Unreachable),
        (HANG_UP, None, Unreachable),
        (ConnectionRefusedError(111, "Connection refused"), certificate(not_after=NOW), Unreachable),
    ],
)
def test_a_server_that_hangs_up_on_an_expired_certificate_means_it(error, cert, kind):
    assert type(told(error, cert)) is kind


# -- causes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (NOW - MINUTE * 2, "valid only from 2026-03-01T11:59:00Z: compare the clocks"),
        (NOW, "is 1 min old and a gateway's clock may be behind"),
        (NOW - MINUTE + GRACE, ""),
        (NOW + timedelta(days=90), "expired 2026-05-30T12:00:00Z: establish the connection again"),
    ],
)
def test_what_a_certificate_tells_about_a_refusal(now, cause):
    causes = certificate_causes(certificate(subject=LEAF), now)
    assert len(causes) == bool(cause)
    assert cause in "".join(causes)
    assert refusal_causes("certificate", certificate(), now)[: len(causes)] == causes


def test_without_a_certificate_it_tells_nothing():
    assert certificate_causes(None, NOW) == []


@pytest.mark.parametrize(
    ("endpoint", "first"),
    [("token", "token was used before"), ("director", "bearer token"), ("certificate", "token-secured")],
)
def test_each_endpoint_has_its_own_likeliest_cause(endpoint, first):
    assert first in refusal_causes(endpoint, certificate(), NOW + timedelta(days=1))[0]


@pytest.mark.parametrize(
    ("difference", "note"),
    [
        (None, ""),
        (0.0, ""),
        (300.0, ""),
        (-300.0, ""),
        (301.0, " Our clock is 5 min 1 s behind the server's."),
        (-86400.0, " Our clock is 1 d ahead of the server's."),
    ],
)
def test_clocks_that_differ_are_named(difference, note):
    assert clock_note(difference) == note
