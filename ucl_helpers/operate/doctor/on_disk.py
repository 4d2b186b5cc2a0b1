"""What a doctor looks at in a connection: its settings, the identity in use, and what runs have left there.

Nothing is changed, no lock is taken, nobody is called.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ucl_helpers.checks import TOLERANCE, Expected, check_identity
from ucl_helpers.connection import hook_state, state
from ucl_helpers.connection.attempts import FILE as ATTEMPTS_FILE
from ucl_helpers.connection.attempts import remembered
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.settings import Settings
from ucl_helpers.connection.store import Connection
from ucl_helpers.crypto import common_name, public_key_of, read_certificates
from ucl_helpers.errors import (
    CertificateRejected,
    ChecksFailed,
    NotYetAccepted,
    Refused,
    StorageFailed,
    UCLError,
    UnknownConnection,
)
from ucl_helpers.models import fingerprint
from ucl_helpers.operate.doctor.findings import Commands, Finding, failed, ok, shell, skipped, warning
from ucl_helpers.policy import due
from ucl_helpers.tables import moment, span
from ucl_helpers.wire.tls import check_url

REQUIRED = ("identity.pem", "key.pem", "certificate.pem", "chain.pem", "connection.json")
_COMPLETE = "chain is complete"
_OF_TIME = {"key", "valid now", "our clock"}  # checks that are findings of their own


class Kept:
    """A connection as it lies on disk, read once."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self.connection, self.name, self.now = connection, connection.name, now
        self.settings = Settings()
        with suppress(UCLError):
            self.settings = connection.settings
        self.current: Generation | None = None
        with suppress(UCLError, OSError):
            self.current = connection.current
        self.generations: list[Generation] = []
        with suppress(UCLError):
            self.generations = connection.generations()
        self.pending = Pending(connection.location / "pending", connection.passphrase)
        self.practice = self.settings.sandbox is not None
        waiting = remembered(connection).next_try(now) is not None
        self.commands = Commands(
            connection, practice=self.practice, url=self._url(), server_ca=self._server_ca(), waiting=waiting
        )
        self.commands.passphrase = self.settings.key_passphrase

    def _server_ca(self) -> Path | None:
        """What verifies the server, by a path that stays."""
        with suppress(OSError):
            if self.current and self.current.server_ca:
                return self.connection.path / "current" / "server-ca.pem"
            if self.current is None:  # an establishment that was cut off
                return self.pending.server_ca
        return None

    def _url(self) -> str | None:
        """The certificate endpoint of the identity in use, else the last one known."""
        every = filter(None, [self.current, *reversed(self.generations)])
        return next((url for one in every if (url := self._url_of(one))), None)

    @staticmethod
    def _url_of(generation: Generation) -> str | None:
        with suppress(UCLError, OSError):
            return check_url(generation.facts.get("connectorUrl"))
        return None

    def sandbox_url(self) -> str | None:
        """The certificate endpoint of the sandbox that a practice connection follows, if one runs."""
        with suppress(UCLError):
            return self.connection.sandbox_url
        return None

    # -- settings and the identity in use ------------------------------------------------------------------------------

    def settings_file(self) -> Finding:
        """``settings.toml`` says what it may."""
        name, path = "settings", self.connection.path / "settings.toml"
        try:
            settings = self.connection.settings
        except UCLError as error:
            remedy = f"${{EDITOR:-vi}} {shell(path)}" if path.is_file() else shell("mv", path, f"{path}.old")
            return failed(name, str(error), remedy, type(error))
        if self.practice:
            return ok(name, f"for practice, in the sandbox; {settings.key_length} bits")
        return ok(name, f"{settings.key_length} bits" + ("" if path.exists() else ", all settings at their defaults"))

    def identity(self) -> Finding:
        """``current`` leads to a generation, and all its files are there."""
        name, link, current = "identity in use", self.connection.path / "current", self.current
        if current is not None:
            problem = self._incomplete(current)
            if problem:
                return failed(name, problem, self._lost(), StorageFailed)
            return ok(name, f"generation {current.name}, complete")
        if link.exists():
            return failed(name, f"{link} is not a symlink", shell("mv", link, f"{link}.old"), StorageFailed)
        if self.generations:
            return failed(name, f"{link} is missing, but generations exist", self._lost(), StorageFailed)
        if self.pending:
            return skipped(name, "none yet, see under way")
        return failed(name, "not established yet", self.commands.establish(), UnknownConnection)

    def _incomplete(self, current: Generation) -> str:
        folder = current.path
        if not self._leads_to_a_generation(folder):
            return f"current points to {folder}, which is not a generation"
        missing = [one for one in REQUIRED if not (folder / one).is_file()]
        if missing:
            return f"{folder} lacks {', '.join(missing)}"
        try:
            check_url(current.facts.get("connectorUrl"), what=f"connectorUrl in {folder / 'connection.json'}")
        except UCLError as error:
            return error.message
        return ""

    def _leads_to_a_generation(self, folder: Path) -> bool:
        return folder.is_dir() and folder.parent.resolve() == (self.connection.path / "generations").resolve()

    def key_and_certificate(self, current: Generation) -> Finding:
        """Key, certificate and chain can be read and belong together."""
        name = "key and certificate"
        try:
            current.check_whole(by_key=False)
        except UCLError as error:
            return failed(name, error.message, self._lost(), StorageFailed)
        if not _is_leaf(current):
            found = f"{current.path / 'certificate.pem'} is not the first certificate of chain.pem"
            return failed(name, found, self._from_chain(), StorageFailed)
        if (damage := current.damage_of("client-ca.pem")) is not None:  # it repeats the chain: it can be made again
            return failed(name, damage.message, self.commands.ucl("export", self.name, "--force"), StorageFailed)
        return ok(name, f"they match, SHA-256 {current.fingerprint}")

    def chain(self, current: Generation, now: datetime) -> Finding:
        """The chain is one, and the certificate is for clients."""
        name, leaf = "chain", current.certificate
        key = cast(RSAPublicKey, public_key_of(leaf))  # its own; whether that of key.pem is the same was looked at
        checks = check_identity(current.chain, Expected(key, subject=None, server_now=None, local_now=now))
        bad = [one for one in checks if one.status != "ok" and one.name not in _OF_TIME]
        found = "; ".join(f"{one.name}: expected {one.expected}, found {one.found}" for one in bad)
        lacking = any(one.name == _COMPLETE for one in bad) and not self.practice
        mend = f"{self.commands.again()} --chain {shell('MISSING.pem')}" if lacking else self.commands.establish()
        if any(one.status == "failed" for one in bad):
            return failed(name, found, mend, ChecksFailed)
        if bad:
            return warning(name, found, mend if lacking else "Ask UCL's operator. You cannot fix this here.")
        return ok(name, f"{len(current.chain)} certificates, from {common_name(leaf.subject)}")

    def validity(self, current: Generation, now: datetime) -> Finding:
        """The certificate is valid now; by UCL's clock, if that is known."""
        name, validity = "validity", current.validity
        period = f"{moment(validity.not_before)} to {moment(validity.not_after)}"
        if now >= validity.not_after:
            gone = f"expired {span(now - validity.not_after)} ago ({period})"
            return failed(name, gone, self.commands.establish(), CertificateRejected)
        if now < validity.not_before - TOLERANCE:
            ahead = f"not valid yet, for {span(validity.not_before - now)} ({period})"
            return failed(name, ahead, "timedatectl set-ntp true", NotYetAccepted)
        seed = f"{self.name}/{common_name(current.certificate.subject)}"
        when = due(
            validity,
            seed=seed,
            now=now,
            renew_before=self.settings.renew_before,
            activated=current.created,
            min_interval=self.settings.min_interval,
        )
        if when.due:
            return warning(name, f"{period}; due since {moment(when.at)} ({when.reason})", self.commands.renew())
        return ok(name, f"{period}; due {moment(when.at)}")

    def revocation(self, current: Generation, *, accepted: bool) -> Finding:
        """Neither did this toolkit revoke it, nor did UCL refuse it when it was to be revoked.

        Args:
            current: the generation in use.
            accepted: whether UCL has accepted its certificate just now.
        """
        name, verdict = "revocation", self.connection.verdicts().get(current.fingerprint)
        if verdict is None:
            return ok(name, "not revoked by ucl")
        found = f"{verdict}, {moment(verdict.since)}"
        if verdict.may_pass and accepted:  # which the next renewal finds as well
            return warning(name, f"{found}; but UCL accepts it now", self.commands.renew())
        if verdict.status in {"revoked", "refused"}:
            return failed(name, found, self._another(), Refused)
        return warning(name, found, f"{self.commands.ucl('revoke', self.name)} --all")

    def state_files(self) -> Finding:
        """What decides can be read."""
        name, folder = "state files", self.connection.path
        try:
            self.connection.verdicts()
        except StorageFailed as error:
            path = folder / state.REVOKED_FILE
            return failed(name, error.message, shell("mv", path, f"{path}.damaged"), StorageFailed)
        if damaged := state.damaged_files(folder, (state.ACTIVATION_FILE, hook_state.FILE, ATTEMPTS_FILE)):
            found = f"{', '.join(map(str, damaged))}: damaged, so ucl ignores it"
            return warning(name, found, shell("rm", *damaged))
        return ok(name, "all readable" if state.has_verdicts(folder) else "none yet, so ucl reads the journal")

    def journal(self) -> Finding:
        """The record for people is whole, as far as that can be noticed. Nothing is decided by it."""
        name = "journal"
        if lost := self.connection.lost_events():
            return warning(name, f"lines were lost: {lost}", "There is nothing to do. No decision depends on it.")
        return ok(name, f"{len(self.connection.journal())} events")

    def _from_chain(self) -> str:
        folder = self.connection.path / "current"
        return shell("openssl", "x509", "-in", folder / "chain.pem", "-out", folder / "certificate.pem")

    def _lost(self) -> str:
        """What brings back an identity whose files are not whole: what of them is left, an earlier one, a new one."""
        gone, folder = self.revoked(), self.connection.path / "current"
        elsewhere = self.current and not self._leads_to_a_generation(self.current.path)
        if self.current and not elsewhere and self.current.is_readable and self._url_of(self.current):
            return self._from_chain()  # all that can be lacking is certificate.pem
        left = Generation(folder).rescued
        if (
            left
            and not elsewhere
            and left.certificate.not_valid_after_utc > self.now
            and fingerprint(left.certificate) not in gone
        ):
            return self.commands.again(left.key_file, left.certificate_file)
        return self._another()

    def _another(self) -> str:
        """What brings back a connection whose identity in use is gone: an earlier one, or a new one."""
        with suppress(UCLError):
            if self.connection.usable(self.now):
                return self.commands.ucl("rollback", self.name)
        return self.commands.establish()

    def revoked(self) -> set[str]:
        """Fingerprints of the certificates that UCL does not accept, or may not accept."""
        with suppress(UCLError):
            return set(self.connection.verdicts().having("revoked", "refused", "doubtful"))
        return set()

    def whole(self) -> list[Generation]:
        """Generations whose files belong together and whose certificate has not expired."""
        return [one for one in self.generations if one.is_readable and self.now < one.validity.not_after]


def guarded(name: str, look: Callable[[], Finding]) -> Finding:
    """A look that comes to nothing is a finding as well."""
    try:
        return look()
    except UCLError as error:
        return failed(name, error.message, error.remedy, type(error))
    except OSError as error:
        found = f"{error.filename or name}: {str(error.strerror or error).lower()}"
        return failed(name, found, "Fix that, then run ucl doctor again.", StorageFailed)


def _is_leaf(current: Generation) -> bool:
    with suppress(UCLError):
        pem = (current.path / "certificate.pem").read_bytes()
        return read_certificates(pem, name="certificate.pem") == (current.certificate,)
    return False
