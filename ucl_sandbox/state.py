"""What the sandbox knows, kept in SQLite: applications, their system auths with one-time tokens, certificates.

A *system auth* is one client of an application; its id is the CN of every certificate it gets. It has at most one
one-time token at a time. Every change is one SQL statement, so that a token is used up once even if two requests
carry it, and so that nothing is half done when the process is killed.
"""

import base64
import fcntl
import os
import re
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from ucl_private_files import UnsafePath, make_private_folder, open_private, require_regular_or_missing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS applications (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, provider TEXT, description TEXT, labels TEXT NOT NULL,
    condition TEXT NOT NULL, changed_at TEXT NOT NULL, created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS system_auths (
    id TEXT PRIMARY KEY, application_id TEXT NOT NULL REFERENCES applications(id) ON DELETE CASCADE,
    touched INTEGER NOT NULL DEFAULT 0, token TEXT UNIQUE, created_at TEXT, expires_at TEXT, used_at TEXT
);
CREATE TABLE IF NOT EXISTS certificates (
    fingerprint TEXT PRIMARY KEY, system_auth_id TEXT NOT NULL, not_after TEXT NOT NULL, revoked_at TEXT
);
CREATE TRIGGER IF NOT EXISTS touch AFTER UPDATE OF token, used_at ON system_auths BEGIN
    UPDATE system_auths SET touched = (SELECT 1 + max(touched) FROM system_auths) WHERE id = new.id;
END;
"""
_PREFIX = "mp-"
_LOCK, _PATIENCE, _PAUSE = "lock", 0.2, 0.02


class SandboxError(Exception):
    """The sandbox cannot be run as asked; the message says why and what to do."""


@contextmanager
def refusing_unsafe_paths() -> Iterator[None]:
    """Turn the refusal of a file or folder that another user could change into a `SandboxError`."""
    try:
        yield
    except UnsafePath as error:
        raise SandboxError(str(error)) from None


class NotUniqueError(Exception):
    """An application of that name, or of one that is the same when normalised, is registered already."""


def normalised(name: str) -> str:
    """Return an application's name as the Director compares it: `mp-`, then lower case, one hyphen for all else."""
    if name.startswith(_PREFIX) and _plain(name) == name:
        return name
    return _plain(_PREFIX + name)


def _plain(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).removesuffix("-")


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds, so that text sorts as time does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class StateLock:
    """The right of one process to a state folder: a kernel lock that ends with the process.

    Raises:
        SandboxError: Another process has it.
        UnsafePath: Another user could change the folder.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        folder.chmod(0o700)
        self._descriptor = open_private(folder / _LOCK, os.O_RDWR)
        # A process that looks for the owner holds the lock for a moment, so a first refusal need not mean anything.
        if not wait_for_lock(self._descriptor, fcntl.LOCK_EX, time.monotonic() + _PATIENCE):
            raise SandboxError(
                f"{folder} is in use by another sandbox (process {owner_of(folder)}): "
                "end that one, or choose another state folder"
            )
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the folder up."""
        os.close(self._descriptor)


def lock_at_once(descriptor: int, kind: int) -> bool:
    """Take a kernel lock if it is to be had now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, kind: int, deadline: float) -> bool:
    """Take a kernel lock by a deadline of the monotonic clock; closes the descriptor if it is still held elsewhere."""
    patience = threading.Event()
    while not lock_at_once(descriptor, kind):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            return False
        patience.wait(_PAUSE)
    return True


def owner_of(folder: Path) -> int | None:
    """Return the process that owns a state folder, if one does."""
    try:
        descriptor = open_private(folder / _LOCK, os.O_RDONLY, create=False)
    except FileNotFoundError:
        return None
    try:
        if lock_at_once(descriptor, fcntl.LOCK_SH):
            return None
        return int(os.read(descriptor, 20) or b"0")
    finally:
        os.close(descriptor)


class State:
    """The sandbox's memory.

    Args:
        folder: The state folder; the database in it is made if it is not there.
        clock: Gives the current time (aware).
        token_lifetime: How long a one-time token is valid.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime], token_lifetime: timedelta) -> None:
        self._clock, self._token_lifetime = clock, token_lifetime
        path = folder / "state.sqlite"
        # SQLite opens the database and the files beside it by their names, and follows symlinks.
        require_regular_or_missing(*(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm", "-journal")))
        os.close(open_private(path, os.O_RDWR))
        # One connection for the server's thread and the user's. SQLite serialises what they execute, but the `sqlite3`
        # module hands one thread the prepared statement that another is still fetching from: so one at a time.
        self._turn = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.create_function("normalised", 1, normalised, deterministic=True)
        for pragma in ("journal_mode = WAL", "foreign_keys = ON", "busy_timeout = 5000"):
            self._db.execute(f"PRAGMA {pragma}").close()
        self._db.executescript(_SCHEMA).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._db.close()

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._turn:
            return self._db.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: object) -> sqlite3.Row | None:
        rows = self._rows(sql, *values)
        return rows[0] if rows else None

    def _now(self) -> str:
        return timestamp(self._clock())

    # -- what is made once ---------------------------------------------------------------------------------------------

    def remember(self, name: str, make: Callable[[], str]) -> str:
        """Return a value that is made once and kept."""
        sql = "SELECT value FROM meta WHERE name = ?"
        row = self._row(sql, name)
        if row is None:
            self._rows("INSERT OR IGNORE INTO meta VALUES (?, ?)", name, make())
            row = self._rows(sql, name)[0]  # another thread may have been first
        return str(row["value"])

    def replace(self, name: str, value: str) -> None:
        """Keep another value."""
        self._rows("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    @property
    def tenant(self) -> str:
        """The external id of the one tenant."""
        return self.remember("tenant", lambda: str(uuid.uuid4()))

    @property
    def internal_tenant(self) -> str:
        """The id of the one tenant that the Director names in its answers."""
        return self.remember("internal_tenant", lambda: str(uuid.uuid4()))

    @property
    def user(self) -> str:
        """The id of the user that the bearer token stands for."""
        return self.remember("user", lambda: str(uuid.uuid4()))

    @property
    def bearer(self) -> str:
        """The Director's bearer token, opaque."""
        return self.remember("bearer", lambda: secrets.token_urlsafe(48))

    # -- applications --------------------------------------------------------------------------------------------------

    def register(self, name: str, provider: str | None, description: str | None, labels: str) -> sqlite3.Row:
        """Register an application.

        Raises:
            NotUniqueError: Its name is taken.
        """
        now = self._now()
        row = self._row(
            "INSERT INTO applications SELECT ?, ?, ?, ?, ?, 'INITIAL', ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM applications WHERE normalised(name) = ?) RETURNING *",
            *(str(uuid.uuid4()), name, provider, description, labels, now, now, normalised(name)),
        )
        if row is None:
            raise NotUniqueError(name)
        return row

    def application(self, id_: str) -> sqlite3.Row | None:
        """Find an application by id."""
        return self._row("SELECT * FROM applications WHERE id = ?", id_)

    def applications(self, first: int, offset: int) -> tuple[list[sqlite3.Row], int]:
        """Return a page of the applications by name, and how many there are."""
        total = self._rows("SELECT count(*) AS total FROM applications")[0]["total"]
        return self._rows("SELECT * FROM applications ORDER BY name LIMIT ? OFFSET ?", first, offset), total

    def unregister(self, id_: str) -> sqlite3.Row | None:
        """Delete an application with its system auths and their tokens; return it as it was."""
        return self._row("DELETE FROM applications WHERE id = ? RETURNING *", id_)

    def connected(self, id_: str) -> None:
        """Note that the application has called the Director."""
        sql = "UPDATE applications SET condition = 'CONNECTED', changed_at = ? WHERE id = ? AND condition = 'INITIAL'"
        self._rows(sql, self._now(), id_)

    # -- system auths and their tokens ---------------------------------------------------------------------------------

    def system_auth(self, id_: str) -> sqlite3.Row | None:
        """Find a system auth by id."""
        return self._row("SELECT * FROM system_auths WHERE id = ?", id_)

    def system_auths(self, application_id: str) -> list[sqlite3.Row]:
        """Return an application's system auths, the one changed last at the end."""
        return self._rows("SELECT * FROM system_auths WHERE application_id = ? ORDER BY touched", application_id)

    def delete_system_auth(self, id_: str) -> sqlite3.Row | None:
        """Delete a system auth; its certificates are refused from then on. Returns it as it was."""
        return self._row("DELETE FROM system_auths WHERE id = ? RETURNING *", id_)

    def new_system_auth(self, application_id: str) -> sqlite3.Row:
        """Make a system auth with a fresh token."""
        id_ = str(uuid.uuid4())
        self._rows("INSERT INTO system_auths (id, application_id) VALUES (?, ?)", id_, application_id)
        return self.issue_token(id_)

    def issue_token(self, system_auth_id: str) -> sqlite3.Row:
        """Give a system auth a fresh one-time token in place of the one it has: 64 random bytes, URL-safe base64."""
        now = self._clock()
        token = base64.urlsafe_b64encode(secrets.token_bytes(64)).decode()
        return self._rows(
            "UPDATE system_auths SET token = ?, created_at = ?, expires_at = ?, used_at = NULL"
            " WHERE id = ? RETURNING *",
            *(token, timestamp(now), timestamp(now + self._token_lifetime), system_auth_id),
        )[0]

    def use_token(self, token: str) -> sqlite3.Row | None:
        """Use a one-time token up; return its system auth, or None if it is unknown, used or expired."""
        return self._row(
            "UPDATE system_auths SET used_at = ? WHERE token = ? AND used_at IS NULL AND expires_at > ? RETURNING *",
            *(self._now(), token, self._now()),
        )

    def drop_token(self, system_auth_id: str) -> None:
        """Take a system auth's token away, as every call by certificate does."""
        sql = "UPDATE system_auths SET token = NULL, used_at = NULL WHERE id = ? AND token IS NOT NULL"
        self._rows(sql, system_auth_id)

    # -- certificates --------------------------------------------------------------------------------------------------

    def issued(self, fingerprint: str, system_auth_id: str, not_after: datetime) -> None:
        """Note a certificate."""
        sql = "INSERT OR IGNORE INTO certificates VALUES (?, ?, ?, NULL)"
        self._rows(sql, fingerprint, system_auth_id, timestamp(not_after))

    def revoke(self, fingerprint: str, system_auth_id: str, not_after: datetime) -> None:
        """Note that a certificate is revoked."""
        self.issued(fingerprint, system_auth_id, not_after)
        self._rows("UPDATE certificates SET revoked_at = ? WHERE fingerprint = ?", self._now(), fingerprint)

    def is_revoked(self, fingerprint: str) -> bool:
        """Say whether a certificate is revoked."""
        sql = "SELECT 1 FROM certificates WHERE fingerprint = ? AND revoked_at IS NOT NULL"
        return self._row(sql, fingerprint) is not None
