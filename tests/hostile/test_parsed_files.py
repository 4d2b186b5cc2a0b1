"""Whatever stands in a file of a connection: each reader gives what fits its type or one of our errors, damage is told,
and a key that may have been sent for signing is not thrown away."""

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from certificates import NOW, certificate
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import strategies as st
from quick_keys import QUICK_BITS
from steps import pending_of
from stored import chain, install, key_of
from strategies import JUNK
from trying import WHOLE, damaged, tried

from ucl_helpers import crypto
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import Attempts, raise_if_backing_off, recording_attempt, remembered
from ucl_helpers.connection.pending import PendingState, prune_aside
from ucl_helpers.connection.status import Status, status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import dump_certificates, encode, make_csr, parse_subject
from ucl_helpers.errors import UCLError, Unreachable
from ucl_helpers.headless.run import parameters_of
from ucl_helpers.keys import Credentials, dump_key
from ucl_helpers.models import Configuration, SignedCertificates
from ucl_helpers.procedures import revocation
from ucl_helpers.procedures.generations import clean_up
from ucl_helpers.urls import check_url

SUBJECT = "O=Org,CN=client"
ASKED = Configuration(SUBJECT, "rsa2048", None, "https://ucl.example/graphql", "one-time-token-1")
SIGNED = SignedCertificates(*(encode(dump_certificates(*one)) for one in (chain(1), chain(1)[1:], chain(1)[:1])))
DEEP = b"[" * 100_000, b'{"a":' * 100_000, b'{"event": ' + b"9" * 5000 + b"}", b"\xff\xfe", b""


@pytest.fixture(scope="module", autouse=True)
def _one_look_at_a_lock():
    """Read a damaged lock once. The toolkit reads it for a second, in case its holder has not written its name yet."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "NAME_LOOKS", 1)
        yield


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    """Established, a renewal of it signed and waiting, settings and journal there; practises with a sandbox."""
    folder = tmp_path_factory.mktemp("home")
    made = Home(folder).new("mine")
    (folder / "ready.json").write_text(json.dumps({"certificateSecuredConnectorUrl": "https://localhost:1/graphql"}))
    made.write_settings({"keep": 5, "sandbox": str(folder / "ready.json")})
    install(made, 0)
    made.record("renewed", fingerprint="ab")
    made.record("revoke-intended", fingerprint="ab")
    pending = pending_of(made)
    pending.begin("renew", made.current.name, ASKED, bits=QUICK_BITS, server_ca=b"CA")
    pending.keep_request(key_of(1), make_csr(key_of(1), parse_subject(SUBJECT)))
    pending.update(sent=NOW.isoformat(), rejected=1, clock_difference=1.5, url="https://ucl.example/graphql")
    pending.keep_answer(SIGNED)
    with made.lock.held(), suppress(Unreachable), recording_attempt(made, now, begins=True):
        raise Unreachable("No answer.")
    with pytest.MonkeyPatch.context() as patch:  # primes are slow to prove
        patch.setattr(
            "ucl_helpers.keys.load_pem_private_key", partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)
        )
        yield made


FILES = {
    "connection.json": "current/connection.json",
    "state.json": "pending/state.json",
    "answer.json": "pending/answer.json",
    "token": "pending/token",
    "pending chain": "pending/chain.pem",
    "pending key": "pending/key.pem",
    "journal": "journal.jsonl",
    "attempts": "attempts.json",
    "settings": "settings.toml",
    "lock": "lock",
    "ready.json": "../../ready.json",
    "key": "current/key.pem",
    "chain": "current/chain.pem",
    "identity": "current/identity.pem",
    "client CA": "current/client-ca.pem",
}


def of_our_errors(act, kind=object):
    """What comes of it: of this kind, or one of our errors, which can be printed."""
    try:
        result = act()
    except UCLError as error:
        text = str(error)
    else:
        assert isinstance(result, kind), result
        text = str(result)
    text.encode()
    assert ASKED.token not in text or kind == str | None


def now():
    return NOW


def look(connection):
    """Everything that reads a connection, as another process does."""
    fresh, pending = Home(connection.home.path).connection("mine"), pending_of(connection)
    status = status_of(fresh, now)  # tells damage instead of raising
    f"{status}{json.dumps(status.as_json())}".encode()
    assert isinstance(status, Status)
    of_our_errors(lambda: fresh.url, str)
    of_our_errors(lambda: fresh.current.facts, dict)
    of_our_errors(lambda: check_url(fresh.current.facts.get("connectorUrl")), str)
    of_our_errors(lambda: fresh.current.client_ca, tuple)
    of_our_errors(lambda: fresh.current.credentials, Credentials)
    of_our_errors(fresh.journal, list)
    assert isinstance(remembered(fresh), Attempts)
    of_our_errors(lambda: raise_if_backing_off(fresh, now()))
    of_our_errors(fresh.revoked, dict)
    of_our_errors(fresh.lock.holder, str)
    of_our_errors(pending.read_state, PendingState)
    of_our_errors(pending.token, str | None)
    of_our_errors(pending.answer, SignedCertificates | None)
    of_our_errors(pending.certificate)
    of_our_errors(pending.credentials, Credentials)
    of_our_errors(lambda: revocation.valid_identities(fresh, now), revocation.ValidIdentities)
    of_our_errors(lambda: revocation.unsettled(fresh), str | None)
    of_our_errors(lambda: revocation.forget(fresh, clock=now))  # refused: it has identities that are valid, or an error
    assert fresh.path.is_dir()


def contents(data):
    """Any content; JSON of any shape; and what was right but for some bytes, or for one value."""
    shapes = [st.binary(), damaged([data]), st.sampled_from(DEEP), JUNK.map(json.dumps).map(str.encode)]
    with suppress(ValueError):
        told = json.loads(data.splitlines()[0] if data.count(b"\n{") else data)
        shapes += [one_changed(told).map(json.dumps).map(str.encode)] * 3
    return st.one_of(shapes)


def one_changed(told):
    """With another value in one place, which may lie deeper."""
    places = [
        one_changed(value).map(lambda inner, name=name: {**told, name: inner})
        for name, value in told.items()
        if value and isinstance(value, dict)
    ]
    here = st.tuples(st.sampled_from(sorted(told)), JUNK | ODD).map(lambda drawn: {**told, drawn[0]: drawn[1]})
    return st.one_of(here, *places)


ODD = st.sampled_from(
    [1e300, -1e11, float("nan"), float("inf"), "\ud800", {"subject": 5}, {"subject": "CN"}, [{}], 2**70]
)


def changed(connection, name):
    return connection.path / FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_whatever_stands_in_a_file_is_read_or_told(connection, name, whole, proof):
    path = changed(connection, name)
    before = path.read_bytes()

    def check(data):
        path.write_bytes(data)
        look(connection)

    try:
        number = tried(contents(before), check, 60 * (WHOLE if whole else 1))
    finally:
        path.write_bytes(before)
    proof("fuzz", "examples tried by hypothesis", number)


@pytest.mark.parametrize("name", ["state.json", "answer.json", "pending chain"])
def test_the_next_run_goes_on_and_throws_no_key_away(connection, name, whole, proof, tmp_path):
    """Tidy up, take up what is pending or open it anew, set aside, prune: with whatever stands there."""
    data = changed(connection, name).read_bytes()

    def check(content):
        home = tmp_path / "home"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(connection.home.path, home, symlinks=True)
        copy = Home(home).connection("mine")
        changed(copy, name).write_bytes(content)
        pending = pending_of(copy)
        clean_up(copy, pending)
        base, bits = copy.current, QUICK_BITS
        if pending.resume("renew", base, bits, lambda _: False) is None:
            pending.open("renew", base, ASKED, bits=bits, server_ca=None)
        assert pending.read_state().configuration is not None
        assert isinstance(pending.read_state().id, str)
        datetime.now(UTC) + timedelta(seconds=pending.read_state().clock_difference or 0.0)
        assert (pending.read_state().rejected or 0) + 1
        prune_aside(copy.path, NOW)
        kept = [one.read_bytes() for one in copy.path.rglob("key.pem")]
        assert dump_key(key_of(1)) in kept or not json.loads(content).get("sent")

    number = tried(contents(data), check, 40 * (WHOLE if whole else 1))
    proof("fuzz", "examples tried by hypothesis", number)


def test_damage_of_each_kind_is_seen(connection):
    """The twin: what is damaged is not taken for whole."""
    for name, word in {"key": "damaged", "chain": "damaged", "settings": "settings not usable"}.items():
        path = changed(connection, name)
        before = path.read_bytes()
        path.write_bytes(DEEP[0])
        fresh = Home(connection.home.path).connection("mine")
        assert status_of(fresh, now).state == word
        path.write_bytes(before)
    assert status_of(Home(connection.home.path).connection("mine"), now).state == "valid"


def test_an_answer_for_a_key_of_another_kind_is_no_crash(connection):
    """A server may sign a key that is not ours, of a kind that cannot be read; the chain is kept until it is judged."""
    pending = pending_of(connection)
    before = (pending.path / "chain.pem").read_bytes()
    odd = certificate(of="ec").public_bytes(crypto.Encoding.DER).replace(OF_P256, OF_NONE)
    (pending.path / "chain.pem").write_bytes(
        crypto.x509.load_der_x509_certificate(odd).public_bytes(crypto.Encoding.PEM)
    )
    assert pending.signed() == []
    (pending.path / "chain.pem").write_bytes(before)
    assert len(pending.signed()) == 1


OF_P256, OF_NONE = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")  # OIDs of curves


# -- notebooks ---------------------------------------------------------------------------------------------------------

NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {},
    "cells": [
        {
            "cell_type": "code",
            "id": "a",
            "metadata": {"tags": ["parameters"]},
            "outputs": [],
            "execution_count": None,
            "source": "a: int = 5\n",
        }
    ],
}


def test_any_file_is_a_notebook_with_parameters_or_is_not_one(tmp_path, whole, proof):
    path = tmp_path / "one.ipynb"
    right = json.dumps(NOTEBOOK).encode()
    cells = st.dictionaries(st.sampled_from(sorted(NOTEBOOK["cells"][0])), JUNK).map(
        lambda one: {**NOTEBOOK["cells"][0], **one}
    )
    odd = cells.map(lambda one: json.dumps({**NOTEBOOK, "cells": [one]}).encode())

    def check(data):
        path.write_bytes(data)
        of_our_errors(lambda: parameters_of(path), dict)

    proof("fuzz", "examples tried by hypothesis", tried(contents(right) | odd, check, 200 * (WHOLE if whole else 1)))
    path.write_bytes(right)
    assert list(parameters_of(path)) == ["a"]


def test_a_journal_of_any_shape_is_shortened(tmp_path):
    connection = Home(tmp_path).new("mine")
    (connection.path / "journal.jsonl").write_text('{"event": [], "fingerprint": {}}\n[]\n' * 3000)
    connection.sweep()
    assert 0 < len(connection.journal()) < 3000
