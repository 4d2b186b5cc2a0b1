"""Examine a connection's settings and the identity in use. Nothing is changed, locked or called."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ucl_helpers.checks import TOLERANCE, Expected, check_identity
from ucl_helpers.connection import access, exports
from ucl_helpers.connection.generation import Generation, holds_plain_key
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.references import generation_spec
from ucl_helpers.crypto import common_name, public_key_of, read_certificates
from ucl_helpers.errors import (
    CertificateRejected,
    ChecksFailed,
    KeyLocked,
    NotYetAccepted,
    Refused,
    SecretFound,
    StorageFailed,
    UCLError,
    UnknownConnection,
)
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, skipped, warning
from ucl_helpers.operate.doctor.on_disk import OnDisk, is_generation, readable, shell, url_of
from ucl_helpers.tables import moment, span
from ucl_private_files import read_regular

REQUIRED = ("identity.pem", "key.pem", "certificate.pem", "chain.pem", "connection.json")
_COMPLETE = "chain is complete"
_EXAMINED_APART = {"key", "valid now", "our clock"}  # checks that are findings of their own


# -- settings ----------------------------------------------------------------------------------------------------------


def settings(disk: OnDisk) -> Finding:
    """Examine whether ``settings.toml`` can be used."""
    path = disk.connection.path / "settings.toml"
    if (error := disk.settings_error) is not None:
        remedy = f"${{EDITOR:-vi}} {shell(path)}" if path.is_file() else shell("mv", path, f"{path}.old")
        return failed(str(error), remedy, type(error))
    bits = f"{disk.settings.key_length} bits"
    if disk.practice:
        return ok(f"for practice, in the sandbox; {bits}")
    return ok(bits + ("" if path.exists() else ", all settings at their defaults"))


def references(disk: OnDisk) -> Finding:
    """Examine whether files that the settings refer to are closed to others."""
    exported = [str(disk.settings.exports[name] or "") for name, export in exports.EXPORTS.items() if export.opens]
    named = (disk.settings.key_passphrase, *exported, *disk.settings.notices.urls)
    referred = list(_files_behind(named))
    if ours := [path for path, facts in referred if facts.st_uid == os.geteuid() and facts.st_mode & 0o077]:
        return warning(f"other users can read {', '.join(map(str, ours))}", shell("chmod", "go=", *ours))
    if foreign := [path for path, facts in referred if facts.st_uid != os.geteuid() and facts.st_mode & 0o007]:
        problem = f"every user can read {', '.join(map(str, foreign))}"
        return warning(problem, "Ask their owner to make them readable only by you or your group.")
    closed = ", ".join(str(path) for path, _ in referred)
    return ok(f"closed to others: {closed}" if referred else "the settings refer to no file")


def _files_behind(names: Iterable[str | None]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files that references name."""
    for reference in dict.fromkeys(filter(None, names)):
        with suppress(OSError, RuntimeError, ValueError):
            path = Path(reference.removeprefix("file:")).expanduser()
            if reference.startswith("file:") and stat.S_ISREG((facts := path.stat()).st_mode):
                yield path, facts


# -- the identity in use -----------------------------------------------------------------------------------------------


def in_use(disk: OnDisk) -> Finding:
    """Examine whether ``current`` leads to a generation with all its files."""
    link = disk.connection.path / "current"
    if disk.current is not None:
        folder = disk.current.path
        missing = [name for name in REQUIRED if not (folder / name).is_file()]
        if not is_generation(folder, disk.connection):
            problem = f"current points to {folder}, which is not a generation"
        elif missing:
            problem = f"{folder} lacks {', '.join(missing)}"
        elif url_of(disk.current) is None:
            problem = f"{folder / 'connection.json'} is damaged, or its connectorUrl is missing or not an https URL"
        else:
            return ok(f"generation {disk.current.name}, complete")
        return failed(problem, disk.recovery(), StorageFailed)
    if link.exists():
        return failed(f"{link} is not a symlink", shell("mv", link, f"{link}.old"), StorageFailed)
    if disk.generations:
        return failed(f"{link} is missing, but generations exist", disk.recovery(), StorageFailed)
    if disk.pending:
        return skipped("none yet, see under way")
    return failed("not established yet", disk.establish_command(), UnknownConnection)


def key_and_certificate(disk: OnDisk) -> Finding:
    """Examine whether key, certificate and chain can be read and belong together."""
    current = disk.identity
    try:
        current.check_whole(by_key=False)
    except UCLError as error:
        return failed(error.message, disk.recovery(), StorageFailed)
    file = current.path / "certificate.pem"
    if readable(lambda: read_certificates(read_regular(file), name=file.name)) != (current.certificate,):
        return failed(f"{file} is not the first certificate of chain.pem", disk.from_chain(), StorageFailed)
    if (damage := current.damage_of("client-ca.pem")) is not None:  # it repeats the chain: it can be made again
        return failed(damage.message, disk.command("export", "--force"), StorageFailed)
    return ok(f"they match, SHA-256 {current.fingerprint}")


def key_at_rest(disk: OnDisk) -> Finding:
    """Examine whether all keys are encrypted if ``key_passphrase`` is set, and whether it opens the key in use."""
    try:
        disk.connection.passphrase()
        disk.identity.key()
    except KeyLocked as error:
        return failed(error.message, disk.command("export", "--from", "prompt"), KeyLocked)
    if disk.settings.key_passphrase is None:
        return ok("not encrypted, the default")
    places: list[Generation | Pending] = [*disk.generations, *disk.connection.aside(), disk.pending]
    if in_plain := [place for place in places if holds_plain_key(place.path)]:
        names = ", ".join(place.path.name for place in in_plain)
        damaged = [place.path for place in in_plain if isinstance(place, Generation) and not place.is_readable]
        only_damaged = len(damaged) == len(in_plain)
        remedy = shell("rm", "-r", *damaged) if only_damaged else disk.command("export")
        return failed(f"key_passphrase is set, but the key is not encrypted in {names}", remedy, SecretFound)
    return ok("encrypted, and key_passphrase opens it")


def consumer_files(disk: OnDisk) -> Finding:
    """Examine whether files are as in the settings, and whether their group can pass through the folders."""
    current, chosen = disk.identity, disk.settings.files
    wanted, readers = generation_spec(disk.settings, disk.name), access.readers_of(chosen, disk.name)
    differing = {name for name in exports.differing(current.contents(), wanted) if name != "key.pem"}
    if readers.others:  # without other readers, "secrecy" reports a file that is too open
        differing.update(access.differing(readers, current.path.iterdir()))
    if differing:
        problem = f"different from the settings: {', '.join(sorted(differing))}"
        return warning(problem, disk.command("export"))
    if (closed := access.closed_on_the_way(readers, current.path)) is not None:
        problem = f"the group that must read them cannot pass through {closed}"
        who = "g" if closed.stat().st_gid == readers.way else "o"
        return failed(problem, shell("chmod", f"{who}+x", closed), StorageFailed)
    present = ", ".join(export.file for export in exports.EXPORTS.values() if (current.path / export.file).exists())
    who = " and ".join(filter(None, (chosen.owner or "us", chosen.group)))
    return ok(f"for {who}, {chosen.mode:04o}; exports: {present or 'none'}")


# -- the certificate, by UCL's clock if it is known --------------------------------------------------------------------


def chain(disk: OnDisk) -> Finding:
    """Examine whether each certificate of the chain is signed by the next, and the first is for clients."""
    certificates = disk.identity.chain
    key = cast(RSAPublicKey, public_key_of(certificates[0]))  # whether key.pem fits it is examined before
    checks = check_identity(certificates, Expected(key, subject=None, server_now=None, local_now=disk.now))
    bad = [check for check in checks if check.status != "ok" and check.name not in _EXAMINED_APART]
    problems = "; ".join(f"{check.name}: expected {check.expected}, found {check.found}" for check in bad)
    incomplete = any(check.name == _COMPLETE for check in bad) and not disk.practice
    remedy = f"{disk.import_command()} --chain {shell('MISSING.pem')}" if incomplete else disk.establish_command()
    if any(check.status == "failed" for check in bad):
        return failed(problems, remedy, ChecksFailed)
    if bad:
        return warning(problems, remedy if incomplete else "Ask UCL's operator. You cannot fix this here.")
    return ok(f"{len(certificates)} certificates, from {common_name(certificates[0].subject)}")


def validity(disk: OnDisk) -> Finding:
    """Examine whether the certificate is valid now, and whether its renewal is due."""
    current, now = disk.identity, disk.now
    dates = current.validity
    period = f"{moment(dates.not_before)} to {moment(dates.not_after)}"
    if now >= dates.not_after:
        problem = f"expired {span(now - dates.not_after)} ago ({period})"
        return failed(problem, disk.establish_command(), CertificateRejected)
    if now < dates.not_before - TOLERANCE:
        problem = f"not valid yet, for {span(dates.not_before - now)} ({period})"
        return failed(problem, "timedatectl set-ntp true", NotYetAccepted)
    if disk.settings_error:
        return ok(period)
    when = disk.connection.due(now)
    if when.due:
        return warning(f"{period}; due since {moment(when.at)} ({when.reason})", disk.renew_command())
    return ok(f"{period}; due {moment(when.at)}")


def revocation(disk: OnDisk) -> Finding:
    """Examine whether this toolkit has revoked the certificate, or UCL refused it when it was to be revoked."""
    verdict = disk.connection.verdicts().get(disk.identity.fingerprint)
    if verdict is None:
        return ok("not revoked by ucl")
    text = f"{verdict}, {moment(verdict.since)}"
    if verdict.may_pass and disk.accepted:  # the next renewal finds this as well
        return warning(f"{text}; but UCL accepts it now", disk.renew_command())
    if verdict.status in {"revoked", "refused"}:
        return failed(text, disk.replacement(), Refused)
    return warning(text, f"{disk.command('revoke')} --all")
