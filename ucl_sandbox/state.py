"""The sandbox's state in SQLite: applications, their system auths with one-time tokens, and certificates.

A *system auth* is one client of an application; its id is the CN of every certificate it gets. It has at most one
one-time token at a time. Every change is one SQL statement. So a token is used up only once even if two requests carry
it, and no change is half done if the process is killed.
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
    """An error that stops the sandbox. The message gives the reason and the remedy."""


@contextmanager
def refusing_unsafe_paths() -> Iterator[None]:
    """Raise `SandboxError` instead of `UnsafePath` for a file or folder that another user could change."""
    try:
        yield
    except UnsafePath as error:
        raise SandboxError(str(error)) from None


class NotUniqueError(Exception):
    """A name that another application has already, after normalisation."""


def normalised(name: str) -> str:
    """Return a name as the Director compares it: `mp-`, lower case, one hyphen for each run of other characters."""
    if name.startswith(_PREFIX) and _plain(name) == name:
        return name
    return _plain(_PREFIX + name)


def _plain(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).removesuffix("-")


def timestamp(moment: datetime) -> str:
    """Return a time in RFC 3339, in UTC with microseconds, so that sorting the texts sorts the times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class StateLock:
    """One process's lock on a state folder. The kernel releases it when the process ends.

    Raises:
        SandboxError: Another process holds it.
        UnsafePath: Another user could change the folder.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        folder.chmod(0o700)
        self._descriptor = open_private(folder / _LOCK, os.O_RDWR)
        # `owner_of` in another process holds the lock for a moment, so a first refusal proves nothing.
        if not wait_for_lock(self._descriptor, fcntl.LOCK_EX, time.monotonic() + _PATIENCE):
            raise SandboxError(
                f"{folder} is in use by another sandbox (process {owner_of(folder)}): "
                "end that one, or choose another state folder"
            )
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def lock_at_once(descriptor: int, kind: int) -> bool:
    """Take a kernel lock without waiting. Return whether it was free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, kind: int, deadline: float) -> bool:
    """Wait for a kernel lock until a deadline of the monotonic clock. If that passes, close the descriptor."""
    patience = threading.Event()
    while not lock_at_once(descriptor, kind):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            return False
        patience.wait(_PAUSE)
    return True


def owner_of(folder: Path) -> int | None:
    """Return the id of the process that owns a state folder, or None."""
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
    """The database of a sandbox.

    Args:
        folder: The state folder. The database is created in it if it is missing.
        clock: Returns the current time (aware).
        token_lifetime: The lifetime of a one-time token.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime], token_lifetime: timedelta) -> None:
        self._clock, self._token_lifetime = clock, token_lifetime
        path = folder / "state.sqlite"
        # SQLite opens the database and the files beside it by their names, and follows symlinks.
        require_regular_or_missing(*(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm", "-journal")))
        os.close(open_private(path, os.O_RDWR))
        # One connection for the server's thread and the user's. SQLite serialises what they execute, but the `sqlite3`
        # module hands one thread the prepared statement that another still fetches from. The lock prevents that.
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
        """Return a stored value. Make and store it at the first call."""
        sql = "SELECT value FROM meta WHERE name = ?"
        row = self._row(sql, name)
        if row is None:
            self._rows("INSERT OR IGNORE INTO meta VALUES (?, ?)", name, make())
            row = self._rows(sql, name)[0]  # another thread may have been first
        return str(row["value"])

    def replace(self, name: str, value: str) -> None:
        """Store a value in place of the previous one."""
        self._rows("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    @property
    def tenant(self) -> str:
        """The external id of the only tenant."""
        return self.remember("tenant", lambda: str(uuid.uuid4()))

    @property
    def internal_tenant(self) -> str:
        """The id of the tenant in the Director's answers."""
        return self.remember("internal_tenant", lambda: str(uuid.uuid4()))

    @property
    def user(self) -> str:
        """The id of the user whom the bearer token authenticates."""
        return self.remember("user", lambda: str(uuid.uuid4()))

    @property
    def bearer(self) -> str:
        """The Director's bearer token, which is opaque."""
        return self.remember("bearer", lambda: secrets.token_urlsafe(48))

    # -- applications --------------------------------------------------------------------------------------------------

    def register(self, name: str, provider: str | None, description: str | None, labels: str) -> sqlite3.Row:
        """Register an application.

        Raises:
            NotUniqueError: Another application has its name.
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
        """Return an application by its id, or None."""
        return self._row("SELECT * FROM applications WHERE id = ?", id_)

    def applications(self, first: int, offset: int) -> tuple[list[sqlite3.Row], int]:
        """Return a page of the applications, sorted by name, and their total number."""
        total = self._rows("SELECT count(*) AS total FROM applications")[0]["total"]
        return self._rows("SELECT * FROM applications ORDER BY name LIMIT ? OFFSET ?", first, offset), total

    def unregister(self, id_: str) -> sqlite3.Row | None:
        """Delete an application with its system auths and their tokens. Return the deleted row, or None."""
        return self._row("DELETE FROM applications WHERE id = ? RETURNING *", id_)

    def connected(self, id_: str) -> None:
        """Record that an application has called the Director."""
        sql = "UPDATE applications SET condition = 'CONNECTED', changed_at = ? WHERE id = ? AND condition = 'INITIAL'"
        self._rows(sql, self._now(), id_)

    # -- system auths and their tokens ---------------------------------------------------------------------------------

    def system_auth(self, id_: str) -> sqlite3.Row | None:
        """Return a system auth by its id, or None."""
        return self._row("SELECT * FROM system_auths WHERE id = ?", id_)

    def system_auths(self, application_id: str) -> list[sqlite3.Row]:
        """Return an application's system auths. The last one is the one that changed last."""
        return self._rows("SELECT * FROM system_auths WHERE application_id = ? ORDER BY touched", application_id)

    def delete_system_auth(self, id_: str) -> sqlite3.Row | None:
        """Delete a system auth, so that its certificates are refused. Return the deleted row, or None."""
        return self._row("DELETE FROM system_auths WHERE id = ? RETURNING *", id_)

    def new_system_auth(self, application_id: str) -> sqlite3.Row:
        """Create a system auth with a new token."""
        id_ = str(uuid.uuid4())
        self._rows("INSERT INTO system_auths (id, application_id) VALUES (?, ?)", id_, application_id)
        return self.issue_token(id_)

    def issue_token(self, system_auth_id: str) -> sqlite3.Row:
        """Replace a system auth's one-time token by a new one of 64 random bytes in URL-safe base64."""
        now = self._clock()
        token = base64.urlsafe_b64encode(secrets.token_bytes(64)).decode()
        return self._rows(
            "UPDATE system_auths SET token = ?, created_at = ?, expires_at = ?, used_at = NULL"
            " WHERE id = ? RETURNING *",
            *(token, timestamp(now), timestamp(now + self._token_lifetime), system_auth_id),
        )[0]

    def use_token(self, token: str) -> sqlite3.Row | None:
        """Use a one-time token up. Return its system auth, or None if it is unknown, used or expired."""
        return self._row(
            "UPDATE system_auths SET used_at = ? WHERE token = ? AND used_at IS NULL AND expires_at > ? RETURNING *",
            *(self._now(), token, self._now()),
        )

    def drop_token(self, system_auth_id: str) -> None:
        """Remove a system auth's token. Every call with a certificate does this."""
        sql = "UPDATE system_auths SET token = NULL, used_at = NULL WHERE id = ? AND token IS NOT NULL"
        self._rows(sql, system_auth_id)

    # -- certificates --------------------------------------------------------------------------------------------------

    def issued(self, fingerprint: str, system_auth_id: str, not_after: datetime) -> None:
        """Record an issued certificate."""
        sql = "INSERT OR IGNORE INTO certificates VALUES (?, ?, ?, NULL)"
        self._rows(sql, fingerprint, system_auth_id, timestamp(not_after))

    def revoke(self, fingerprint: str, system_auth_id: str, not_after: datetime) -> None:
        """Record that a certificate is revoked."""
        self.issued(fingerprint, system_auth_id, not_after)
        self._rows("UPDATE certificates SET revoked_at = ? WHERE fingerprint = ?", self._now(), fingerprint)

    def is_revoked(self, fingerprint: str) -> bool:
        """Return whether a certificate is revoked."""
        sql = "SELECT 1 FROM certificates WHERE fingerprint = ? AND revoked_at IS NOT NULL"
        return self._row(sql, fingerprint) is not None
