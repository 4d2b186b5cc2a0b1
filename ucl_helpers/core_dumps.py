"""No core dumps: what is in memory, a private key among it, is not written to a disk when a process dies."""

import resource
import sys

_PR_SET_DUMPABLE = 4


def no_core_dumps() -> None:
    """Set this process' limit for core files to nothing; the hard limit stays. Programs that it starts inherit that.

    *Not* covered: a core handler that the kernel pipes to and that ignores the limit. See :func:`no_dumps_at_all`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def no_dumps_at_all() -> None:
    """For a process of our own: no core files, and on Linux none by a handler and no look by other processes either.

    It also keeps debuggers of the same user out (prctl(2), ``PR_SET_DUMPABLE``).
    """
    no_core_dumps()
    if sys.platform == "linux":
        import ctypes  # late: libffi can keep a file open, under the number of a standard stream that is closed

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
