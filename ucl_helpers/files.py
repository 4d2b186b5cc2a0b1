"""Files that are whole or not there, and the lock of a connection.

Everything is written to a temporary name, fsynced, renamed, and its directory fsynced, so that neither a kill nor a
power cut leaves half a file. The lock is ``flock`` on a file that is never deleted; the kernel frees it when its
holder dies.
"""

import errno
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ucl_helpers.errors import Busy, StorageFailed, UsageError

try:
    import fcntl
except ImportError:  # plain Windows
    raise UsageError(
        "This system has no flock, which keeps two renewals of one connection apart.",
        remedy="Use Linux, macOS, or WSL on Windows.",
    ) from None

POLL_SECONDS = 0.05


@contextmanager
def storage(what: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into :class:`StorageFailed` that names what was tried and where."""
    try:
        yield
    except OSError as error:
        remedies = {
            errno.ENOSPC: "Make room on the disk, then run it again.",
            errno.EACCES: "Give this user access to that place, then run it again.",
            errno.EROFS: "That place is read-only: choose another with --home or UCL_HOME.",
        }
        raise StorageFailed(
            f"Could not {what} {path}: {error.strerror or error}.",
            remedy=remedies.get(error.errno or 0, "What was there before is untouched."),
            path=str(path),
        ) from error


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole, durably, with ``mode`` from its first moment.

    Raises:
        StorageFailed: it could not be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with storage("write", path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line durably (0600); after a cut-off line it begins anew.

    Raises:
        StorageFailed: it could not be written.
    """
    with storage("append to", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (("\n" if torn else "") + line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if size == 0:
            sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory (0700) and what is missing above it, durably.

    Raises:
        StorageFailed: it could not be made.
    """
    if path.is_dir():
        return
    with storage("make", path):
        if not path.parent.is_dir():
            make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)


def point(link: Path, target: str) -> None:
    """Make a symlink point to ``target``: the one rename by which a generation becomes current.

    Raises:
        StorageFailed: the old target stays.
    """
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    with storage("switch", link):
        try:
            temporary.symlink_to(target)
            temporary.rename(link)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(link.parent)


def remove_tree(path: Path) -> None:
    """Remove a directory: renamed away first, so that nobody meets it half gone.

    Raises:
        StorageFailed: it could not be removed.
    """
    grave = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with storage("remove", path):
        path.rename(grave)
        sync_directory(path.parent)
        shutil.rmtree(grave)


def sync_directory(path: Path) -> None:
    """Fsync a directory, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lock:
    """The lock of a connection: one writer at a time, within this process and among all.

    ``with lock.held(wait=10):`` may be nested in one thread. ``wait`` is in seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = threading.RLock()
        self._descriptor: int | None = None

    @contextmanager
    def held(self, *, wait: float = 0) -> Iterator[None]:
        """Hold the lock for the block.

        Raises:
            Busy: another holds it still after ``wait`` seconds; names the holder.
            StorageFailed: the lock file cannot be opened.
        """
        if not self._thread.acquire(timeout=wait):
            raise self._busy()
        try:
            if self._descriptor is not None:
                yield
                return
            self._descriptor = self._acquire(wait)
            try:
                yield
            finally:
                os.close(self._descriptor)
                self._descriptor = None
        finally:
            self._thread.release()

    def holder(self) -> str:
        """Who took the lock last, as a text for people."""
        try:
            told = json.loads(self.path.read_text())
            return f"process {told['pid']} on {told['host']} ({told['program']}), since {told['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "an unknown process"

    def _acquire(self, wait: float) -> int:
        with storage("open", self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait
        try:
            while not (locked := _try_lock(descriptor)) and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
            if locked:
                self._tell(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if not locked:
            os.close(descriptor)
            raise self._busy()
        return descriptor

    def _tell(self, descriptor: int) -> None:
        about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "program": Path(sys.argv[0]).name or "python",
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with storage("write", self.path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(about).encode(), 0)

    def _busy(self) -> Busy:
        holder = self.holder()
        return Busy(
            f"{self.path.parent.name} is in the hands of {holder}.",
            remedy="Nothing was changed; run it again when that one is done.",
            holder=holder,
        )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
