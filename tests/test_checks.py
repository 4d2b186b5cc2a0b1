"""Is this the certificate that was asked for? Each test names one defect; what is not named is right.

The chain by default: client ← intermediate ← root, as ``certificateChain`` brings it.
"""

import pytest
from certificates import (
    CA,
    CLIENT_AUTH,
    DAY,
    DUE_NOW,
    INTERMEDIATE,
    LEAF,
    MINUTE,
    NOW,
    OLD,
    OTHER,
    ROOT,
    SERVER_AUTH,
    certificate,
    checks,
    doctored,
    failed,
    found,
    intermediate,
    key,
    root,
    warned,
    with_sha1,
    wrong,
)

from ucl_helpers.checks import TOLERANCE, require
from ucl_helpers.crypto import parse_subject
from ucl_helpers.errors import ChecksFailed
from ucl_helpers.models import Identity

RSA_OID, UNKNOWN_OID = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d010177")
KEY_USAGE, EXTENDED = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d25")


def test_what_was_asked_for_passes():
    """client ← intermediate ← root"""
    assert wrong() == {}


def test_a_single_root_passes():
    """client ← root"""
    leaf = certificate(issuer=ROOT, by="root")
    assert wrong(leaf, [root()], previous_ca=[root()]) == {}


def test_a_root_that_the_server_does_not_know_is_a_warning():
    """client ← intermediate; "intermediate, its root not known: certificateChain is client, intermediate" """
    assert wrong(ca=CA[:1], previous_ca=CA[:1]) == warned("chain is complete")


# -- key, subject, usage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["other", "ec"])
def test_the_key_belongs_to_the_certificate(of):
    assert wrong(certificate(of=of)) == failed("key")


@pytest.mark.parametrize(
    ("old", "new"),
    [(RSA_OID, UNKNOWN_OID), (b"\x02\x03\x01\x00\x01", b"\x02\x03\x01\x00\x02")],
    ids=["unknown algorithm", "even exponent"],
)
def test_a_public_key_that_cannot_be_read_is_not_ours(old, new):
    leaf = doctored(certificate(), old, new)
    assert wrong(leaf) == failed("key")
    assert found("key", leaf) == "a key that cannot be read"


@pytest.mark.parametrize("text", ["O=Org,CN=other", "CN=07070cc0-6a8e-4fc9-b718-51aef536bb40", "O=Org,O=Org,CN=x"])
def test_the_subject_is_the_one_that_was_asked_for(text):
    assert wrong(certificate(subject=parse_subject(text))) == failed("subject")


def test_the_order_of_its_fields_does_not_matter():
    reordered = "C=DE,ST=province,L=locality,O=Org,OU=OrgUnit,CN=07070cc0-6a8e-4fc9-b718-51aef536bb40"
    assert wrong(certificate(subject=parse_subject(reordered))) == {}


@pytest.mark.parametrize("extended", [(), (SERVER_AUTH,)])
def test_it_is_for_client_authentication(extended):
    """RFC 5280, 4.2.1.12: "the certificate MUST only be used for one of the purposes indicated" """
    assert wrong(certificate(extended=extended)) == failed("extended key usage")
    assert wrong(certificate(extended=(CLIENT_AUTH, *extended))) == {}


@pytest.mark.parametrize("usage", [None, "key_encipherment"])
def test_it_may_sign(usage):
    """RFC 5280, 4.2.1.3: digitalSignature, for "entity authentication" """
    assert wrong(certificate(usage=usage)) == failed("key usage")


@pytest.mark.parametrize(
    ("old", "new"),
    [(EXTENDED, KEY_USAGE), (b"\x30\x0a\x06\x08\x2b", b"\x30\x0a\x04\x08\x2b")],
    ids=["twice the same", "malformed"],
)
def test_extensions_that_cannot_be_read_allow_nothing(old, new):
    """RFC 5280, 4.2: "A certificate MUST NOT include more than one instance of a particular extension." """
    assert wrong(doctored(certificate(), old, new)) == failed("extended key usage", "key usage")


# -- the chain ---------------------------------------------------------------------------------------------------------


def test_the_answers_agree_on_the_client_certificate():
    """certificateChain: client …; clientCertificate: another, or the client and more"""
    assert wrong(client=[OLD]) == failed("leaf first")
    assert wrong(client=[certificate(), CA[0]]) == failed("leaf first")


@pytest.mark.parametrize("answer", [CA[:1], CA[::-1], [*CA, root(of="other", by="other")], [*CA, CA[1]]])
def test_the_answers_agree_on_the_ca(answer):
    """certificateChain: client ← intermediate ← root; caCertificate: less, another order, or more"""
    assert wrong(ca_answer=answer) == failed("caCertificate")


def test_a_missing_intermediate_fails():
    """client ← (intermediate) root; RFC 5280, 6.1: "the subject of certificate x is the issuer of x+1" """
    assert wrong(ca=CA[1:], previous_ca=()) == failed("signed by Root CA")


def test_another_order_fails():
    """client, root, intermediate"""
    expected = {**failed("signed by Root CA", "signed by Client CA"), **warned("chain is complete")}
    assert wrong(ca=CA[::-1]) == expected


def test_the_ca_before_the_leaf_fails():
    """intermediate, client, root"""
    chain = (CA[0], certificate(), CA[1])
    assert {"key", "subject", f"signed by {LEAF.rdns[-1].rfc4514_string()[3:]}"} <= set(wrong(chain=chain))


def test_an_unrelated_certificate_at_the_end_fails():
    """client ← intermediate ← root, other"""
    stray = root(subject=OTHER, issuer=OTHER, of="other", by="other")
    assert wrong(ca=(*CA, stray), previous_ca=()) == failed("signed by Other CA")


def test_a_root_given_twice_fails():
    """client ← intermediate ← root ← the same root"""
    assert wrong(ca=(*CA, CA[1])) == failed("signed by Root CA")


def test_two_leaves_fail():
    """client, client, intermediate ← root"""
    leaf = certificate()
    assert f"signed by {LEAF.rdns[-1].rfc4514_string()[3:]}" in wrong(chain=(leaf, leaf, *CA))
    assert "client CA" in wrong(chain=(leaf, OLD, *CA))


def test_a_leaf_that_signs_itself_fails():
    """client ← client, alone: also where no other part of an answer tells (an import)"""
    leaf = certificate(issuer=LEAF, by="leaf")
    assert wrong(leaf, (), parts=False, previous_ca=()) == {**failed("issuer"), **warned("chain is complete")}


def test_an_imported_leaf_without_its_chain_is_a_warning():
    """client, alone"""
    assert wrong(ca=(), parts=False, previous_ca=(), subject=None) == warned("chain is complete")


@pytest.mark.parametrize("by", ["other", "leaf"])
def test_a_signature_that_is_not_the_issuers_fails(by):
    """client ←✗ intermediate ← root: the names agree, the signature does not"""
    assert wrong(certificate(by=by)) == failed("signed by Client CA")
    assert found("signed by Client CA", certificate(by=by)) == "the signature does not verify"


@pytest.mark.parametrize("changed", [{"ca": None}, {"ca": False}, {"usage": "digital_signature"}])
def test_an_issuer_that_is_no_ca_fails(changed):
    """RFC 5280, 6.1.4 (k), (n): "verify that cA is set to TRUE", "verify that the keyCertSign bit is set" """
    ca = (intermediate(**changed), root())
    assert wrong(ca=ca, previous_ca=ca) == failed("signed by Client CA")


def test_an_issuer_whose_key_cannot_be_read_fails():
    ca = (doctored(intermediate(), RSA_OID, UNKNOWN_OID, by="root"), root())
    assert wrong(ca=ca, previous_ca=ca) == failed("signed by Client CA")


@pytest.mark.parametrize("of", ["root", "ec"])
def test_the_ca_may_have_any_kind_of_key(of):
    """client ← root; the key of the CA is its own affair"""
    ca = [root(of=of, by=of)]
    assert wrong(certificate(issuer=ROOT, by=of), ca, previous_ca=ca) == {}


def test_a_weak_signature_fails():
    """RFC 9155: "the use of MD5 and SHA-1 … is not acceptable" """
    sha1 = with_sha1(certificate(), by="intermediate")  # newer cryptography does not even verify it
    assert wrong(sha1)["signature hash"] == "failed"
    assert found("signature hash", sha1) == "sha1, sha256"


def test_the_signature_of_a_root_proves_nothing():
    ca = (CA[0], with_sha1(root(), by="root"))
    assert "signature hash" not in wrong(ca=ca, previous_ca=ca)


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"not_before": NOW + TOLERANCE}, {}),
        ({"not_before": NOW + TOLERANCE + MINUTE}, failed("valid now")),
        ({"not_after": NOW + MINUTE}, {}),
        ({"not_after": NOW}, failed("valid now")),
    ],
    ids=["a little early", "too early", "still", "over"],
)
def test_it_is_valid_now(changed, expected):
    """RFC 5280, 6.1.3 (a) (2): "The certificate validity period includes the current time" """
    assert wrong(certificate(**changed)) == expected


@pytest.mark.parametrize("off", [-DAY * 100, -TOLERANCE - MINUTE, TOLERANCE + MINUTE, DAY * 100])
def test_when_only_our_clock_disagrees_it_is_a_warning_that_names_the_difference(off):
    assert wrong(local_now=NOW + off) == warned("our clock")
    amount = "100 d" if abs(off) > DAY else "6 min"
    assert found("our clock", local_now=NOW + off) == f"{amount} {'ahead' if off > 0 * DAY else 'behind'}"


def test_the_servers_clock_decides():
    """Our clock says valid, the server's says not yet."""
    expected = {**failed("valid now"), **warned("our clock")}
    assert wrong(server_now=NOW - DAY) == expected


def test_without_the_servers_clock_ours_decides():
    assert wrong(server_now=None) == {}
    assert wrong(server_now=None, local_now=NOW - DAY) == failed("valid now")


def test_due_again_at_once_is_a_warning():
    assert wrong(due=DUE_NOW) == warned("not due again")
    assert wrong(due=None) == {}


@pytest.mark.parametrize("changed", [{"not_after": NOW + 89 * DAY}, {"not_before": NOW + DAY}])
def test_a_ca_that_is_not_valid_as_long_as_the_leaf_is_a_warning(changed):
    ca = (intermediate(**changed), root())
    assert wrong(ca=ca, previous_ca=ca) == warned("CA's time")


# -- the one before ----------------------------------------------------------------------------------------------------


def test_the_old_certificate_is_not_a_new_one():
    assert wrong(OLD, public_key=key("old").public_key()) == failed("not the old certificate")


def test_nor_is_a_new_one_for_the_old_key():
    leaf = certificate(of="old")
    assert wrong(leaf, public_key=key("old").public_key()) == failed("not the old certificate")


def test_another_ca_than_before_is_shown():
    other = [root(subject=INTERMEDIATE, issuer=INTERMEDIATE, of="other", by="other")]
    assert wrong(previous_ca=other) == warned("client CA")
    assert found("client CA", previous_ca=other) == "changed: Client CA, Root CA"


def test_a_first_certificate_has_none_before():
    assert wrong(previous=None, previous_ca=()) == {}


# -- all at once -------------------------------------------------------------------------------------------------------


def test_all_failures_are_told_at_once():
    leaf = certificate(of="other", subject=OTHER, by="other", not_after=NOW, usage=None, extended=())
    names = ["key", "subject", "signed by Client CA", "valid now", "extended key usage", "key usage"]
    with pytest.raises(ChecksFailed) as caught:
        require(checks(leaf), what="The signed certificate")
    assert caught.value.data["failed"] == names
    assert caught.value.checks == checks(leaf)
    assert all(f"{name}: expected " in str(caught.value) for name in names)
    assert "fails 6 checks: key: " in str(caught.value)


def test_warnings_do_not_fail():
    found = checks(due=DUE_NOW, local_now=NOW + DAY)
    require(found, what="The signed certificate")
    assert Identity((certificate(), *CA), CA, found).ok


def test_what_a_server_wrote_is_cut_short():
    leaf = certificate(subject=parse_subject(f"O={'x' * 9000},CN=y"))
    assert wrong(leaf) == failed("subject")
    assert len(found("subject", leaf)) == 500
