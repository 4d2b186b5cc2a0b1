"""What meets somebody on the first day: an old Python, no place to write, nothing installed, an early Ctrl-C."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command_line import BITS, BOUNDED, UCL, Shell, environment, needs_bounds
from notebook_runs import write_notebook
from test_cli_tools import serve

ROOT = Path(__file__).parents[2]
ELSEWHERE = "with --home or UCL_HOME"
STRANGER = ("unshare", "--user", "--map-user=54321", "--map-group=54321")


def may_be_a_stranger():
    """Whether a process may get a user id that nobody has."""
    return bool(shutil.which("unshare")) and subprocess.run([*STRANGER, "true"], check=False).returncode == 0


# -- make --------------------------------------------------------------------------------------------------------------

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
OLD = """\
#!/bin/sh
exec {} -c 'import sys; sys.version_info = (3, 10, 13, "final", 0); exec(sys.argv[2])' "$@"
"""


def made(folder, python):
    """What making an environment says with this Python, in a folder of its own."""
    shutil.copy(ROOT / "Makefile", folder)
    kept = {name: value for name, value in environment().items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", ".venv/bin/python", f"PYTHON={shlex.quote(str(python))}"]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, (folder / ".venv").exists()


@needs_make
def test_an_old_python_is_told_and_how_to_name_another(tmp_path):
    """The Python is this one, which says that it is older."""
    (tmp_path / "old").write_text(OLD.format(shlex.quote(sys.executable)))
    (tmp_path / "old").chmod(0o755)
    code, said, there = made(tmp_path, tmp_path / "old")
    assert (code, there) == (2, False)
    assert said.startswith("Python 3.11 or newer is needed. If it has another name: make PYTHON=python3.12 ...\n")


@needs_make
@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_what_makes_environments_is_told_and_what_to_install(missing, tmp_path):
    """As where a distribution keeps them in another package: venv is not found; for ensurepip stands an error in it."""
    python = shlex.quote(sys.executable)
    start = f'import sys; sys.modules[{missing!r}] = None; sys.argv = ["venv", *sys.argv[3:]]; import runpy; '
    script = f"""\
#!/bin/sh
[ "$1" = -c ] && exec {python} "$@"
exec {python} -c '{start}runpy.run_module("venv", run_name="__main__")' "$@"
"""
    if missing == "ensurepip":  # which venv starts in the new environment
        script = script.replace("import runpy; ", "import runpy, venv; venv.EnvBuilder._setup_pip = lambda *_: 1 / 0; ")
    (tmp_path / "python").write_text(script)
    (tmp_path / "python").chmod(0o755)
    code, said, there = made(tmp_path, tmp_path / "python")
    assert (code, there) == (2, False)
    assert "The venv and ensurepip modules are needed (on Debian and Ubuntu: apt install python3-venv).\n" in said


@needs_make
def test_a_python_that_has_all_makes_one(tmp_path):
    assert made(tmp_path, sys.executable) == (0, "", True)


# -- no place to write -------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    yield folder
    folder.chmod(0o700)


@needs_bounds
@pytest.mark.parametrize(
    "arguments",
    [
        ("establish", "practice", "--sandbox"),
        ("establish", "new", "--token", "env:T", "--connector-url", "https://localhost/"),
        ("settings", "new", "--set", "/dev/null"),
        ("sandbox",),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_home_folder_that_cannot_be_made_is_told_and_how_to_choose_another(arguments, closed):
    said = Shell(closed / "home", started_by=BOUNDED).ucl(*arguments, T="x" * 86 + "==")
    assert (said.code, said.out, "Permission denied" in said.err) == (10, "", True)
    assert ELSEWHERE in said.err or str(closed) in said.err
    assert Shell(closed / "home", started_by=BOUNDED).ucl().code == 0


@needs_bounds
def test_so_it_is_where_the_users_own_folder_is_closed(closed):
    said = Shell(None, started_by=BOUNDED).ucl("establish", "practice", "--sandbox", HOME=str(closed), XDG_DATA_HOME="")
    assert (said.code, ELSEWHERE in said.err, str(closed) in said.err) == (10, True, True)


@needs_bounds
@pytest.mark.parametrize(
    "arguments",
    [("run", "in.ipynb", "-o", "{}/out.ipynb"), ("notebooks", "{}/mine"), ("metrics", "--textfile", "{}/x.prom")],
)
def test_a_folder_for_the_output_that_is_closed_is_told(arguments, closed, tmp_path):
    write_notebook(tmp_path / "in.ipynb", "1")
    shell = Shell(tmp_path / "home", tmp_path, BOUNDED)
    said = shell.ucl(*(one.format(closed) for one in arguments))
    assert (said.code, said.out) == (10, "")
    assert f"{closed}/" in said.err
    assert "Permission denied" in said.err


@pytest.mark.skipif(not may_be_a_stranger(), reason="no user namespaces here")
def test_a_user_that_the_system_does_not_know_has_to_name_a_home_folder(tmp_path):
    left_out = ("env", "--unset=HOME", "--unset=XDG_DATA_HOME", *STRANGER)
    for arguments in ((), ("status",), ("establish", "practice", "--sandbox")):
        said = Shell(None, started_by=left_out).ucl(*arguments)
        assert (said.code, said.out, ELSEWHERE in said.err) == (2, "", True)
    said = Shell(tmp_path / "home", started_by=left_out).ucl("establish", "practice", "--sandbox", *BITS)
    assert (said.code, said.err) == (0, "")


# -- no locale, no port ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.prefix.isascii(), reason="without a locale Python does not start below this path")
@pytest.mark.parametrize("locale", ["C", "xx_YY.UTF-8"])
@pytest.mark.parametrize("arguments", [(), ("--help",), ("establish", "--help"), ("status", "\N{SNOWMAN}")])
def test_without_a_usable_locale_all_is_said(locale, arguments, tmp_path):
    """As little as Python lets one have: what it does by itself about ASCII is turned off."""
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    said, usual = (Shell(tmp_path / "home").ucl(*arguments, **more) for more in (plain, {}))
    assert (said.code, "Traceback" in said.err) == (usual.code, False)
    assert len(said.out.splitlines()) == len(usual.out.splitlines())


def test_a_sandbox_whose_port_was_taken_meanwhile_takes_another(tmp_path):
    process, ready = serve(tmp_path)
    with process:
        process.terminate()
        process.communicate()
    port = urlsplit(ready["connectorUrl"]).port
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "ready").unlink()
    with socket.create_server(("127.0.0.1", port)):
        process, again = serve(tmp_path)
        with process:
            process.terminate()
            process.communicate()
    assert process.returncode == 0
    assert urlsplit(again["connectorUrl"]).port != port
    assert again["applicationId"] == ready["applicationId"]


# -- what is not installed ---------------------------------------------------------------------------------------------

WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from ucl_helpers.cli import main
main()
"""
OPTIONAL = ",".join(
    [
        *("papermill", "ipykernel", "jupyter_client", "IPython", "tornado", "graphql", "matplotlib", "ipywidgets"),
        *("apprise", "prometheus_client", "distributed"),
    ]
)


def without(missing, *arguments, home):
    """``ucl`` in an interpreter that finds some packages missing: an environment of its own would take minutes."""
    command = [sys.executable, "-c", WITHOUT, missing, *arguments]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("missing", ["graphql", "ipykernel", "jupyter_client"])
def test_half_an_extra_is_none(missing, tmp_path):
    arguments = ("sandbox",) if missing == "graphql" else ("run", "02")
    done = without(missing, *arguments, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"needs {missing}" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("status",), ("--help",), ("completion", "bash"), ("fleet", "--help")])
def test_what_needs_none_works_without(arguments, tmp_path):
    assert without(OPTIONAL, *arguments, home=tmp_path).returncode == 0


# -- an early Ctrl-C ---------------------------------------------------------------------------------------------------

WAITS = """
import os, signal, sys

class Waits:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["WAIT_AT"]:
            with open(os.environ["HERE"], "w"):
                pass
            signal.pause()

sys.meta_path.insert(0, Waits())
"""


@pytest.mark.parametrize(("module", "code"), [("cryptography", -signal.SIGINT), ("ucl_helpers.operate.greeting", 130)])
def test_ctrl_c_ends_it_while_it_is_loaded_and_afterwards(module, code, tmp_path):
    """The first module is imported before ``ucl`` has begun; there the traceback is Python's own."""
    (tmp_path / "sitecustomize.py").write_text(WAITS)
    os.mkfifo(tmp_path / "here")
    more = {"PYTHONPATH": str(tmp_path), "WAIT_AT": module, "HERE": str(tmp_path / "here")}
    variables = environment(tmp_path / "home", **more)
    with subprocess.Popen([UCL], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        (tmp_path / "here").read_text()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, "Traceback" in err) == (code, "", code != 130)
