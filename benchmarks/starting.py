"""What ``import ucl_helpers`` adds to the start of a program that speaks TLS by ``requests`` and ``cryptography``."""

import sys
from collections.abc import Iterator

from benchmarks.measuring import Result, in_turn, process

OURS, THEIRS = "import ucl_helpers", "import requests, cryptography.x509"


def results(pairs: int) -> Iterator[Result]:
    """Whole processes."""
    measured = in_turn(
        lambda: process([sys.executable, "-c", OURS]).seconds,
        lambda: process([sys.executable, "-c", THEIRS]).seconds,
        pairs,
    )
    yield Result("import", f"`{OURS}`", f"`{THEIRS}`", measured.ratio, "×", 1.2, details=measured.described())
