"""Nobody gets in at the sandbox without what it takes: not by guessing, replaying, racing, forging or pretending."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha512
from http.client import HTTPSConnection
from itertools import count
from threading import Barrier
from urllib.parse import quote, urlsplit

import pytest
from contract_replay import (
    CONFIGURATION,
    DEFAULT_TYPE,
    JSON_TYPE,
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
from ucl_sandbox.state import State

CONFIGURE, REVOKE = graphql(CONFIGURATION), graphql("mutation { result: revokeCertificate }")
VIEWER = graphql("{ result: viewer { id } }")
REFUSED = Answer(400, DEFAULT_TYPE, "")
CROWD = 64
PLAIN = serialization.NoEncryption()


@pytest.fixture(scope="module")
def landscape():
    with Sandbox() as ucl:
        yield Landscape(ucl, ucl.one_time_token)


@pytest.fixture
def victim(landscape, tmp_path):
    (tmp_path / "victim").mkdir()
    return landscape.establish(tmp_path / "victim")


# -- tokens ------------------------------------------------------------------------------------------------------------


def guesses(real, seed):
    """Tokens that are wrong: near misses of real ones, what a database might take for more than text, and noise."""
    for number in count(seed, CROWD):
        noise = sha512(str(number).encode()).digest()
        token, at, letter = real[number % len(real)], noise[0] % 80, "ABCabc019-_"[noise[1] % 11]
        wrong = [token[:at] + letter + token[at + 1 :], token[:at], token.swapcase(), token.rstrip("="), noise.hex()]
        wrong += [
            f"{token[:at]}%{token[at + 1 :]}",
            f"{token[:at]}*",
            f"{token}' OR '1'='1",
            "' OR 1=1 --",
            "%",
            "NULL",
        ]
        yield from (one for one in (*wrong, "_" * 88, "", f"{token} ", f"{token}=", f"{token}\0") if one not in real)


def side_by_side(work, numbers):
    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(work, numbers))


@pytest.fixture
def state(tmp_path):
    with State(tmp_path, lambda: datetime.now(UTC), timedelta(minutes=5)) as state:
        yield state


def test_no_guess_is_accepted_and_no_token_twice(state, whole, proof):
    application = state.register("victim", None, None, "{}")["id"]
    real = [state.new_system_auth(application)["token"] for _ in range(CROWD)]
    each = (100_032 if whole else 2_048) // CROWD

    def guess(number):
        wrong = guesses(real, number)
        return sum(state.use_token(next(wrong)) is not None for _ in range(each))

    assert side_by_side(guess, range(CROWD)) == [0] * CROWD
    start = Barrier(CROWD)

    def race(_):
        start.wait()
        return [state.use_token(token) is not None for token in real]

    accepted = [sum(tries) for tries in zip(*side_by_side(race, range(CROWD)), strict=True)]
    assert accepted == [1] * CROWD
    proof("door", "tokens guessed", each * CROWD)
    proof("door", "times a token was replayed", CROWD * CROWD - CROWD)
    proof("door", "tokens accepted twice, or by a guess", sum(accepted) - CROWD)


def calls(landscape, tokens):
    """Offers tokens over one kept TLS connection; the status of each."""
    parts = urlsplit(landscape.ucl.connector_url)
    connection = HTTPSConnection("localhost", parts.port, context=landscape.context, timeout=60)
    connection.connect()
    yield None
    for token in tokens:
        connection.request("POST", parts.path, CONFIGURE, {**JSON_TYPE, "connector-token": token})
        answer = connection.getresponse()
        answer.read()
        yield answer.status
    connection.close()


def test_nor_over_tls(landscape, whole, proof):
    real = [landscape.new_token() for _ in range(8)]
    each = (5_000 if whole else 400) // 8

    def guess(number):
        sendable = (one for one in guesses(real, number) if one.isprintable() and one == one.strip())
        offered = calls(landscape, (next(sendable) for _ in range(each)))
        return [status for status in offered if status]

    assert side_by_side(guess, range(8)) == [[400] * each] * 8
    proof("door", "tokens guessed over TLS", each * 8)


def test_one_token_in_a_crowd_is_accepted_once(landscape, whole, proof):
    tokens, start = [landscape.new_token() for _ in range(20 if whole else 3)], Barrier(CROWD)

    def offer(_):
        offered = calls(landscape, tokens)
        next(offered)
        start.wait()
        return list(offered)

    for tries in zip(*side_by_side(offer, range(CROWD)), strict=True):
        assert sorted(tries) == [200] + [400] * (CROWD - 1)
        proof("door", "requests side by side with one token, of which one was accepted", len(tries))


# -- identities --------------------------------------------------------------------------------------------------------


def pem_of(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, PLAIN)


def forged(ucl, client_id, signer="client-intermediate.pem", *, hours=(-1, 1), usage="CLIENT_AUTH", **subject):
    """Key and certificate that the Connector has not signed; by ``signer``'s key, or by their own."""
    name, now = name_of(fields_of_subject(client_id, **subject)), datetime.now(UTC)
    issuer, key = name, rsa_key()
    if signer:
        ca = (ucl.state / signer).read_bytes()
        issuer = x509.load_pem_x509_certificate(ca).subject
        key = serialization.load_pem_private_key(ca, None)
    certificate = (
        x509.CertificateBuilder(issuer, name, rsa_key().public_key(), 2)
        .not_valid_before(now + timedelta(hours=hours[0]))
        .not_valid_after(now + timedelta(hours=hours[1]))
        .add_extension(x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, usage)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return pem_of(rsa_key()) + certificate.public_bytes(serialization.Encoding.PEM)


def of_another_sandbox(victim):
    with Sandbox() as other:
        return forged(other, victim.client_id)


def revoked(victim):
    pem = forged(victim.landscape.ucl, victim.client_id)
    assert with_identity(victim, pem).call(REVOKE).result is True
    return pem


def with_identity(victim, pem):
    """The same doors with another identity."""
    path = victim.identity.with_name("other.pem")
    path.write_bytes(pem)
    other = object.__new__(Established)
    other.landscape, other.context = victim.landscape, trusting(victim.landscape.ucl.ca_file, path)
    return other


WRONG = {
    "of another sandbox": of_another_sandbox,
    "signed by itself": lambda victim: forged(victim.landscape.ucl, victim.client_id, ""),
    "of the server's CA": lambda victim: forged(victim.landscape.ucl, victim.client_id, "server-root.pem"),
    "expired": lambda victim: forged(victim.landscape.ucl, victim.client_id, hours=(-2, -1)),
    "not valid yet": lambda victim: forged(victim.landscape.ucl, victim.client_id, hours=(1, 2)),
    "for servers": lambda victim: forged(victim.landscape.ucl, victim.client_id, usage="SERVER_AUTH"),
    "another organisation": lambda victim: forged(victim.landscape.ucl, victim.client_id, O="Other"),
    "no unit": lambda victim: forged(victim.landscape.ucl, victim.client_id, OU=None),
    "an unknown client": lambda victim: forged(victim.landscape.ucl, "00000000-0000-4000-8000-000000000000"),
    "an SQL pattern": lambda victim: forged(victim.landscape.ucl, "%"),
    "no CN": lambda victim: forged(victim.landscape.ucl, None),
    "revoked": revoked,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_certificate_opens_neither_door(victim, wrong, proof):
    other = with_identity(victim, WRONG[wrong](victim))
    assert other.call(CONFIGURE) in {NO_ANSWER, REFUSED}
    director = other.call_director(VIEWER)
    assert director == NO_ANSWER or "errors" in json.loads(director.body)
    assert victim.landscape.ucl.application_id not in director.body
    assert victim.call(CONFIGURE).status == 200
    assert victim.call_director(VIEWER).result["id"] == victim.landscape.ucl.application_id
    proof("door", "doors tried with a wrong certificate", 2)


def test_the_right_one_opens_both(victim):
    other = with_identity(victim, forged(victim.landscape.ucl, victim.client_id))
    assert other.call(CONFIGURE).result["certificateSigningRequestInfo"]["subject"].endswith(victim.client_id)
    assert other.call_director(VIEWER).result["id"] == victim.landscape.ucl.application_id


def test_revoking_shuts_a_connection_that_is_open(victim):
    parts = urlsplit(victim.landscape.ucl.certificate_secured_connector_url)
    connection = HTTPSConnection("localhost", parts.port, context=victim.context, timeout=60)
    found = []
    for body in (CONFIGURE, REVOKE, CONFIGURE):
        connection.request("POST", parts.path, body, JSON_TYPE)
        answer = connection.getresponse()
        found.append((answer.status, bool(answer.read())))
    connection.close()
    assert found == [(200, True), (200, True), (400, False)]


# -- headers -----------------------------------------------------------------------------------------------------------

SPOOFED = [
    *("Client-Id-From-Token", "Client-Id-From-Certificate", "Client-Certificate-Hash", "Certificate-Data"),
    *("X-Forwarded-Client-Cert", "X-Client-Cert", "X-SSL-Client-Cert", "X-SSL-Client-S-DN", "X-SSL-Client-Verify"),
    *("SSL-Client-Subject-CN", "X-ARR-ClientCert", "Client-Cert", "X-Forwarded-For", "X-Real-IP", "Forwarded"),
    *("ConsumerID", "ConsumerType", "X-Authenticated-User", "X-Remote-User", "Cookie", "X-HTTP-Method-Override"),
]


def told_by_a_gateway(victim):
    """What a gateway would say of the victim, by every header and in every form."""
    leaf = x509.load_pem_x509_certificates(victim.chain)[0]
    pem = leaf.public_bytes(serialization.Encoding.PEM).decode()
    mark = leaf.fingerprint(hashes.SHA256()).hex()
    forms = [victim.client_id, mark, quote(pem), f'Hash={mark};Subject="CN={victim.client_id},O=Org"', "SUCCESS"]
    return [dict.fromkeys(SPOOFED, form) for form in forms]


def test_no_header_makes_anybody_another(landscape, victim, tmp_path, proof):
    stranger = landscape.establish(tmp_path)
    url = landscape.ucl.certificate_secured_connector_url
    for headers in told_by_a_gateway(victim):
        assert send(url, landscape.context, CONFIGURE, {**JSON_TYPE, **headers}) == NO_ANSWER
        assert send(landscape.ucl.connector_url, landscape.context, CONFIGURE, {**JSON_TYPE, **headers}) == REFUSED
        assert send(landscape.ucl.director_url, landscape.context, VIEWER, {**JSON_TYPE, **headers}).status == 400
        asked = stranger.call(CONFIGURE, headers)
        assert stranger.client_id in asked.body
        assert victim.client_id not in asked.body
        proof("door", "spoofed headers nobody believed", 4 * len(headers))
    assert stranger.call(REVOKE, told_by_a_gateway(victim)[1]).result is True
    assert (victim.call(CONFIGURE).status, stranger.call(CONFIGURE)) == (200, REFUSED)


@pytest.mark.parametrize("bearer", ["{}x", "x{}", "{:.10}", "", "Bearer {}", "null", "{}\u00e9", "e30.e30."])
def test_the_director_takes_only_its_own_bearer(landscape, bearer):
    ucl, found = landscape.ucl, []
    for shown in (ucl.director_token, bearer.format(ucl.director_token)):
        headers = {**JSON_TYPE, "Authorization": f"Bearer {shown}"}
        found.append(send(ucl.director_url, landscape.context, VIEWER, headers).status)
    assert found == [200, 401]
