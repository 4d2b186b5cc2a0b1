"""While what has happened is being saved, SIGINT and SIGTERM change nothing any more."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


@contextmanager
def undisturbed() -> Iterator[None]:
    """SIGINT and SIGTERM that come within the block are let pass. In the main thread only: others get none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
