"""What lies on disk, made anew as the settings want it now: other exports, another passphrase, other readers.

A generation is never changed. It is written again, whole, under its name and the next revision, with the same identity;
``current`` is switched by one rename; and when it was for the sake of the passphrase, what it replaces is removed then.
A run that is killed in between loses nothing, and the next one finds what is still to be done. The caller of
:func:`protect` holds the lock.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import building, files
from ucl_helpers.connection.exports import EXPORTS, generation_files, is_protected
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.status import lies_in_plain
from ucl_helpers.connection.store import Connection
from ucl_helpers.crypto import Passphrase, no_passphrase, open_key
from ucl_helpers.errors import KeyLocked, StorageFailed, UsageError
from ucl_helpers.models import Outcome
from ucl_helpers.procedures.outcomes import outcome_of


def export(
    connection: Connection, *, force: bool = False, former: Passphrase = no_passphrase, clock: Clock = utc_now
) -> Outcome:
    """Make the files of the generation in use anew, if they are not as the settings want them; the identity stays.

    Where ``key_passphrase`` wants keys otherwise than they lie there, all are replaced: of every generation, of what is
    pending and of what was set aside.

    Args:
        connection: established.
        force: also when everything is as it is to be.
        former: gives the passphrase that keys were encrypted with until now.
        clock: our clock, aware, UTC.

    Raises:
        InvalidSettings: a reference leads nowhere, or files may not be given to that owner or group.
        KeyLocked: the key in use is encrypted, and neither passphrase opens it.
        StorageFailed: what is in use is not whole.
    """
    with connection.lock.held():
        wanted, readers = connection.wanted()
        connection.sweep()
        before = connection.require_current()
        before.check_whole(by_key=False)
        replaced, left = _replace(connection, former)
        current = connection.require_current()
        if building.differing(current, wanted, readers) or (force and current == before):
            current = _rebuilt(connection, current, _contents(connection, current), force=force)
            connection.switch(current, "exported")
            connection.prune(before)
        there = sorted(set(EXPORTS.values()) & set(current.contents()))
        done = "exported" if replaced or current != before else "nothing-to-export"
        if done == "exported":
            connection.record(done, fingerprint=current.fingerprint, generation=current.name, replaced=len(replaced))
        told = outcome_of(connection, done, clock(), warnings="; ".join(left) or None)
        facts = {"exports": ", ".join(there) or "none", "key": "encrypted" if current.is_sealed else "in plain"}
        return Outcome(done, connection.name, {**told.facts, **facts})


def protect(connection: Connection) -> None:
    """Encrypt every key that lies there in plain, if the settings want that; where all is so already, nothing is done.

    The other way round, and from one passphrase to another, it is :func:`export` that needs to be told the former one.
    """
    if lies_in_plain(connection):
        replaced, _ = _replace(connection, no_passphrase)
        if replaced:
            connection.record("keys-encrypted", replaced=len(replaced))


def _replace(connection: Connection, former: Passphrase) -> tuple[list[str], list[str]]:
    """Every key that does not lie there as ``key_passphrase`` says: what was replaced, and why what could not be."""
    passphrase, left = connection.passphrase(), list[str]()
    generations = [one for one in connection.generations() if not _is_protected(one.path, passphrase)]
    waiting = [one for one in (*connection.aside(), connection.pending) if not _is_protected(one.path, passphrase)]
    replaced = [one for one in generations if _is_replaced(connection, one, former, left)]
    if replaced:  # what takes their place lasts before they go
        with files.storage("name", folder := connection.path / "generations"):
            files.sync_directory(folder)
    for one in replaced:
        files.remove_tree(one.path)
    for pending in waiting:
        try:
            key = open_key(pending.key_path.read_bytes(), connection.passphrase, former, where=str(pending.key_path))
        except (UsageError, OSError) as error:
            left.append(str(error))
        else:
            files.sweep(pending.path)  # a run that was killed just here
            pending.keep_key(key)
    return [one.name for one in replaced] + [one.path.name for one in waiting], left


def _is_replaced(connection: Connection, one: Generation, former: Passphrase, left: list[str]) -> bool:
    """Whether there is a next revision now, current where this one was; damage is told in ``left``."""
    is_current = one == connection.current
    try:
        contents = _contents(connection, one, former)
    except (KeyLocked, StorageFailed) as error:
        if is_current and isinstance(error, KeyLocked):
            raise
        left.append(error.message)
        return False
    new = _rebuilt(connection, one, contents)
    if is_current:
        connection.switch(new, "exported")
    return True


def _is_protected(folder: Path, passphrase: bytes | None) -> bool:
    """Whether the key in a folder lies there as it is to; also when there is none."""
    with suppress(OSError):
        return is_protected((folder / "key.pem").read_bytes(), passphrase)
    return True


def _contents(connection: Connection, one: Generation, former: Passphrase = no_passphrase) -> Mapping[str, bytes]:
    """The files of a generation as the settings want them; raises StorageFailed for damage, and KeyLocked."""
    one.check_whole(by_key=False)
    there = one.contents()
    key = open_key(there["key.pem"], connection.passphrase, former, where=str(one.path / "key.pem"))
    files_wanted = generation_files(key, one.chain, one.client_ca, there.get("server-ca.pem"), connection.wanted()[0])
    return {**files_wanted, "connection.json": there["connection.json"]}


def _rebuilt(
    connection: Connection, one: Generation, contents: Mapping[str, bytes], *, force: bool = False
) -> Generation:
    """The next revision of a generation; one that a run which was killed has written already is taken."""
    wanted, readers = connection.wanted()
    later = [other for other in connection.generations() if other.stem == one.stem and other.order >= one.order]
    last = later[-1]
    if last != one and not force and last.is_readable and not building.differing(last, wanted, readers):
        return last
    path = one.path.with_name(f"{one.stem}.{last.order[1] + 1}")
    return building.write(Generation(path, connection.passphrase), contents, readers)
