"""The sandbox that the users of one home folder share: a process of its own, started by the first of them.

A user is whoever holds a shared lock on `HOME/sandbox/users.lock`; the kernel takes it back when the user's process
ends, however it ends. The process ends by itself when it has been without users for `LINGER`.
"""

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ucl_private_files import create_private, make_private_folder, open_private, read_regular
from ucl_sandbox.access import Access, fields_of
from ucl_sandbox.server import READY_FILE
from ucl_sandbox.service import USERS_LOCK
from ucl_sandbox.state import SandboxError, lock_at_once, owner_of, refusing_unsafe_paths

LINGER = timedelta(seconds=30)
_START_LOCK, _LOG = "start.lock", "process.log"
_DEADLINE = 60.0
_PAUSE = 0.02
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class _UsersLock:
    """A share in `users.lock`. Nothing but `release` or the end of the process gives it back."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._descriptor: int | None = open_private(path, os.O_RDWR)
        # The process holds it alone for a moment at a time, and from when it has decided to end until it has ended.
        _wait_for(self._descriptor, fcntl.LOCK_SH, path, deadline)
        os.utime(self._descriptor)

    def release(self) -> None:
        """Gives it back, also for children that were forked meanwhile."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def _wait_for(descriptor: int, kind: int, path: Path, deadline: float) -> None:
    """Takes a kernel lock; `deadline` is one of the monotonic clock, in seconds.

    Raises:
        SandboxError: Another process still holds it then. The descriptor is closed.
    """
    patience = threading.Event()
    while not lock_at_once(descriptor, kind):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise SandboxError(f"another process still holds {path}; find it with: fuser {path}")
        patience.wait(_PAUSE)


@dataclass(frozen=True, repr=False)
class SharedSandbox(Access):
    """The sandbox of a home folder, which lives at least until `leave` is called or this process ends."""

    _users_lock: _UsersLock = field(kw_only=True)

    def leave(self) -> None:
        """Stops using it; a second call does nothing."""
        self._users_lock.release()


@refusing_unsafe_paths()
def join(home: Path, *, linger: timedelta = LINGER) -> SharedSandbox:
    """Uses the sandbox of a home folder, which is started if it does not run.

    Args:
        home: The home folder; the sandbox's state is in its `sandbox` folder.
        linger: How long the sandbox goes on without users, if it is this call that starts it; whole seconds.

    Raises:
        SandboxError: It cannot be started, and the message says where its log is; or another user could change the
            folder.
    """
    deadline = time.monotonic() + _DEADLINE
    state = home.absolute() / "sandbox"
    make_private_folder(home.absolute(), state)
    users_lock = _UsersLock(state / USERS_LOCK, deadline)
    try:
        access = _living(state, linger, deadline)
    except BaseException:
        users_lock.release()
        raise
    return SharedSandbox(**access, _users_lock=users_lock)


@contextlib.contextmanager
def shared(home: Path, *, linger: timedelta = LINGER) -> Iterator[SharedSandbox]:
    """Uses the sandbox of a home folder for the length of a `with` statement; see `join`."""
    sandbox = join(home, linger=linger)
    try:
        yield sandbox
    finally:
        sandbox.leave()


def _living(state: Path, linger: timedelta, deadline: float) -> dict[str, Any]:
    """How to reach the folder's sandbox, which is started if need be: by one user at a time."""
    patience = threading.Event()
    start_lock = open_private(state / _START_LOCK, os.O_RDWR)
    _wait_for(start_lock, fcntl.LOCK_EX, state / _START_LOCK, deadline)
    try:
        while time.monotonic() < deadline:
            owner = owner_of(state)
            if owner is None:
                _start(state, linger, deadline)
            elif access := _ready(state, owner):
                return access
            else:
                patience.wait(_PAUSE)  # it is starting or ending, and nobody told us to wait for it
    finally:
        os.close(start_lock)
    raise SandboxError(f"the sandbox of {state} does not answer; its log is {state / _LOG}")


def _ready(state: Path, owner: int) -> dict[str, Any] | None:
    """What the ready file says, if it is the owner's."""
    try:
        access = fields_of(read_regular(state / READY_FILE, follow=False).decode(), state)
    except (FileNotFoundError, ValueError, KeyError):
        return None  # not there yet, or torn by hand
    return access if access["pid"] == owner else None


def _start(state: Path, linger: timedelta, deadline: float) -> None:
    """Starts the process, detached from this one, and waits until it is ready or has given up."""
    reading, writing = os.pipe()
    log = create_private(state / _LOG)
    command = [sys.executable, "-P", "-m", "ucl_sandbox", "--state", str(state), "--detach"]
    command += ["--linger", f"{linger.total_seconds():.0f}s", "--notify", str(writing)]
    # Nothing of what the user's environment holds is handed on, but where this package is.
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=state,
            env=environment,
            pass_fds=[writing],
            start_new_session=True,
            timeout=max(0.0, deadline - time.monotonic()),
        )
        os.close(writing)
        writing = -1
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        answered = bool(ready) and os.read(reading, 1) != b""
        if not answered and owner_of(state) is None:
            raise _not_started(state)
    except subprocess.SubprocessError:
        raise _not_started(state) from None
    finally:
        for descriptor in (reading, writing, log):
            if descriptor >= 0:
                os.close(descriptor)


def _not_started(state: Path) -> SandboxError:
    return SandboxError(f"the sandbox of {state} did not start; its log is {state / _LOG}")
