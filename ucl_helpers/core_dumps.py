"""No core dumps: what is in memory, a private key among it, is not written to a disk when a process dies."""

import resource
import sys

_PR_SET_DUMPABLE = 4


def no_dumps_at_all() -> None:
    """Let this process leave no core file; on Linux, also none by a handler, and let no other process read its memory.

    It is for processes that this toolkit starts: it also keeps debuggers of the same user out (prctl(2),
    ``PR_SET_DUMPABLE``). The programs that the process starts inherit the limit for core files, not the rest.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        import ctypes  # late: libffi can keep a file open, under the number of a standard stream that is closed

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
