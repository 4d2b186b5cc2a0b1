"""What a process that executes cells prints by itself: why it cannot start, or that it crashed."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_MOST = 100_000  # bytes that are passed on


class Printed:
    """A file without a name, which nobody finds when the run is killed, for the standard output and error of a process.

    What stands there when the process was told to end is passed on once it has; not what it prints later: libraries
    that are torn down complain, and nothing is wrong.

    Args:
        folder: where there is room for it.

    Attributes:
        file: its descriptor.
    """

    def __init__(self, folder: Path) -> None:
        self.file, path = tempfile.mkstemp(prefix="ucl-printed-", dir=folder)
        Path(path).unlink()
        self._last: int | None = None
        self._open = True

    def no_more(self) -> None:
        """The process is told to end."""
        if self._open:
            self._last = os.fstat(self.file).st_size

    def pass_on(self, without_secrets: Callable[[str], str]) -> None:
        """Print it on standard error, once."""
        if self._open:
            sys.stderr.write(without_secrets(os.pread(self.file, _MOST, 0)[: self._last].decode(errors="replace")))
            self.close()

    def close(self) -> None:
        """The file goes away."""
        if self._open:
            self._open = False
            os.close(self.file)
