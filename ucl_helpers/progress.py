"""Report waits to a listener, for example a line of a notebook, a terminal or the explorer.

Without a listener nothing happens. A text is one line without a secret. An empty text means that the wait is over.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], object]
_HERE: ContextVar[Listener | None] = ContextVar("_HERE", default=None)
_ANYWHERE: list[Listener] = []


def listen(listener: Listener) -> None:
    """Report all waits of this process to ``listener``, which replaces an earlier one."""
    _ANYWHERE[:] = [listener]


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report the waits of the code in the block to ``listener`` only."""
    before = _HERE.set(listener)
    try:
        yield
    finally:
        _HERE.reset(before)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Report that the code in the block takes time, and report its end."""
    listener = _HERE.get() or next(iter(_ANYWHERE), None)
    if listener:
        listener(text)
    try:
        yield
    finally:
        if listener:
            listener("")
