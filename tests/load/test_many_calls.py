"""Very many calls leave nothing behind: open files and memory of the client and of the sandbox stay where they were."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import held, own_process, wait_until
from steps import install

from ucl_helpers.connection.store import Home

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what /proc shows")
WARM, WARM_WHOLE = 100, 2000  # the sandbox remembers its last 1000 requests
MEMORY = 8.0  # MiB: an allocator's unrest, not a growth with the calls
CALLS = """
import json, sys
from pathlib import Path
from processes import held
from ucl_helpers.wire.client import Client
from ucl_helpers.errors import AuthenticationFailed, CertificateRejected, ServerNotTrusted, Unreachable
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.connection.store import Home

home, token_url, leaks = sys.argv[1:4]
connection = Home(home).connection("prod")
current = connection.require_current()
as_itself = {"ca_file": current.server_ca, "credentials": current.credentials}
kept, leaked, counted = Client(connection.url, "certificate", **as_itself), [], 0

def fails(error, url, endpoint, **how):
    client = Client(url, endpoint, retry=False, **how)
    try:
        client.call(CONFIGURATION)
    except error:
        return 1
    finally:
        leaked.append(client) if leaks == "connections" else client.close()
    raise AssertionError("it did not fail")

def calls():
    kept.call(CONFIGURATION)
    with Client(connection.url, "certificate", **as_itself) as client:
        client.call(CONFIGURATION)
    bad = {"connector-token": "guessed" * 12}
    return 2 + sum([
        fails(AuthenticationFailed, token_url, "token", ca_file=current.server_ca, headers=bad),
        fails((CertificateRejected, Unreachable), connection.url, "certificate", ca_file=current.server_ca),
        fails(ServerNotTrusted, connection.url, "certificate"),
        fails(Unreachable, "https://localhost:1/", "certificate", **as_itself),
    ])

for line in sys.stdin:
    while counted < int(line):
        counted += calls()
        leaked += [b"x" * 500_000] if leaks == "memory" else []
    print(json.dumps([counted, held().descriptors, held().memory]), flush=True)
"""


def grown(before, after):
    """What has grown with the calls, of descriptors and MiB."""
    allowed = zip(("files", "memory"), before, after, (0, MEMORY), strict=True)
    return [name for name, then, now, more in allowed if now > then + more]


@pytest.fixture(scope="module")
def prod(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calls")
    with own_process(folder) as ucl:
        install(Home(folder / "home"), ucl, folder)
        yield ucl, folder / "home"


@pytest.fixture
def run(prod):
    """Makes so many calls, then so many more: what the client held after each, and how many there were."""
    ucl, home = prod
    command = [sys.executable, "-c", CALLS, str(home), ucl.connector_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

    def calls(*counts, leaks=""):
        with subprocess.Popen([*command, leaks], env=environment, **pipes) as client:
            for count in counts:
                print(count, file=client.stdin, flush=True)
                made, *holds = json.loads(client.stdout.readline())
                yield made, holds

    return calls


def test_files_and_memory_stay_where_they_were(prod, run, whole, proof):
    ucl, _ = prod
    idle = held(ucl.pid).descriptors
    calls = run(WARM_WHOLE if whole else WARM, 10_000 if whole else 400)
    _, before = next(calls)
    there = held(ucl.pid)
    made, after = next(calls)
    here = held(ucl.pid)
    calls.close()
    assert grown(before, after) == []
    assert grown((there.descriptors, there.memory), (here.descriptors, here.memory)) == []
    wait_until(lambda: held(ucl.pid).descriptors <= idle)
    proof("load", "calls that left no file open and no memory taken", made)


@pytest.mark.parametrize(("leaks", "what"), [("connections", ["files"]), ("memory", ["memory"])])
def test_a_client_that_leaks_is_found(run, leaks, what):
    (_, before), (_, after) = run(WARM, 3 * WARM, leaks=leaks)
    assert [one for one in grown(before, after) if one in what] == what
