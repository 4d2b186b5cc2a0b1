"""The tutorial's four steps against the sandbox, with nothing of ours on disk; each with twins that fail."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from contract_replay import Landscape, rsa_key
from quick_keys import QUICK_BITS

from ucl_helpers.checks import Expected
from ucl_helpers.crypto import decode_certificates, encode, parse_subject
from ucl_helpers.errors import AuthenticationFailed, BadAnswer, ChecksFailed, RequestRejected, UsageError
from ucl_helpers.keys import Credentials
from ucl_helpers.models import fingerprint
from ucl_helpers.steps import configuration, decode, request, sign
from ucl_helpers.wire.client import Client
from ucl_sandbox import Sandbox


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def call(ucl, tmp_path):
    """Calls as an established client; its identity is a file, as with ``curl``."""
    established = Landscape(ucl, ucl.one_time_token).establish(tmp_path)
    text = encode(established.chain)
    credentials = Credentials(established.identity, established.identity, decode_certificates(text, name="chain")[0])
    url = ucl.certificate_secured_connector_url
    with Client(url, "certificate", ca_file=ucl.ca_file, credentials=credentials) as client:
        yield lambda operation, variables: client.call(operation, variables).result


@pytest.fixture
def signed(call):
    """What three steps yield: the subject, the key and the answer."""
    subject = configuration(call).subject
    key, csr = request(subject, QUICK_BITS)
    return subject, key, sign(call, csr)


def expected(key, subject):
    now = datetime.now(UTC)
    return Expected(key.public_key(), parse_subject(subject), server_now=now, local_now=now)


def test_four_steps_renew_a_certificate(call):
    wanted = configuration(call)
    key, csr = request(wanted.subject, QUICK_BITS)
    signed = sign(call, csr)
    identity = decode(signed, expected(key, wanted.subject))
    assert identity.ok
    assert identity.certificate.public_key() == key.public_key()
    assert configuration(call).subject == wanted.subject  # the old certificate is valid beside the new one
    assert fingerprint(identity.certificate) == fingerprint(decode(signed, expected(key, wanted.subject)).certificate)


def test_an_answer_for_another_key_is_refused(signed):
    subject, _, answer = signed
    with pytest.raises(ChecksFailed) as caught:
        decode(answer, expected(rsa_key(), subject))
    assert caught.value.data["failed"] == ["key"]


def test_an_answer_for_another_subject_is_refused(signed):
    subject, key, answer = signed
    with pytest.raises(ChecksFailed) as caught:
        decode(answer, expected(key, subject.replace("O=", "O=Other", 1)))
    assert caught.value.data["failed"] == ["subject"]


def test_an_answer_that_is_not_base64_is_refused(signed):
    subject, key, answer = signed
    with pytest.raises(BadAnswer, match="certificateChain is not base64"):
        decode(replace(answer, certificate_chain="?"), expected(key, subject))


def test_a_subject_that_was_not_asked_for_is_not_signed(call):
    _, csr = request(configuration(call).subject.replace("O=", "O=Other", 1), QUICK_BITS)
    with pytest.raises(RequestRejected, match="CSR: "):
        sign(call, csr)


def test_a_refused_certificate_gets_no_configuration(call, ucl):
    call("mutation { result: revokeCertificate }", {})
    with pytest.raises(AuthenticationFailed):
        configuration(call)


def test_a_key_length_that_is_out_of_range_is_refused():
    with pytest.raises(UsageError, match="key_length is 1024"):
        request("CN=a", 1024)


def test_only_with_a_token_does_the_configuration_hold_one(call):
    assert configuration(call, with_token=True).token
    assert configuration(call).token is None
