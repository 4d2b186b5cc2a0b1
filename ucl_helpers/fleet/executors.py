"""Who renews: any :class:`concurrent.futures.Executor`, and processes of this machine.

Each process has a thread of this one, which gives it tasks over a pair of sockets and waits for what they come to. When
a process is killed, the socket ends, and that is the task's result: the worker is lost. The next task gets another
process. Nothing is forked from a process that holds locks.

Ctrl-C and SIGTERM are the coordinator's business: it starts nothing more, and what is under way is finished. When the
coordinator itself is gone, a process finishes what it has in hand and ends.
"""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Told = TypeVar("Told")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_COMMAND = (sys.executable, "-P", "-m", "ucl_helpers.fleet.worker")


@dataclass(frozen=True)
class Workers:
    """Those who renew.

    Attributes:
        executor: takes ``submit(renew_one, home, name, base, force, again)``.
        capacity: how many renewals may be under way now; 0 when nobody is there.
        lost: errors that mean a worker is gone, and say nothing about the connection.
    """

    executor: Executor
    capacity: Callable[[], int]
    lost: tuple[type[BaseException], ...] = (BrokenExecutor,)


class _Worker:
    """A process that does one task after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            descriptor = theirs.fileno()
            self.process = subprocess.Popen(
                [*_COMMAND, str(descriptor)], pass_fds=[descriptor], stdin=subprocess.DEVNULL
            )
            self._tasks = Connection(ours.detach())

    def do(self, *task: object) -> tuple[Any, Exception | None]:
        """Give it a task, and wait for the result or the error.

        Raises:
            EOFError, OSError: the process is lost.
        """
        self._tasks.send(task)
        answer: tuple[Any, Exception | None] = self._tasks.recv()
        return answer

    def end(self) -> None:
        """Tell it that there are no more tasks, and wait until it has ended."""
        self._tasks.close()
        self.process.wait()


class Processes(Executor):
    """So many processes of this machine, each started with its first task.

    Args:
        jobs: 1 or more; so many tasks are under way at most.
    """

    def __init__(self, jobs: int) -> None:
        self._threads = ThreadPoolExecutor(jobs, initializer=_leave_signals_to_the_coordinator)
        self._workers: dict[int, _Worker] = {}  # by thread
        self._lock, self._stopped = threading.Lock(), False

    def submit(self, task: Callable[..., Told], /, *args: Any, **kwargs: Any) -> Future[Told]:
        """Give a task to a process that is idle, or the next one that is."""
        return self._threads.submit(self._do, task, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: with ``wait`` once they have finished what they have in hand, else at once."""
        with self._lock:
            self._stopped = self._stopped or not wait
            for worker in self._workers.values() if self._stopped else ():
                worker.process.kill()
        self._threads.shutdown(wait=True, cancel_futures=cancel_futures)
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _do(self, task: Callable[..., Told], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Told:
        told: Told
        try:
            told, error = self._worker().do(task, args, kwargs)
        except (EOFError, OSError):
            self._lose()
            raise BrokenExecutor("The process was lost with a task in hand.") from None
        if error:
            raise error
        return told

    def _worker(self) -> _Worker:
        """Return this thread's process; another one if it was killed while it had nothing to do."""
        worker = self._workers.get(threading.get_ident())
        if worker and worker.process.poll() is not None:
            self._lose()
            worker = None
        with self._lock:
            if self._stopped:
                raise BrokenExecutor("No process is started any more.")
            if not worker:
                worker = self._workers[threading.get_ident()] = _Worker()
            return worker

    def _lose(self) -> None:
        """Forget this thread's process. It is killed first: it may live, and only have lost its socket."""
        with self._lock:
            worker = self._workers.pop(threading.get_ident(), None)
        if worker:
            worker.process.kill()
            worker.end()


def _leave_signals_to_the_coordinator() -> None:
    """Let no signal end a process before it has its own handlers: it is started with the signals of this thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def processes(jobs: int) -> Workers:
    """So many processes of this machine."""
    return Workers(Processes(jobs), lambda: jobs)
