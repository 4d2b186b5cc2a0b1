"""What was checked in a step, as a table; the notebook asserts that all of it holds."""

import base64
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.connection.status import Status
from ucl_helpers.crypto import MAX_BITS, MIN_BITS, parse_subject, same_subject
from ucl_helpers.models import (
    Check,
    Configuration,
    Due,
    Identity,
    NotNeeded,
    Outcome,
    SignedCertificates,
    SigningRequest,
    Verification,
)
from ucl_helpers.operate.hooks import HookResults
from ucl_helpers.procedures.procedure import Procedure
from ucl_helpers.tables import Row, Shown, moment


@dataclass(frozen=True)
class Checks(Shown):
    """Checks and whether all of them hold; warnings are allowed."""

    checks: Sequence[Check]

    title: ClassVar[str] = "Checked"
    header: ClassVar[Row] = ("check", "status", "expected", "found")

    @property
    def ok(self) -> bool:
        """True when none failed."""
        return all(one.status != "failed" for one in self.checks)

    def rows(self) -> list[Row]:
        """One row a check."""
        return [(one.name, one.status, one.expected, one.found) for one in self.checks]


def checked(result: object) -> Checks:
    """Look once more, independently of the step, at what a step returned."""
    return Checks(tuple(_look(result)))


@singledispatch
def _look(result: object) -> Iterator[Check]:
    raise TypeError(f"there is nothing to check in {type(result).__name__}")


def _check(name: str, expected: str, found: object, *, passed: bool) -> Check:
    return Check(name, "ok" if passed else "failed", expected, str(found))


@_look.register
def _(result: NotNeeded) -> Iterator[Check]:
    yield _check("not needed", "a reason", f"until {moment(result.until)}: {result.reason}", passed=True)


@_look.register
def _(result: Procedure) -> Iterator[Check]:
    if result.not_needed is not None:
        yield from _look(result.not_needed)
    else:
        yield _check("begun", "this run works on the connection", f"yes, to {result.kind} it", passed=True)
        yield _check(
            "key length", f"{MIN_BITS} to {MAX_BITS} bits", f"{result.bits} bits", passed=result.bits >= MIN_BITS
        )


@_look.register
def _(result: Status) -> Iterator[Check]:
    usable = _check("state", "valid or due", result.state, passed=result.state in {"valid", "due"})
    by_our_clock = result.state in {"expired", "not yet valid"}  # UCL judges by its own
    yield replace(usable, status="warning") if by_our_clock else usable
    yield _check("unfinished renewal", "none, or gone on with below", result.pending or "none", passed=True)


@_look.register
def _(result: Due) -> Iterator[Check]:
    yield _check("due date", "worked out from the certificate", moment(result.at), passed=True)


@_look.register
def _(result: Configuration) -> Iterator[Check]:
    names = [one.rfc4514_attribute_name for one in parse_subject(result.subject)]
    yield _check("subject", "has a CN", ", ".join(names), passed="CN" in names)
    url = result.certificate_secured_connector_url or ""
    yield _check("certificate endpoint", "https", url or "(none)", passed=_is_https(url))


@_look.register
def _(result: SigningRequest) -> Iterator[Check]:
    csr = x509.load_pem_x509_csr(result.csr.encode())
    yield _check("CSR", "signed by its own key", "the signature verifies", passed=csr.is_signature_valid)
    same = same_subject(csr.subject, parse_subject(result.subject))
    yield _check("subject", result.subject, "the same fields" if same else "other fields", passed=same)
    key = csr.public_key()
    bits = key.key_size if isinstance(key, rsa.RSAPublicKey) else 0
    yield _check("key length", f"{result.bits} bits", f"{bits} bits", passed=bits == result.bits)
    mode = _mode(result.key_path)
    yield _check(
        "key file", "only its owner can read it (0600)", mode or "in its generation by now", passed=mode in {"", "0600"}
    )


@_look.register
def _(result: SignedCertificates) -> Iterator[Check]:
    for name, text in vars(result).items():
        if isinstance(text, str):
            found = _certificates(text)
            told = "not base64" if found is None else f"{found} certificate(s)"
            yield _check(name, "base64 of PEM", told, passed=bool(found))


@_look.register
def _(result: Identity) -> Iterator[Check]:
    yield from result.checks


@_look.register
def _(result: Verification) -> Iterator[Check]:
    yield _check("accepted", "an answer over a new handshake", f"answered {moment(result.at)}", passed=True)


@_look.register
def _(result: HookResults) -> Iterator[Check]:
    for one in result.results:
        look = _check(f"hook {one.name}", "exit code 0", one.problem or one.status, passed=one.status != "failed")
        yield look if look.status == "ok" else replace(look, status="warning")  # the outcome says that it failed
    if not result.results:
        yield _check("hooks", "all done", "none to run here", passed=True)


@_look.register
def _(result: Outcome) -> Iterator[Check]:
    yield _check("outcome", "done, or not needed", result.outcome, passed=result.exit_code == 0)


def _certificates(text: str) -> int | None:
    """How many a text in base64 holds; None if it is none."""
    try:
        return base64.b64decode(text, validate=True).count(b"-----BEGIN CERTIFICATE-----")
    except ValueError:
        return None


def _is_https(url: str) -> bool:
    try:
        return urlsplit(url).scheme == "https"
    except ValueError:
        return False


def _mode(path: str) -> str:
    file = Path(path)
    return f"{stat.S_IMODE(file.stat().st_mode):04o}" if file.exists() else ""
