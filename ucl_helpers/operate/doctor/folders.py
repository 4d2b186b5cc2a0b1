"""What a doctor looks at in folders: that they are there, whose they are, how open they are, and who holds the lock."""

import json
import os
import pwd
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ucl_helpers.connection import access as access_to
from ucl_helpers.connection import files
from ucl_helpers.connection.exports import EXPORTS
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import Busy, SecretFound, StorageFailed, UCLError
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, shell, warning
from ucl_helpers.tables import span

ROOM = 1 << 20  # bytes; a generation takes some 20 KB, and pending/ as much
WRITE = 0o022
SECRETS = ("key.pem", "identity.pem", "token", *EXPORTS.values())
LONG = timedelta(minutes=10)  # no step holds the lock for longer
_EFFECTIVE = os.access in os.supports_effective_ids
IN_HOME = ("connections", "fleet", "runs", "sandbox")
_LEFT_HALF_DONE = timedelta(days=1)


def home_folder(home: Home) -> Finding:
    """The home folder: there or to be made, ours, not to be changed by others, writable, with room for a renewal."""
    name, path = "home folder", home.path
    there = path
    with suppress(OSError):
        # A link that leads nowhere is not in the way of a folder to be made: it is what is wrong.
        there = next(one for one in (path, *path.parents) if one.exists() or one.is_symlink())
    problem = (_folder_problem(name, path) if there == path else None) or privacy(name, path)
    if there != path:
        made = ok(name, f"ucl creates {path} when it needs it")
        return problem or (None if may(there, os.W_OK | os.X_OK) else _folder_problem(name, there)) or made
    if problem is not None:
        return problem
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    if free < ROOM or (room.f_files and not room.f_favail):
        what = f"{free // 1024} KiB" if free < ROOM else "no more files"
        return failed(name, f"{path} has room for {what}", shell("du", "-sh", path), StorageFailed)
    there_too = path / "connections"
    problem = _folder_problem(name, there_too) if os.path.lexists(there_too) else None
    if (problem := problem or privacy(name, path, *(path / folder for folder in IN_HOME))) is not None:
        return problem
    left = [str(one) for one in _leftovers(path / "connections") if _age(one) > _LEFT_HALF_DONE.total_seconds()]
    if not held(path / "importing" / "lock"):  # an earlier version kept identities there while it imported them
        left += [str(one) for one in _entries(path / "importing") if one.is_dir()]
    if left:
        return warning(name, f"left by a run that was killed: {', '.join(left)}", shell("rm", "-r", *left))
    return ok(name, f"{path} can be written and has room")


def privacy(name: str, home: Path, *below: Path) -> Finding | None:
    """What keeps every other command from using these folders; None if nothing does."""
    try:
        files.require_private_folder(home, *below)
    except StorageFailed as error:
        return failed(name, error.message, error.remedy, StorageFailed)
    return None


def connection_folder(connection: Connection) -> Finding:
    """The connection's folder, likewise; neither it nor one in it is a symlink."""
    name = "connection folder"
    for one in connection.folders[1:]:
        with suppress(OSError):
            if one.is_symlink():
                return failed(name, f"{one} is a symlink to {one.resolve()}", _without_link(one), StorageFailed)
    return _folder_problem(name, connection.location) or ok(name, str(connection.location))


def _without_link(link: Path) -> str:
    """What a link stands for takes its place, if it is ours and nobody else's connection; else the link goes."""
    there = link.resolve()
    ours = there.is_dir() and there.stat().st_uid == os.geteuid() and link.parent.resolve() not in there.parents
    return f"{shell('rm', link)} && {shell('mv', there, link)}" if ours else shell("rm", link)


def access(connection: Connection) -> Finding:
    """Everything below a connection's folder is ours and can be used."""
    name, closed, foreign = "access", list[Path](), list[Path]()
    owner, kept = _readers(connection).owner, connection.location / "generations"
    for one, told in _below(connection.location, closed):
        folder, given = stat.S_ISDIR(told.st_mode), kept in one.parents
        if told.st_uid != os.geteuid() and not (given and not folder and told.st_uid == owner):
            foreign.append(one)
        elif not may(one, os.R_OK | (os.X_OK if folder else 0) | (0 if given and not folder else os.W_OK)):
            closed.append(one)
    if foreign:
        return _foreign(name, foreign[0], connection.location)
    if closed:
        return failed(name, f"this user has no access to {_some(closed)}", _tighten(connection), StorageFailed)
    return ok(name, "this user owns all files and can use them")


def secrecy(connection: Connection) -> Finding:
    """Nobody but who is named in the settings may read what is secret, and nobody may change anything."""
    name, secret, writable = "secrecy", list[Path](), list[Path]()
    named, nobody, kept = _readers(connection), access_to.Readers(), connection.location / "generations"
    for one, told in _below(connection.location, []):
        readers = named if kept in one.parents else nobody
        is_secret = stat.S_ISREG(told.st_mode) and any(word in one.name for word in SECRETS)
        if is_secret and not readers.may_have(told):
            secret.append(one)
        elif told.st_mode & WRITE:
            writable.append(one)
    if secret:
        return failed(name, f"other users can read secrets: {_some(secret)}", _tighten(connection), SecretFound)
    if writable:
        return failed(name, f"other users can change {_some(writable)}", _tighten(connection), StorageFailed)
    return ok(name, f"keys are {named.mode:04o}, tokens 0600, and no other user can change anything")


def _tighten(connection: Connection) -> str:
    closed = shell("chmod", "-R", "u=rwX,go=", connection.location)
    if not _readers(connection).others:
        return closed
    return f"{closed} && {shell('ucl', 'export', connection.name, '--force', '--home', connection.home.path)}"


def _readers(connection: Connection) -> access_to.Readers:
    """Who may read the files of a generation; we alone if the settings cannot be read."""
    with suppress(UCLError):
        return access_to.readers_of(connection.settings.files, connection.name)
    return access_to.Readers()


def lock(connection: Connection, now: datetime) -> Finding:
    """Who holds the lock, and since when. It is looked at, never taken."""
    name, path = "lock", connection.lock.path
    told = _json(path)
    if not held(path):
        return ok(name, "free")
    pid, holder = told.get("pid"), connection.lock.holder()
    here = told.get("host") == socket.gethostname()
    alive = "" if not here else ", running" if Path(f"/proc/{pid}").exists() else ", not running any more"
    since = datetime.fromisoformat(str(told.get("since"))) if told.get("since") else now
    text = f"held by {holder} ({span(now - since)}{alive})"
    if now - since > LONG:
        return failed(name, f"{text}; no run takes that long", f"kill {pid}" if here else "End that process.", Busy)
    return warning(name, text, "Wait until it is done.")


def held(path: Path) -> bool:
    """Whether a process of this machine holds this lock now, as far as the system tells (Linux does)."""
    try:
        file, pid = path.stat(), _json(path).get("pid")
        lines = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
    except OSError:
        return False
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    taken = [line for line in lines if line[1] == "FLOCK"]  # one that waits has an arrow there
    # Some file systems tell another device there than they tell of the file: then the holder's number has to do.
    here = (str(pid), str(file.st_ino))
    return any(line[5] == device or (line[4], line[5].rpartition(":")[2]) == here for line in taken)


def leftovers(connection: Connection) -> list[Path]:
    """What lies under temporary names: a run that was killed was writing or removing it."""
    path = connection.location
    return [one for name in (".", "generations", "pending", "aside") for one in _leftovers(path / name)]


def may(path: Path, mode: int) -> bool:
    """Whether this process may use a path so."""
    return os.access(path, mode, effective_ids=_EFFECTIVE)


def may_be_read(folder: Path) -> bool:
    """Whether this process may look into a folder."""
    return may(folder, os.R_OK | os.X_OK)


def _folder_problem(name: str, path: Path) -> Finding | None:
    try:
        told = path.stat()
    except OSError as error:
        return failed(name, f"{path}: {str(error.strerror).lower()}", shell("ls", "-ld", path), StorageFailed)
    if told.st_uid != os.geteuid():
        return _foreign(name, path, path)
    if not stat.S_ISDIR(told.st_mode):
        found, mend = f"{path} is not a folder", shell("mv", path, f"{path}.old")
    elif os.statvfs(path).f_flag & os.ST_RDONLY:
        found, mend = f"{path} is on a read-only file system", "Choose another home folder: --home or UCL_HOME."
    elif told.st_mode & WRITE:
        found, mend = f"other users can change {path}", _closing(path)
    elif not may(path, os.R_OK | os.W_OK | os.X_OK):
        found, mend = f"this user cannot write to {path}", shell("chmod", "u+rwx", path)
    else:
        return None
    return failed(name, found, mend, StorageFailed)


def _closing(path: Path) -> str:
    """One command that closes a folder: the home folder with all that is in it, if the folder belongs to one."""
    for home in (path, path.parent, path.parent.parent):
        if command := files.closing_home(home, path):
            return command
    return shell("chmod", "go-w", path)


def _foreign(name: str, one: Path, path: Path) -> Finding:
    owner, us = _user(one.lstat().st_uid), _user(os.geteuid())
    found = f"{one} belongs to {owner}, but ucl runs as {us}"
    if os.geteuid() != 0:
        return failed(name, found, shell("sudo", "chown", "-R", us, path), StorageFailed)
    mend = f"Run ucl as {owner}: sudo -u {owner} ucl …"  # whoever owns a folder can plant links in it for root
    return failed(name, found, mend, StorageFailed) if one.is_dir() else warning(name, found, mend)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _below(path: Path, closed: list[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a folder but symlinks; folders that may not be looked into go to ``closed``."""
    for folder, folders, names in os.walk(path, onerror=lambda error: closed.append(Path(error.filename))):
        for one in (Path(folder, name) for name in [*folders, *names]):
            with suppress(FileNotFoundError):  # somebody is at work
                if not stat.S_ISLNK((told := one.lstat()).st_mode):
                    yield one, told


def _leftovers(folder: Path) -> list[Path]:
    return [one for one in _entries(folder) if files.TEMPORARY.fullmatch(one.name)]


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _age(path: Path) -> float:
    return time.time() - path.lstat().st_ctime


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        told = json.loads(path.read_bytes())
        return told if isinstance(told, dict) else {}
    return {}


def _some(paths: list[Path]) -> str:
    return str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
