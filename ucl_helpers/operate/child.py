"""A program run for an operator: no shell, nothing inherited, a limit of time, and of what it says the end.

It gets standard input from ``/dev/null``, the folder ``/``, a umask of 077, a session of its own (so no terminal to ask
at), an environment that is given to it whole, and no other open file. When its time is over, or this process is told to
end, the program and all that it started in its session's group are asked to end (SIGTERM) and then made to (SIGKILL).
What a program that ended by itself has left running, goes on; it has to have an output of its own.
"""

import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from ucl_helpers.operate.programs import why_it_failed, why_not_started
from ucl_helpers.tables import span

KEPT_BYTES = 64 * 1024
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_PIPE_READS = 16  # as much as a pipe holds
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How it ended.

    Attributes:
        problem: in words, such as ``exit code 3``; empty for a success.
        code: the exit code, negative for a signal; None if it did not start, or was ended when its time was over.
        said: the last 64 KiB of its standard output and error.
        seconds: how long it ran.
    """

    problem: str
    code: int | None
    said: bytes
    seconds: float


def run(command: Sequence[str], environment: Mapping[str, str], limit: timedelta) -> Ended:
    """Run a program, found by the ``PATH`` of ``environment``, to its end. What becomes of it is told, not raised.

    Raises:
        SystemExit: this process was told to end meanwhile (SIGTERM, SIGHUP); it is raised when the program has ended.
    """
    with _noted() as told_to_end:
        ended = _run(command, environment, limit, told_to_end)
    if told_to_end:
        raise SystemExit(128 + told_to_end[0])
    return ended


def _run(command: Sequence[str], environment: Mapping[str, str], limit: timedelta, told_to_end: list[int]) -> Ended:
    began = monotonic()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd="/",
            env=environment,
            umask=0o077,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = why_not_started(command, environment.get("PATH", os.defpath), error)
        return Ended(f"{command[0]} did not start: {reason}", None, b"", monotonic() - began)
    listener = _Listener(process)
    with process:
        try:
            in_time = listener.until_it_ends(began + limit.total_seconds(), told_to_end)
        finally:
            if process.returncode is None:
                _end(process)
        listener.last_words()
    took = monotonic() - began
    if not in_time:
        return Ended(f"not done after {span(limit)}, so it was ended", None, listener.said, took)
    problem = _in_words(process.returncode)
    if problem and (why := why_it_failed(command, environment.get("PATH", os.defpath), process.returncode)):
        problem += f": {why}"
    return Ended(problem, process.returncode, listener.said, took)


class _Listener:
    """What a program says, as far as it is kept; reading goes on, so that it can go on saying."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = process.stdout.fileno() if process.stdout else -1
        self._process, self.said = process, b""

    def until_it_ends(self, until: float, told_to_end: list[int]) -> bool:
        """Listen until it has ended; False when its time is over before, or ours."""
        says = True
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while self._process.poll() is None:
                wait = min(until - monotonic(), _POLL_SECONDS)
                if wait <= 0 or told_to_end:
                    return False
                if says:
                    says = not selector.select(wait) or self._read()
                else:  # it has closed its output, so it is about to end, as a rule
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(wait)
        return True

    def last_words(self) -> None:
        """What it said before it ended; what others go on saying in its place is not waited for."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            for _ in range(_PIPE_READS):
                if not selector.select(0) or not self._read():
                    return

    def _read(self) -> bool:
        chunk = os.read(self._descriptor, KEPT_BYTES)
        self.said = (self.said + chunk)[-KEPT_BYTES:]
        return bool(chunk)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with all that it has started."""
    for order in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(process.pid, order)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def _in_words(code: int) -> str:
    if code == 0:
        return ""
    if code > 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


@contextmanager
def _noted() -> Iterator[list[int]]:
    """Note SIGTERM and SIGHUP, where they would end this process at once and leave the program running."""
    noted = list[int]()
    ours = threading.current_thread() is threading.main_thread()
    plain = [one for one in _ENDING if ours and signal.getsignal(one) is signal.SIG_DFL]
    for one in plain:
        signal.signal(one, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        for one in plain:
            signal.signal(one, signal.SIG_DFL)
