"""Where there is no Chromium the browser tests are skipped, and say so; with ``--no-skips`` that is a failure."""

import subprocess
import sys

import pytest
from command_line import BIN, environment
from jupyter_servers import ROOT

REASON = "there is no Chromium (on Debian: apt install chromium)"


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        ((), pytest.ExitCode.NO_TESTS_COLLECTED, f": {REASON}"),
        (("--no-skips",), pytest.ExitCode.INTERRUPTED, f"nothing may be skipped, but Skipped: {REASON}"),
    ],
    ids=["skipped", "failed"],
)
def test_without_chromium(flags, code, told):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *flags, "tests/browser"]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment(), "PATH": str(BIN)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout
    assert told in done.stdout
