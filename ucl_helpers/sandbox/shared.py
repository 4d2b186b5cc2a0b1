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

from ucl_helpers.sandbox.access import Access, fields_of
from ucl_helpers.sandbox.private import make_private
from ucl_helpers.sandbox.server import READY_FILE
from ucl_helpers.sandbox.service import USERS_LOCK
from ucl_helpers.sandbox.state import SandboxError, owner_of

LINGER = timedelta(seconds=30)
_START_LOCK, _LOG = "start.lock", "process.log"
_DEADLINE = 60.0
_PAUSE = 0.02
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class _UsersLock:
    """A share in `users.lock`. Nothing but `release` or the end of the process gives it back."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        # Waits for a moment at most, or for as long as a process that is on its way out takes to end.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        os.utime(path)

    def release(self) -> None:
        """Gives it back, also for children that were forked meanwhile."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True, repr=False)
class SharedSandbox(Access):
    """The sandbox of a home folder, which lives at least until `leave` is called or this process ends."""

    _users_lock: _UsersLock = field(kw_only=True)

    def leave(self) -> None:
        """Stops using it; a second call does nothing."""
        self._users_lock.release()


def join(home: Path, *, linger: timedelta = LINGER) -> SharedSandbox:
    """Uses the sandbox of a home folder, which is started if it does not run.

    Args:
        home: The home folder; the sandbox's state is in its `sandbox` folder.
        linger: How long the sandbox goes on without users, if it is this call that starts it; whole seconds.

    Raises:
        SandboxError: It cannot be started; the message says where its log is.
    """
    state = home.absolute() / "sandbox"
    make_private(state)
    users_lock = _UsersLock(state / USERS_LOCK)
    try:
        access = _living(state, linger)
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


def _living(state: Path, linger: timedelta) -> dict[str, Any]:
    """How to reach the folder's sandbox, which is started if need be: by one user at a time."""
    deadline = time.monotonic() + _DEADLINE
    patience = threading.Event()
    with os.fdopen(os.open(state / _START_LOCK, os.O_RDWR | os.O_CREAT, 0o600)) as start_lock:
        fcntl.flock(start_lock, fcntl.LOCK_EX)
        while time.monotonic() < deadline:
            owner = owner_of(state)
            if owner is None:
                _start(state, linger, deadline)
            elif access := _ready(state, owner):
                return access
            else:
                patience.wait(_PAUSE)  # it is starting or ending, and nobody told us to wait for it
    raise SandboxError(f"the sandbox of {state} does not answer; its log is {state / _LOG}")


def _ready(state: Path, owner: int) -> dict[str, Any] | None:
    """What the ready file says, if it is the owner's."""
    try:
        access = fields_of((state / READY_FILE).read_text("utf-8"), state)
    except (FileNotFoundError, ValueError, KeyError):
        return None  # not there yet, or torn by hand
    return access if access["pid"] == owner else None


def _start(state: Path, linger: timedelta, deadline: float) -> None:
    """Starts the process, detached from this one, and waits until it is ready or has given up."""
    reading, writing = os.pipe()
    log = os.open(state / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    command = [sys.executable, "-P", "-m", "ucl_helpers.sandbox", "--state", str(state), "--detach"]
    command += ["--linger", f"{linger.total_seconds():.0f}s", "--notify", str(writing)]
    # Nothing of what the user's environment holds is handed on, but where this package is.
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
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
        )
        os.close(writing)
        writing = -1
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        answered = bool(ready) and os.read(reading, 1) != b""
        if not answered and owner_of(state) is None:
            raise _not_started(state)
    except subprocess.CalledProcessError:
        raise _not_started(state) from None
    finally:
        for descriptor in (reading, writing, log):
            if descriptor >= 0:
                os.close(descriptor)


def _not_started(state: Path) -> SandboxError:
    return SandboxError(f"the sandbox of {state} did not start; its log is {state / _LOG}")
