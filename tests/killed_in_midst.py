"""A preload for Dask workers (``dask worker --preload``): each kills itself in the midst of some renewals.

Which renewals, and where in them, is drawn from a seed; each connection is the end of one worker at most. Where: just
before or after something of a renewal lies on the disk, the answer that is on its way and the new generation that is
current already among them.
"""

import hashlib
import os
import signal
from pathlib import Path

from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.store import Connection
from ucl_helpers.procedures.procedure import Procedure

POINTS = (
    (Pending, "begin", "after"),
    (Pending, "keep_request", "after"),
    (Pending, "about_to_send", "after"),
    (Pending, "keep_answer", "before"),
    (Pending, "keep_answer", "after"),
    (Connection, "install", "before"),
    (Connection, "install", "after"),
    (Connection, "record", "after"),
    (Procedure, "outcome", "before"),
)


def drawn(name, seed, share):
    """Where the renewal of this connection is cut off: the number of a point, or None."""
    drawn = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return drawn[0] % len(POINTS) if int.from_bytes(drawn[1:5]) < share * 2**32 else None


def cut(kind, method, when, number):
    """Let what a method does be the last thing that this worker does, for the connections that it is drawn for."""
    seed, share = os.environ["KILL_SEED"], float(os.environ["KILL_SHARE"])
    kills, does = Path(os.environ["KILLS"]), getattr(kind, method)

    def die(one):
        name = (one.path.parent if kind is Pending else getattr(one, "connection", one).path).name
        if drawn(name, seed, share) == number and not (kills / name).exists():
            (kills / name).write_text(f"{method} {when} {os.getpid()}")
            os.kill(os.getpid(), signal.SIGKILL)

    def instead(one, *args, **kwargs):
        if when == "before":
            die(one)
        result = does(one, *args, **kwargs)
        if when == "after":
            die(one)
        return result

    setattr(kind, method, instead)


async def dask_setup(worker):
    """What Dask calls when a worker begins."""
    for number, point in enumerate(POINTS):
        cut(*point, number)
