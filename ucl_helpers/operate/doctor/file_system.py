"""Whether a home folder's file system offers what the toolkit needs of it, each tried in a folder made for it.

It needs ``fsync`` of folders (a rename outlasts a power cut), permissions (only this user reads a key), symbolic links
and a rename over one (a new generation becomes current at once), and ``flock`` (one writer at a time). Network mounts,
FAT, some FUSE file systems and folders that a virtual machine shares with its host lack some of these.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from ucl_helpers.connection import files
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, skipped, warning
from ucl_helpers.operate.doctor.folders import may, privacy

NAME = "file system"
MOVE = "Choose a home folder on another file system: --home or UCL_HOME."
_SYNC = "fsync of folders"


def file_system(home: Home, *below: Path) -> Finding:
    """Try each feature in the home folder; of those that are missing, each is named with the system's answer.

    Nothing is tried, and so nothing is written, if others can change it or one of the folders ``below``.
    """
    if not home.path.is_dir() or not may(home.path, os.W_OK | os.X_OK):
        return skipped(NAME, f"{home.path} does not exist, or is not writable")
    if privacy(NAME, home.path, *below) is not None:
        return skipped(NAME, "see home folder")
    folder = files.temporary(home.path / "doctor")
    folder.mkdir(mode=0o700)
    try:
        lacking = {what: problem for what, attempt in _TRIED.items() if (problem := _problem(attempt, folder))}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = f"on {home.path}: {', '.join(f'no {what} ({why})' for what, why in lacking.items())}"
    if not lacking:
        return ok(NAME, f"it supports {', '.join(_TRIED)}")
    if lacking.keys() == {_SYNC}:
        return warning(NAME, f"{found}: a power cut can undo the last changes", MOVE)
    return failed(NAME, found, MOVE, StorageFailed)


def _problem(attempt: Callable[[Path], str], folder: Path) -> str:
    try:
        return attempt(folder)
    except OSError as error:
        return str(error.strerror or error).lower()


def _sync(folder: Path) -> str:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ""


def _permissions(folder: Path) -> str:
    """A file and a folder that were open to others are closed by chmod."""
    for path, opened, closed in ((folder / "file", 0o644, 0o600), (folder / "below", 0o755, 0o700)):
        path.mkdir() if path.name == "below" else path.touch()
        path.chmod(opened)
        path.chmod(closed)
        if (mode := stat.S_IMODE(path.stat().st_mode)) != closed:
            return f"chmod {closed:04o} leaves {mode:04o}"
    return ""


def _links(folder: Path) -> str:
    link, new = folder / "link", folder / "new-link"
    link.symlink_to("old")
    new.symlink_to("new")
    new.rename(link)
    target = str(link.readlink())
    return "" if target == "new" else f"after a rename, the link still points to {target!r}"


def _locks(folder: Path) -> str:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return ""


_TRIED: dict[str, Callable[[Path], str]] = {
    _SYNC: _sync,
    "file permissions": _permissions,
    "symbolic links": _links,
    "locks": _locks,
}
