"""The program ``ucl`` from its first moment on: while it is still being loaded, Ctrl-C ends it like later on.

It lives for a moment, and what it loads stays: looking for garbage, meanwhile and at the end, would cost a tenth of it.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

gc.set_threshold(10_000)
atexit.register(gc.freeze)


def begin_key() -> None:
    """``ucl renew --force`` asks for a key, of 4096 bits unless told otherwise; so it is made while the rest loads."""
    from concurrent.futures import ThreadPoolExecutor

    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    begun = ThreadPoolExecutor(1, thread_name_prefix="key").submit(generate_private_key, 65537, 4096)
    from ucl_helpers.keymaker import AHEAD

    AHEAD[4096] = begun


@contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """At once, since nothing has begun yet; an exception would come out of whatever module is being loaded."""

    def end(*_: object) -> NoReturn:
        with suppress(OSError):
            os.write(2, b"Interrupted.\n")
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)
    yield
    signal.signal(signal.SIGINT, before)


with ended_by_interrupts():
    if sys.argv[1:2] == ["renew"] and "--force" in sys.argv and not any("--key-length" in one for one in sys.argv):
        begin_key()
    from ucl_helpers.cli import main

__all__ = ["main"]
