"""Each defective answer is wrong in what its name says, and right in everything else; judged without the client."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from contract_replay import Landscape as Seen
from contract_replay import csr_pem, encoded, fields_of_subject, name_of
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from quick_keys import QUICK_BITS

from ucl_sandbox import Sandbox
from ucl_sandbox.ca import ClientCa
from ucl_sandbox.csr import ExpectedSubject, accept
from ucl_sandbox.faults.catalogue import CATALOGUE
from ucl_sandbox.faults.defects import DEFECTS, Asked, right
from ucl_sandbox.faults.plans import Fault, Faults

NOW = datetime.now(UTC).replace(microsecond=0)
VALIDITY, CLIENT = timedelta(days=90), "some-client"
SUBJECT = name_of(fields_of_subject(CLIENT))

# What is wrong, by the names of the checks below. Where nothing is, the answer is only written otherwise.
WRONG = {
    "another-key": {"key"},
    "another-subject": {"subject"},
    "expired": {"valid now", "fresh"},
    "not-yet-valid": {"valid now"},
    "already-due": {"fresh"},
    "chain-reordered": {"leaf first", "chain", "key", "subject", "client auth"},  # its first is a CA
    "missing-intermediate": {"chain"},
    "extra-certificate": {"chain", "CAs"},
    "self-signed": {"key", "chain"},
    "foreign-ca": {"chain"},
    "sha1": {"hash"},
    "rsa-1024": {"key", "strong"},
    "wrong-eku": {"client auth"},
    "text-around-pem": set(),
    "der": {"PEM"},
    "crlf": set(),
    "two-leaves": {"one leaf", "chain", "CAs"},
    "garbage": {"PEM"},
    "old-certificate": {"key", "new"},
}


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return ClientCa(tmp_path_factory.mktemp("ca"), "intermediate")


@pytest.fixture(scope="module")
def asked(ca):
    """A CSR of a client that has come with a certificate for another key."""
    accepted = accept(encoded(csr_pem(SUBJECT)), ExpectedSubject(CLIENT))
    old_key = rsa.generate_private_key(public_exponent=65537, key_size=QUICK_BITS)
    old = ca.sign(replace(accepted, key=old_key.public_key()), NOW - timedelta(hours=1), VALIDITY)
    return Asked(ca, accepted, NOW, VALIDITY, old)


def linked(lower, upper):
    """Whether one certificate is signed by the other: with SHA-1 too, which `verify_directly_issued_by` refuses."""
    if lower.issuer != upper.subject:
        return False
    hash_, padding = lower.signature_hash_algorithm, lower.signature_algorithm_parameters
    try:
        upper.public_key().verify(lower.signature, lower.tbs_certificate_bytes, padding, hash_)
    except InvalidSignature:
        return False
    return True


def wrong(answer, asked):
    """The checks that an answer fails."""
    try:
        chain, client, cas = map(x509.load_pem_x509_certificates, (answer.chain, answer.client, answer.ca))
    except ValueError:
        return {"PEM"}
    leaf, key = chain[0], chain[0].public_key()
    since, until = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    usages = [one.value for one in leaf.extensions if isinstance(one.value, x509.ExtendedKeyUsage)]
    checks = {
        "key": key == asked.csr.key,
        "strong": key.key_size >= 2048,
        "subject": {(one.oid, one.value) for one in leaf.subject} == {(one.oid, one.value) for one in SUBJECT},
        "valid now": since <= NOW < until,
        "fresh": NOW - since < (until - since) / 2,
        "client auth": any(ExtendedKeyUsageOID.CLIENT_AUTH in one for one in usages),
        "hash": all(not isinstance(one.signature_hash_algorithm, hashes.SHA1) for one in chain),
        "leaf first": leaf == client[0],
        "one leaf": len(client) == 1,
        "CAs": len(chain) - 1 == len(cas),
        "chain": all(linked(*pair) for pair in [*pairwise(chain), (chain[-1], chain[-1])]),
        "new": leaf != asked.old,
    }
    return {name for name, passed in checks.items() if not passed}


def test_every_defect_of_the_catalogue_is_there():
    of_family = {name for name, kind in CATALOGUE.items() if kind.family == "certificate"}
    assert set(DEFECTS) == set(WRONG) == of_family


def test_the_right_answer_is_right(asked):
    assert wrong(right(asked), asked) == set()


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_wrong_in_one_thing(asked, name):
    answer = DEFECTS[name](asked)
    assert wrong(answer, asked) == WRONG[name]
    like = right(asked)
    assert (answer.chain, answer.client, answer.ca) != (like.chain, like.client, like.ca)


@pytest.mark.parametrize(("name", "seconds"), [("expired", 1), ("not-yet-valid", 60)])
def test_a_value_says_by_how_much(asked, name, seconds):
    leaf = DEFECTS[name](replace(asked, value=seconds)).leaf
    limit = leaf.not_valid_after_utc if name == "expired" else leaf.not_valid_before_utc
    assert abs((limit - NOW).total_seconds()) == seconds
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == VALIDITY


def test_who_comes_with_a_token_has_no_old_certificate(asked):
    assert wrong(DEFECTS["old-certificate"](replace(asked, old=None)), asked) == set()


def test_a_csr_that_is_signed_with_another_hash_gets_the_same_defects(asked):
    stronger = accept(encoded(csr_pem(SUBJECT, hash_=hashes.SHA512())), ExpectedSubject(CLIENT))
    for name in ("sha1", "foreign-ca", "wrong-eku"):
        assert wrong(DEFECTS[name](replace(asked, csr=stronger)), asked) == WRONG[name]


def test_a_ca_without_an_intermediate_has_them_too(asked, tmp_path):
    root = replace(asked, ca=ClientCa(tmp_path, "root"))
    assert wrong(right(root), root) == set()
    lacking = DEFECTS["missing-intermediate"](root)
    assert (lacking.chain, lacking.ca) == (lacking.client, root.ca.pem)


@pytest.mark.parametrize("endpoint", ["token", "certificate"])
def test_the_sandbox_answers_with_it_where_it_was_told_to(tmp_path, endpoint):
    plan = Faults([Fault("another-subject", at=endpoint, times=1)])
    with Sandbox(faults=plan) as ucl:
        seen = Seen(ucl, ucl.one_time_token)
        clients = [seen.establish(tmp_path) for _ in range(2)]
        answers = [one.chain if endpoint == "token" else one.renew().chain for one in clients]
        subjects = [x509.load_pem_x509_certificate(one).subject.rfc4514_string() for one in answers]
    assert ["elsewhere" in one for one in subjects] == [True, False]
