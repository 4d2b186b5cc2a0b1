"""Provide workers for renewals: processes of this machine, or the address of a Dask scheduler.

Each process has a thread of this one, which gives it tasks over a pair of sockets and waits for the results. When a
process is killed, the socket ends, and the result of the task is that the worker is lost. The next task gets another
process. Nothing is forked from a process that holds locks.

Ctrl-C and SIGTERM are handled by the coordinator, which starts nothing more and lets running tasks finish. When the
coordinator itself is gone, a process finishes its task and ends.
"""

import ipaddress
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ucl_helpers.core_dumps import no_dumps_at_all
from ucl_helpers.errors import UsageError

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_COMMAND = (sys.executable, "-P", "-c", "from ucl_helpers.fleet.executors import serve; serve()")


@dataclass(frozen=True)
class Workers:
    """The workers of a run.

    Attributes:
        executor: takes ``submit(renew_one, home, name, base, force, again)``.
        capacity: how many renewals may run now; 0 when there is no worker.
        lost: errors that mean a worker is gone, and say nothing about the connection.
    """

    executor: Executor
    capacity: Callable[[], int]
    lost: tuple[type[BaseException], ...] = (BrokenExecutor,)


class _Process:
    """A process that runs one task after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            descriptor = theirs.fileno()
            self.process = subprocess.Popen(
                [*_COMMAND, str(descriptor)], pass_fds=[descriptor], stdin=subprocess.DEVNULL
            )
            self.tasks = Connection(ours.detach())

    def end(self) -> None:
        """End the process once it has no task, and wait for its end."""
        self.tasks.close()
        self.process.wait()


class Processes(Executor):
    """An executor with processes on this machine. Each process starts with its first task.

    Args:
        jobs: how many tasks may run at a time, 1 or more.
    """

    def __init__(self, jobs: int) -> None:
        # A new process inherits blocked signals, so no signal ends it before it has its own handlers.
        self._threads = ThreadPoolExecutor(
            jobs, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, _SIGNALS)
        )
        self._workers: dict[int, _Process] = {}  # by thread
        self._lock, self._stopped = threading.Lock(), False

    def submit(self, task: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Give a task to an idle process, or to the next one that is idle."""
        return self._threads.submit(self._do, task, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: with ``wait`` after their tasks, else immediately."""
        with self._lock:
            self._stopped = self._stopped or not wait
            for worker in self._workers.values() if self._stopped else ():
                worker.process.kill()
        self._threads.shutdown(wait=True, cancel_futures=cancel_futures)
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _do(self, task: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        result: T
        error: Exception | None
        try:
            worker = self._worker()
            worker.tasks.send((task, args, kwargs))
            result, error = worker.tasks.recv()
        except (EOFError, OSError):
            self._lose()
            raise BrokenExecutor("The process was lost during a task.") from None
        if error:
            raise error
        return result

    def _worker(self) -> _Process:
        """Return this thread's process, started if there is none."""
        with self._lock:
            if self._stopped:
                raise BrokenExecutor("No process is started any more.")
            if not (worker := self._workers.get(threading.get_ident())):
                worker = self._workers[threading.get_ident()] = _Process()
            return worker

    def _lose(self) -> None:
        """Forget this thread's process. It is killed first: it may be alive, and only have lost its socket."""
        with self._lock:
            worker = self._workers.pop(threading.get_ident(), None)
        if worker:
            worker.process.kill()
            worker.end()


def processes(jobs: int) -> Workers:
    """Return workers that are processes on this machine."""
    return Workers(Processes(jobs), lambda: jobs)


def serve() -> None:
    """Run the tasks that arrive over the socket named on the command line, until it is closed."""
    for number in _SIGNALS:  # not SIG_IGN, which hooks would inherit
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    no_dumps_at_all()
    answer: tuple[Any, Exception | None]
    with suppress(EOFError, ConnectionError), Connection(int(sys.argv[1])) as tasks:
        while True:
            task, args, kwargs = tasks.recv()
            try:
                answer = task(*args, **kwargs), None
            except Exception as error:
                answer = None, error
            tasks.send(answer)


@dataclass(frozen=True)
class Scheduler:
    """The address of a Dask scheduler, and PEM files for mutual TLS with it.

    A client of a scheduler can run programs on its workers. So the connection to it must be mutual TLS, or must not
    leave this machine. This class does not import Dask, which takes seconds.

    Attributes:
        address: ``tls://HOST:PORT``, or ``tcp://`` to this machine.
        ca_file: the CA that verifies the scheduler.
        certificate: our client certificate.
        key: the key of our certificate.
    """

    address: str
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return self.address.startswith("tls://")

    def require_safe(self) -> None:
        """Check that the connection is mutual TLS, or does not leave this machine.

        Raises:
            UsageError: it is not, or the address is not valid, or a file is missing.
        """
        try:
            parts = urlsplit(self.address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port or parts.scheme not in {"tcp", "tls"}:
            raise UsageError(f"{self.address!r} is no address of a scheduler.", remedy="Write it: tls://HOST:PORT")
        pem_files = (self.ca_file, self.certificate, self.key)
        if self.is_encrypted:
            if None in pem_files:
                remedy = "Give --tls-ca-file, --tls-cert, --tls-key."
                raise UsageError("tls:// needs a CA, a certificate and a key.", remedy=remedy)
            for path in pem_files:
                if path and not path.is_file():
                    raise UsageError(f"There is no file {path}.", remedy="Name the PEM file.")
        elif any(pem_files) or not _is_loopback(host):
            why = "the files for TLS would not be used" if any(pem_files) else f"{host} is another machine"
            remedy = "Use tls:// with --tls-ca-file, --tls-cert and --tls-key."
            raise UsageError(f"tcp:// is not encrypted, and {why}.", remedy=remedy)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
