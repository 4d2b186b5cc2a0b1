"""What cells print, as messages: ``sys.stdout`` and ``sys.stderr``, and the file descriptors below them."""

import codecs
import io
import os
import select
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

_PIECE = 8192  # characters; so many are gathered before they are sent
_READ = 65536  # bytes at once
_MOST_DRAINED = 64  # reads; of what prints without end the rest comes later


class Stream(io.TextIOBase):
    """A text stream whose text is sent as messages.

    Args:
        name: ``stdout`` or ``stderr``.
        send: takes a socket, which it has no use for, the kind of the message and its content.
        whole: within it nothing is interrupted.
    """

    def __init__(
        self, name: str, send: Callable[[Any, str, Any], object], whole: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.name, self._send, self._whole = name, send, whole
        self._number, self._process = (1 if name == "stdout" else 2), os.getpid()
        self._original = os.dup(self._number)
        self._turn, self._pieces, self._size = threading.RLock(), list[str](), 0

    encoding = "UTF-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """Where the process itself prints, as for a kernel: what is written there is no text of this stream."""
        return self._original

    def write(self, text: str) -> int:
        """Take a text.

        Raises:
            TypeError: it is none.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text)}")
        if os.getpid() != self._process:  # a fork of this process: the pipe is not its own
            os.write(self._number, text.encode(errors="replace"))
            return len(text)
        with self._whole(), self._turn:
            self._pieces.append(text)
            self._size += len(text)
            if self._size > _PIECE:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what was gathered."""
        if os.getpid() != self._process:
            return
        with self._whole(), self._turn:
            text, self._pieces, self._size = "".join(self._pieces), [], 0
            if text:
                self._send(None, "stream", {"name": self.name, "text": text})


class Descriptor:
    """File descriptor 1 or 2: what is printed there, by a process that a cell has started for one, goes to a stream."""

    def __init__(self, number: int, stream: Stream) -> None:
        self._reading, writing = os.pipe()
        os.dup2(writing, number)
        os.close(writing)
        os.set_blocking(self._reading, False)
        self._stream, self._turn = stream, threading.Lock()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        threading.Thread(target=self._watch, daemon=True).start()

    def drain(self) -> None:
        """Take what was printed until now."""
        with self._turn:
            for _ in range(_MOST_DRAINED):
                try:
                    read = os.read(self._reading, _READ)
                except BlockingIOError:
                    return
                self._stream.write(self._decode(read))

    def _watch(self) -> None:
        while True:
            select.select([self._reading], [], [])
            self.drain()
