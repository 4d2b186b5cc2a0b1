"""The command line of the sandbox: `python -m ucl_sandbox` runs it as a process of its own."""

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
    """Parse a duration: a whole number above 0 and a unit, for example `90d`, `24h`, `5m` or `30s`.

    Raises:
        ValueError: The text is not such a duration.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 90d, 24h, 5m or 30s")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, Ctrl-C or the end of the linger time. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ucl_sandbox", description="A small UCL on loopback, for practice only."
    )
    parser.add_argument("--state", type=Path, required=True, help="folder in which the sandbox stores its data")
    parser.add_argument("--ready-file", type=Path, help="JSON file to write when all listeners answer")
    parser.add_argument("--validity", type=duration, default="90d", help="lifetime of certificates (90d)")
    parser.add_argument("--token-lifetime", type=duration, default="5m", help="lifetime of one-time tokens (5m)")
    parser.add_argument(
        "--ca-layout", choices=get_args(CaLayout), default="intermediate", help="layout of the client CA"
    )
    parser.add_argument("--linger", type=duration, help="stop when the state folder has had no users for this time")
    parser.add_argument("--faults", metavar="FILE|NAME", help="faults to inject, for example grumpy:0.2")
    parser.add_argument("--detach", action="store_true", help="run in the background")
    parser.add_argument("--notify", type=int, metavar="FD", help="file descriptor to write to when all is ready")
    options = parser.parse_args(arguments)
    try:
        faults = read_plan(options.faults) if options.faults else None
    except FaultsError as error:
        parser.error(str(error))

    if options.detach and os.fork():
        os._exit(0)

    def announce(_: Access) -> None:
        if options.notify is not None:
            with contextlib.suppress(BrokenPipeError), os.fdopen(options.notify, "wb") as pipe:
                pipe.write(b"ready")

    try:
        serve(
            options.state,
            options.ready_file,
            validity=options.validity,
            ca_layout=options.ca_layout,
            token_lifetime=options.token_lifetime,
            linger=options.linger,
            faults=faults,
            announce=announce,
        )
    except SandboxError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
