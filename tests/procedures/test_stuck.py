"""States from which no run went on, once; each with the way out, and a twin in which nothing is in the way."""

import shutil

import pytest
from meddler import Reply, answers, changes, lost_on_the_way_back, passes
from quick_keys import QUICK_BITS
from steps import aside, go, pending_of
from stored import grow_old, key_of

from ucl_helpers import (
    Establishment,
    Renewal,
    establish,
    forget,
    renew,
    revoke,
    rollback,
    valid_identities,
)
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import BadAnswer, NewTokenNeeded, Unavailable, Unreachable, UsageError
from ucl_helpers.keys import dump_key
from ucl_helpers.operate.doctor import diagnose, diagnose_home

pytest_plugins = ["procedure_fixtures"]


# -- a key or a CSR that is damaged ------------------------------------------------------------------------------------

DAMAGES = {
    "key emptied": ("key.pem", b""),
    "key of another": ("key.pem", dump_key(key_of(0))),
    "key lost": ("key.pem", None),
    "CSR garbled": ("csr.pem", b"garbage"),
    "CSR lost": ("csr.pem", None),
}


def damage(pending, name, content):
    (pending.path / name).unlink() if content is None else (pending.path / name).write_bytes(content)


@pytest.mark.parametrize(("name", "content"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("answered", [False, True])
def test_what_was_sent_with_a_key_that_is_damaged_is_set_aside(secure, between, answered, name, content):
    renewal = Renewal.begin(secure)
    if not answered:
        between.on("sign", lost_on_the_way_back)
        with pytest.raises(Unreachable):
            go(renewal)
    else:
        go(renewal, "decode")
    damage(pending_of(secure), name, content)
    assert "lost or damaged" in diagnose(secure, offline=True)["under way"].found
    assert renew(secure).outcome == "renewed"
    [left] = aside(secure)
    assert {one.name for one in left.iterdir()} >= {"key.pem", "csr.pem"} - ({name} if content is None else set())
    assert not pending_of(secure)


@pytest.mark.parametrize("damaged", DAMAGES.values(), ids=DAMAGES)
def test_what_was_not_sent_is_made_anew_and_the_token_stays(new, ucl, between, another, damaged):
    go(Establishment.begin(new, another(), ca_file=ucl.ca_file), "request")
    damage(pending_of(new), *damaged)
    assert establish(new, None).outcome == "established"
    assert (aside(new), len(between.seen("configuration"))) == ([], 2)  # the second verifies


def test_a_key_that_is_whole_is_used_again(secure, between):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        go(Renewal.begin(secure))
    key = pending_of(secure).key_path.read_bytes()
    assert renew(secure).outcome == "renewed"
    assert (aside(secure), (secure.current.path / "key.pem").read_bytes()) == ([], key)


# -- an establishment that was signed, while what is in use is accepted again ------------------------------------------


@pytest.fixture
def signed_meanwhile(secure, ucl, between, another):
    """UCL refused it for a while; a new identity was signed and not verified; now UCL accepts both."""
    between.on("configuration", answers(403), answers(403), passes, answers(403), answers(503))
    with pytest.raises(Unavailable):
        establish(secure, another(), ca_file=ucl.ca_file)
    assert pending_of(secure).answer() is not None
    return secure


@pytest.mark.parametrize("given", [True, False])
def test_it_is_finished(signed_meanwhile, another, given):
    with pytest.raises(UsageError, match="waits to be finished"):
        renew(signed_meanwhile)
    assert establish(signed_meanwhile, another() if given else None).outcome == "established"
    assert renew(signed_meanwhile).outcome == "renewed"


def test_so_it_is_in_a_notebook(signed_meanwhile):
    establishment = Establishment.begin(signed_meanwhile, only_if_needed=True)
    assert establishment.can_go_on()
    assert go(establishment).outcome == "established"


def test_without_such_an_answer_what_is_accepted_stays(secure, another):
    with pytest.raises(UsageError, match="UCL accepts its certificate"):
        establish(secure, another())


# -- what forget and revoke may not overlook ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["identity.pem", "key.pem", "chain.pem"])
def test_of_an_identity_that_is_damaged_what_is_left_is_revoked(secure, ucl, name):
    mark = secure.current.fingerprint
    (secure.current.path / name).write_bytes(b"")
    assert [one.fingerprint for one in valid_identities(secure)] == [mark]
    with pytest.raises(UsageError, match="an identity that UCL may still accept"):
        forget(secure)
    assert revoke(secure, everything=True).facts["revoked"] == mark
    forget(secure)


def test_a_request_that_was_set_aside_unanswered_is_not_forgotten(secure, between):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        go(Renewal.begin(secure))
    assert renew(secure, key_length=2056).outcome == "renewed"
    assert len(aside(secure)) == 1
    assert "did not answer" in revoke(secure, everything=True).facts["unsettled"]
    with pytest.raises(UsageError, match="keeps the key of a certificate that may be valid"):
        forget(secure)
    forget(secure, even_if_valid=True)


def test_without_a_token_nothing_is_noted_as_sent(new, ucl, between, another):
    between.on("configuration", changes(token=None))
    with pytest.raises((NewTokenNeeded, BadAnswer)):
        establish(new, another(), ca_file=ucl.ca_file)
    assert not pending_of(new).read_state().sent
    forget(new)


def test_the_one_that_was_in_use_a_moment_ago_is_not_pruned(secure):
    (secure.path / "settings.toml").write_text(f"key_length = {QUICK_BITS}\nkeep = 2\n")
    for _ in range(2):
        renew(secure)
    grow_old(secure)
    rollback(secure, "1")
    first = secure.current
    renew(secure)
    assert first in secure.generations()
    renew(secure)
    assert first not in secure.generations()


def test_the_one_in_use_is_not_gone_back_to(secure):
    renew(secure)
    with pytest.raises(UsageError, match="Generation 2 of prod is in use already"):
        rollback(secure, "2")
    assert rollback(secure, "1").outcome == "rolled-back"


# -- what a server says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["https://sso.example?b={}", "https://{}", "https://{}.example/", "//x/?{}", "{}"])
def test_a_redirect_shows_no_secret(new, ucl, between, another, where):
    token = another()
    between.on("configuration", lambda *_: Reply(302, b"", (("Location", where.format(token.token)),)))
    with pytest.raises(BadAnswer, match="which is not followed") as told:
        establish(new, token, ca_file=ucl.ca_file)
    assert token.token.lower() not in f"{told.value} {told.value.data}".lower()


@pytest.mark.parametrize("operation", ["configuration", "sign"])
def test_a_date_beyond_reason_is_none(secure, between, operation):
    def far(forward, _):
        reply = forward()
        return Reply(reply.status, reply.body, (("Date", "Fri, 31 Dec 9999 23:59:59 GMT"),))

    between.on(operation, far)
    assert renew(secure).outcome == "renewed"


def test_the_cut_off_establishments_ca_is_kept_for_the_next(new, ucl, between, another):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(NewTokenNeeded):
        establish(new, another(), ca_file=ucl.ca_file)
    assert f"--ca-file {new.path / 'pending' / 'server-ca.pem'}" in diagnose(new, offline=True)["one-time token"].remedy
    assert establish(new, another()).outcome == "established"


# -- the doctor --------------------------------------------------------------------------------------------------------


def test_a_subject_that_cannot_be_read_is_no_answer(secure, between):
    wrong = {"subject": "not a subject", "keyAlgorithm": "rsa2048"}
    between.on("configuration", changes(certificateSigningRequestInfo=wrong))
    found = diagnose(secure)
    assert (found["UCL's answer"].status, found.exit_code) == ("failed", BadAnswer.exit_code)
    assert diagnose(secure).ok


def test_what_was_set_aside_with_a_valid_certificate_is_not_to_be_removed(secure):
    go(Renewal.begin(secure), "decode")
    renew(secure, key_length=2056)
    [left] = aside(secure)
    (left / "state.json").write_text("")
    assert "rm -r" not in diagnose(secure, offline=True)["set aside"].remedy
    (left / "chain.pem").unlink()
    assert "rm -r" in diagnose(secure, offline=True)["set aside"].remedy


def test_a_link_to_another_connection_alone_goes(secure, home):
    link = home.path / "connections" / "alias"
    link.symlink_to("prod")
    assert diagnose(Connection(home, "alias"), offline=True)["connection folder"].remedy == f"rm {link}"


def test_of_a_link_elsewhere_what_it_stands_for_takes_its_place(secure, tmp_path):
    shutil.move(secure.path, tmp_path / "elsewhere")
    secure.path.symlink_to(tmp_path / "elsewhere")
    mend = diagnose(secure, offline=True)["connection folder"].remedy
    assert mend == f"rm {secure.path} && mv {tmp_path / 'elsewhere'} {secure.path}"


def test_a_home_that_leads_nowhere_is_named(secure, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "not-mounted")
    [found] = diagnose_home(Home(link), offline=True).diagnoses
    assert (found.exit_code, found["home folder"].found) == (10, f"{link}: no such file or directory")
    assert diagnose_home(secure.home, offline=True).exit_code == 0


def test_a_current_that_is_absolute_is_one_all_the_same(secure):
    there = secure.current.path
    (secure.path / "current").unlink()
    (secure.path / "current").symlink_to(there)
    assert diagnose(secure, offline=True)["identity in use"].status == "ok"
