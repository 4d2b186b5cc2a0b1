"""Files and folders that only this user can change, for the toolkit and for its sandbox.

Two properties hold for every file that is written here. It is whole or missing, after a kill and after a power cut.
It is never written through a symlink that another user could have planted.

The second property needs a guard before the first access, because a path is only as safe as each folder on the way to
it: another user who can write to one of them can rename the next one and put a folder or a symlink in its place
(J. A. Kupsch and B. P. Miller, "How to Open a File and Not Get Hacked", 2008). :func:`require_private_folder` looks at
the whole way, as OpenSSH does for ``authorized_keys``.

This module imports the standard library only. Both sides use it, so that neither has primitives of its own.
"""

import errno
import grp
import os
import pwd
import secrets
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

LARGEST_FILE = 16 * 1024 * 1024
"""Bytes. A key, a certificate bundle, a token and a notebook are smaller."""
MOST_LINKS = 40  # as Linux allows on the way to one file, see path_resolution(7)
PRIVATE = 0o600
_BY_OTHERS, _OF_OTHERS = 0o022, 0o077
_NOT_OFFERED = {errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}
"""How file systems refuse a call that they do not implement: network mounts, FUSE, FAT, folders shared with a host."""
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class MissingFeature(OSError):
    """A file system refused a call that it does not implement. Its ``filename`` is where.

    Args:
        feature: what it lacks, as a noun, for example ``symbolic links``.
        cause: the error of the call.
        path: where it was tried.
    """

    def __init__(self, feature: str, cause: OSError, path: Path) -> None:
        super().__init__(cause.errno, f"this file system refuses {feature} ({cause.strerror})", str(path))
        self.feature = feature


@contextmanager
def needing(feature: str, path: Path) -> Iterator[None]:
    """Raise :class:`MissingFeature` if the one call of the block is refused as a file system does that lacks it.

    Args:
        feature: what the call needs, as a noun.
        path: on the file system.

    Raises:
        OSError: of the call; see :class:`MissingFeature`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_OFFERED and not isinstance(error, MissingFeature):
            raise MissingFeature(feature, error, path) from error
        raise


class UnsafePath(Exception):
    """Another user could change what is at a path, or it is not what it has to be. It was neither read nor written.

    Args:
        path: what is wrong.
        problem: the rest of a sentence that begins with ``path``, without a full stop.
        remedy: what to do, with a command; without a full stop, so that a caller can add an alternative.
        inside_is_safe: a new folder inside ``path`` would be accepted.
    """

    def __init__(self, path: Path, problem: str, remedy: str, *, inside_is_safe: bool = False) -> None:
        self.path, self.problem, self.remedy, self.inside_is_safe = path, problem, remedy, inside_is_safe
        super().__init__(f"{path} {problem}. {remedy}.")


# -- the guard ---------------------------------------------------------------------------------------------------------


def require_private_folder(folder: Path, *below: Path) -> bool:
    """Refuse a folder if another user can change it or replace it. A missing folder is accepted.

    ``folder`` and all folders above it belong to this user or to root. Other users cannot write to ``folder``. They can
    write to a folder above it only if its sticky bit is set. A symlink on the way is followed if it belongs to this
    user or to root; its target is looked at in the same way.

    Not checked: access control lists (a POSIX list that lets others write shows as a writable group), who else can
    become this user or root, and other machines that write to the same network file system.

    Args:
        folder: absolute, or relative to the current folder.
        below: folders below it, from near to far. They are looked at alone, by one ``lstat`` each, and none may be a
            symlink.

    Returns:
        Whether ``folder`` exists.

    Raises:
        UnsafePath: names the folder, the problem and a command that solves it.
        OSError: a folder cannot be looked at. A folder that this user may not enter is not an error.
    """
    exists = _require_protected(folder, private=True)
    require_private_below(*below)
    return exists


def is_private_folder(folder: Path, *names: str) -> bool:
    """Return whether ``folder`` exists and passes :func:`require_private_folder`, with these folders below it.

    An invalid path, for example of an unknown user (``~nobody``), counts as missing.
    """
    with suppress(UnsafePath, OSError, RuntimeError, ValueError):
        folder = folder.expanduser()
        return require_private_folder(folder, *(folder / name for name in names))
    return False


def require_private_below(*folders: Path) -> None:
    """Refuse folders as :func:`require_private_folder` does for ``below``; the caller has checked what is above them.

    Raises:
        UnsafePath: names the folder, the problem and a command that solves it.
        OSError: a folder cannot be looked at.
    """
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            status = folder.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise _planted_link(folder)
            _require_owner(folder, status)
            _require_private_mode(folder, status)


def require_protected_folder(folder: Path) -> None:
    """Refuse a folder if another user can replace what this user creates in it.

    As :func:`require_private_folder`, but other users can write to the folder itself if its sticky bit is set, as to
    ``/tmp``.

    Raises:
        UnsafePath, OSError: see :func:`require_private_folder`.
    """
    _require_protected(folder, private=False)


def require_own_links(path: Path) -> None:
    """Refuse a path if a symlink on the way belongs to another user than this one or root.

    For a file in a folder that may belong to another user, for example to a monitoring agent: it is written there and
    nowhere else. Not checked: whether another user can replace the file.

    Raises:
        UnsafePath: names the symlink.
        OSError: the path cannot be looked at.
    """
    for place, status in _way_to(path)[0]:
        if stat.S_ISLNK(status.st_mode):
            _require_own_link(path, place, status)


def _require_own_link(path: Path, link: Path, status: os.stat_result) -> None:
    if status.st_uid not in _trusted():
        problem = f"is not safe from other users: {link} is a symlink of user {status.st_uid}"
        raise UnsafePath(path, problem, "Choose a path without this symlink")


def _require_protected(folder: Path, *, private: bool) -> bool:
    way, target = _way_to(folder)
    for path, status in way:
        if stat.S_ISLNK(status.st_mode):
            _require_own_link(folder, path, status)
        elif path == target and private:
            _require_owner(folder, status)
            _require_private_mode(folder, status)
        elif stat.S_ISDIR(status.st_mode):
            _require_protected_parent(folder, path, status)
    return target is not None


def _way_to(path: Path) -> tuple[list[tuple[Path, os.stat_result]], Path | None]:
    """Return each folder and symlink on the way to ``path``, from the root on, and where the way ends.

    If something is missing, or closed to us, the list ends there and the way has no end (None).
    """
    here, names, links = Path("/"), [*reversed(path.absolute().parts[1:])], 0
    way = [(here, here.lstat())]
    while names:
        if (name := names.pop()) == "..":
            here = here.parent  # `here` leads through no symlink, so this is its real parent
            continue
        try:
            status = (here / name).lstat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return way, None
        way.append((here / name, status))
        if not stat.S_ISLNK(status.st_mode):
            here /= name
            continue
        if (links := links + 1) > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = (here / name).readlink()
        here = Path("/") if target.is_absolute() else here
        names.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return way, here


def _require_protected_parent(folder: Path, parent: Path, status: os.stat_result) -> None:
    """Refuse ``folder`` if another user can rename what is in ``parent``, one of the folders above it."""
    name = shlex.quote(str(parent))
    where, us = f"is not safe from other users: {parent}", os.geteuid()
    if status.st_uid not in _trusted():
        problem = f"{where} belongs to user {status.st_uid}, and this is user {us}"
        raise UnsafePath(folder, problem, f"Choose a folder below one of your own, or run: sudo chown {us} {name}")
    if not _is_protected(status):
        problem = f"{where} can be changed by others (mode {stat.S_IMODE(status.st_mode):04o}, no sticky bit)"
        raise UnsafePath(folder, problem, f"{_as_owner(status)}: chmod go-w {name}")


def _is_protected(status: os.stat_result) -> bool:
    """Whether only its owner can rename or remove an entry of this folder."""
    return bool(status.st_mode & stat.S_ISVTX) or not others_can_write(status)


def others_can_write(status: os.stat_result) -> bool:
    """Return whether the mode of a file or folder lets other users write to it, not counting this user's own group."""
    mode = status.st_mode
    return bool(mode & stat.S_IWOTH) or (bool(mode & _BY_OTHERS) and not _is_own_group(status.st_gid))


def _is_own_group(group: int) -> bool:
    """Whether this user is the only member of a group, but for root.

    It is so of the private groups that many systems give each user together with a umask of 002, and of the group
    without a name that Kubernetes gives a volume (``fsGroup``). *Not* seen: accounts of a directory service that does
    not list them.
    """
    if group not in {os.getegid(), *os.getgroups()}:
        return False
    named: list[str] = []
    with suppress(KeyError):
        named = grp.getgrgid(group).gr_mem
    members = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == group or entry.pw_name in named}
    return members <= {os.geteuid(), 0}


def _require_owner(folder: Path, status: os.stat_result) -> None:
    us, owner, name = os.geteuid(), status.st_uid, shlex.quote(str(folder))
    if owner in _trusted():
        return
    # The owner chose every file in it. Root must not take over what it would then execute, hooks for example.
    as_owner = f"Run it as that user: sudo -u '#{owner}'" if us == 0 else "Run it as that user"
    remedy = f"{as_owner}; if you trust every file in it, run: sudo chown -R {us} {name}"
    raise UnsafePath(folder, f"belongs to user {owner}, and this is user {us}", remedy)


def _require_private_mode(folder: Path, status: os.stat_result) -> None:
    if status.st_mode & _BY_OTHERS:
        problem = f"can be changed by others (mode {stat.S_IMODE(status.st_mode):04o})"
        command = f"chmod go-w {shlex.quote(str(folder))}"
        # Other users may need a folder with a sticky bit, as they need /tmp: then it must stay as it is.
        shared = bool(status.st_mode & stat.S_ISVTX)
        remedy = f"Unless it is meant to be shared, run: {command}" if shared else f"{_as_owner(status)}: {command}"
        raise UnsafePath(folder, problem, remedy, inside_is_safe=_is_protected(status))


def closing_command(folder: Path, *below: Path) -> str:
    """Return one shell command that closes a folder of ours to others as :func:`require_private_folder` wants it.

    It closes the folders above as well, and all that is in ``folder``: ``chmod -R`` opens all files, not only the one
    that was meant. Empty if the modes are as they should be, or if the folder or one above is another user's.
    """
    way, target = _way_to(folder)
    above = [(path, status) for path, status in way if path != target and stat.S_ISDIR(status.st_mode)]
    loose = [(path, status) for path, status in above if not _is_protected(status)]
    ours = [status for path, status in way if path == target]
    if any(status.st_uid != os.geteuid() != 0 for status in (*ours, *(status for _, status in loose))):
        return ""
    commands = [f"chmod go-w {shlex.join(str(path) for path, _ in loose)}"] if loose else []
    inside = [path for path in (target, *below) if path is not None and _is_loose(path)]
    if inside:
        commands.append(f"chmod -R u=rwX,go= {shlex.quote(str(target))}")
    return " && ".join(commands)


def _is_loose(folder: Path) -> bool:
    with suppress(OSError):
        return bool(folder.lstat().st_mode & _BY_OTHERS) and not folder.is_symlink()
    return False


def _as_owner(status: os.stat_result) -> str:
    return "Run" if status.st_uid == os.geteuid() or os.geteuid() == 0 else f"Its owner (user {status.st_uid}) can run"


def _planted_link(path: Path) -> UnsafePath:
    remedy = f"Put the folder itself there, or if you did not make the link, run: rm {shlex.quote(str(path))}"
    return UnsafePath(path, "is a symlink", remedy)


def _trusted() -> frozenset[int]:
    return _trusted_by(os.geteuid())


@cache
def _trusted_by(user: int) -> frozenset[int]:
    """This user and root. In a user namespace without the system's root, also the number that stands for it there.

    There the system's folders belong to the overflow id (user_namespaces(7)). *Not* told apart from root: other users
    of the system, who have the same number there.
    """
    trusted = {user, 0}
    with suppress(OSError, ValueError):
        lines = Path("/proc/self/uid_map").read_text("ascii").splitlines()
        ranges = [[int(number) for number in line.split()] for line in lines]
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))
        has_root = any(outside == 0 for _, outside, _ in ranges)
        if not has_root and not any(inside <= overflow < inside + count for inside, _, count in ranges):
            trusted.add(overflow)
    return frozenset(trusted)


# -- reading and writing -----------------------------------------------------------------------------------------------


def temporary(path: Path) -> Path:
    """Return a name beside ``path`` for a file that is not whole yet."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def write_file(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Write a file whole, with ``mode`` from its first moment. A symlink at ``path`` is replaced, not followed.

    Args:
        path: the file.
        data: all of its content.
        mode: its permissions, whatever the umask is.
        durable: whether it has to outlast a power cut.

    Raises:
        OSError: it could not be written; the previous content is untouched.
    """
    staged = temporary(path)
    try:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            _set_mode(descriptor, mode, path)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        staged.rename(path)
    except BaseException:
        with suppress(OSError):
            staged.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def read_regular(path: Path, most: int = LARGEST_FILE, *, follow: bool = True) -> bytes:
    """Return the content of a regular file; ``/dev/null`` counts as an empty one.

    A FIFO or another device could block for ever or never end, so it is refused without reading from it.

    Args:
        path: the file.
        most: bytes; a larger file is refused.
        follow: whether ``path`` itself may be a symlink.

    Raises:
        UnsafePath: it is a symlink, and none is allowed.
        OSError: it cannot be read, is not a regular file (EINVAL), or is too large (EFBIG).
    """
    descriptor = _open(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, Path(os.devnull).stat()):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        # A read of `most` bytes at once would take memory for all of them. Files of /proc have no size.
        content = file.read(min(status.st_size, most) + 1)
        if len(content) > status.st_size:
            content += file.read(max(0, most + 1 - len(content)))
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return content


def open_private(path: Path, flags: int, *, create: bool = True) -> int:
    """Open a regular file of ours, such as a lock, and close it to other users (0600).

    Args:
        path: the file.
        flags: how to open it, for example ``os.O_RDWR``.
        create: whether to make it if it is missing.

    Returns:
        The descriptor, which programs that are started do not inherit.

    Raises:
        UnsafePath: it is a symlink, or no regular file.
        OSError: it cannot be opened.
    """
    descriptor = _open(path, flags | os.O_NOFOLLOW | (os.O_CREAT if create else 0))
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _planted_file(path, "is not a regular file")
    if stat.S_IMODE(status.st_mode) != PRIVATE and status.st_uid == os.geteuid():
        try:  # a umask can take more away; and others could hold a lock that they can open
            _set_mode(descriptor, PRIVATE, path)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _set_mode(file: int | Path, mode: int, path: Path) -> None:
    """Give an open file, or a folder at ``path``, its mode.

    Some file systems refuse to, and others (CIFS, folders of Windows) report success and change nothing. Both are an
    error only if other users could then use it: a key must never be readable by others.
    """
    if stat.S_IMODE(os.stat(file).st_mode) == mode:  # noqa: PTH116 - `file` may be a descriptor, here and below
        return
    refusal: OSError = OSError(errno.ENOTSUP, "chmod changed nothing")
    try:
        os.chmod(file, mode)  # noqa: PTH101
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        refusal = error
    if stat.S_IMODE(os.stat(file).st_mode) & _OF_OTHERS & ~mode:  # noqa: PTH116
        raise MissingFeature("file permissions", refusal, path)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, PRIVATE)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW and path.is_symlink():
            raise _planted_file(path, "is a symlink") from None
        raise


def create_private(path: Path) -> int:
    """Open a new file (0600) for writing in place of the file or symlink that was there; see :func:`open_private`.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def require_regular_or_missing(*paths: Path) -> None:
    """Refuse symlinks and special files before another library opens these files by name.

    Raises:
        UnsafePath: names the first of them.
        OSError: one cannot be looked at.
    """
    for path in paths:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise _planted_file(path, "is a symlink" if path.is_symlink() else "is not a regular file")


def _planted_file(path: Path, problem: str) -> UnsafePath:
    return UnsafePath(path, problem, f"Remove it: rm {shlex.quote(str(path))}")


def make_directory(path: Path) -> None:
    """Make a directory (0700) and those that are missing above it, durably.

    Raises:
        OSError: it could not be made.
    """
    if not path.is_dir():
        if not path.parent.is_dir():
            make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        _set_mode(path, 0o700, path)  # a umask can take more away
    with suppress(PermissionError):  # a folder that we cannot read cannot be synced
        sync_directory(path.parent)  # also if it exists: a run that was killed may have made it just before


def make_private_folder(folder: Path, *below: Path) -> None:
    """Make these folders (0700) if they are missing, after :func:`require_private_folder`, and before it once more.

    The second look is for a folder below one that others can write to, such as ``/tmp``: another user may have made it
    between the first look and our own attempt.

    Raises:
        UnsafePath, OSError: see :func:`require_private_folder` and :func:`make_directory`.
    """
    require_private_folder(folder, *below)
    for each in (folder, *below):
        make_directory(each)
    require_private_folder(folder, *below)


def sync_directory(path: Path) -> None:
    """Fsync a directory, so that a rename in it survives a power cut. See :func:`sync_open_directory`.

    Raises:
        OSError: it cannot be opened or synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_open_directory(descriptor)
    finally:
        os.close(descriptor)


def sync_open_directory(descriptor: int) -> bool:
    """Fsync an open directory, if its file system can do that.

    CIFS, vboxsf and some FUSE file systems cannot. They write a rename in their own time, so a power cut can undo the
    last ones. It cannot leave half a file, since files are still synced. So this is no error; ``ucl doctor`` warns.

    Returns:
        Whether the directory was synced.

    Raises:
        OSError: it cannot be synced, for example because the disk fails or is full.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _NO_SYNC:
            return False
        raise
    return True
