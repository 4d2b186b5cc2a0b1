"""`python -m ucl_sandbox`: a sandbox as a process of its own."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import get_args

from ucl_sandbox.ca import CaLayout
from ucl_sandbox.faults.plans import FaultsError, read_plan
from ucl_sandbox.process import serve
from ucl_sandbox.server import Access
from ucl_sandbox.state import SandboxError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """Read a duration: a whole number and a unit, as in `90d`, `24h`, `5m`, `30s`.

    Raises:
        ValueError: It is not one, or not longer than nothing.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 90d, 24h, 5m or 30s")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, Ctrl-C, or the end of the linger time; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ucl_sandbox", description="A small UCL on loopback, for practice only."
    )
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--ready-file", type=Path, help="JSON written once all listeners answer")
    parser.add_argument("--validity", type=duration, default="90d", help="of certificates, e.g. 90d, 24h, 30s")
    parser.add_argument("--token-lifetime", type=duration, default="5m", help="of one-time tokens")
    parser.add_argument("--ca-layout", choices=get_args(CaLayout), default="intermediate", help="of the client CA")
    parser.add_argument("--linger", type=duration, help="end when the state folder has had no users for so long")
    parser.add_argument("--faults", metavar="FILE|NAME", help="what goes wrong on purpose, e.g. grumpy:0.2")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    parser.add_argument("--notify", type=int, metavar="FD", help="file descriptor to write to once it is ready")
    given = parser.parse_args(arguments)
    try:
        faults = read_plan(given.faults) if given.faults else None
    except FaultsError as error:
        parser.error(str(error))

    if given.detach and os.fork():
        os._exit(0)

    def announce(_: Access) -> None:
        if given.notify is not None:
            with contextlib.suppress(BrokenPipeError), os.fdopen(given.notify, "wb") as pipe:
                pipe.write(b"ready")

    try:
        serve(
            given.state,
            given.ready_file,
            validity=given.validity,
            ca_layout=given.ca_layout,
            token_lifetime=given.token_lifetime,
            linger=given.linger,
            faults=faults,
            announce=announce,
        )
    except SandboxError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
