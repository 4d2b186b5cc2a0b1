"""What meets somebody on the first day: an old Python, no place to write, nothing installed, an early Ctrl-C."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command_line import BITS, BOUNDED, UCL, Shell, environment, needs_bounds
from test_cli_tools import serve
from test_runner import write_notebook

ROOT = Path(__file__).parent.parent
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
    command = ["make", ".venv/bin/python", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, (folder / ".venv").exists()


@needs_make
def test_an_old_python_is_told_and_how_to_name_another(tmp_path):
    """The Python is this one, which says that it is older."""
    (tmp_path / "old").write_text(OLD.format(sys.executable))
    (tmp_path / "old").chmod(0o755)
    code, said, there = made(tmp_path, tmp_path / "old")
    assert (code, there) == (2, False)
    assert said.startswith("Python 3.11 or newer is needed. If it has another name: make PYTHON=python3.12 ...\n")


@needs_make
@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_what_makes_environments_is_told_and_what_to_install(missing, tmp_path):
    """As where a distribution keeps them in another package: venv is not found; for ensurepip stands an error in it."""
    start = f'import sys; sys.modules[{missing!r}] = None; sys.argv = ["venv", *sys.argv[3:]]; import runpy; '
    script = f"""\
#!/bin/sh
[ "$1" = -c ] && exec {sys.executable} "$@"
exec {sys.executable} -c '{start}runpy.run_module("venv", run_name="__main__")' "$@"
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
    said = Shell(closed / "home", started_by=BOUNDED).ucl(*arguments, T="x")
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
from ucl_helpers_command import main
main()
"""
OPTIONAL = ",".join(
    [
        *("papermill", "ipykernel", "jupyter_client", "IPython", "tornado", "graphql", "matplotlib", "ipywidgets"),
        *("apprise", "prometheus_client", "distributed"),
    ]
)
TLS = [part for one in ("ca-file", "cert", "key") for part in (f"--tls-{one}", __file__)]
EXTRAS = {
    "run": ("run", "02"),
    "sandbox": ("sandbox",),
    "sandbox for practice": ("establish", "practice", "--sandbox"),
    "metrics": ("metrics",),
    "dask": ("fleet", "renew", "--scheduler", "tls://localhost:1", *TLS),
}


def without(missing, *arguments, home):
    """``ucl`` in an interpreter that finds some packages missing: an environment of its own would take minutes."""
    command = [sys.executable, "-c", WITHOUT, missing, *arguments]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("what", EXTRAS)
def test_an_extra_that_is_not_installed_is_named_with_the_line_that_brings_it(what, tmp_path):
    (tmp_path / "home" / "connections" / "prod").mkdir(parents=True, mode=0o700)
    (tmp_path / "home").chmod(0o700)
    done = without(OPTIONAL, *EXTRAS[what], home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'ucl-helpers[{what.split()[0]}]'" in done.stderr


@pytest.mark.parametrize("missing", ["graphql", "ipykernel", "jupyter_client"])
def test_half_an_extra_is_none(missing, tmp_path):
    arguments = ("sandbox",) if missing == "graphql" else ("run", "02")
    done = without(missing, *arguments, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"needs {missing}" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("status",), ("--help",), ("completion", "bash"), ("fleet", "--help")])
def test_what_needs_none_works_without(arguments, tmp_path):
    assert without(OPTIONAL, *arguments, home=tmp_path).returncode == 0


def test_pictures_without_what_draws_them_say_so():
    script = "import sys; sys.modules['matplotlib'] = None; import ucl_helpers.views.charts"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Install it with: pip install 'ucl-helpers[lab]'\n" in done.stderr


# -- an early Ctrl-C ---------------------------------------------------------------------------------------------------

WAITS = """
import os, signal, sys

class Waits:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["WAIT_AT"]:
            with open(os.environ["HERE"], "w"):
                pass
            try:
                signal.pause()
            except KeyboardInterrupt as error:
                if "IN_A_CLASS" in os.environ:  # where one is made, the interpreter does so by itself
                    raise RuntimeError("Error calling __set_name__") from error
                raise

sys.meta_path.insert(0, Waits())
"""
PLAIN = "from ucl_helpers.cli import main; main()"


def interrupted(folder, module, *command, **more):
    """How a program ends that gets SIGINT while it imports a module."""
    (folder / "sitecustomize.py").write_text(WAITS)
    os.mkfifo(folder / "here")
    more |= {"PYTHONPATH": str(folder), "WAIT_AT": module, "HERE": str(folder / "here")}
    with subprocess.Popen(
        command, env=environment(folder / "home", **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        (folder / "here").read_text()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.parametrize(
    "module",
    ["ucl_helpers", "requests", "cryptography", "ucl_helpers.renewal", "click", "ucl_helpers.automation.greeting"],
)
def test_ctrl_c_while_it_is_loaded_is_130_without_a_traceback(module, tmp_path):
    code, out, err = interrupted(tmp_path, module, UCL)
    assert (code, out) == (130, "")
    assert "Interrupted." in err
    assert "Traceback" not in err


@pytest.mark.parametrize("module", ["ucl_helpers", "cryptography"])
def test_nor_does_it_show_one_of_whatever_is_made_of_the_interrupt(module, tmp_path):
    code, out, err = interrupted(tmp_path, module, UCL, IN_A_CLASS="1")
    assert (code, out, err) == (130, "", "Interrupted.\n")


def test_nor_does_it_go_on_where_nobody_reads_what_it_says(tmp_path):
    code, _, _ = interrupted(tmp_path, "cryptography", "bash", "-c", 'exec "$0" 2>&-', UCL, IN_A_CLASS="1")
    assert code == 130


def test_without_its_first_module_a_traceback_would_be_seen(tmp_path):
    code, _, err = interrupted(tmp_path, "cryptography", sys.executable, "-c", PLAIN)
    assert (code, "Traceback" in err) == (-signal.SIGINT, True)
