"""How often one renewal reads a file of its connection: no more often than before."""

import json
import subprocess
import sys

import pytest
from quick_keys import QUICK_BITS

from ucl_helpers import establish
from ucl_helpers.connection.store import Home
from ucl_helpers.models import OneTimeToken
from ucl_sandbox import Sandbox

COUNT = """
import collections, json, os, sys
from pathlib import Path
from ucl_helpers import Home, renew
reads = collections.Counter()

def count(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        reads[Path(arguments[0]).name] += 1

sys.addaudithook(count)
renew(Home(Path(sys.argv[1])).connection("prod"), key_length=int(sys.argv[2]))
print(json.dumps(reads))
"""
# What the design wants is behind each figure; each may only fall until it is there.
READS = {"state.json": 8, "settings.toml": 1, "key.pem": 4}  # 8, 2, 1


@pytest.fixture(scope="module")
def reads(tmp_path_factory):
    """How often a renewal opened a file of a name to read it."""
    connection = Home(tmp_path_factory.mktemp("reads") / "home").new("prod")
    with Sandbox() as ucl:
        token = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
        establish(connection, token, ca_file=ucl.ca_file, key_length=QUICK_BITS)
        command = [sys.executable, "-P", "-c", COUNT, connection.home.path, str(QUICK_BITS)]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("name", READS)
def test_a_renewal_reads_a_file_no_more_often_than_before(reads, name):
    assert 0 < reads[name] <= READS[name]
