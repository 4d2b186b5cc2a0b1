"""No secret leaves a process: not by the arguments of what it starts, not by their environment, not by a core dump.

What every test says and leaves is watched as well (``secrets_watch.py``); here the watch itself is tried.
"""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import UCL, Shell, environment, made_by_hand, tool
from contract_replay import rsa_key
from secrets_watch import CANARY, command_lines, leaks_below, leaks_in
from steps import install
from tracing import KEEP_DUMPABLE, UNFIT

from ucl_helpers.connection.store import Home
from ucl_helpers.keys import dump_key
from ucl_sandbox import Sandbox


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


# -- what is started ---------------------------------------------------------------------------------------------------


def traced(shell, log, *arguments, **more):
    """Run ``ucl`` and note every program that it, or any of its children, starts: (arguments, environment) each.

    ``strace`` waits for the children too: a sandbox among them is told to end when ``ucl`` has told its outcome.
    """
    watch = ["-f", "-qq", "-v", "-s", "100000", *KEEP_DUMPABLE, "-e", "trace=execve,prctl", "-o", log]
    command = ["strace", *watch, UCL, *arguments]
    options = {"env": environment(shell.home, **more), "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(part) for part in command], **options) as process:
        process.stdout.readline()
        with suppress(FileNotFoundError):
            os.kill(json.loads((shell.home / "sandbox" / "ready.json").read_text())["pid"], signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 0, arguments
    # A call of one thread while another one calls is logged in two lines; the first has all that it was called with.
    ends = ("= 0", "<unfinished ...>")
    lines = [line for line in log.read_text().splitlines() if "execve(" in line and line.endswith(ends)]
    return [tuple(line.split("execve(", 1)[1].split("], [", 1)) for line in lines]


@pytest.mark.skipif(bool(UNFIT), reason=UNFIT)
def test_no_program_that_is_started_has_a_secret_among_its_arguments(ucl, tmp_path, proof):
    shell, hand, log = Shell(tmp_path / "home"), tmp_path / "hand", tmp_path / "trace"
    made_by_hand(hand, ucl)
    lock = ("openssl", "pkcs8", "-topk8", "-in", "ucl-app.key", "-out", "locked.key", "-passout", "stdin")
    tool(hand, *lock, given=CANARY)
    token = ucl.one_time_token()
    files = ("--key", hand / "locked.key", "--certificate", hand / "ucl-app.crt", "--ca-file", ucl.ca_file)
    where = ("--connector-url", ucl.certificate_secured_connector_url)
    started = traced(shell, log, "import", "a", *files, *where, "--passphrase", "env:P", P=CANARY)
    by_token = ("--token", "env:T", "--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file)
    started += traced(shell, log, "establish", "b", *by_token, T=token)
    practice = traced(shell, log, "establish", "c", "--sandbox", T=token, P=CANARY)
    started += traced(shell, log, "run", "02_maintain_connection", "-p", "connection", "c")
    known = {line for key in shell.home.rglob("key.pem") for line in key.read_text().split("\n")} | {token}
    arguments = [given for given, _ in started + practice]
    assert [leak for given in arguments for leak in leaks_in(given, known)] == []
    assert any("ucl_helpers.headless.kernel_process" in given for given in arguments)
    # `ucl` itself has the operator's environment. (Below a path with a blank, a shell starts first and then Python.)
    # The sandbox that it starts, and programs after that, get nothing of that environment.
    first = next(number for number, (given, _) in enumerate(practice) if "ucl_sandbox" in given)
    environments = [variables for _, variables in practice]
    assert all(leaks_in(variables, known) for variables in environments[:first])
    assert [leak for variables in environments[first:] for leak in leaks_in(variables, known)] == []
    proof("secrets", "programs started, their arguments searched", len(arguments))


# -- core dumps --------------------------------------------------------------------------------------------------------

DIES_WITHIN_UCL = """
import os, sys
from ucl_helpers.cli import main
try:
    main(["--home", sys.argv[1], "status", "prod"])
finally:
    os.abort()
"""


def left_by(folder, *command):
    """What a program leaves that dies by SIGABRT in a new folder, where it may leave core files of any size."""
    folder.mkdir()
    allow = ("sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh")
    done = subprocess.run([*allow, *map(str, command)], cwd=folder, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGABRT
    return list(folder.iterdir())


@pytest.fixture
def dumping(tmp_path):
    """This system leaves core files in the folder where a program dies."""
    if not left_by(tmp_path / "any", sys.executable, "-c", "import os; os.abort()"):
        pytest.skip("this system leaves no core files beside a program")


@pytest.mark.usefixtures("dumping")
def test_ucl_leaves_no_core_dump(ucl, tmp_path):
    install(Home(tmp_path / "home"), ucl, tmp_path)
    assert left_by(tmp_path / "here", sys.executable, "-c", DIES_WITHIN_UCL, tmp_path / "home") == []


DUMPABLE = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
UCL_INSIDE = """
from ucl_helpers.cli import main
try:
    main(["--help"])
finally:
"""


def test_of_ucl_itself_no_dump_is_made_at_all():
    """Nor by a handler that the kernel pipes to; and its own user's debuggers are kept out."""
    as_it_is, as_ucl = (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout.split()[-1]
        for script in (DUMPABLE, f"{UCL_INSIDE}    {DUMPABLE}")
    )
    assert (as_it_is, as_ucl) == ("1", "0")


# -- the watch over all tests ------------------------------------------------------------------------------------------

TOKEN = base64.urlsafe_b64encode(bytes(64)).decode()
LEAKS = {
    "a key": dump_key(rsa_key()).decode(),
    "a key on one line": dump_key(rsa_key()).decode().replace("\n", " "),
    "a token": f"token {TOKEN}, used",
    "a passphrase": f"it is {CANARY}!",
    "a known word": f"it says {'w' * 48}.",
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_the_watch_finds(text):
    assert leaks_in(text, {"w" * 48})


@pytest.mark.parametrize("text", ["a" * 64, "-----BEGIN CERTIFICATE-----\nMIIB", "PRIVATE KEY", "x" * 90 + "=="])
def test_the_watch_finds_nothing_in(text):
    assert not leaks_in(text, {"w" * 48})


@pytest.mark.parametrize(
    ("file", "mode", "found"),
    [
        ("runs/02.ipynb", 0o600, "holds a secret"),
        ("connections/prod/journal.jsonl", 0o600, "holds a secret"),
        ("connections/prod/pending/state.json", 0o600, "holds a secret"),
        ("connections/prod/pending/token", 0o640, "may be read by others"),
        ("connections/prod/pending/token", 0o600, None),
        ("elsewhere.txt", 0o644, None),
    ],
)
@pytest.mark.plants_secrets
def test_the_watch_looks_into_files(tmp_path, file, mode, found):
    path = tmp_path / "home" / file
    path.parent.mkdir(parents=True)
    path.write_text(TOKEN)
    path.chmod(mode)
    assert [leak.rpartition(f"{path.name} ")[2] for leak in leaks_below(tmp_path)] == ([found] if found else [])


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc")
def test_the_watch_looks_at_what_runs():
    """The word is secret to this test alone: others that end meanwhile look at the same processes."""
    word = secrets.token_urlsafe(36)
    command = [sys.executable, "-c", "print(flush=True); input()", word]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        found = [leak for line in command_lines() for leak in leaks_in(line, {word})]
        process.communicate(b"\n")
    assert found == [word]
    assert not [leak for line in command_lines() for leak in leaks_in(line, {word})]
