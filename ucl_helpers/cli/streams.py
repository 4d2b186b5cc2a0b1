"""Standard output and error whose loss is told apart from everything else that a disk or a system can refuse."""

import errno
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

from ucl_helpers.errors import OutputLost

_OUTPUT, _ERRORS = 1, 2  # descriptors


class _Output(FileIO):
    """Standard output: that it cannot be written is an error of its own, unless its reader has gone (a pipe)."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)  # or the interpreter tries once more, at its end
            raise OutputLost(
                f"The output could not be written: {error.strerror}. The command itself has run to its end.",
                remedy="Write the output elsewhere. To see where things are: ucl status.",
            ) from None


class _Errors(FileIO):
    """Standard error: what cannot be written there is given up, and stops nothing."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data))


def guard_streams() -> None:
    """Replace the streams that the interpreter has opened; others, such as a test's, are left alone."""
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(_OUTPUT, "w", closefd=False), sys.stdout)
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Errors(_ERRORS, "w", closefd=False), sys.stderr)


def _text(raw: FileIO, like: Any) -> TextIOWrapper:
    like.flush()
    return TextIOWrapper(
        BufferedWriter(raw), encoding=like.encoding, errors=like.errors, line_buffering=like.line_buffering
    )
