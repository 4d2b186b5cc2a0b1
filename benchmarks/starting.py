"""What the public names of ``ucl_helpers`` take to load, beside ``requests`` and ``cryptography``."""

import sys
from collections.abc import Iterator

from benchmarks.measuring import Result, in_turn, process

OURS, THEIRS = "from ucl_helpers import *", "import requests, cryptography.x509"


def results(pairs: int) -> Iterator[Result]:
    """Whole processes."""
    measured = in_turn(
        lambda: process([sys.executable, "-c", OURS]).seconds,
        lambda: process([sys.executable, "-c", THEIRS]).seconds,
        pairs,
    )
    yield Result("import", f"`{OURS}`", f"`{THEIRS}`", measured.ratio, "×", 1.2, details=measured.described())
