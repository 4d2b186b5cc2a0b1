"""``ucl run`` (what needs no UCL), ``ucl notebooks`` and ``ucl sandbox`` as processes."""

import json
import os
import re
import signal
import stat
import subprocess
from datetime import timedelta

import pytest
from command_line import BITS, UCL, Shell, environment
from cryptography import x509
from notebook_runs import mode, printed, write_notebook
from quick_keys import QUICK_BITS

from ucl_helpers import Home
from ucl_helpers.connection import files
from ucl_helpers.headless.notebooks import packaged
from ucl_helpers.headless.run import run_notebook
from ucl_helpers.keys import dump_key, make_key
from ucl_private_files import write_file

OURS = sorted(path.name for path in packaged("notebooks").glob("*.ipynb"))


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path / "home", tmp_path)


# -- run ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [("-p", "place=a=b"), ("-p", "place", "a=b"), ("--parameter", "place=a=b")])
def test_a_parameter_is_given_as_two_words_or_as_one(given, shell, tmp_path):
    write_notebook(tmp_path / "in.ipynb", "print(place)", parameters='place: str = "here"')
    assert shell.ucl("run", "in.ipynb", "-o", "out.ipynb", *given).code == 0
    assert printed(tmp_path / "out.ipynb") == "a=b\n"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("-p", "plcae=a"), "there is no parameter 'plcae'"),
        (("-p", "place"), "'-p' requires 2 arguments"),
        (("-p", "=a"), "'-p' requires 2 arguments"),
        (("-p", "place=a", "b"), "unexpected extra argument (b)"),
    ],
)
def test_a_parameter_that_is_none_is_a_usage_error(given, told, shell, tmp_path):
    write_notebook(tmp_path / "in.ipynb", "print(place)", parameters='place: str = "here"')
    said = shell.ucl("run", "in.ipynb", *given)
    assert (said.code, told in said.err) == (2, True), said


TAKES = 'place: str = "here"\nbits: int = 1\nday: str = ""'


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (("-f", "a.yaml"), "file 2 2026-01-31"),
        (("--parameters_file", "a.yaml"), "file 2 2026-01-31"),
        (("-y", "{place: inline, bits: 3}"), "inline 3 "),
        (("--parameters_yaml", "place: inline"), "inline 1 "),
        (("-y", "place: inline", "-f", "a.yaml"), "inline 2 2026-01-31"),
        (("-p", "place", "word", "-y", "place: inline", "-f", "a.yaml"), "word 2 2026-01-31"),
        (("-y", "place: inline", "-y", "place: second"), "second 1 "),
        (("-y", ""), "here 1 "),
    ],
)
def test_parameters_are_given_as_yaml(given, values, shell, tmp_path):
    (tmp_path / "a.yaml").write_text("place: file\nbits: 2\nday: 2026-01-31\n")
    write_notebook(tmp_path / "in.ipynb", "print(place, bits, day)", parameters=TAKES)
    assert shell.ucl("run", "in.ipynb", "-o", "out.ipynb", *given).code == 0
    assert printed(tmp_path / "out.ipynb") == f"{values}\n"


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (("-f", "missing.yaml"), 2, "missing.yaml cannot be read"),
        (("-y", "place: 'hidden"), 2, "-y are not valid YAML"),
        (("-y", "place: !!python/name:os.hidden x"), 2, "-y are not valid YAML"),
        (("-y", "place: &a [*a]"), 2, "-y are not valid YAML"),
        (("-y", "[hidden]"), 2, "-y has no names of parameters"),
        (("-y", "plcae: x"), 2, "there is no parameter 'plcae'"),
        (("-y", "bits: long"), 2, "bits: 'long' is not int"),
        (("-y", "token: hidden"), 9, "Parameter 'token' holds a secret"),
    ],
)
def test_yaml_that_cannot_be_used_runs_nothing_and_replaces_the_outcome(given, code, message, shell, tmp_path):
    write_notebook(tmp_path / "in.ipynb", "print(place)", parameters=TAKES)
    (tmp_path / "out.outcome.json").write_text("{}")
    run = shell.ucl("run", "in.ipynb", "-o", "out.ipynb", *given)
    outcome = (tmp_path / "out.outcome.json").read_text()
    assert (run.code, message in run.err, json.loads(outcome)["exitCode"]) == (code, True, code), run
    assert "hidden" not in run.out + run.err + outcome
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(("known", "code"), [(True, 14), (False, 0)])
def test_the_keys_of_the_home_are_searched_for_though_the_notebook_does_not_take_it(known, code, shell, tmp_path):
    home, lines = Home(tmp_path / "other"), dump_key(make_key(QUICK_BITS)).decode().splitlines()
    folder = home.path / "connections" / "prod" / "pending"
    files.make_private_folder(home.path, folder.parent.parent, folder.parent, folder)
    write_file(folder / "key.pem", "\n".join(lines).encode() if known else b"")
    (tmp_path / "shown").write_text("".join(lines[4:11]))  # a part of the key, without its markers
    write_notebook(tmp_path / "own.ipynb", "print(open('shown').read())")
    said = shell.ucl("--home", home.path, "run", "own.ipynb", "-o", "out.ipynb")
    assert (said.code, lines[5] in (tmp_path / "out.ipynb").read_text()) == (code, not known), said


def test_home_is_given_to_a_notebook_that_takes_one(shell, tmp_path):
    write_notebook(tmp_path / "takes.ipynb", "print(home)", parameters='home: str = ""  # where')
    said = shell.ucl("run", "takes.ipynb", "--output", "out.ipynb")
    assert said.code == 0, said
    assert printed(tmp_path / "out.ipynb") == f"{shell.home}\n"
    assert said.out == f"takes: done\nexecuted notebook  {tmp_path / 'out.ipynb'}\n"


@pytest.mark.parametrize("output", ["out.txt", "-", "in.ipynb", "new/../in.ipynb", "there/in.ipynb"])
def test_an_output_that_is_no_notebook_or_the_very_one_is_refused(output, shell, tmp_path):
    notebook = write_notebook(tmp_path / "in.ipynb", "1")
    (tmp_path / "there").symlink_to(tmp_path)
    before = notebook.read_bytes()
    said = shell.ucl("run", "in.ipynb", "-o", output)
    assert (said.code, output in said.err, notebook.read_bytes()) == (2, True, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ipynb", "there"]


def test_a_run_if_due_needs_a_notebook_that_knows_of_it(shell, tmp_path):
    write_notebook(tmp_path / "in.ipynb", "1")
    said = shell.ucl("run", "in.ipynb", "--if-due")
    assert (said.code, "only_if_due, and in.ipynb has none" in said.err) == (2, True)


ASSERT = "from ucl_helpers import views\nviews.report_errors()\nassert {}, 'two is not three'"
BUSY = ASSERT.format("'home' not in globals()") + "\nfrom ucl_helpers import errors\nraise errors.Busy('x', remedy='y')"


def test_how_a_notebook_ended_is_the_exit_code(shell, tmp_path):
    write_notebook(tmp_path / "in.ipynb", BUSY)
    said = shell.ucl("run", "in.ipynb", "--json")
    assert (said.code, said.json["exitCode"], said.json["error"], said.json["outcome"]) == (8, 8, "Busy", "failed")
    [outcome] = (shell.home / "runs").glob("in-*.outcome.json")
    assert json.loads(outcome.read_text()) == said.json
    assert said.json["notebook"] == str(outcome).removesuffix(".outcome.json") + ".ipynb"


@pytest.mark.parametrize(
    ("cell", "code", "error"),
    [
        (ASSERT.format("2 == 3"), 6, "ChecksFailed"),
        (ASSERT.format("2 == 2"), 0, None),
        (ASSERT.format("2 == 2") + "\n1 / 0", 1, "ZeroDivisionError"),
        ("print('x' * 86 + '==')  # a one-time token", 14, "SecretRedacted"),
    ],
    ids=["broken", "held", "unexpected", "secret"],
)
def test_each_way_to_end_has_its_exit_code(cell, code, error, tmp_path):
    result = run_notebook(write_notebook(tmp_path / "in.ipynb", cell), tmp_path / "out.ipynb")
    assert (result.exit_code, result.outcome.get("error")) == (code, error)
    assert result.outcome["outcome"] == ("done" if code in {0, 14} else "failed")
    note = "[outputs removed: one-time token in cell 2, stdout]\n"
    assert (printed(result.output) == note) == (code == 14)


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        (("02", "-p", "conection", "prod"), 2, "UsageError"),
        (("02", "-p", "key_length", "long"), 2, "UsageError"),
        (("02", "-p", "passphrase", "s3cr3t"), 9, "SecretFound"),
        (("01", "-p", "token", "s3cr3t"), 9, "SecretFound"),
        (("01", "-p", "connector_url", "https://localhost/?token=s3cr3t"), 9, "SecretFound"),
        (("0",), 2, "UsageError"),
        (("nowhere.ipynb",), 2, "UsageError"),
        (("02", "-o", "."), 2, "UsageError"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_runs(options, code, error, shell):
    said = shell.ucl("run", *options, "--json")
    assert (said.code, said.err, said.json["error"]) == (code, "", error)
    assert "s3cr3t" not in said.out
    assert not shell.home.exists()


@pytest.mark.parametrize(("given", "code", "outcome"), [("no", 2, "failed"), ("True", 0, "done")])
def test_no_outcome_of_an_earlier_run_stays(given, code, outcome, shell, tmp_path):
    write_notebook(tmp_path / "in.ipynb", "print(due)", parameters="due: bool = True")
    assert shell.ucl("run", "in.ipynb", "-o", "o.ipynb").code == 0
    said = shell.ucl("run", "in.ipynb", "-o", "o.ipynb", "-p", "due", given)
    told = json.loads((tmp_path / "o.outcome.json").read_text())
    assert (said.code, told["exitCode"], told["outcome"]) == (code, code, outcome), said
    assert ("write True or False" in said.err) == bool(code)


DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


@pytest.mark.parametrize(("sent", "code", "but"), [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, DEAF)])
def test_a_run_that_is_stopped_is_saved(sent, code, but, shell, tmp_path):
    """Also if its cell cannot be interrupted, so that the kernel has to be killed."""
    os.mkfifo(tmp_path / "here")
    waits = f"{but}import threading\nopen({str(tmp_path / 'here')!r}, 'w').close()\nthreading.Event().wait()"
    write_notebook(tmp_path / "in.ipynb", "print('so far')", waits)
    command = [UCL, "run", "in.ipynb", "-o", "out.ipynb", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(shell.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        (tmp_path / "here").read_text()
        process.send_signal(sent)
        out, err = process.communicate()
    assert process.returncode == code
    assert not re.search(b"Traceback|Kernel died", err)
    assert (printed(tmp_path / "out.ipynb"), mode(tmp_path / "out.ipynb")) == ("so far\n", 0o600)
    assert json.loads(out)["exitCode"] == code


@pytest.mark.parametrize(("sent", "word"), [(signal.SIGINT, "Interrupted."), (signal.SIGTERM, "Terminated.")])
def test_a_run_that_is_stopped_says_where_its_notebook_is(sent, word, shell, tmp_path):
    os.mkfifo(tmp_path / "here")
    waits = f"import threading\nopen({str(tmp_path / 'here')!r}, 'w').close()\nthreading.Event().wait()"
    write_notebook(tmp_path / "in.ipynb", waits)
    command = [UCL, "run", "in.ipynb", "-o", "out.ipynb"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(shell.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        (tmp_path / "here").read_text()
        process.send_signal(sent)
        out, err = process.communicate()
    assert (out, word in err, "executed notebook  out.ipynb" in err) == ("", True, True)


# -- notebooks ---------------------------------------------------------------------------------------------------------


def test_notebooks_are_copied_and_a_changed_copy_is_kept(shell, tmp_path):
    said = shell.ucl("notebooks", "copies")
    assert (said.code, said.out.splitlines()) == (0, [f"copies/{name}" for name in OURS])
    assert [path.name for path in sorted((tmp_path / "copies").glob("*.ipynb"))] == OURS
    (tmp_path / "copies" / OURS[0]).write_text("mine")
    said = shell.ucl("notebooks", "copies")
    assert (said.code, said.out, (tmp_path / "copies" / OURS[0]).read_text()) == (2, "", "mine")


# -- sandbox -----------------------------------------------------------------------------------------------------------

KEYS = [
    *("pid", "directorUrl", "directorToken", "tenant", "applicationId"),
    *("connectorUrl", "certificateSecuredConnectorUrl", "caFile"),
]


def serve(folder, *options):
    """A sandbox that answers, and what it tells."""
    (folder / "out").mkdir()
    os.mkfifo(folder / "ready")
    command = [UCL, "sandbox", "--state", folder / "state", "--ready-file", folder / "out" / "ready.json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stderr.readline()
    return process, json.loads((folder / "out" / "ready.json").read_text())


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_sandbox_tells_how_it_is_reached_and_ends_when_told(ending, tmp_path):
    process, ready = serve(tmp_path)
    with process:
        assert list(ready) == KEYS
        assert ready["pid"] == process.pid
        assert stat.S_IMODE((tmp_path / "out" / "ready.json").stat().st_mode) == 0o600
        busy = Shell(tmp_path).ucl("sandbox", "--state", tmp_path / "state")
        process.send_signal(ending)
        out, err = process.communicate()
    assert (busy.code, f"process {process.pid}" in busy.err) == (2, True)
    assert (process.returncode, out, "Traceback" in err) == (0, "", False)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("where", ["--state", "--ready-file"])
def test_a_file_is_no_folder_for_a_sandbox(where, tmp_path):
    (tmp_path / "file").touch()
    folders = {"--state": tmp_path / "state", "--ready-file": tmp_path / "out" / "ready.json"}
    folders[where] = tmp_path / "file" / "below"
    said = Shell(tmp_path).ucl("sandbox", *(word for pair in folders.items() for word in pair))
    assert (said.code, f"{tmp_path / 'file'} is a file, not a folder" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "validity"),
    [("5s", timedelta(seconds=5)), ("2160h", timedelta(days=90)), ("3650d", timedelta(days=3650))],
)
def test_a_sandbox_signs_for_as_long_as_it_is_told(text, validity, tmp_path):
    process, ready = serve(tmp_path, "--validity", text, "--ca-layout", "root")
    with process:
        where = ("--director-url", ready["directorUrl"], "--tenant", ready["tenant"], "--bearer", "env:BEARER")
        more = ("--application-id", ready["applicationId"], "--ca-file", ready["caFile"])
        shell = Shell(tmp_path / "home")
        said = shell.ucl("establish", "prod", *where, *more, *BITS, "--json", BEARER=ready["directorToken"])
        process.terminate()
        process.communicate()
    assert said.code == 0, said
    chain = shell.home / "connections" / "prod" / "current" / "chain.pem"
    leaf, root = x509.load_pem_x509_certificates(chain.read_bytes())
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == validity
    assert root.subject == root.issuer


@pytest.mark.parametrize(
    ("text", "told"),
    [("0d", "not more than nothing"), ("-1d", "not a duration"), ("90", "not a duration"), ("soon", "not a duration")],
)
def test_a_validity_that_is_none_is_a_usage_error(text, told, shell):
    said = shell.ucl("sandbox", f"--validity={text}")
    assert (said.code, told in said.err, "45s" in said.err) == (2, True, True)
