"""What SIGINT and SIGTERM do while a notebook runs: they are noted, and raise nothing in the midst of things.

Raised where it strikes, what stops a program tears apart whatever is being done: a file is half written, a socket is
made that nobody will close, an import fails and nobody is told.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def stopped_by(number: int) -> BaseException:
    """What ends a run that got a signal: ``KeyboardInterrupt``, or ``SystemExit`` with 143."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def handled(handler: Callable[[int], object]) -> Iterator[None]:
    """Signals that come within the block are handled so, unless they are ignored.

    In the main thread only: others get none.

    Args:
        handler: gets the number; what it raises comes out of whatever is being done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, lambda number, _: handler(number)) for one in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def noted(stops: list[BaseException]) -> Iterator[None]:
    """Of each signal that comes within the block is noted what it would end the run with."""
    with handled(lambda number: stops.append(stopped_by(number))):
        yield
