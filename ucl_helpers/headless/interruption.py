"""End a run early on SIGINT and SIGTERM, and remove the files of runs that were killed.

While a notebook runs, a signal is noted and raises nothing. An exception at an arbitrary line could leave a file half
written or a socket open.

A run that is killed leaves files and folders behind. A process locks (``flock``) what it makes, and the operating
system frees the lock when the process ends, however it ends. What is private, ours and not locked is removed.
"""

import fcntl
import os
import re
import select
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ucl_private_files import needing

END_SECONDS = 5.0

_PRIVATE = 0o077  # the bits of a mode that give access to others


def exception_for(number: int) -> BaseException:
    """Return what ends a run that got a signal: ``KeyboardInterrupt``, or ``SystemExit`` with 143."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def handling_signals(handler: Callable[[int], object]) -> Iterator[None]:
    """Handle the signals that come within the block, unless they are ignored; only in the main thread.

    Args:
        handler: gets the signal's number. An exception from it is raised where the main thread is executing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda sent, _: handler(sent)) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def noting_signals(stops: list[BaseException]) -> Iterator[Callable[[int], None]]:
    """Append to ``stops``, for each signal within the block, what it would end the run with; yield the function for it.

    The first signal asks the run to end. After the second one, the process ends wherever it is if the block has not
    ended within :data:`END_SECONDS`, or if a third one comes. Its exit code is then 128 and the signal's number.
    """
    reading, writing = os.pipe()

    def note(number: int) -> None:
        stops.append(exception_for(number))
        if len(stops) > 1:
            os.write(writing, bytes([number]))  # a handler may interrupt the holder of any lock, so it takes none

    watch = threading.Thread(target=_end_if_stuck, args=(reading,), daemon=True)
    watch.start()
    try:
        with handling_signals(note):
            yield note
    finally:
        os.close(writing)
        watch.join()
        os.close(reading)


def _end_if_stuck(signals: int) -> None:
    """End the process some time after a signal is read, unless the pipe is closed first."""
    number = os.read(signals, 1)
    if number:
        select.select([signals], [], [], END_SECONDS)
        if not select.select([signals], [], [], 0)[0] or os.read(signals, 1):
            os._exit(128 + number[0])


def hold_locked(make: Callable[[], Path]) -> tuple[Path, int]:
    """Make a private file or folder and hold it for as long as the descriptor is open.

    Args:
        make: makes it under a name of its own; called again if another process removed it before it was locked.
    """
    while True:
        path = make()
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with needing("locks", path):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return path, descriptor
            os.close(descriptor)


def remove_abandoned(folder: Path, name: re.Pattern[str]) -> None:
    """Remove what is in ``folder`` under such a name and is not locked; what cannot be removed stays."""
    for path in folder.iterdir():
        if name.fullmatch(path.name):
            with suppress(OSError), _abandoned(path) as ours:
                if ours and path.is_dir():
                    shutil.rmtree(path)
                elif ours:
                    path.unlink()


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Lock a file or folder and yield whether it is private and ours; an OSError if another process holds the lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        yield status.st_uid == os.geteuid() and not status.st_mode & _PRIVATE
    finally:
        os.close(descriptor)
