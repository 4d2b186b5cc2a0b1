"""Of an answer without measure only so much is taken as shows that it is: the client's memory stays bounded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from steps import install

from ucl_helpers.connection.store import Home
from ucl_helpers.wire.client import MAX_ANSWER_BYTES
from ucl_sandbox import Sandbox
from ucl_sandbox.faults.plans import Fault

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are told by /proc")
ROOM = 8 * MAX_ANSWER_BYTES / 2**20  # MiB: the answer as it came, unpacked, as text, and what lies between
PEAK = """
import sys
from pathlib import Path
from processes import forget_peak, held
from ucl_helpers.wire import client
from ucl_helpers.errors import BadAnswer
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.connection.store import Home

connection = Home(sys.argv[1]).connection("prod")
client.MAX_ANSWER_BYTES = int(sys.argv[2])
client.MAX_RECEIVED_BYTES = client.MAX_ANSWER_BYTES + 2**18
current = connection.require_current()
with client.Client(connection.url, "certificate", ca_file=current.server_ca, credentials=current.credentials) as caller:
    forget_peak("self")
    before = held().peak
    try:
        caller.call(CONFIGURATION)
        told = "answered"
    except BadAnswer as error:
        told = error.message.split(" (")[0]
    print(json.dumps([told, held().peak - before]))
"""


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def peak(ucl, tmp_path):
    """What a process says that calls once, and by how many MiB its memory grew meanwhile at most."""
    install(Home(tmp_path / "home"), ucl, tmp_path)

    def call(most=MAX_ANSWER_BYTES):
        command = [sys.executable, "-c", f"import json{PEAK}", tmp_path / "home", str(most)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return call


@pytest.mark.parametrize(("kind", "megabytes"), [("json-huge", 100), ("gzip-bomb", 1000)])
def test_a_huge_answer_takes_no_memory(ucl, peak, kind, megabytes, proof):
    ucl.faults.set([Fault(kind, at="certificate", value=megabytes)])
    told, grown = peak()
    assert told == f"The answer is larger than {MAX_ANSWER_BYTES} bytes."
    assert grown < ROOM, f"{grown:.0f} MiB"
    proof("load", "huge answers that took no memory", 1)


@pytest.mark.parametrize(("kind", "megabytes"), [("json-huge", 100), ("gzip-bomb", 100)])
def test_without_the_bound_they_would(ucl, peak, kind, megabytes):
    ucl.faults.set([Fault(kind, at="certificate", value=megabytes)])
    _, grown = peak(10**9)
    assert grown > ROOM


def test_a_usual_answer_is_taken(ucl, peak):
    ucl.faults.clear()
    told, grown = peak()
    assert told == "answered"
    assert grown < ROOM
