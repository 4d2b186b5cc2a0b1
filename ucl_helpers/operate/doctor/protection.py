"""What a doctor looks at of how keys are kept: encrypted or not, as settings want them, for whom, and on which way."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ucl_helpers.connection import access, exports
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.passphrases import follow, wanted_by
from ucl_helpers.connection.pending import Pending
from ucl_helpers.crypto import is_sealed
from ucl_helpers.errors import KeyLocked, SecretFound, StorageFailed, UCLError, UsageError
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, shell, skipped, warning
from ucl_helpers.operate.doctor.on_disk import Kept

SHORTEST_FOR_JAVA = 6  # characters


def references(kept: Kept) -> Finding:
    """Files that settings refer to are closed to others, and Java's tools go along with that of ``identity.p12``."""
    name, settings = "references", kept.settings
    if _unusable(kept):
        return skipped(name, "see settings")
    exported = settings.exports
    named = (settings.key_passphrase, exported.encrypted_key, exported.pkcs12, *settings.notices.urls)
    there = list(_files_behind(named))
    if ours := [path for path, told in there if told.st_uid == os.geteuid() and told.st_mode & 0o077]:
        return warning(name, f"other users can read {', '.join(map(str, ours))}", shell("chmod", "go=", *ours))
    if foreign := [path for path, told in there if told.st_uid != os.geteuid() and told.st_mode & 0o007]:
        found = f"every user can read {', '.join(map(str, foreign))}"
        return warning(name, found, "Ask their owner to make them readable only by you or your group.")
    with suppress(UsageError):  # told of the files
        passphrase = follow(exported.pkcs12, "exports.pkcs12", kept.name)
        if passphrase is not None and len(passphrase.decode()) < SHORTEST_FOR_JAVA:
            found = "the passphrase of identity.p12 has fewer than six characters: keytool writes no store with it"
            return warning(name, found, f"Choose a longer one, then: {_export(kept)}")
    closed = ", ".join(str(path) for path, _ in there)
    return ok(name, f"closed to others: {closed}" if there else "the settings refer to no file")


def _files_behind(references: Iterable[str | None]) -> Iterator[tuple[Path, os.stat_result]]:
    """The files that references lead to."""
    for one in dict.fromkeys(filter(None, references)):
        with suppress(OSError, RuntimeError, ValueError):
            path = Path(one.removeprefix("file:")).expanduser()
            if one.startswith("file:") and stat.S_ISREG((told := path.stat()).st_mode):
                yield path, told


def key_at_rest(kept: Kept, current: Generation) -> Finding:
    """Every key lies there as ``key_passphrase`` says, and the passphrase opens the one in use."""
    name = "key at rest"
    if _unusable(kept):
        return skipped(name, "see settings")
    try:
        kept.connection.passphrase()
        current.key()
    except KeyLocked as error:
        return failed(name, error.message, kept.commands.ucl("export", kept.name, "--from", "prompt"), KeyLocked)
    except UsageError as error:
        return failed(name, error.message, kept.commands.ucl("settings", kept.name, "--edit"), type(error))
    if kept.settings.key_passphrase is None:
        return ok(name, "not encrypted, the default")
    in_plain = [one for one in _folders(kept) if _is_in_plain(one)]
    if in_plain:
        found = f"key_passphrase is set, but the key is not encrypted in {', '.join(one.path.name for one in in_plain)}"
        damaged = [one.path for one in in_plain if isinstance(one, Generation) and not one.is_readable]
        mend = shell("rm", "-r", *damaged) if damaged == [one.path for one in in_plain] else _export(kept)
        return failed(name, found, mend, SecretFound)
    return ok(name, "encrypted, and key_passphrase opens it")


def consumer_files(kept: Kept, current: Generation) -> Finding:
    """Exports, owner, group and mode are as the settings want them, and who is to read them gets there."""
    name, settings = "files", kept.settings
    if _unusable(kept):
        return skipped(name, "see settings")
    try:
        wanted, readers = wanted_by(settings, kept.name), access.readers_of(settings.files, kept.name)
    except UsageError as error:
        return failed(name, error.message, kept.commands.ucl("settings", kept.name, "--edit"), type(error))
    differing = {one for one in exports.differing(current.contents(), wanted) if one != "key.pem"}
    if readers.others:  # else a file that is too open is told as that
        differing.update(access.differing(readers, current.path.iterdir()))
    if differing:
        return warning(name, f"different from the settings: {', '.join(sorted(differing))}", _export(kept))
    there = [one for one in exports.EXPORTS.values() if (current.path / one).exists()]
    if (closed := access.closed_on_the_way(readers, current.path)) is not None:
        found = f"the group that must read them cannot pass through {closed}"
        who = "g" if closed.stat().st_gid == readers.way else "o"
        return failed(name, found, shell("chmod", f"{who}+x", closed), StorageFailed)
    who = " and ".join(filter(None, (settings.files.owner or "us", settings.files.group)))
    return ok(name, f"for {who}, {settings.files.mode:04o}; exports: {', '.join(there) or 'none'}")


def _unusable(kept: Kept) -> bool:
    """Whether the settings are told as themselves."""
    try:
        return not kept.connection.settings
    except UCLError:
        return True


def _folders(kept: Kept) -> Iterator[Generation | Pending]:
    yield from kept.generations
    yield from (*kept.connection.aside(), kept.pending)


def _is_in_plain(one: Generation | Pending) -> bool:
    with suppress(OSError):
        return not is_sealed((one.path / "key.pem").read_bytes())
    return False


def _export(kept: Kept) -> str:
    return kept.commands.ucl("export", kept.name)
