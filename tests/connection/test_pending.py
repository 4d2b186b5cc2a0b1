"""What a procedure under way leaves: in which order, what is thrown away, and what never is."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from certificates import NOW, certificate, intermediate, key, root
from quick_keys import QUICK_BITS
from stored import locked_out, names

from ucl_helpers.connection import files
from ucl_helpers.connection.pending import Pending, PendingState, prune_aside, set_aside
from ucl_helpers.crypto import dump_certificates, make_csr, parse_subject
from ucl_helpers.errors import StorageFailed
from ucl_helpers.keys import dump_key
from ucl_helpers.models import Configuration, SignedCertificates

TOKEN = "one-time-token"
SUBJECT = "O=Org,C=DE,CN=client"
ASKED = Configuration(SUBJECT, "rsa2048", None, "https://ucl.example/graphql", TOKEN)


def encoded(*certificates):
    return base64.b64encode(dump_certificates(*certificates)).decode()


CHAIN = (certificate(), intermediate(), root())
SIGNED = SignedCertificates(encoded(*CHAIN), encoded(*CHAIN[1:]), encoded(CHAIN[0]))


@pytest.fixture
def pending(tmp_path):
    return Pending(tmp_path / "pending")


def begin(pending, asked=ASKED, **how):
    pending.begin("renew", "000001-aabbccddeeff", asked, **{"bits": QUICK_BITS, "server_ca": None, **how})


def send(pending, answer=None):
    """Go on to where the signing request has left, or was answered."""
    begin(pending)
    pending.keep_request(key("leaf"), make_csr(key("leaf"), parse_subject(SUBJECT)))
    pending.update(sent=NOW.isoformat())
    if answer:
        pending.keep_answer(answer)


def key_files(folder):
    return [one for one in folder.rglob("key.pem") if one.read_bytes() == dump_key(key("leaf"))]


def test_everything_comes_back_as_it_was_kept(pending):
    assert (pending.read_state(), pending.answer()) == (PendingState(), None)
    begin(pending, server_ca=b"CA")
    assert pending.read_state().configuration == ASKED
    assert pending.server_ca.read_bytes() == b"CA"
    assert pending.token() == TOKEN
    assert not pending.has_request
    csr = make_csr(key("leaf"), parse_subject(SUBJECT))
    pending.keep_request(key("leaf"), csr)
    assert (pending.has_request, pending.csr()) == (True, csr)
    assert pending.key().private_numbers() == key("leaf").private_numbers()
    pending.keep_answer(SIGNED)
    assert pending.answer().certificate_chain == SIGNED.certificate_chain
    assert pending.answer().reused
    assert (pending.certificate(), pending.credentials().certificate) == (CHAIN[0], CHAIN[0])
    assert {one.stat().st_mode & 0o777 for one in pending.path.iterdir()} == {0o600}
    assert pending.path.stat().st_mode & 0o777 == 0o700


def test_the_token_is_in_its_own_file_and_only_there(pending):
    send(pending, SIGNED)
    assert [one.name for one in pending.path.iterdir() if TOKEN.encode() in one.read_bytes()] == ["token"]
    pending.keep_token(None)
    assert pending.token() is None
    assert "token" not in names(pending.path)
    pending.keep_token(None)


@pytest.mark.parametrize(("age", "good"), [(timedelta(minutes=4), True), (timedelta(minutes=5), False)])
def test_a_token_is_good_for_five_minutes(pending, age, good):
    begin(pending)
    pending.update(created=(datetime.now(UTC) - age).isoformat())
    assert (pending.token() == TOKEN) is good


@pytest.mark.parametrize("created", ["", "yesterday", "2026-01-31T12:00:00", None, 5])
def test_a_token_of_unknown_age_is_not(pending, created):
    begin(pending)
    pending.update(created=created)
    assert pending.token() is None


def test_a_failed_answer_is_kept_beside_and_another_may_come(pending):
    send(pending, SIGNED)
    pending.drop_answer()
    assert (pending.answer(), pending.certificate()) == (None, None)
    assert len([one for one in names(pending.path) if one.startswith("answer-failed-")]) == 1
    pending.keep_answer(SIGNED)
    pending.drop_answer()
    assert len([one for one in names(pending.path) if one.startswith("answer-failed-")]) == 2


@pytest.mark.parametrize("chain", ["?", "YQ==", ""])
def test_an_answer_that_cannot_be_read_is_kept_as_it_came(pending, chain):
    send(pending, SignedCertificates(chain, "a", "b"))
    assert pending.answer().certificate_chain == chain
    assert pending.certificate() is None
    with pytest.raises(StorageFailed, match=r"chain\.pem"):
        pending.credentials()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"other": 1}', b"\xff"])
def test_a_damaged_answer_is_none(pending, content):
    send(pending, SIGNED)
    (pending.path / "answer.json").write_bytes(content)
    assert (pending.answer(), pending.certificate()) == (None, None)


# -- begun anew --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["mkdir", "server-ca.pem", "token", "state.json", "key.pem", "csr.pem"])
def test_what_was_cut_off_before_it_was_sent_is_begun_anew(pending, tmp_path, monkeypatch, cut):
    """Whatever the last thing on the disk was: the next run starts from nothing, and no key or token is left over."""
    write = files.write

    def until(path, data):
        if path.name == cut:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", until)
        if cut == "mkdir":
            files.make_directory(pending.path)
        else:
            with pytest.raises(KeyboardInterrupt):
                send_with_ca(pending)
    begin(pending)
    assert names(pending.path) == ["state.json", "token"]
    assert (names(tmp_path), key_files(tmp_path)) == (["pending"], [])


def send_with_ca(pending):
    begin(pending, server_ca=b"CA")
    pending.keep_request(key("leaf"), make_csr(key("leaf"), parse_subject(SUBJECT)))


def test_a_folder_without_state_was_never_sent(pending):
    files.make_directory(pending.path)
    files.write(pending.key_path, dump_key(key("leaf")))
    assert not pending.read_state()
    pending.set_aside("another subject is wanted")
    begin(pending)
    assert names(pending.path) == ["state.json", "token"]


def test_beginning_anew_throws_nothing_away_that_was_sent(pending, tmp_path):
    send(pending)
    begin(pending)
    assert not pending.has_request
    assert [one.parts[-3] for one in key_files(tmp_path)] == ["aside"]


# -- damage ------------------------------------------------------------------------------------------------------------

DAMAGED = [b"", b"{", b"\xff", b"[]", b"null", b"{}", b'{"id": "x", "sent": null}', b'"sent"']


@pytest.mark.parametrize("content", DAMAGED)
def test_what_may_have_been_sent_is_set_aside(pending, tmp_path, content):
    send(pending, SIGNED)
    (pending.path / "state.json").write_bytes(content)
    pending.reload()
    assert pending.read_state()
    assert (pending.read_state().sent, pending.read_state().configuration) == ("unknown", None)
    pending.set_aside("another subject is wanted")
    assert not pending.path.exists()
    (kept,) = set_aside(tmp_path)
    assert kept.key().private_numbers() == key("leaf").private_numbers()
    assert kept.read_state().keep_until == CHAIN[0].not_valid_after_utc.isoformat()


@pytest.mark.parametrize("told", [None, "x", [], {"subject": "x"}, {"other": 1}])
def test_a_configuration_of_another_shape_is_none(pending, told):
    begin(pending)
    path = pending.path / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "configuration": told}))
    pending.reload()
    assert pending.read_state().configuration is None


def test_a_state_that_cannot_be_reached_is_an_error_and_not_nothing(pending, tmp_path):
    send(pending)
    pending.reload()
    with locked_out(tmp_path):
        for act in (pending.read_state, lambda: begin(pending), lambda: pending.set_aside("x")):
            with pytest.raises(StorageFailed, match="Permission denied"):
                act()
    assert key_files(tmp_path)


# -- set aside ---------------------------------------------------------------------------------------------------------


def test_what_was_never_sent_is_thrown_away(pending, tmp_path):
    begin(pending)
    pending.keep_request(key("leaf"), b"csr")
    pending.set_aside("another subject is wanted")
    assert (names(tmp_path), pending.read_state()) == ([], PendingState())
    pending.set_aside("nothing is there")
    assert names(tmp_path) == []


@pytest.mark.parametrize("answer", [None, SIGNED])
def test_what_was_sent_is_kept_whole_but_for_its_token(pending, tmp_path, answer):
    send(pending, answer)
    before = {one.name: one.read_bytes() for one in pending.path.iterdir() if one.name not in {"token", "state.json"}}
    pending.set_aside("another subject is wanted")
    assert not pending.read_state()
    (kept,) = set_aside(tmp_path)
    after = {one.name: one.read_bytes() for one in kept.path.iterdir()}
    state = json.loads(after.pop("state.json"))
    assert (after, state["aside"], state["sent"]) == (before, "another subject is wanted", NOW.isoformat())


def test_it_goes_when_its_certificate_has_expired_and_not_a_moment_before(pending, tmp_path):
    send(pending, SIGNED)
    pending.set_aside("another subject is wanted")
    until = CHAIN[0].not_valid_after_utc
    prune_aside(tmp_path, until)
    assert len(set_aside(tmp_path)) == 1
    prune_aside(tmp_path, until + timedelta(seconds=1))
    assert set_aside(tmp_path) == []


@pytest.mark.parametrize("answer", [None, SignedCertificates("?", "a", "b"), "dropped"])
def test_without_a_certificate_it_stays_for_a_year(pending, tmp_path, answer):
    send(pending, SIGNED if answer == "dropped" else answer)
    if answer == "dropped":
        pending.drop_answer()
    pending.set_aside("its answers failed their checks")
    now = datetime.now(UTC)
    prune_aside(tmp_path, now + timedelta(days=365))
    assert len(set_aside(tmp_path)) == 1
    prune_aside(tmp_path, now + timedelta(days=367))
    assert set_aside(tmp_path) == []


@pytest.mark.parametrize(
    "content", [*DAMAGED, b'{"keep_until": "soon"}', b'{"keep_until": "2026-01-31"}', b'{"keep_until": null}']
)
def test_what_does_not_say_until_when_is_never_pruned(pending, tmp_path, content):
    send(pending, SIGNED)
    pending.set_aside("another subject is wanted")
    (set_aside(tmp_path)[0].path / "state.json").write_bytes(content)
    prune_aside(tmp_path, datetime.max.replace(tzinfo=UTC))
    assert key_files(tmp_path)


def test_files_of_others_in_there_are_no_harm(pending, tmp_path):
    assert set_aside(tmp_path) == []
    send(pending)
    pending.set_aside("x")
    for name in (".gitkeep", "notes.txt"):
        (tmp_path / "aside" / name).touch()
    prune_aside(tmp_path, datetime.max.replace(tzinfo=UTC))
    assert names(tmp_path / "aside") == [".gitkeep", "notes.txt"]
