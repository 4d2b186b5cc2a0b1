"""The program ``ucl`` from its first moment on: while it is still being loaded, Ctrl-C ends it like later on.

It lives for a moment, and what it loads stays: looking for garbage, meanwhile and at the end, would cost a tenth of it.
"""

import atexit
import gc
import sys

gc.set_threshold(100_000)
atexit.register(gc.freeze)
try:
    from ucl_helpers.cli import main
except KeyboardInterrupt:  # nothing has begun yet
    sys.stderr.write("Interrupted.\n")
    sys.exit(130)

__all__ = ["main"]
