"""A process of a fleet: ``python -P -m ucl_helpers.fleet.worker DESCRIPTOR``.

It reads tasks from a socket, one after the other, and answers each with ``(result, error)``. The end of the socket is
the end of the process: then the coordinator has no more tasks, or is gone itself.
"""

import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from ucl_helpers.core_dumps import no_dumps_at_all
from ucl_helpers.fleet.executors import SIGNALS


def serve(tasks: Connection) -> None:
    """Do what comes, until nothing comes any more."""
    answer: tuple[Any, Exception | None]
    with suppress(EOFError, ConnectionError):
        while True:
            task, args, kwargs = tasks.recv()
            try:
                answer = task(*args, **kwargs), None
            except Exception as error:
                answer = None, error
            tasks.send(answer)


def main() -> None:
    """Serve the socket that the command line names."""
    for number in SIGNALS:  # not SIG_IGN, which hooks would inherit
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked until here
    no_dumps_at_all()
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
