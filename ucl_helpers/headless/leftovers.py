"""What a run that was killed leaves behind, and how a later one knows that nobody uses it any more.

Whoever makes such a file or folder holds a lock on it (``flock``), which the kernel frees when its holder dies, however
it dies. What is private, ours and held by nobody is swept away.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PRIVATE = 0o077


def hold(make: Callable[[], Path]) -> tuple[Path, int]:
    """Make a private file or folder and hold it for as long as the descriptor is open.

    Args:
        make: makes it under a name of its own; called again if a sweep was faster than the lock.
    """
    while True:
        path = make()
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return path, descriptor
            os.close(descriptor)


def sweep(folder: Path, name: re.Pattern[str]) -> None:
    """Remove what lies in ``folder`` under such a name and is in nobody's hands; what cannot be removed stays."""
    for path in folder.iterdir():
        if name.fullmatch(path.name):
            with suppress(OSError), _abandoned(path) as ours:
                if ours and path.is_dir():
                    shutil.rmtree(path)
                elif ours:
                    path.unlink()


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Whether it is private and ours, the lock on it taken; an OSError: somebody holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        yield found.st_uid == os.geteuid() and not found.st_mode & _PRIVATE
    finally:
        os.close(descriptor)
