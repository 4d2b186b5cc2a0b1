"""Chains to look at: everything is right by default, so that a test names only what is wrong."""

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from quick_keys import QUICK_BITS

from ucl_helpers.checks import Expected, check_identity
from ucl_helpers.crypto import parse_subject
from ucl_helpers.models import Due

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
LEAF = parse_subject("O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=07070cc0-6a8e-4fc9-b718-51aef536bb40")
INTERMEDIATE, ROOT, OTHER = map(parse_subject, ("O=Org,CN=Client CA", "O=Org,CN=Root CA", "O=Org,CN=Other CA"))
CLIENT_AUTH, SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@cache
def key(name):
    """One RSA key a name, made once a run; ``ec`` is an EC key."""
    if name == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=QUICK_BITS)


def certificate(
    *,
    subject=LEAF,
    issuer=INTERMEDIATE,
    of="leaf",
    by="intermediate",
    not_before=NOW - MINUTE,
    not_after=NOW + 90 * DAY,
    ca=None,
    usage="digital_signature",
    extended=(CLIENT_AUTH,),
    names=(),
):
    """A client certificate as UCL issues it; ``of`` names its key, ``by`` the key it is signed with."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key(of).public_key())
    builder = builder.serial_number(2).not_valid_before(not_before).not_valid_after(not_after)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if usage:
        builder = builder.add_extension(x509.KeyUsage(**{one: one == usage for one in USAGES}), critical=True)
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key(by), hashes.SHA256())


def intermediate(**changed):
    defaults = {"subject": INTERMEDIATE, "issuer": ROOT, "of": "intermediate", "by": "root"}
    return certificate(**{**defaults, **_OF_A_CA, **changed})


def root(**changed):
    defaults = {"subject": ROOT, "issuer": ROOT, "of": "root", "by": "root"}
    return certificate(**{**defaults, **_OF_A_CA, **changed})


_OF_A_CA = {
    "not_before": NOW - 365 * DAY,
    "not_after": NOW + 3650 * DAY,
    "ca": True,
    "usage": "key_cert_sign",
    "extended": (),
}


def doctored(one, old, new, *, by="intermediate"):
    """The certificate with some of its bytes replaced, and signed again: what no builder would build."""
    body, (head, tail) = one.tbs_certificate_bytes, one.public_bytes(Encoding.DER).split(one.tbs_certificate_bytes)
    assert (body.count(old), len(old)) == (1, len(new))
    changed = body.replace(old, new)
    signature = key(by).sign(changed, padding.PKCS1v15(), hashes.SHA256())
    return x509.load_der_x509_certificate(head + changed + tail.replace(old, new).replace(one.signature, signature))


def with_sha1(one, *, by):
    """The certificate, as if signed with SHA-1."""
    sha256, sha1 = bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010105")
    return doctored(one, sha256, sha1, by=by)


CA = (intermediate(), root())
OLD = certificate(of="old", not_before=NOW - 60 * DAY, not_after=NOW + 30 * DAY)
DUE_LATER, DUE_NOW = Due(False, NOW + 60 * DAY, "two thirds"), Due(True, NOW, "two thirds")


def checks(leaf=None, ca=CA, *, chain=None, client=None, ca_answer=None, parts=True, **expected):
    leaf = leaf or certificate()
    chain = (leaf, *ca) if chain is None else chain
    defaults = {
        "public_key": key("leaf").public_key(),
        "subject": LEAF,
        "server_now": NOW,
        "local_now": NOW,
        "due": DUE_LATER,
        "previous": OLD,
        "previous_ca": CA,
    }
    client, ca_answer = client or chain[:1], chain[1:] if ca_answer is None else ca_answer
    told = {"client": client, "ca": ca_answer} if parts else {}
    expected = {**defaults, **expected}
    due = expected.pop("due")
    return check_identity(chain, Expected(**expected, due=due and (lambda _: due)), **told)


def wrong(*args, **kwargs):
    """The checks that are not ok: their names and what they are."""
    return {one.name: one.status for one in checks(*args, **kwargs) if one.status != "ok"}


def found(name, *args, **kwargs):
    return next(one.found for one in checks(*args, **kwargs) if one.name == name)


def failed(*names):
    return dict.fromkeys(names, "failed")


def warned(*names):
    return dict.fromkeys(names, "warning")
