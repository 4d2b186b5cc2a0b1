"""Files that are whole or not there, and the lock of a connection.

Everything is written to a temporary name, fsynced, renamed, and its directory fsynced, so that neither a kill nor a
power cut leaves half a file. The lock is ``flock`` on a file that is never deleted; the kernel frees it when its
holder dies.
"""

import errno
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ucl_helpers.errors import Busy, StorageFailed, UnknownConnection, UsageError

try:
    import fcntl
except ImportError:  # plain Windows
    raise UsageError("There is no flock to keep runs apart.", remedy="Use Linux, macOS, or WSL on Windows.") from None

POLL_SECONDS = 0.05
_ELSEWHERE = "choose another (the home folder: with --home or UCL_HOME)"
_REMEDIES = {
    errno.ENOSPC: "Make room on the disk, then run it again.",
    **dict.fromkeys((errno.EACCES, errno.EROFS), f"Give this user access to that place, or {_ELSEWHERE}."),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), f"A file is where a folder should be: move it, or {_ELSEWHERE}."),
}
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def storage(what: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into :class:`StorageFailed` that names what was tried and where."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"Could not {what} {path}: {error.strerror or error}.",
            remedy=_REMEDIES.get(error.errno or 0, "What was there before is untouched."),
            path=str(path),
        ) from error


def temporary(path: Path) -> Path:
    """A name beside ``path`` for what is not whole yet, or no longer; :func:`sweep` knows it again."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def sweep(folder: Path, *, older_than: float = 0) -> None:
    """Remove what a killed run left under temporary names in ``folder``, and nothing else.

    Args:
        folder: may be missing. The caller holds the lock of what lies in it.
        older_than: seconds; without such a lock, what another process may have in hand now stays.

    Raises:
        StorageFailed: it could not be removed.
    """
    with storage("tidy up", folder), suppress(FileNotFoundError):
        sync_directory(folder)  # a run that was killed may have renamed something there just before
        for one in list(folder.iterdir()):
            if TEMPORARY.fullmatch(one.name) and time.time() - one.lstat().st_ctime >= older_than:
                _remove(one)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    while path.is_dir():
        with suppress(FileNotFoundError):  # another process removes it as well
            shutil.rmtree(path)


@contextmanager
def _replacing(path: Path, what: str, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name, for the block to make something of; that becomes ``path``, or is gone if the block fails."""
    staged = temporary(path)
    with storage(what, path):
        try:
            yield staged
            staged.rename(path)
        except BaseException:
            with suppress(OSError):
                staged.unlink()
            raise
        if durable:
            sync_directory(path.parent)


def write(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Write a file whole, with ``mode`` from its first moment; if ``durable``, it outlasts a power cut.

    Raises:
        StorageFailed: it could not be written; what was there before is untouched.
    """
    with _replacing(path, "write", durable=durable) as staged:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask says
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())


def append_line(path: Path, line: str) -> None:
    """Append one line durably (0600); after a cut-off line it begins anew.

    Raises:
        StorageFailed: it could not be written.
    """
    with storage("append to", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            if (size := os.fstat(descriptor).st_size) == 0:
                os.fchmod(descriptor, 0o600)
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            file.write((("\n" if torn else "") + line + "\n").encode())
            file.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory (0700) and what is missing above it, durably.

    Raises:
        StorageFailed: it could not be made.
    """
    with storage("make", path):
        if not path.is_dir():
            if not path.parent.is_dir():
                make_directory(path.parent)
            path.mkdir(mode=0o700, exist_ok=True)
            path.chmod(0o700)
        with suppress(PermissionError):  # what may not be read cannot be synced
            sync_directory(path.parent)  # also if it is there: a run that was killed may have made it just before


def must_be_ours(home: Path, *below: Path) -> None:
    """Folders that may be written in: nobody else can put a link or a file there for us to follow or to replace.

    Args:
        home: the user may have made it a symlink.
        below: what is missing is nobody's; a symlink is refused.

    Raises:
        StorageFailed: one belongs to another user, others may write in it, or it is a symlink; names it, and the
            command that mends it.
    """
    for folder in (home, *below):
        with storage("look at", folder), suppress(FileNotFoundError):
            found, problem, us = folder.stat(follow_symlinks=folder == home), "", os.geteuid()
            if stat.S_ISLNK(found.st_mode):
                problem, mend = "is a symlink", "Put the folder itself there, or make the whole home folder a symlink."
            elif found.st_uid not in {us, 0}:
                problem = f"belongs to user {found.st_uid}, and this is user {us}"
                mend = f"Run it as that user, or: chown -R {us} {shlex.quote(str(home))}"
            elif found.st_mode & 0o022:
                problem = f"can be changed by others (mode {stat.S_IMODE(found.st_mode):04o})"
                mend = f"Run: chmod go-w {shlex.quote(str(folder))}; or choose a folder in it with --home or UCL_HOME."
            if problem:
                raise StorageFailed(f"{folder} {problem}.", remedy=mend, path=str(folder))


def point(link: Path, target: str) -> None:
    """Make a symlink point to ``target``: the one rename by which a generation becomes current.

    Raises:
        StorageFailed: the old target stays.
    """
    with _replacing(link, "switch") as staged:
        staged.symlink_to(target)


def remove_tree(path: Path) -> None:
    """Remove a directory: renamed away first, so that nobody meets it half gone.

    Raises:
        StorageFailed: it could not be removed.
    """
    with storage("remove", path):
        path.rename(grave := temporary(path))
        sync_directory(path.parent)
        _remove(grave)


def sync_directory(path: Path) -> None:
    """Fsync a directory, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lock:
    """The lock of a connection: one writer at a time, within this process and among all.

    ``with lock.held(wait=10):`` may be nested in one thread. ``wait`` is in seconds. ``folders`` are those that its
    holder writes in, the home folder first: see :func:`must_be_ours`.
    """

    def __init__(self, path: Path, *folders: Path) -> None:
        self.path, self._folders = path, folders
        self._thread = threading.RLock()
        self._descriptor: int | None = None

    @contextmanager
    def held(self, *, wait: float = 0) -> Iterator[None]:
        """Hold the lock for the block.

        Raises:
            Busy: another holds it still after ``wait`` seconds; names the holder.
            UnknownConnection: the folder is gone, forgotten by another process.
            StorageFailed: the lock file cannot be opened.
        """
        until = time.monotonic() + wait
        if not self._thread.acquire(timeout=wait):
            raise self._busy()
        try:
            if self._descriptor is not None:
                yield
                return
            self._descriptor = self._acquire(until)
            try:
                yield
            finally:
                os.close(self._descriptor)
                self._descriptor = None
        finally:
            self._thread.release()

    def keep(self) -> None:
        """Hold it until this process ends, whichever of its threads asks; raises as :meth:`held` does."""
        self._descriptor = self._acquire(time.monotonic())

    @property
    def is_ours(self) -> bool:
        """Whether a block that holds it runs now."""
        return self._descriptor is not None

    def holder(self) -> str:
        """Who took the lock last, as a text for people."""
        try:
            told = json.loads(self.path.read_text())
            return f"process {told['pid']} on {told['host']} ({told['program']}), since {told['since']}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return "an unknown process"

    def _acquire(self, until: float) -> int:
        while (descriptor := self._try()) is None:
            if time.monotonic() >= until:
                raise self._busy()
            time.sleep(POLL_SECONDS)
        return descriptor

    def _try(self) -> int | None:
        """The locked file, or None: another holds it, or it was removed with its folder and keeps nobody out."""
        must_be_ours(*self._folders or (self.path.parent,))
        with storage("lock", self.path), ExitStack() as undo:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                raise UnknownConnection(
                    f"{self.path.parent} is not there, or no longer.", remedy="Another process may have forgotten it."
                ) from None
            undo.callback(os.close, descriptor)
            with suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    self._tell(descriptor)
                    undo.pop_all()
                    return descriptor
        return None

    def _tell(self, descriptor: int) -> None:
        program, since = Path(sys.argv[0]).name or "python", datetime.now(UTC).isoformat(timespec="seconds")
        about = {"pid": os.getpid(), "host": socket.gethostname(), "program": program, "since": since}
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)

    def _busy(self) -> Busy:
        holder, remedy = self.holder(), "Nothing was changed; run it again when that one is done."
        return Busy(f"{self.path.parent.name} is in the hands of {holder}.", remedy=remedy, holder=holder)
