"""While what has happened is being saved, SIGINT and SIGTERM change nothing any more; elsewhere they wait a moment."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


def stopped_by(number: int) -> BaseException:
    """What ends a run that got a signal: ``KeyboardInterrupt``, or ``SystemExit`` with 143."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def handled(handler: Callable[[int, object], object]) -> Iterator[None]:
    """SIGINT and SIGTERM that come within the block are handled so, unless they are ignored; so are they then.

    In the main thread only: others get none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def undisturbed() -> Iterator[None]:
    """SIGINT and SIGTERM that come within the block are let pass."""
    with handled(lambda *_: None):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """SIGINT and SIGTERM that come within the block come when it is over."""
    came = list[int]()
    try:
        with handled(lambda number, _: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


def to_the_end(finish: Callable[[], Result]) -> Result:
    """Call ``finish`` undisturbed; a signal that came a moment too soon is raised when that is done."""
    done = list[Result]()

    def once() -> None:
        with undisturbed():
            done.append(finish())

    try:
        once()
    except (KeyboardInterrupt, SystemExit):
        if not done:
            once()
        raise
    return done[0]
