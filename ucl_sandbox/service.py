"""Runs a sandbox as a process: until Ctrl-C or SIGTERM, or until nobody uses it any more.

A shared sandbox lingers. Its users each hold `users.lock` (shared); when the process has found that lock free for the
linger time, it takes it for itself and ends, so that whoever comes then waits for the end and starts a fresh one. In
between it takes the lock only for a moment at a time: a newcomer never waits for the linger time.
"""

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from tornado.log import gen_log

from ucl_private_files import open_private
from ucl_sandbox.ca import CaLayout
from ucl_sandbox.doors import in_plain_words
from ucl_sandbox.faults import Faults
from ucl_sandbox.server import DEFAULT_TOKEN_LIFETIME, DEFAULT_VALIDITY, Sandbox, ready_file
from ucl_sandbox.state import lock_at_once, refusing_unsafe_paths

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
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or Ctrl-C; to be called in the main thread, before it has started others.

    Args:
        state: The state folder; made if it is not there.
        ready: A file that is written (0600) once all listeners answer, and removed at the end.
        validity: How long the certificates are valid that it signs.
        ca_layout: "intermediate" or "root"; fixed when the state folder is made.
        token_lifetime: How long one-time tokens are valid.
        linger: End when the folder's `users.lock` has been free for so long; None for never.
        faults: What goes wrong on purpose; nothing by default.
        rate_limit: Calls to the Connector a second, over all clients; None for no limit.
        announce: Called once all listeners answer and the ready files are there.

    Raises:
        SandboxError: Another process owns the state folder, it was made with the other CA layout, or another user
            could change it or replace the ready file.
    """
    # Blocked before any thread starts, so that the signals wait for `sigwait` wherever they arrive.
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
                sys.stderr.write(_FAULTY.format(running.faults, ", ".join(one.kind for one in running.faults.plan)))
            sys.stderr.flush()
            if linger is not None:
                watcher = threading.Thread(target=_end_when_unused, args=(state, linger), daemon=True)
                watcher.start()
            announce()
            signal.sigwait(_ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_when_unused(state: Path, linger: timedelta) -> None:
    """Asks this process to end when the lock has been free for the linger time, and keeps it from then on."""
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
