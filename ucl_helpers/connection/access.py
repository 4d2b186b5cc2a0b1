"""Give the files of a generation the owner, group and mode of the settings, and let their readers reach them.

Readers get only the permissions that lead to a generation. In the home folder and ``connections`` they get the right to
pass through (``x``), and not the right to list. Everything else there is closed by its own mode. ``pending/``,
``aside/``, journal, settings and lock remain closed to readers.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ucl_helpers.connection import files
from ucl_helpers.errors import InvalidSettings, StorageFailed

PASS, PASS_IN_GROUP, LIST_IN_GROUP = 0o011, 0o710, 0o750
DEFAULT_MODE = 0o600
_KEEP = -1  # chown(2): leave it unchanged


@dataclass(frozen=True)
class Access:
    """The owner and group (by name) and the mode of a generation's files. None leaves owner or group unchanged."""

    owner: str | None = None
    group: str | None = None
    mode: int = DEFAULT_MODE


@dataclass(frozen=True)
class Readers:
    """:class:`Access` as numbers. ``way`` is the group that must reach the files: by default the owner's group."""

    owner: int = _KEEP
    group: int = _KEEP
    way: int = _KEEP
    mode: int = DEFAULT_MODE

    @property
    def others(self) -> bool:
        """Whether the settings name an owner or a group."""
        return self.way != _KEEP

    def may_have(self, status: os.stat_result) -> bool:
        """Return whether a file is closed to all but its owner and, if the settings say so, the named group."""
        group_too = status.st_gid == self.group and self.mode & 0o040
        return not status.st_mode & (0o037 if group_too else 0o077)

    def fits(self, status: os.stat_result) -> bool:
        """Return whether a file has just this owner, group and mode."""
        same = self.owner in {_KEEP, status.st_uid} and self.group in {_KEEP, status.st_gid}
        return same and stat.S_IMODE(status.st_mode) == self.mode


def readers_of(access: Access, connection: str) -> Readers:
    """Look up the names of owner and group on this machine.

    Raises:
        InvalidSettings: this machine has no such user or group. The error names setting and connection.
    """
    what, which, asked = "owner", "user", access.owner
    try:
        owner = pwd.getpwnam(access.owner) if access.owner else None
        what, which, asked = "group", "group", access.group
        group = grp.getgrnam(access.group).gr_gid if access.group else _KEEP
    except KeyError:
        raise InvalidSettings(
            f"files.{what} of {connection}: this machine has no {which} {asked!r}.",
            remedy=f"Add it to the machine, or name another: ucl settings {connection} --edit",
        ) from None
    way = owner.pw_gid if owner and group == _KEEP else group
    return Readers(owner.pw_uid if owner else _KEEP, group, way, access.mode)


def grant_traversal(readers: Readers, home: Path, folder: Path, connection: str) -> None:
    """Let readers pass through the folders to the generations in ``folder``, and check that we may give them files.

    Raises:
        InvalidSettings: the system does not let us give a file to this owner or group.
        StorageFailed: a folder on the way belongs to another user, so we cannot open it.
    """
    if not readers.others or not folder.is_dir():
        return
    trial = files.temporary(folder / "trial")
    with files.storage("write", trial):
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(descriptor, readers.owner, readers.group)
        os.fchown(descriptor, _KEEP, readers.way)
    except OSError as error:
        raise InvalidSettings(
            f"files of {connection}: we may not give files to that owner or group: {error.strerror}.",
            remedy="Run as root, or as a member of the group, which needs no owner; or name others.",
        ) from None
    finally:
        os.close(descriptor)
        trial.unlink()
    for above in (home.resolve(), folder.parent):  # the user may have made the home folder a symlink
        if (mode := stat.S_IMODE(above.stat().st_mode)) & PASS != PASS:
            _change(above, _KEEP, mode | PASS)
    for inner in (folder, folder / "generations"):
        _change(inner, readers.way, PASS_IN_GROUP)


def set_ownership(readers: Readers, folder: Path) -> None:
    """Give the files of a generation to its readers, durably, before the generation gets its name."""
    if readers == Readers():
        return
    for path in sorted(folder.iterdir()):
        with files.storage("give away", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchown(descriptor, readers.owner, readers.group)
                os.fchmod(descriptor, readers.mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    if readers.others:
        _change(folder, readers.way, LIST_IN_GROUP)


def differing(readers: Readers, paths: Iterable[Path]) -> list[str]:
    """Return the names of files that have another owner, group or mode."""
    return [path.name for path in paths if not readers.fits(path.stat())]


def closed_on_the_way(readers: Readers, generation: Path) -> Path | None:
    """Return the first folder on the way to a generation that its readers may not pass, or None.

    *Not* checked: access control lists, and other groups that a reader may be in.
    """
    for folder in [*reversed(generation.resolve().parents), generation] if readers.others else ():
        status = folder.stat()
        by_owner = status.st_uid == readers.owner and status.st_mode & 0o100
        # For members of the folder's own group its group bits decide, and those for others do not count.
        if not (by_owner or status.st_mode & (0o010 if status.st_gid == readers.way else 0o001)):
            return folder
    return None


def _change(folder: Path, group: int, mode: int) -> None:
    with files.storage("open", folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, _KEEP, group)
            os.fchmod(descriptor, mode)
            files.sync_open_directory(descriptor)
        except PermissionError:
            remedy = f"Let its owner run: chmod a+x {folder}; or choose another home folder."
            raise StorageFailed(f"{folder} is not ours to open to others.", remedy=remedy, path=str(folder)) from None
        finally:
            os.close(descriptor)
