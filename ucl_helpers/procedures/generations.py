"""The generations of a connection: describe them, and write them again.

Invariants that this file keeps:

1.  A generation is never changed. Where the settings want other files (other exports, another passphrase, other
    readers), it is written again, whole, as its next revision with the same identity.
2.  ``current`` is switched by one rename, to a generation that is whole.
3.  A generation whose key had to be encrypted otherwise is removed only once its replacement is on disk to stay. A run
    that is killed in between loses nothing, and the next run finds what is still to be done.

The callers of :func:`encrypt_keys` and :func:`clean_up` hold the lock.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.exports import EXPORTS, generation_files, is_protected
from ucl_helpers.connection.generation import Generation, fingerprint_or_none, write_generation
from ucl_helpers.connection.pending import Pending
from ucl_helpers.errors import KeyLocked, StorageFailed, UCLError, UsageError
from ucl_helpers.keys import Passphrase, no_passphrase, open_key
from ucl_helpers.models import Configuration, Outcome, fingerprint
from ucl_helpers.tables import moment
from ucl_helpers.urls import another_host

if TYPE_CHECKING:
    from ucl_helpers.connection.store import Connection


def generation_metadata(
    source: str,
    configuration: Configuration,
    url: str,
    fingerprint: str,
    *,
    now: datetime,
    previous: str | None,
    consented: bool = False,
) -> dict[str, str | None]:
    """Return ``connection.json`` of a new generation: URLs, where it came from, when (UTC).

    The host that UCL names is kept if the user has ``consented`` to it and it is another one than that in use.
    """
    host = another_host(configuration.certificate_secured_connector_url, url) if consented else None
    return {
        "source": source,
        "connectorUrl": url,
        **({"acceptedHost": host} if host else {}),
        "directorUrl": configuration.director_url,
        "subject": configuration.subject,
        "created": now.isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "previous": previous,
    }


def outcome_of(
    connection: "Connection", outcome: str, now: datetime, *, previous: str | None = None, warnings: str | None = None
) -> Outcome:
    """Return the outcome of a command, with the facts of the generation that is current now."""
    current = connection.require_current()
    facts = {
        "sandbox": "practice" if connection.is_sandbox else None,
        "previous_fingerprint": previous,
        "fingerprint": current.fingerprint,
        "not_before": moment(current.validity.not_before),
        "not_after": moment(current.validity.not_after),
        "due_at": moment(connection.due(now).at),
        "generation": current.name,
        "warnings": warnings,
        "identity_file": str(connection.path / "current" / "identity.pem"),
    }
    return Outcome(outcome, connection.name, facts)


# -- written again as the settings want it -----------------------------------------------------------------------------


def export(
    connection: "Connection", *, force: bool = False, former: Passphrase = no_passphrase, clock: Clock = utc_now
) -> Outcome:
    """Write the files of the generation in use again if the settings want other files. The identity does not change.

    Where ``key_passphrase`` wants keys otherwise than they are stored, all are replaced: of every generation, of what
    is pending and of what was set aside.

    Args:
        connection: established.
        force: also when everything is as the settings want it.
        former: gives the passphrase that keys were encrypted with until now.
        clock: our clock, aware, UTC.

    Raises:
        InvalidSettings: a reference leads nowhere, or files may not be given to that owner or group.
        KeyLocked: the key in use is encrypted, and neither passphrase opens it.
        StorageFailed: the generation in use is damaged.
    """
    with connection.lock.held():
        spec, readers = connection.generation_spec()
        connection.sweep()
        before = connection.require_current()
        before.check_whole(by_key=False)
        replaced, problems = _replace_keys(connection, former)
        current = connection.require_current()
        if connection.differing_files(current, spec, readers) or (force and current == before):
            current = _rebuild(connection, current, force=force)
            connection.switch(current, "exported")
            connection.prune(before)
        done = "exported" if replaced or current != before else "nothing-to-export"
        if done == "exported":
            connection.record(done, fingerprint=current.fingerprint, generation=current.name, replaced=replaced)
        exports = sorted({export.file for export in EXPORTS.values()} & set(current.contents()))
        outcome = outcome_of(connection, done, clock(), warnings="; ".join(problems) or None)
        facts = {"exports": ", ".join(exports) or "none", "key": "encrypted" if current.is_sealed else "in plain"}
        return Outcome(done, connection.name, {**outcome.facts, **facts})


def as_settings_want(connection: "Connection", generation: Generation) -> tuple[Generation, str | None]:
    """Write a generation again if the settings ask for other files. The caller holds the lock.

    Returns:
        The new revision and None; or the generation itself, and the reason if it could not be written again.
    """
    try:
        spec, readers = connection.generation_spec()
        differs = connection.differing_files(generation, spec, readers)
        return _rebuild(connection, generation) if differs else generation, None
    except UCLError as error:
        problem = f"The files that the settings ask for were not written. {error.message}"
        return generation, f"{problem} To write them: ucl export {connection.name}"


def encrypt_keys(connection: "Connection") -> None:
    """Encrypt every key that is stored in plain, if the settings want that.

    To decrypt keys, or to change their passphrase, :func:`export` needs the former passphrase.
    """
    if connection.has_plain_keys():
        replaced, _ = _replace_keys(connection, no_passphrase)
        if replaced:
            connection.record("keys-encrypted", replaced=replaced)


def clean_up(connection: "Connection", pending: Pending) -> None:
    """Remove what an interrupted run left half written, and what is pending if its certificate is current already.

    Then check that what the settings refer to is there, before anything is signed, and encrypt keys stored in plain.

    Raises:
        InvalidSettings: see :meth:`ucl_helpers.connection.store.Connection.generation_spec`.
    """
    connection.sweep()
    certificate, current = pending.certificate(), connection.current
    if certificate and current and fingerprint_or_none(current) == fingerprint(certificate):
        connection.record("settled", fingerprint=current.fingerprint, generation=current.name)
        pending.discard()
    connection.generation_spec()
    encrypt_keys(connection)


def _replace_keys(connection: "Connection", former: Passphrase) -> tuple[int, list[str]]:
    """Store every key as ``key_passphrase`` says; return how many were replaced, and why others could not be."""
    passphrase, problems = connection.passphrase(), list[str]()
    generations = [entry for entry in connection.generations() if not _is_protected(entry.path, passphrase)]
    folders = (*connection.aside(), connection.pending)
    unprotected = [pending for pending in folders if not _is_protected(pending.path, passphrase)]
    replaced = []
    for generation in generations:
        is_current = generation == connection.current
        try:
            rebuilt = _rebuild(connection, generation, former)
        except (KeyLocked, StorageFailed) as error:
            if is_current and isinstance(error, KeyLocked):
                raise
            problems.append(error.message)
            continue
        if is_current:
            connection.switch(rebuilt, "exported")
        replaced.append(generation)
    if replaced:  # the rebuilt generations must be on disk to stay before the old ones go
        with files.storage("name", folder := connection.path / "generations"):
            files.sync_directory(folder)
    for generation in replaced:
        files.remove_tree(generation.path)
    for pending in unprotected:
        try:
            key = open_key(
                files.read_regular(pending.key_path), connection.passphrase, former, where=str(pending.key_path)
            )
        except (UsageError, OSError) as error:
            problems.append(str(error))
        else:
            files.sweep(pending.path)  # a run may have been killed just here
            pending.keep_key(key)
    return len(replaced) + len(unprotected), problems


def _is_protected(folder: Path, passphrase: bytes | None) -> bool:
    """Return whether the key in a folder, if there is one, is stored as the settings want it."""
    with suppress(OSError):
        return is_protected(files.read_regular(folder / "key.pem"), passphrase)
    return True


def _rebuild(
    connection: "Connection", generation: Generation, former: Passphrase = no_passphrase, *, force: bool = False
) -> Generation:
    """Write the next revision of a generation, unless a run that was killed has written it already.

    Raises:
        StorageFailed: the generation is damaged.
        KeyLocked: neither passphrase opens its key.
    """
    spec, readers = connection.generation_spec()
    generation.check_whole(by_key=False)
    stored = generation.contents()
    key = open_key(stored["key.pem"], connection.passphrase, former, where=str(generation.path / "key.pem"))
    contents: Mapping[str, bytes] = {
        **generation_files(key, generation.chain, generation.client_ca, stored.get("server-ca.pem"), spec),
        "connection.json": stored["connection.json"],
    }
    revisions = [other for other in connection.generations() if other.stem == generation.stem]
    last = revisions[-1]
    if last != generation and not force and last.is_readable and not connection.differing_files(last, spec, readers):
        return last
    path = generation.path.with_name(f"{generation.stem}.{last.order[1] + 1}")
    return write_generation(Generation(path, connection.passphrase), contents, readers)
