"""What ``import ucl_helpers`` costs beside what it cannot do without: requests and cryptography.

Whole processes, in alternating pairs, so that what the machine does meanwhile falls on both alike.
"""

import statistics
import subprocess
import sys
import time

PAIRS = 21
BASE = "import requests, cryptography.x509"
OURS = "import ucl_helpers"


def seconds(statement: str) -> float:
    """How long a fresh interpreter takes from start to end."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print medians and the median of the pairs' ratios."""
    for statement in (BASE, OURS):
        seconds(statement)  # compiles, and fills the disk's cache
    pairs = [(seconds(BASE), seconds(OURS)) for _ in range(PAIRS)]
    base, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(ours / base for base, ours in pairs)
    print(f"{PAIRS} alternating pairs of processes, median")
    print(f"{base * 1000:7.0f} ms  {BASE}")
    print(f"{ours * 1000:7.0f} ms  {OURS}")
    print(f"{statistics.median(ratios):7.2f}     ratio (pairs: {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
