"""A sandbox as a process of its own, which runs until Ctrl-C or SIGTERM, or until it has no more users.

The sandbox of a home folder is shared. Its first user starts it (`join`). Each user holds a shared kernel lock on
`HOME/sandbox/users.lock`, which the kernel releases when the user's process ends. When that lock has been free for the
linger time, the sandbox keeps the lock and ends. The next user then waits for the end and starts a new sandbox. Until
then the sandbox takes the lock only for moments, so no user waits for the linger time.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado.log import gen_log

from ucl_private_files import create_private, make_private_folder, open_private, read_regular
from ucl_sandbox.ca import CaLayout
from ucl_sandbox.control import FAULTS_PATH
from ucl_sandbox.faults.plans import Faults, FaultsError
from ucl_sandbox.listeners import in_plain_words
from ucl_sandbox.server import (
    DEFAULT_TOKEN_LIFETIME,
    DEFAULT_VALIDITY,
    READY_FILE,
    Access,
    Sandbox,
    fields_of,
    ready_file,
)
from ucl_sandbox.state import SandboxError, lock_at_once, owner_of, refusing_unsafe_paths, wait_for_lock

USERS_LOCK = "users.lock"
_NOTICE = """\
UCL sandbox, for practice only: it listens on this machine's loopback, and anyone here who can read its state folder
may use it. Ctrl-C or SIGTERM ends it.
  state                 {0.state}
  Director              {0.director_url}
  token endpoint        {0.connector_url}
  certificate endpoint  {0.certificate_secured_connector_url}
  server CA             {0.ca_file}
"""
_FAULTY = "  faults                it misbehaves on purpose (seed {0.seed}): {1}\n"
_ENDING = {signal.SIGTERM, signal.SIGINT}
_LOOKS = 10
_LONGEST_PAUSE = 1.0


def serve(
    state: Path,
    ready: Path | None = None,
    *,
    validity: timedelta = DEFAULT_VALIDITY,
    ca_layout: CaLayout = "intermediate",
    token_lifetime: timedelta = DEFAULT_TOKEN_LIFETIME,
    linger: timedelta | None = None,
    faults: Faults | None = None,
    rate_limit: float | None = None,
    announce: Callable[[Access], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Call this in the main thread, before it starts other threads.

    Args:
        state: The state folder. It is created if it is missing.
        ready: A file to write (0600) when all listeners answer. It is removed at the end.
        validity: The lifetime of the certificates that it signs.
        ca_layout: "intermediate" or "root". It cannot change after the state folder is created.
        token_lifetime: The lifetime of one-time tokens.
        linger: Stop when the folder's `users.lock` has been free for this time. None for never.
        faults: The faults to inject. None by default.
        rate_limit: Calls per second to the Connector, of all clients together. None for no limit.
        announce: Called with the access data when all listeners answer and the ready files are written.

    Raises:
        SandboxError: Another process owns the state folder, it was made with the other CA layout, or another user
            could change it or replace the ready file.
    """
    # The signals are blocked before any thread starts, so that `sigwait` gets them whichever thread they arrive in.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        with refusing_unsafe_paths(), contextlib.ExitStack() as stack:
            sandbox = Sandbox(
                state,
                validity=validity,
                ca_layout=ca_layout,
                token_lifetime=token_lifetime,
                faults=faults,
                rate_limit=rate_limit,
            )
            running = stack.enter_context(sandbox)
            gen_log.addFilter(in_plain_words)
            stack.callback(gen_log.removeFilter, in_plain_words)
            if ready is not None:
                stack.enter_context(ready_file(ready, running))
            sys.stderr.write(_NOTICE.format(running))
            if running.faults:
                sys.stderr.write(_FAULTY.format(running.faults, ", ".join(fault.kind for fault in running.faults.plan)))
            sys.stderr.flush()
            if linger is not None:
                watcher = threading.Thread(target=_end_when_unused, args=(state, linger), daemon=True)
                watcher.start()
            announce(running)
            signal.sigwait(_ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_when_unused(state: Path, linger: timedelta) -> None:
    """Take the lock and end this process when the lock has been free for the linger time."""
    descriptor = open_private(state / USERS_LOCK, os.O_RDWR)
    pause = min(_LONGEST_PAUSE, linger.total_seconds() / _LOOKS)
    resting = threading.Event()
    while True:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # sleeps in the kernel while there are users
        last_visit, free_since = os.fstat(descriptor).st_mtime_ns, time.monotonic()
        while last_visit == os.fstat(descriptor).st_mtime_ns:
            if time.monotonic() - free_since >= linger.total_seconds():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            resting.wait(pause)
            if not lock_at_once(descriptor, fcntl.LOCK_EX):
                break


LINGER = timedelta(seconds=30)
_START_LOCK, _LOG = "start.lock", "process.log"
_DEADLINE = 60.0
_PAUSE = 0.02
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class _UsersLock:
    """A shared lock on `users.lock`. It is held until `release` or the end of the process."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._descriptor: int | None = open_private(path, os.O_RDWR)
        # The sandbox holds it exclusively for moments, and from its decision to end until its end.
        _wait_for(self._descriptor, fcntl.LOCK_SH, path, deadline)
        os.utime(self._descriptor)

    def release(self) -> None:
        """Release the lock, also for child processes that were forked meanwhile."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def _wait_for(descriptor: int, kind: int, path: Path, deadline: float) -> None:
    if not wait_for_lock(descriptor, kind, deadline):
        raise SandboxError(f"another process still holds {path}; find it with: fuser {path}")


@dataclass(frozen=True, repr=False)
class SharedSandbox(Access):
    """The sandbox of a home folder. It runs at least until `leave` is called or this process ends."""

    _users_lock: _UsersLock = field(kw_only=True)

    def leave(self) -> None:
        """Stop using the sandbox. A second call does nothing."""
        self._users_lock.release()


@refusing_unsafe_paths()
def join(home: Path, *, linger: timedelta = LINGER) -> SharedSandbox:
    """Use the sandbox of a home folder. Start it if it does not run.

    Args:
        home: The home folder. The sandbox's state is in its folder `sandbox`.
        linger: The time to run without users, if this call starts the sandbox. Whole seconds.

    Raises:
        SandboxError: The sandbox did not start, and the message has the path of its log. Or another user could change
            the folder.
    """
    deadline = time.monotonic() + _DEADLINE
    state = home.absolute() / "sandbox"
    make_private_folder(home.absolute(), state)
    users_lock = _UsersLock(state / USERS_LOCK, deadline)
    try:
        access = _access_to_running(state, linger, deadline)
    except BaseException:
        users_lock.release()
        raise
    return SharedSandbox(**access, _users_lock=users_lock)


@contextlib.contextmanager
def shared(home: Path, *, linger: timedelta = LINGER) -> Iterator[SharedSandbox]:
    """Use the sandbox of a home folder during a `with` statement. See `join`."""
    sandbox = join(home, linger=linger)
    try:
        yield sandbox
    finally:
        sandbox.leave()


def _access_to_running(state: Path, linger: timedelta, deadline: float) -> dict[str, Any]:
    """Return the access data of the folder's sandbox. Start it if it does not run. Only one user does so at a time."""
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
                patience.wait(_PAUSE)  # another process is starting or ending it
    finally:
        os.close(start_lock)
    raise SandboxError(f"the sandbox of {state} does not answer; its log is {state / _LOG}")


def _ready(state: Path, owner: int) -> dict[str, Any] | None:
    """Return the content of the ready file, or None if it is not the owner's."""
    try:
        access = fields_of(read_regular(state / READY_FILE, follow=False).decode(), state)
    except (FileNotFoundError, ValueError, KeyError):
        return None  # it is not written yet, or was changed by hand
    return access if access["pid"] == owner else None


def _start(state: Path, linger: timedelta, deadline: float) -> None:
    """Start the sandbox, detached from this process, and wait until it is ready or has failed."""
    reading, writing = os.pipe()
    log = create_private(state / _LOG)
    command = [sys.executable, "-P", "-m", "ucl_sandbox", "--state", str(state), "--detach"]
    command += ["--linger", f"{linger.total_seconds():.0f}s", "--notify", str(writing)]
    # The sandbox gets only these variables of the user's environment, and the folder of this package.
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


_SECONDS = 10.0


class RemoteFaults:
    """The plan of faults of a sandbox in another process. Each method returns plan, seed and counts as in JSON.

    Raises:
        SandboxError: The sandbox does not answer.
    """

    def __init__(self, access: Access) -> None:
        self._where = urlsplit(access.director_url)
        self._headers = {"Authorization": f"Bearer {access.director_token}"}
        self._trust = ssl.create_default_context(cafile=access.ca_file)
        self._trust.hostname_checks_common_name = False

    def shown(self) -> dict[str, Any]:
        """Return the plan, and the number of strikes of each kind."""
        return self._ask("GET")

    def set(self, plan: str) -> dict[str, Any]:
        """Replace the plan. `plan` is a name or JSON, see `parse_plan`.

        Raises:
            FaultsError: The plan is invalid.
        """
        return self._ask("PUT", plan)

    def clear(self) -> dict[str, Any]:
        """Remove all faults."""
        return self._ask("DELETE")

    def _ask(self, method: str, plan: str = "") -> dict[str, Any]:
        host, port = self._where.hostname or "", self._where.port
        try:
            with closing(HTTPSConnection(host, port, timeout=_SECONDS, context=self._trust)) as connection:
                connection.request(method, FAULTS_PATH, plan.encode(), self._headers)
                answer = connection.getresponse()
                content = json.loads(answer.read())
        except (OSError, HTTPException, ValueError) as error:
            raise SandboxError(f"the sandbox does not answer when asked for its faults: {error}") from None
        if answer.status == HTTPStatus.BAD_REQUEST:
            raise FaultsError(content["error"])
        if answer.status != HTTPStatus.OK:
            raise SandboxError(f"the sandbox answers {answer.status} when asked for its faults")
        return dict(content)
