"""What takes time says so, to whoever listens: a line of a notebook, a terminal, the explorer.

Without a listener nothing happens. A text is one line without a secret; an empty text says that the wait is over.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], object]
_HERE: ContextVar[Listener | None] = ContextVar("_HERE", default=None)
_ANYWHERE: list[Listener] = []


def listen(listener: Listener) -> None:
    """Tell ``listener`` from now on, wherever this process waits; it takes the place of an earlier one."""
    _ANYWHERE[:] = [listener]


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` what the code within waits for, and nobody else."""
    before = _HERE.set(listener)
    try:
        yield
    finally:
        _HERE.reset(before)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Tell that the code within takes time, and when it is over."""
    listener = _HERE.get() or next(iter(_ANYWHERE), None)
    if listener:
        listener(text)
    try:
        yield
    finally:
        if listener:
            listener("")
