"""A command whose output cannot be written has done its work, says so if it can, and ends with a code of its own."""

import os
import subprocess
from pathlib import Path

import pytest
from command_line import BITS, UCL, Shell, environment
from notebook_runs import write_notebook

from ucl_sandbox import Sandbox

FULL = Path("/dev/full")
LOST = 15


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lost")
    made = Shell(folder / "home", folder)
    write_notebook(folder / "fine.ipynb", "print('fine')")
    write_notebook(folder / "fails.ipynb", "1 / 0")
    with Sandbox() as ucl:
        for name in ("prod", "old"):
            made.establish(name, ucl)
        yield made


def ended(shell, *arguments, out=FULL, err=None):
    """Exit code, and what is said on standard error, unless that goes to a file as well."""
    with Path(out).open("wb") as output, Path(err or os.devnull).open("wb") as errors:
        streams = {"stdout": output, "stderr": errors if err else subprocess.PIPE}
        done = subprocess.run([UCL, *arguments], cwd=shell.folder, env=environment(shell.home), check=False, **streams)
    return done.returncode, (done.stderr or b"").decode()


RUN = ("-o", "out.ipynb")
COMMANDS = {
    "renew": (("renew", "prod", "--force", *BITS), "prod: renewed"),
    "renew as JSON": (("renew", "prod", "--force", *BITS, "--json"), "prod: renewed"),
    "renew when not due": (("renew", "prod"), "prod: not-due"),
    "a rehearsal": (("renew", "prod", "--dry-run", *BITS), "prod: rehearsed"),
    "rollback": (("rollback", "prod"), "prod: "),
    "revoke": (("revoke", "old", "--yes"), "old: revoked"),
    "status": (("status",), "The output could not be written"),
    "status as JSON": (("status", "--json"), "The output could not be written"),
    "status of one": (("status", "prod", "--json"), "The output could not be written"),
    "path": (("path", "prod", "key"), "The output could not be written"),
    "journal": (("journal", "prod"), "The output could not be written"),
    "metrics": (("metrics",), "The output could not be written"),
    "settings": (("settings", "prod"), "The output could not be written"),
    "doctor": (("doctor", "prod", "--offline"), "The output could not be written"),
    "hooks": (("hooks", "prod"), "The output could not be written"),
    "fleet status": (("fleet", "status"), "The output could not be written"),
    "explain": (("explain", "Waiting"), "The output could not be written"),
    "completion": (("completion", "bash"), "The output could not be written"),
    "help": (("--help",), "The output could not be written"),
    "the version": (("--version",), "The output could not be written"),
    "no command": ((), "The output could not be written"),
    "run": (("run", "fine.ipynb", *RUN), "fine: done"),
    "run as JSON": (("run", "fine.ipynb", *RUN, "--json"), "fine: done"),
    "run that is not due": (("run", "02", "-p", "connection", "prod", "--if-due"), "prod: not-due"),
    "forget": (("forget", "old", "--yes"), "old: "),
}


@pytest.mark.kind("success: outputs that are lost")
@pytest.mark.parametrize("case", COMMANDS)
def test_a_lost_output_has_a_code_of_its_own_and_says_what_was_done(case, shell):
    arguments, said = COMMANDS[case]
    code, err = ended(shell, *arguments)
    assert (code, "OutputLost: " in err, "No space left on device" in err) == (LOST, True, True), err
    assert said in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


FAILURES = {
    "an unknown name": (("status", "nobody"), 2, "UnknownConnection"),
    "an unknown name, as JSON": (("status", "nobody", "--json"), 2, "UnknownConnection"),
    "a wrong option, as JSON": (("status", "--no-such", "--json"), 2, "UsageError"),
    "a run that fails": (("run", "fails.ipynb", *RUN), 1, "ZeroDivisionError"),
    "a check": (("status", "nobody", "--check"), 3, "The output could not be written"),
}


@pytest.mark.kind("success: failures whose output is lost")
@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_keeps_its_code_and_is_told_on_standard_error(case, shell):
    arguments, expected, said = FAILURES[case]
    code, err = ended(shell, *arguments)
    assert (code, said in err) == (expected, True), err


@pytest.mark.parametrize(("arguments", "expected"), [(("status",), LOST), (("status", "nobody"), 2)])
def test_if_standard_error_is_lost_too_the_code_tells(arguments, expected, shell):
    assert ended(shell, *arguments, err=FULL)[0] == expected


def test_a_lost_standard_error_alone_changes_nothing(shell):
    before = shell.fingerprint("prod")
    assert ended(shell, "renew", "prod", "--force", *BITS, out=os.devnull, err=FULL)[0] == 0
    assert shell.fingerprint("prod") != before


def test_the_renewal_is_in_place(shell):
    before = shell.fingerprint("prod")
    assert ended(shell, "renew", "prod", "--force", *BITS)[0] == LOST
    assert shell.fingerprint("prod") != before
    assert ended(shell, "renew", "prod", "--force", *BITS, out=os.devnull)[0] == 0


def test_a_closed_output_is_no_lost_one_and_a_reader_that_has_gone_is_told_nothing(shell):
    closed = subprocess.run(["sh", "-c", f"{UCL} status >&-"], env=environment(shell.home), check=False)
    assert closed.returncode == 0
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [UCL, "status"], env=environment(shell.home), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
