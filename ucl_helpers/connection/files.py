"""Write files that are whole or missing, and lock a connection.

Every file is written under a temporary name, fsynced, renamed, and its directory fsynced, so that neither a kill nor a
power cut leaves half a file. The lock is ``flock`` on a file that is never deleted. The kernel frees it when its holder
dies.
"""

import errno
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ucl_private_files
from ucl_helpers.errors import Busy, StorageFailed, UnknownConnection, UsageError
from ucl_helpers.tables import moment
from ucl_private_files import (
    LARGEST_FILE,
    MissingFeature,
    UnsafePath,
    needing,
    open_private,
    read_regular,
    sync_directory,
    sync_open_directory,
    temporary,
)

__all__ = ["LARGEST_FILE", "read_regular", "sync_directory", "sync_open_directory", "temporary"]  # passed on

try:
    import fcntl
except ImportError:  # plain Windows
    raise UsageError("There is no flock to keep runs apart.", remedy="Use Linux, macOS, or WSL on Windows.") from None

POLL_SECONDS = 0.05
NAME_LOOKS = 20  # POLL_SECONDS apart
_ELSEWHERE = "choose another (the home folder: with --home or UCL_HOME)"
_OTHER_FILE_SYSTEM = (
    "Choose a home folder on another file system, for example on a local disk: with --home or UCL_HOME. "
    "To see all that this file system lacks: ucl doctor"
)
_REMEDIES = {
    errno.ENOLCK: _OTHER_FILE_SYSTEM,
    errno.ENOSPC: "Make room on the disk, then run it again.",
    errno.EDQUOT: "Your disk quota is used up: make room, then run it again.",
    **dict.fromkeys((errno.EACCES, errno.EPERM), f"Give this user access to that place, or {_ELSEWHERE}."),
    errno.EROFS: f"Mount its file system writable, or {_ELSEWHERE}.",
    errno.EISDIR: "A folder is where a file should be: move it, then run it again.",
    errno.ENOENT: "Check that its folder exists, then run it again.",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), f"A file is where a folder should be: move it, or {_ELSEWHERE}."),
}
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def storage(what: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` or :class:`UnsafePath` into :class:`StorageFailed` that names what was tried and where."""
    try:
        yield
    except UnsafePath as error:
        raise StorageFailed(f"{error.path} {error.problem}.", remedy=f"{error.remedy}.", path=str(error.path)) from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "What was there before is untouched.")
        raise StorageFailed(
            f"Could not {what} {path}: {error.strerror or error}.",
            remedy=_OTHER_FILE_SYSTEM if isinstance(error, MissingFeature) else remedy,
            path=str(path),
        ) from error


def sweep(folder: Path, *, older_than: float = 0) -> None:
    """Remove files that a killed run left under temporary names in ``folder``, and no other file.

    Args:
        folder: may be missing. The caller holds the lock of its content, or gives ``older_than``.
        older_than: seconds; younger files stay, since another process may be writing them.

    Raises:
        StorageFailed: it could not be removed.
    """
    with storage("tidy up", folder), suppress(FileNotFoundError):
        sync_directory(folder)  # a run that was killed may have renamed something there just before
        for path in list(folder.iterdir()):
            if TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_ctime >= older_than:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    while path.is_dir():
        with suppress(FileNotFoundError):  # another process removes it as well
            shutil.rmtree(path)


def write(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Write a file whole, with ``mode`` from the start. If ``durable``, the file survives a power cut.

    Raises:
        StorageFailed: the file could not be written. Its previous content is untouched.
    """
    with storage("write", path):
        ucl_private_files.write_file(path, data, mode, durable=durable)


def append_line(path: Path, line: str) -> None:
    """Append one line durably (0600), on a new line if the last one was cut off.

    Raises:
        StorageFailed: it could not be written.
    """
    with storage("append to", path):
        descriptor = open_private(path, os.O_RDWR | os.O_APPEND)
        with os.fdopen(descriptor, "ab") as file:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            file.write((("\n" if torn else "") + line + "\n").encode())
            file.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory (0700) and those that are missing above it, durably.

    Raises:
        StorageFailed: it could not be made.
    """
    with storage("make", path):
        ucl_private_files.make_directory(path)


def require_private_folder(home: Path, *below: Path) -> bool:
    """Refuse a home folder, or a folder below it, that another user can change or replace.

    Args:
        home: the home folder; see :func:`ucl_private_files.require_private_folder` for what is looked at.
        below: folders in it, from near to far.

    Returns:
        Whether the home folder exists.

    Raises:
        StorageFailed: names the folder, the problem and a command that solves it.
    """
    with storage("look at", home), _choosing_home(home, *below):
        return ucl_private_files.require_private_folder(home, *below)


def require_private_below(home: Path, *folders: Path) -> None:
    """Refuse these folders below a home folder that was checked; raises as :func:`require_private_folder` does."""
    with storage("look at", home), _choosing_home(home, *folders):
        ucl_private_files.require_private_below(*folders)


def make_private_folder(home: Path, *below: Path) -> None:
    """Make what is missing of these folders (0700), guarded as by :func:`require_private_folder`.

    Raises:
        StorageFailed: see there; or a folder could not be made.
    """
    with storage("make", home), _choosing_home(home, *below):
        ucl_private_files.make_private_folder(home, *below)


@contextmanager
def _choosing_home(home: Path, *below: Path) -> Iterator[None]:
    """Say in the remedy of a refusal that the user can choose another home folder."""
    try:
        yield
    except UnsafePath as error:
        choice = "a folder in it" if error.inside_is_safe else "another home folder"
        command = closing_home(home, *below)
        remedy = f"Run: {command}" if command else error.remedy
        remedy = f"{remedy}; or choose {choice} with --home or UCL_HOME."
        raise StorageFailed(f"{error.path} {error.problem}.", remedy=remedy, path=str(error.path)) from None


def closing_home(home: Path, *below: Path) -> str:
    """Return one command that closes a home folder and all in it to other users; empty if that is not what is wrong.

    It is also empty for a folder without connections, since a home folder may have been named by mistake (``/tmp``).
    """
    with suppress(OSError):
        if (home / "connections").is_dir():
            return ucl_private_files.closing_command(home, home / "connections", *below)
    return ""


def require_protected_folder(folder: Path) -> None:
    """Refuse a folder for output if another user can replace what this user creates in it.

    Raises:
        StorageFailed: see :func:`ucl_private_files.require_protected_folder`.
    """
    with storage("look at", folder):
        ucl_private_files.require_protected_folder(folder)


def make_output_folder(folder: Path) -> None:
    """Make a folder for output and what is missing above it (0700), unless another user can replace what is in it.

    Raises:
        StorageFailed: see :func:`require_protected_folder`; or the folder could not be made.
    """
    require_protected_folder(folder)
    make_directory(folder)


def require_own_links(path: Path) -> None:
    """Refuse a path with a symlink of another user; raises as :func:`ucl_private_files.require_own_links` does."""
    with storage("look at", path):
        ucl_private_files.require_own_links(path)


def swap_symlink(link: Path, target: str) -> None:
    """Make a symlink point to ``target`` by one rename. This makes a generation current.

    Raises:
        StorageFailed: the symlink still points to the old target.
    """
    staged = temporary(link)
    with storage("switch", link):
        try:
            with needing("symbolic links", link):
                staged.symlink_to(target)
            staged.rename(link)
        except BaseException:
            with suppress(OSError):
                staged.unlink()
            raise
        sync_directory(link.parent)


def require_links(folder: Path, link: Path) -> None:
    """Make a symlink in ``folder`` and remove it, so that a file system without symlinks is found early.

    Args:
        folder: on the file system of ``link``.
        link: what :func:`swap_symlink` will make; named in the error.

    Raises:
        StorageFailed: as of :func:`swap_symlink`.
    """
    probe = temporary(folder / link.name)
    with storage("switch", link):
        try:
            with needing("symbolic links", link):
                probe.symlink_to(folder)
        finally:
            probe.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a directory. It is renamed first, so that no reader sees it half removed.

    Raises:
        StorageFailed: it could not be removed.
    """
    with storage("remove", path):
        path.rename(grave := temporary(path))
        sync_directory(path.parent)
        _remove(grave)


class Lock:
    """The lock of a connection. It allows one writer at a time, among the threads of this process and all processes.

    ``with lock.held(wait=10):`` may be nested in one thread. ``wait`` is in seconds. ``folders`` are those that its
    holder writes in, the home folder first, see :func:`require_private_folder`. ``first`` is called each time that the
    lock was taken, before the block runs. If it raises, the lock is released.
    """

    def __init__(self, path: Path, *folders: Path, first: Callable[[], None] | None = None) -> None:
        self.path, self._folders, self._first = path, folders, first
        self._thread = threading.RLock()
        self._descriptor: int | None = None
        self._holder: int | None = None  # a thread

    @contextmanager
    def held(self, *, wait: float = 0) -> Iterator[None]:
        """Hold the lock for the block.

        Raises:
            Busy: another process or thread still holds it after ``wait`` seconds; names the holder.
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
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None
                self._release(self._descriptor)
                self._descriptor = None
        finally:
            self._thread.release()

    def keep(self) -> None:
        """Hold the lock for all threads until this process ends. Raises the errors of :meth:`held`."""
        self._descriptor = self._acquire(time.monotonic())

    @property
    def is_held_by_this_thread(self) -> bool:
        """Whether the calling thread runs a block that holds the lock."""
        return self._holder == threading.get_ident()

    @property
    def is_ours(self) -> bool:
        """Whether any thread of this process holds the lock."""
        return self._descriptor is not None

    def holder(self) -> str:
        """Describe the process that holds the lock, or the last one that did and was killed.

        A holder writes its name right after it took the lock, so a missing name is waited for, a second at most.
        """
        for _ in range(NAME_LOOKS):
            with suppress(OSError):
                if text := self.path.read_bytes():
                    about = json_object(text) or {}
                    with suppress(KeyError):
                        return f"process {about['pid']} on {about['host']} ({about['program']}), since {about['since']}"
            time.sleep(POLL_SECONDS)
        return "an unknown process"

    def _acquire(self, until: float) -> int:
        while (descriptor := self._try()) is None:
            if time.monotonic() >= until:
                raise self._busy()
            time.sleep(POLL_SECONDS)
        try:
            if self._first is not None:
                self._first()
        except BaseException:
            self._release(descriptor)
            raise
        return descriptor

    def _release(self, descriptor: int) -> None:
        """Remove our name and release the lock, in this order: the next holder must not appear under our name."""
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)

    def _try(self) -> int | None:
        """Return the locked file, or None: another run holds it, or it was removed with its folder."""
        require_private_folder(*self._folders or (self.path.parent,))
        with storage("lock", self.path), ExitStack() as undo:
            try:
                descriptor = open_private(self.path, os.O_RDWR)
            except FileNotFoundError:
                raise UnknownConnection(
                    f"{self.path.parent} is not there, or no longer.", remedy="Another process may have forgotten it."
                ) from None
            undo.callback(os.close, descriptor)
            with suppress(BlockingIOError, FileNotFoundError):
                with needing("locks", self.path):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    self._write_holder(descriptor)
                    undo.pop_all()
                    return descriptor
        return None

    def _write_holder(self, descriptor: int) -> None:
        program, since = Path(sys.argv[0]).name or "python", moment(datetime.now(UTC))
        about = {"pid": os.getpid(), "host": socket.gethostname(), "program": program, "since": since}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)

    def _busy(self) -> Busy:
        holder, remedy = self.holder(), "Nothing was changed; run it again when that one is done."
        return Busy(f"{self.path.parent.name} is in use by {holder}.", remedy=remedy, holder=holder)


def json_object(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if it holds another value, no JSON, or JSON nested too deep."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
