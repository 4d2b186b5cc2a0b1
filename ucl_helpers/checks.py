"""Is this the certificate that was asked for? Pure; every check is made, then all failures are raised at once.

The path checked is the one the Connector gives: ``certificateChain``, leaf first, each link signed by the next
(RFC 5280, section 6.1, signatures and names only). *Not* checked: revocation (UCL publishes none), name constraints,
policies, path lengths, and whether UCL will accept the certificate: the verification call shows that.

Time: valid-now is judged by the server's clock (the ``Date`` of its answer) with five minutes of tolerance. When only
our own clock disagrees, that is a warning.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ucl_helpers.crypto import common_name, same_subject, subject_text
from ucl_helpers.errors import ChecksFailed
from ucl_helpers.models import Check, Due, Status, Validity, fingerprint
from ucl_helpers.show import moment, span

TOLERANCE = timedelta(minutes=5)
WEAK_HASHES = {"md5", "sha1"}


@dataclass(frozen=True)
class Expected:
    """What a new certificate is held against.

    Attributes:
        public_key: of the key it was asked for with.
        subject: as asked for, or None (an import has none).
        server_now: the ``Date`` of the authenticated answer, UTC, or None when it bore none.
        local_now: our own clock, UTC.
        due: the due rule, applied to the new certificate at ``server_now``, or None.
        previous: the certificate in use, or None.
        previous_ca: the client CA of the certificate in use; empty when there is none.
    """

    public_key: rsa.RSAPublicKey
    subject: x509.Name | None
    server_now: datetime | None
    local_now: datetime
    due: Due | None = None
    previous: x509.Certificate | None = None
    previous_ca: Sequence[x509.Certificate] = field(default=())


def check_identity(
    chain: Sequence[x509.Certificate],
    expected: Expected,
    *,
    client: Sequence[x509.Certificate] | None = None,
    ca: Sequence[x509.Certificate] | None = None,
) -> tuple[Check, ...]:
    """Look at everything.

    Args:
        chain: ``certificateChain``, decoded.
        expected: what was asked for.
        client: ``clientCertificate``, decoded; None when there is no such answer (an import).
        ca: ``caCertificate``, decoded; None likewise.
    """
    leaf = chain[0]
    found = [
        _check("key", leaf.public_key() == expected.public_key, "the key that was made", _key_text(leaf)),
        *_subject(leaf, expected),
        *_answer_parts(chain, client, ca),
        *_links(chain),
        *_time(leaf, expected),
        *_usage(leaf),
        *_strength(chain),
        *_previous(chain, expected),
    ]
    return tuple(found)


def require(checks: Sequence[Check], *, what: str) -> None:
    """Raise once for everything that failed.

    Raises:
        ChecksFailed: names every failed check with what was expected and found.
    """
    failed = [check for check in checks if check.status == "failed"]
    if failed:
        lines = "; ".join(f"{one.name}: expected {one.expected}, found {one.found}" for one in failed)
        raise ChecksFailed(
            f"{what} fails {len(failed)} of {len(checks)} checks: {lines}.",
            remedy="The identity in use is untouched. If this stays, report it to UCL.",
            failed=[check.name for check in failed],
        )


def _check(name: str, passed: bool, expected: str, found: str, *, otherwise: Status = "failed") -> Check:
    return Check(name, "ok" if passed else otherwise, expected, found)


def _name(certificate: x509.Certificate) -> str:
    return common_name(certificate.subject) or subject_text(certificate.subject)


def _key_text(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    return f"RSA, {key.key_size} bits" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__.strip("_")


def _subject(leaf: x509.Certificate, expected: Expected) -> Iterator[Check]:
    if expected.subject is not None:
        same = same_subject(leaf.subject, expected.subject)
        yield _check("subject", same, subject_text(expected.subject), subject_text(leaf.subject))


def _answer_parts(
    chain: Sequence[x509.Certificate],
    client: Sequence[x509.Certificate] | None,
    ca: Sequence[x509.Certificate] | None,
) -> Iterator[Check]:
    if client is not None:
        found = f"{len(client)} certificate(s), first {fingerprint(client[0])[:16]}…"
        same = list(client) == [chain[0]]
        yield _check("leaf first", same, "clientCertificate opens certificateChain", found)
    if ca is not None:
        same = list(ca) == list(chain[1:]) and bool(ca)
        expected = f"the {len(chain) - 1} certificate(s) after the leaf"
        names = ", ".join(map(_name, ca))
        yield _check("caCertificate", same, expected, f"{len(ca)}: {names}")


def _links(chain: Sequence[x509.Certificate]) -> Iterator[Check]:
    for lower, upper in pairwise(chain):
        problem = _link_problem(lower, upper)
        name = f"signed by {_name(upper)}"
        yield _check(name, not problem, "name and signature agree, issuer is a CA", problem or "they agree")
    top = chain[-1]
    rooted = len(chain) > 1 and not _link_problem(top, top)
    found = f"{_name(top)}, {'self-signed' if rooted else 'not self-signed'}"
    yield _check("chain is complete", rooted, "ends at a self-signed CA", found, otherwise="warning")


def _link_problem(lower: x509.Certificate, upper: x509.Certificate) -> str:
    try:
        lower.verify_directly_issued_by(upper)
    except InvalidSignature:
        return "the signature does not verify"
    except (ValueError, TypeError):
        return "issuer and subject differ"
    return "" if _is_ca(upper) else "the issuer is not a CA"


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _time(leaf: x509.Certificate, expected: Expected) -> Iterator[Check]:
    validity = Validity.of(leaf)
    now = expected.server_now or expected.local_now
    inside = validity.not_before - TOLERANCE <= now < validity.not_after
    period = f"{moment(validity.not_before)} to {moment(validity.not_after)}"
    whose = "server's clock" if expected.server_now else "our clock"
    yield _check("valid now", inside, f"valid at {moment(now)} ({whose})", period)
    if expected.server_now:
        difference = expected.local_now - expected.server_now
        agree = abs(difference) <= TOLERANCE
        text = f"{span(abs(difference))} {'ahead' if difference > timedelta(0) else 'behind'}"
        yield _check("our clock", agree, "within 5 min of the server's", text, otherwise="warning")
    if expected.due is not None:
        at = moment(expected.due.at)
        yield _check("not due again", not expected.due.due, "due later", f"due {at}", otherwise="warning")


def _usage(leaf: x509.Certificate) -> Iterator[Check]:
    try:
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = {ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth", ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth"}
        listed = ", ".join(names.get(one, one.dotted_string) for one in extended)
        client_auth = ExtendedKeyUsageOID.CLIENT_AUTH in extended
    except (x509.ExtensionNotFound, ValueError):
        listed, client_auth = "no extended key usage", False
    yield _check("extended key usage", client_auth, "clientAuth", listed)
    try:
        signs = leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
        text = "digitalSignature" if signs else "no digitalSignature"
    except (x509.ExtensionNotFound, ValueError):
        signs, text = False, "no key usage"
    yield _check("key usage", signs, "digitalSignature", text)


def _strength(chain: Sequence[x509.Certificate]) -> Iterator[Check]:
    # The signature of a self-signed root proves nothing, so its hash does not matter.
    signed = [one for one in chain if one.issuer != one.subject]
    weak = [name for name in map(_hash_name, signed) if name in WEAK_HASHES]
    found = ", ".join(sorted({_hash_name(one) for one in signed} or {"no signature to judge"}))
    yield _check("signature hash", not weak, "neither SHA-1 nor MD5", found)


def _hash_name(certificate: x509.Certificate) -> str:
    algorithm = certificate.signature_hash_algorithm
    return algorithm.name if algorithm else "built into the algorithm"


def _previous(chain: Sequence[x509.Certificate], expected: Expected) -> Iterator[Check]:
    if expected.previous is not None:
        new = chain[0] != expected.previous and chain[0].public_key() != expected.previous.public_key()
        found = f"{fingerprint(chain[0])[:16]}…"
        yield _check("not the old certificate", new, f"other than {fingerprint(expected.previous)[:16]}…", found)
    if expected.previous_ca:
        same = set(chain[1:]) == set(expected.previous_ca)
        names = ", ".join(map(_name, chain[1:])) or "none in the chain"
        yield _check("client CA", same, "the CA of before", names if same else f"changed: {names}", otherwise="warning")
