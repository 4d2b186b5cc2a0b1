"""Prevent core dumps, which would write private keys from memory to disk when a process dies."""

import resource
import sys

_PR_SET_DUMPABLE = 4


def no_dumps_at_all() -> None:
    """Keep this process from writing core files.

    On Linux, core handlers get no dump either, and other processes cannot read the memory of this one (prctl(2),
    ``PR_SET_DUMPABLE``). Debuggers of the same user are shut out too, so this is only for processes that this toolkit
    starts. Their own child processes inherit the limit for core files, and nothing else.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        import ctypes  # late: libffi can keep a file open, under the number of a standard stream that is closed

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
