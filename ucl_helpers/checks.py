"""Check that a certificate is the one that was requested. Pure. All checks run, then one error names all failures.

The path is ``certificateChain`` as the Connector sends it, leaf first. Each certificate must be signed by the next one
(RFC 5280, section 6.1, signatures and names only). *Not* checked: revocation (UCL publishes no list), name constraints,
policies, path lengths, and whether UCL will accept the certificate. The verification call shows the latter.

The server's clock (the ``Date`` of its answer) decides whether a certificate is valid now, with five minutes of
tolerance. If only our own clock disagrees, that is a warning.

A certificate from the network may be malformed in any way. A part that cannot be read fails its check, and the other
checks still run.

The checks, and what it means if one fails. ``docs/reference/checks.md`` is written from this list and from the
checks themselves:

- ``key``: UCL signed another public key than the one in the request. The certificate is useless with your key.
- ``subject``: UCL signed another name than the one in the request.
- ``leaf first``: the fields ``clientCertificate`` and ``certificateChain`` of the answer do not begin with the same
  certificate.
- ``caCertificate``: the field ``caCertificate`` of the answer does not hold the rest of the chain.
- ``signed by …``: a certificate of the chain is not signed by the next one, or the next one is not a CA. The chain is
  in the wrong order, lacks a certificate or has an unrelated one. There is one such check for each link.
- ``issuer``: the certificate is signed by itself, not by a CA.
- ``chain is complete``: the chain does not end at a self-signed CA. Some servers need the root to verify a client.
- ``valid now``: the certificate has expired, or it is not valid yet.
- ``our clock``: the clock of this machine differs from the server's clock.
- ``not due again``: the certificate is due for renewal already. The next run after ``min_interval`` renews it.
- ``CA's time``: a CA of the chain is not valid now, or it expires before the certificate does.
- ``extended key usage``: the certificate is not for clients, so a TLS server refuses it.
- ``key usage``: the certificate does not allow signatures, which a TLS client needs.
- ``signature hash``: a certificate of the chain is signed with a hash that can be forged.
- ``not the old certificate``: UCL returned the certificate that is in use, or signed the same key again.
- ``client CA``: another CA than before signed the certificate. Servers that know only the previous CA refuse it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ucl_helpers.crypto import common_name, public_key_of, same_subject, subject_text
from ucl_helpers.errors import ChecksFailed
from ucl_helpers.models import Check, Due, Status, Validity, fingerprint
from ucl_helpers.tables import moment, span

TOLERANCE = timedelta(minutes=5)
WEAK_HASHES = {"md5", "sha1"}
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True)
class Expected:
    """The expected values that a new certificate is checked against.

    Attributes:
        public_key: the public half of the requested key.
        subject: the requested subject, or None (an import has none).
        server_now: the ``Date`` of the authenticated answer, UTC, or None if the answer had none.
        local_now: our own clock, UTC.
        due: returns whether the new certificate is due for renewal at ``server_now``; None to leave this check out.
        previous: the certificate in use, or None.
        previous_ca: the client CA of the certificate in use; empty if there is none.
    """

    public_key: rsa.RSAPublicKey
    subject: x509.Name | None
    server_now: datetime | None
    local_now: datetime
    due: Callable[[x509.Certificate], Due] | None = None
    previous: x509.Certificate | None = None
    previous_ca: Sequence[x509.Certificate] = field(default=())


def check_identity(
    chain: Sequence[x509.Certificate],
    expected: Expected,
    *,
    client: Sequence[x509.Certificate] | None = None,
    ca: Sequence[x509.Certificate] | None = None,
) -> tuple[Check, ...]:
    """Run all checks and return their results. A failed check raises nothing; see :func:`require`.

    Args:
        chain: ``certificateChain``, decoded.
        expected: the requested key and subject, and the values to compare with.
        client: ``clientCertificate``, decoded; None if UCL sent no such answer (an import).
        ca: ``caCertificate``, decoded; None if UCL sent no such answer (an import).
    """
    leaf, key = chain[0], _key_text(chain[0])
    is_ours = public_key_of(leaf) == expected.public_key
    checks = [
        _check(
            "key",
            is_ours,
            "the key that was made",
            f"another key ({key})" if key.startswith("RSA") and not is_ours else key,
        ),
        *_subject(leaf, expected),
        *_answer_parts(chain, client, ca),
        *_links(chain),
        *_time(leaf, expected),
        *_ca_time(chain, expected),
        *_usage(leaf),
        *_strength(chain),
        *_previous(chain, expected),
    ]
    return tuple(checks)


def require(checks: Sequence[Check], *, what: str) -> None:
    """Raise one error for all failed checks.

    Raises:
        ChecksFailed: names each failed check with the expected and the found value.
    """
    failed = [check for check in checks if check.status == "failed"]
    if failed:
        lines = "; ".join(f"{check.name}: expected {check.expected}, found {check.found}" for check in failed)
        error = ChecksFailed(
            f"{what} fails {len(failed)} check{'s' * (len(failed) > 1)}: {lines}.",
            remedy="The identity in use is untouched. If this happens again, report it to UCL.",
            failed=[check.name for check in failed],
        )
        error.checks = checks
        raise error


def _check(name: str, passed: bool, expected: str, found: str, *, otherwise: Status = "failed") -> Check:
    return Check(name[:100], "ok" if passed else otherwise, expected[:500], found[:500])


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """Return an extension, or None if it is missing or the extensions cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None


def _name(certificate: x509.Certificate) -> str:
    return common_name(certificate.subject) or subject_text(certificate.subject)


def _key_text(certificate: x509.Certificate) -> str:
    key = public_key_of(certificate)
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA, {key.key_size} bits"
    return type(key).__name__ if key is not None else "a key that cannot be read"


def _subject(leaf: x509.Certificate, expected: Expected) -> Iterator[Check]:
    if expected.subject is not None:
        same = same_subject(leaf.subject, expected.subject)
        actual = "the same fields" if same else subject_text(leaf.subject)
        yield _check("subject", same, subject_text(expected.subject), actual)


def _answer_parts(
    chain: Sequence[x509.Certificate],
    client: Sequence[x509.Certificate] | None,
    ca: Sequence[x509.Certificate] | None,
) -> Iterator[Check]:
    if client is not None:
        actual = f"{len(client)}, first {fingerprint(client[0])[:16]}…"
        same = list(client) == [chain[0]]
        yield _check("leaf first", same, "one clientCertificate, the first of the chain", actual)
    if ca is not None:
        same = list(ca) == list(chain[1:]) and bool(ca)
        expected = f"the rest of the chain ({len(chain) - 1})"
        names = ", ".join(map(_name, ca))
        yield _check("caCertificate", same, expected, f"{len(ca)}: {names}")


def _links(chain: Sequence[x509.Certificate]) -> Iterator[Check]:
    for lower, upper in pairwise(chain):
        problem = "the same certificate twice" if lower == upper else _link_problem(lower, upper)
        name = f"signed by {_name(upper)}"
        yield _check(name, not problem, "name and signature agree, issuer is a CA", problem or "they agree")
    leaf, top = chain[0], chain[-1]
    yield _check("issuer", leaf.issuer != leaf.subject, "a CA, not itself", subject_text(leaf.issuer))
    rooted = len(chain) > 1 and not _link_problem(top, top)
    actual = f"{_name(top)}, {'self-signed' if rooted else 'not a self-signed CA'}"
    yield _check("chain is complete", rooted, "ends at a self-signed CA", actual, otherwise="warning")


def _link_problem(lower: x509.Certificate, upper: x509.Certificate) -> str:
    if lower.issuer != upper.subject:
        return "issuer and subject differ"
    try:
        lower.verify_directly_issued_by(upper)
    except InvalidSignature:
        return "the signature does not verify"
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "the signature cannot be checked"
    constraints, usage = _extension(upper, x509.BasicConstraints), _extension(upper, x509.KeyUsage)
    is_ca = constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)
    return "" if is_ca else "the issuer is not a CA"


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
        due = expected.due(leaf)
        yield _check("not due again", not due.due, "due later", f"due {moment(due.at)}", otherwise="warning")


def _ca_time(chain: Sequence[x509.Certificate], expected: Expected) -> Iterator[Check]:
    now, leaf, cas = expected.server_now or expected.local_now, Validity.of(chain[0]), map(Validity.of, chain[1:])
    actual = [
        f"{moment(ca.not_before)} to {moment(ca.not_after)}" for ca in cas if not _covers(ca, now, leaf.not_after)
    ]
    text = "; ".join(actual) or "yes"
    yield _check("CA's time", not actual, "valid now and as long as the leaf", text, otherwise="warning")


def _covers(ca: Validity, now: datetime, end: datetime) -> bool:
    return ca.not_before - TOLERANCE <= now and end <= ca.not_after


def _usage(leaf: x509.Certificate) -> Iterator[Check]:
    extended = _extension(leaf, x509.ExtendedKeyUsage) or ()
    names = {ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth", ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth"}
    listed = ", ".join(names.get(purpose, purpose.dotted_string) for purpose in extended) or "no extended key usage"
    yield _check("extended key usage", ExtendedKeyUsageOID.CLIENT_AUTH in extended, "clientAuth", listed)
    usage = _extension(leaf, x509.KeyUsage)
    signs = usage is not None and usage.digital_signature
    yield _check("key usage", signs, "digitalSignature", "digitalSignature" if signs else "no digitalSignature")


def _strength(chain: Sequence[x509.Certificate]) -> Iterator[Check]:
    # The signature of a self-signed root proves nothing, so its hash does not matter.
    signed = [certificate for certificate in chain if certificate.issuer != certificate.subject]
    weak = [name for name in map(_hash_name, signed) if name in WEAK_HASHES]
    actual = ", ".join(sorted({_hash_name(certificate) for certificate in signed} or {"no signature to judge"}))
    yield _check("signature hash", not weak, "neither SHA-1 nor MD5", actual)


def _hash_name(certificate: x509.Certificate) -> str:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "unknown"
    return algorithm.name if algorithm else "built into the algorithm"


def _previous(chain: Sequence[x509.Certificate], expected: Expected) -> Iterator[Check]:
    if expected.previous is not None:
        new = chain[0] != expected.previous and public_key_of(chain[0]) != public_key_of(expected.previous)
        actual = f"{fingerprint(chain[0])[:16]}…"
        yield _check("not the old certificate", new, f"other than {fingerprint(expected.previous)[:16]}…", actual)
    if expected.previous_ca:
        same = set(chain[1:]) == set(expected.previous_ca)
        names = ", ".join(map(_name, chain[1:])) or "none in the chain"
        yield _check("client CA", same, "the CA of before", names if same else f"changed: {names}", otherwise="warning")
