"""Tasks in the place of ``renew_one``, to see what the coordinator makes of what workers say."""

import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from processes import wait_until

from ucl_helpers.errors import Busy, RateLimited, Refused, RetryLater, Unreachable
from ucl_helpers.fleet.executors import Processes
from ucl_helpers.fleet.report import NOT_DUE, RENEWED, Result, failure
from ucl_helpers.fleet.task import renew_one

ASKED = Counter()
WRONG = {
    "refused": Refused("No.", remedy="Ask why."),
    "away": Unreachable("Nobody is there.", remedy="Later."),
    "much-later": RetryLater("Not now.", retry_after=10_000),
}
_LOCK = threading.Lock()


class Held:
    """What a worker gives away only once a file is there; another one says that it is asked for."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        (self.folder / "asked").touch()
        wait_until((self.folder / "given").exists)
        return str, ("given",)


def renewed():
    return Result(RENEWED, "ab" * 32)


def count(name):
    with _LOCK:
        ASKED[name] += 1
        return ASKED[name]


def well(home, name, base, force, again):
    """Every renewal succeeds."""
    count(name)
    return renewed()


def by_name(home, name, base, force, again):
    """What becomes of a renewal stands in the connection's name."""
    number = count(name)
    if name in WRONG:
        return failure(WRONG[name])
    if name == "bug":
        raise ZeroDivisionError("s3cr3t")
    if name == "limited":
        return failure(RateLimited("Slow down.", retry_after=10_000))
    if name.startswith("limited-"):
        return failure(RateLimited("Slow down.", retry_after=0.01)) if number <= int(name[8:]) else renewed()
    if name.startswith("soon-"):
        return failure(RetryLater("Not yet.", retry_after=0.01)) if number <= int(name[5:]) else renewed()
    if name == "busy":
        return failure(Busy("In other hands.")) if number == 1 else renewed()
    return renewed() if name.startswith("well") else Result(NOT_DUE, "ab" * 32)


def deadly(home, name, base, force, again):
    """One connection is the end of whoever takes it in hand."""
    if name == "c1":
        os.kill(os.getpid(), signal.SIGKILL)
    return renew_one(home, name, base, force, again)


def ends_its_process(how):
    """The process ends, or cannot answer any more."""
    if how.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[how])
    elif how.startswith("exit"):
        os._exit(int(how.split()[1]))
    os.close(int(sys.argv[1]))


def raises(error):
    raise error


def patient(folder):
    """Tells that it has begun, and ends once it may."""
    folder = Path(folder)
    (folder / "begun").write_text(str(os.getpid()))
    wait_until((folder / "may-end").exists)
    (folder / "ended").touch()
    return "done"


def patient_alone(folder):
    """The same in a process of its own, whose parent waits for it."""
    Processes(1).submit(patient, folder).result()
