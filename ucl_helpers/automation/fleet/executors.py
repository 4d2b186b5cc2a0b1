"""Who does the work: anything that is a :class:`concurrent.futures.Executor`, and processes of this machine.

Each process is a pool of its own: when one is killed, the work of no other is lost, and whose fault it was is plain.
They are started afresh, never forked from a process that holds locks. Ctrl-C and SIGTERM are the coordinator's
business: it starts nothing more, and what is under way is finished. When the coordinator itself is gone, a process
finishes what it has in hand and ends.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from ucl_helpers.dumps import no_dumps_at_all

Told = TypeVar("Told")
_A_MOMENT = 0.5
_WORKING = threading.Lock()  # a process does one thing at a time


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


class Processes(Executor):
    """So many processes of this machine; at most so many tasks may be under way.

    Args:
        jobs: 1 or more.
    """

    def __init__(self, jobs: int) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._told, self._stop = self._context.Pipe(duplex=False)  # closed: nobody waits for what is in hand
        self._context.set_forkserver_preload(["ucl_helpers.automation.fleet.task"])
        _start_servers()
        self._pools = [self._pool() for _ in range(jobs)]
        self._idle: SimpleQueue[int] = SimpleQueue()
        for number in range(jobs):
            self._idle.put(number)

    def submit(self, task: Callable[..., Told], /, *args: Any, **kwargs: Any) -> Future[Told]:
        """Give a task to a process that is idle; waits for one if need be."""
        number = self._idle.get()
        try:
            future = self._pools[number].submit(_work, task, *args, **kwargs)
        except BrokenExecutor:  # it was killed while it had nothing to do
            self._replace(number)
            future = self._pools[number].submit(_work, task, *args, **kwargs)
        future.add_done_callback(partial(self._back, number))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: with ``wait`` once they have finished what they have in hand, else at once."""
        if not wait:
            self._stop.close()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=cancel_futures)
        self._stop.close()
        self._told.close()

    def _back(self, number: int, future: Future[Any]) -> None:
        if not future.cancelled() and isinstance(future.exception(), BrokenExecutor):
            self._replace(number)
        self._idle.put(number)

    def _replace(self, number: int) -> None:
        self._pools[number].shutdown(wait=False)
        _start_servers()
        self._pools[number] = self._pool()

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_begin, initargs=(self._told,))


def _start_servers() -> None:
    """Start the two interpreters that multiprocessing needs, unless they run.

    It would start them without ``-P``, so they would import modules from the current folder. They read
    ``PYTHONSAFEPATH`` when they start; the processes of the pools are forked from them.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        resource_tracker.ensure_running()
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def processes(jobs: int) -> Workers:
    """So many processes of this machine."""
    return Workers(Processes(jobs), lambda: jobs)


def _begin(stop: Connection) -> None:
    """What a process does first."""
    for number in (signal.SIGINT, signal.SIGTERM):  # not SIG_IGN, which hooks would inherit
        signal.signal(number, lambda *_: None)
    no_dumps_at_all()
    threading.Thread(target=_end, args=(stop,), daemon=True).start()


def _end(stop: Connection) -> None:
    """When the parent is gone, end after what is in hand: the pool would wait for ever; when it says stop, at once."""
    if (parent := multiprocessing.parent_process()) is not None:
        wait([parent.sentinel, stop])
        if wait([parent.sentinel], timeout=_A_MOMENT):  # its death closes both, one after the other
            with _WORKING:
                os._exit(0)
        os._exit(1)


def _work(task: Callable[..., Told], *args: Any, **kwargs: Any) -> Told:
    with _WORKING:
        return task(*args, **kwargs)
