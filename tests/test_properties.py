"""What is written is read back, and a parser raises nothing but its own errors, whatever it is given."""

import base64
from datetime import timedelta

import pytest
from certificates import certificate, intermediate, key, root
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import DURATIONS, JUNK, SETTINGS, SUBJECTS, TOKENS, UNITS, URLS, in_three_forms, written

from ucl_helpers.connection.settings import Settings, dump_settings, parse_settings
from ucl_helpers.crypto import (
    decode_certificates,
    dump_certificates,
    encode,
    make_csr,
    parse_subject,
    read_certificates,
    same_subject,
    subject_fields,
    subject_text,
)
from ucl_helpers.errors import BadAnswer, InvalidSettings, UCLError
from ucl_helpers.keys import dump_key, load_bundle, load_key
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operations import configuration_from, read_token, result_of, signed_from, token_from
from ucl_helpers.policy import parse_duration

settings.register_profile("same every time", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("same every time")

CHAIN = (certificate(), intermediate(), root())
PEM = dump_certificates(*CHAIN)
DER = CHAIN[0].public_bytes(Encoding.DER)


# -- round trips -------------------------------------------------------------------------------------------------------


@given(SUBJECTS)
def test_a_subject_is_read_back_in_its_order(name):
    assert parse_subject(subject_text(name)) == name


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(SUBJECTS)
def test_a_csr_has_the_subject_and_a_valid_signature(name):
    request = x509.load_pem_x509_csr(make_csr(key("leaf"), name))
    assert subject_fields(request.subject) == subject_fields(name)
    assert request.is_signature_valid
    assert (request.signature_hash_algorithm.name, list(request.extensions)) == ("sha256", [])


@given(SUBJECTS, st.randoms(use_true_random=False))
def test_a_subject_is_a_multiset(name, random):
    rdns = list(name.rdns)
    random.shuffle(rdns)
    assert same_subject(name, x509.Name(rdns))
    assert not same_subject(name, x509.Name([*rdns, rdns[0]]))


@given(st.lists(st.sampled_from(CHAIN), min_size=1, max_size=10))
def test_a_chain_is_read_back_in_its_order(chain):
    assert decode_certificates(encode(dump_certificates(*chain)), name="certificateChain") == tuple(chain)


@given(TOKENS, URLS)
def test_a_token_is_the_same_in_its_three_forms(token, url):
    for text, endpoint in in_three_forms(token, url).items():
        assert read_token(text) == OneTimeToken(token, endpoint)


@given(DURATIONS)
def test_a_duration_is_the_sum_of_its_parts(parts):
    expected = timedelta(seconds=sum(number * UNITS[unit] for unit, number in parts.items()))
    assert parse_duration(written(parts)) == parse_duration(f" {written(parts)} ") == expected


@given(SETTINGS)
def test_settings_are_read_back(values):
    values = {name: written(one) if isinstance(one, dict) else one for name, one in values.items()}
    expected = {
        **values,
        **({"renew_before": parse_duration(values["renew_before"])} if "renew_before" in values else {}),
    }
    assert parse_settings(dump_settings(values)) == Settings(**expected)


# -- anything at all ---------------------------------------------------------------------------------------------------


def only_our_errors(parse, *args, **kwargs):
    """The error, or None; anything but a UCLError fails the test."""
    try:
        parse(*args, **kwargs)
    except UCLError as error:
        str(error).encode()  # it can be printed
        return error
    return None


SUBJECT_LIKE = st.text(st.sampled_from('CNOUL=,+\\# "2.54\x1b\ud800äaf01;<>\0')) | st.text()


@given(SUBJECT_LIKE)
def test_any_text_is_a_subject_that_can_be_asked_for_or_an_answer_we_refuse(text):
    if only_our_errors(parse_subject, text) is None:
        assert x509.load_pem_x509_csr(make_csr(key("leaf"), parse_subject(text))).subject == parse_subject(text)


@given(
    st.text()
    | st.text().map(lambda text: f"https://{text}?token=x")
    | st.binary().map(base64.b64encode).map(bytes.decode)
)
def test_any_text_is_a_token_or_a_usage_error(text):
    only_our_errors(read_token, text)
    only_our_errors(token_from, {"token": text})


@given(JUNK)
def test_any_json_is_an_answer_or_one_we_refuse(junk):
    for read in (result_of, configuration_from, signed_from, token_from):
        only_our_errors(read, junk)
        only_our_errors(read, {"data": {"result": junk}, "certificateSigningRequestInfo": junk, "token": junk})


@given(st.text())
def test_any_text_is_a_duration_or_a_usage_error(text):
    only_our_errors(parse_duration, text)
    only_our_errors(parse_duration, f"{text}1d")


TOML_LIKE = st.text(st.sampled_from("kep_lngth=\"'[]{}.,# \n\t1230d\\u")) | st.text()


@given(TOML_LIKE)
def test_any_text_is_settings_or_an_error_that_names_the_file(text):
    error = only_our_errors(parse_settings, text, where="here.toml")
    assert error is None or (isinstance(error, InvalidSettings) and error.message.startswith("here.toml"))


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "keep = " + "9" * 5000, f'renew_before = "{"9" * 5000}d"'])
def test_nor_do_settings_that_are_too_deep_or_too_long(text):
    assert isinstance(only_our_errors(parse_settings, text), InvalidSettings)


@st.composite
def damaged(draw, whole):
    """Bytes that were right before some were changed, lost or repeated."""
    at, length = draw(st.integers(0, len(whole) - 1)), draw(st.integers(0, 8))
    return whole[:at] + draw(st.binary(max_size=8)) + whole[at + length :]


@settings(max_examples=500)
@given(st.binary() | damaged(PEM) | damaged(DER))
def test_any_bytes_are_certificates_or_an_error_that_names_them(data):
    for read, given_ in ((read_certificates, data), (decode_certificates, encode(data))):
        error = only_our_errors(read, given_, name="this")
        assert error is None or (isinstance(error, BadAnswer) and error.message.startswith("this "))


@given(st.text())
def test_any_text_is_base64_of_certificates_or_is_refused(text):
    assert only_our_errors(decode_certificates, text, name="this") is not None


@given(st.binary() | damaged(dump_key(key("leaf"))), st.none() | st.binary())
def test_any_bytes_are_a_key_or_a_usage_error(data, passphrase):
    only_our_errors(load_key, data, passphrase)
    assert only_our_errors(load_bundle, data, passphrase, where="this") is not None


def test_many_beginnings_without_an_end_are_not_searched_again_and_again():
    assert only_our_errors(read_certificates, b"-----BEGIN CERTIFICATE-----\n" * 100_000, name="this") is not None
