"""The program ``ucl`` from its first moment on: while it is still being loaded, Ctrl-C ends it like later on."""

import sys

try:
    from ucl_helpers.cli import main
except KeyboardInterrupt:  # nothing has begun yet
    sys.stderr.write("Interrupted.\n")
    sys.exit(130)

__all__ = ["main"]
