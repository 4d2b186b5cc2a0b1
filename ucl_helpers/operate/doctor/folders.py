"""Examine folders: their existence, their owner and permissions, the lock, and the features of the file system."""

import fcntl
import os
import pwd
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from glob import iglob
from pathlib import Path
from typing import Any

from ucl_helpers.clock import moment_from
from ucl_helpers.connection import files
from ucl_helpers.connection.access import Readers, readers_of
from ucl_helpers.connection.exports import EXPORTS
from ucl_helpers.connection.generation import KEEP_YOUNGER
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Busy, SecretFound, StorageFailed, UCLError
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, skipped, warning
from ucl_helpers.operate.doctor.on_disk import OnDisk, shell
from ucl_helpers.tables import span

ROOM = 1 << 20  # bytes; a generation takes some 20 KB, and pending/ as much
WRITE = 0o022
SECRETS = ("key.pem", "identity.pem", "token", *(export.file for export in EXPORTS.values() if export.holds_key))
LONG = timedelta(minutes=10)  # no step holds the lock for longer
_EFFECTIVE = os.access in os.supports_effective_ids
IN_HOME = ("connections", "fleet", "runs", "sandbox")
MOVE = "Choose a home folder on another file system: --home or UCL_HOME."
_SYNC = "fsync of folders"
_LOCAL = {"nolock", "local_lock=all", "local_lock=flock"}


def home_folder(home: Home) -> Finding:
    """Examine the home folder: it exists or can be made, only this user can write to it, and a renewal has room."""
    path = home.path
    # A link that leads nowhere is a fault of its own, and not a place where a folder can be made.
    nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    is_usable = nearest != path and may(nearest, os.W_OK | os.X_OK)
    if problem := (None if is_usable else _problem_of(nearest)) or privacy(path):
        return problem
    if nearest != path:
        return ok(f"ucl creates {path} when it needs it")
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    if free < ROOM or (disk.f_files and not disk.f_favail):
        room = f"{free // 1024} KiB, and a renewal needs {ROOM // 1024}" if free < ROOM else "no more files"
        return failed(f"the file system of {path} has room for {room}", "Make room there.", StorageFailed)
    connections = path / "connections"
    problem = _problem_of(connections) if os.path.lexists(connections) else None
    if problem := problem or privacy(path, *(path / folder for folder in IN_HOME)):
        return problem
    if abandoned := [folder for folder in connections.glob(".*") if _is_abandoned(folder)]:
        paths = ", ".join(map(str, abandoned))
        return warning(f"left by a run that was killed: {paths}", shell("rm", "-r", *abandoned))
    return ok(f"{path} can be written and has room")


def _is_abandoned(folder: Path) -> bool:
    age = time.time() - folder.lstat().st_ctime
    return files.TEMPORARY.fullmatch(folder.name) is not None and age > KEEP_YOUNGER.total_seconds()


def privacy(home: Path, *below: Path) -> Finding | None:
    """Return the problem that keeps every other command from using these folders; None if there is none."""
    try:
        files.require_private_folder(home, *below)
    except StorageFailed as error:
        return failed(error.message, files.closing_home(home, *below) or error.remedy, StorageFailed)
    return None


def connection_folder(disk: OnDisk) -> Finding:
    """Examine the connection's folder: neither it nor a folder in it is a symlink, and this user can write there."""
    for folder in disk.connection.folders[1:]:
        if os.path.islink(folder):  # noqa: PTH114 - which is False for what this user may not look at
            return failed(f"{folder} is a symlink to {folder.resolve()}", _without_link(folder), StorageFailed)
    location, above = disk.connection.location, disk.connection.folders[:2]
    if problem := _problem_of(location) or (privacy(*above, location) if privacy(*above) is None else None):
        return problem
    return ok(str(location))


def _without_link(link: Path) -> str:
    """Put the target in the link's place, if this user owns it and it is no other connection; else remove the link."""
    target = link.resolve()
    ours = target.is_dir() and target.stat().st_uid == os.geteuid() and link.parent.resolve() not in target.parents
    return f"{shell('rm', link)} && {shell('mv', target, link)}" if ours else shell("rm", link)


def access(disk: OnDisk) -> Finding:
    """Examine whether this user owns and can use everything below the connection's folder."""
    closed, foreign = list[Path](), list[Path]()
    location, owner = disk.connection.location, _readers(disk).owner
    is_read_only = os.statvfs(location).f_flag & os.ST_RDONLY  # which another finding says
    for path, facts in _entries_below(location, closed):
        is_folder = stat.S_ISDIR(facts.st_mode)
        # A file of a generation is never written again, and may belong to another user whom the settings name.
        is_final = location / "generations" in path.parents and not is_folder
        if facts.st_uid != os.geteuid() and not (is_final and facts.st_uid == owner):
            foreign.append(path)
        elif not may(path, os.R_OK | (os.X_OK if is_folder else 0) | (0 if is_final or is_read_only else os.W_OK)):
            closed.append(path)
    if foreign:
        return _foreign(foreign[0], location)
    if closed:
        return failed(f"this user has no access to {_first_of(closed)}", _tighten(disk), StorageFailed)
    return ok("this user owns all files and can use them")


def secrecy(disk: OnDisk) -> Finding:
    """Examine whether only the readers in the settings can read secrets, and no other user can change a file."""
    secret, writable = list[Path](), list[Path]()
    location, named, only_us = disk.connection.location, _readers(disk), Readers()
    for path, facts in _entries_below(location, []):
        readers = named if location / "generations" in path.parents else only_us
        is_secret = stat.S_ISREG(facts.st_mode) and any(name in path.name for name in SECRETS)
        if is_secret and not readers.may_have(facts):
            secret.append(path)
        elif facts.st_mode & WRITE:
            writable.append(path)
    if secret:
        return failed(f"other users can read secrets: {_first_of(secret)}", _tighten(disk), SecretFound)
    if writable:
        return failed(f"other users can change {_first_of(writable)}", _tighten(disk), StorageFailed)
    return ok(f"keys are {named.mode:04o}, tokens 0600, and no other user can change anything")


def _tighten(disk: OnDisk) -> str:
    closed = shell("chmod", "-R", "u=rwX,go=", disk.connection.location)
    if not _readers(disk).others:
        return closed
    return f"{closed} && {disk.command('export', '--force')}"


def _readers(disk: OnDisk) -> Readers:
    """Return who may read the files of a generation; only this user if the settings cannot be used."""
    with suppress(UCLError):
        return readers_of(disk.settings.files, disk.name)
    return Readers()


def _entries_below(path: Path, closed: list[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield everything below a folder except symlinks; add folders that this user cannot read to ``closed``."""
    for folder, folders, names in os.walk(path, onerror=lambda error: closed.append(Path(error.filename))):
        for entry in (Path(folder, name) for name in [*folders, *names]):
            with suppress(FileNotFoundError):  # another process is at work
                if not stat.S_ISLNK((facts := entry.lstat()).st_mode):
                    yield entry, facts


def _first_of(paths: list[Path]) -> str:
    return str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def lock(disk: OnDisk) -> Finding:
    """Examine who holds the lock, and since when. The lock is read and never taken."""
    held = disk.connection.lock
    facts = dict[str, Any]()
    with suppress(OSError):
        facts = files.json_object(files.read_regular(held.path)) or {}
    pid, here = facts.get("pid"), facts.get("host") == socket.gethostname()
    if not _is_held(held.path, pid):
        return ok("free")
    is_gone = here and not Path(f"/proc/{pid}").exists()
    alive = ", not running any more" if is_gone else ", running" if here else ""
    age = disk.now - (moment_from(facts.get("since")) or disk.now)
    text = f"held by {held.holder()} ({span(age)}{alive})"
    if age > LONG and not is_gone:
        return failed(f"{text}; no run takes that long", f"kill {pid}" if here else "End that process.", Busy)
    # A program that it started has inherited the lock.
    return warning(text, shell("fuser", "-v", held.path) if is_gone else "Wait until it is done.")


def _is_held(path: Path, pid: object) -> bool:
    """Return whether a process of this machine holds this lock now; False on systems that do not say (Linux does)."""
    try:
        file = path.stat()
        # Linux hands out a long list in pieces. If other locks come and go meanwhile, one reading may leave ours out.
        lists = [Path("/proc/locks").read_text("ascii") for _ in range(5)]
    except OSError:
        return False
    # In a container, the list leaves out a lock whose process has ended. The open files of its child still show it.
    for opened in iglob("/proc/[0-9]*/fdinfo/*") if pid else ():  # noqa: PTH207 - bears processes that end meanwhile
        with suppress(OSError):
            lists.append(Path(opened).read_text("ascii", "replace").replace("lock:", ""))
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    lines = [line.split() for text in lists for line in text.splitlines() if " FLOCK " in line]
    taken = [line for line in lines if line[1] == "FLOCK"]  # a waiting one has an arrow there
    # Some file systems name another device there than stat does: then the holder's process id identifies the lock.
    pids, inode = {str(pid), "0"}, str(file.st_ino)
    return any(line[5] == device or (line[4] in pids and line[5].rpartition(":")[2] == inode) for line in taken)


def may(path: Path, mode: int) -> bool:
    """Return whether this process may use a path in the way that ``mode`` names (see :func:`os.access`)."""
    return os.access(path, mode, effective_ids=_EFFECTIVE)


def _problem_of(path: Path) -> Finding | None:
    try:
        facts = path.stat()
    except OSError as error:
        return failed(f"{path}: {str(error.strerror).lower()}", shell("ls", "-ld", path), StorageFailed)
    if facts.st_uid != os.geteuid():
        return _foreign(path, path)
    if not stat.S_ISDIR(facts.st_mode):
        problem, remedy = f"{path} is not a folder", shell("mv", path, f"{path}.old")
    elif os.statvfs(path).f_flag & os.ST_RDONLY:
        problem, remedy = f"{path} is on a read-only file system", f"Mount it writable, or {MOVE[0].lower()}{MOVE[1:]}"
    elif not may(path, os.R_OK | os.W_OK | os.X_OK):
        problem, remedy = f"this user cannot write to {path}", shell("chmod", "u+rwx", path)
    else:
        return None
    return failed(problem, remedy, StorageFailed)


def _foreign(path: Path, folder: Path) -> Finding:
    owner, us = _user(path.lstat().st_uid), _user(os.geteuid())
    problem = f"{path} belongs to {owner}, but ucl runs as {us}"
    if os.geteuid() != 0:
        return failed(problem, shell("sudo", "chown", "-R", us, folder), StorageFailed)
    remedy = f"Run ucl as {owner}: sudo -u {owner} ucl …"  # the owner of a folder can plant links in it for root
    return failed(problem, remedy, StorageFailed) if path.is_dir() else warning(problem, remedy)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


# -- the file system ---------------------------------------------------------------------------------------------------


def file_system(home: Home, *below: Path) -> Finding:
    """Try in a new folder each feature that the toolkit needs of the home folder's file system.

    It needs ``fsync`` of folders (a rename outlasts a power cut), permissions (only this user reads a key), symbolic
    links and a rename over one (a new generation becomes current at once), and ``flock`` (one writer at a time).
    Network mounts, FAT, some FUSE file systems and folders that a virtual machine shares with its host lack some of
    these. *Not* tried is another machine. On Linux, the mount options show whether a network mount keeps locks local.

    Nothing is tried, and so nothing is written, if others can change the home folder or one of the folders ``below``.
    """
    if not home.path.is_dir() or not may(home.path, os.W_OK | os.X_OK):
        return skipped(f"{home.path} does not exist, or is not writable")
    if privacy(home.path, *below) is not None:
        return skipped("see home folder")
    lacking, folder = dict[str, str](), files.temporary(home.path / "doctor")
    folder.mkdir(mode=0o700)
    try:
        for feature, attempt in _FEATURES.items():
            try:
                attempt(folder)
            except OSError as error:
                lacking[feature] = str(error.strerror or error).lower()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    problem = f"on {home.path}: {', '.join(f'no {feature} ({why})' for feature, why in lacking.items())}"
    if lacking.keys() == {_SYNC}:
        return warning(f"{problem}: a power cut can undo the last changes", MOVE)
    if lacking:
        return failed(problem, MOVE, StorageFailed)
    if option := local_locks(home.path):
        return warning(f"{home.path} is mounted with {option}: other machines do not see its locks", MOVE)
    return ok(f"it supports {', '.join(_FEATURES)}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _permissions(folder: Path) -> None:
    """Close a file and a folder that were open to others."""
    file, below = folder / "file", folder / "below"
    file.touch()
    below.mkdir()
    for path, opened, closed in ((file, 0o644, 0o600), (below, 0o755, 0o700)):
        path.chmod(opened)
        path.chmod(closed)
        if (mode := stat.S_IMODE(path.stat().st_mode)) != closed:
            raise OSError(f"chmod {closed:04o} leaves {mode:04o}")


def _links(folder: Path) -> None:
    link, new = folder / "link", folder / "new-link"
    link.symlink_to("old")
    new.symlink_to("new")
    new.rename(link)
    if (target := str(link.readlink())) != "new":
        raise OSError(f"after a rename, the link still points to {target!r}")


def _locks(folder: Path) -> None:
    """Lock a file that is opened twice: for the kernel these are two holders, as two processes would be."""
    with (folder / "lock").open("w") as holder, (folder / "lock").open() as other:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(holder, fcntl.LOCK_UN)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            raise OSError("a lock that is held can be taken again")


def local_locks(path: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the option of a network mount that keeps its locks on this machine, or nothing; proc(5)."""
    try:
        lines = [line.partition(" - ")[::2] for line in table.read_text().splitlines()]
    except OSError:
        return ""
    mounts = [(*mount.split(" ")[4:6], *source.split(" ")) for mount, source in lines if source]
    parents = [mount for mount in mounts if path.is_relative_to(mount[0].replace("\\040", " "))]
    if not parents:
        return ""
    _, options, kind, _, more = max(parents, key=lambda mount: len(mount[0]))[:5]
    local = _LOCAL & {*options.split(","), *more.split(",")}
    return min(local, default="") if kind.startswith("nfs") else ""


_FEATURES: dict[str, Callable[[Path], None]] = {
    _SYNC: _sync,
    "file permissions": _permissions,
    "symbolic links": _links,
    "locks": _locks,
}
