"""Modules that another user planted in the current folder: no command imports one, nor does any process it starts.

The folder is as the system's temporary folder is: every user may write there. In it stands a module for each name that
is imported anywhere: the standard library, every installed distribution, and this package's own.
"""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import BIN, BITS, UCL, environment
from dask_cluster import Cluster
from quick_keys import QUICK_BITS
from test_folders import served

import ucl_helpers
import ucl_sandbox
from ucl_helpers.cli.main import group
from ucl_helpers.headless.notebooks import find_notebook
from ucl_sandbox import shared

PACKAGES = [Path(package.__file__).parent for package in (ucl_helpers, ucl_sandbox)]
PLANTED = """
import posix  # built in, so it cannot be planted
log = posix.open({log!r}, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT, 0o666)
posix.write(log, {name!r}.encode() + b"\\n")
posix.close(log)
raise ImportError("planted")
"""
BUILT_IN = {*sys.builtin_module_names, "__main__"}


def names():
    """Every module name that a process could look for in a folder."""
    installed = importlib.metadata.packages_distributions()
    own = {"sitecustomize", "usercustomize", "ipykernel_launcher", "ucl_helpers", "ucl_sandbox", "tests", "conftest"}
    tops = {name.split("/")[0] for name in installed}
    return {name for name in {*sys.stdlib_module_names, *tops, *own} - BUILT_IN if name.isidentifier()}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The folder, and the log that a planted module writes to when it runs."""
    folder = tmp_path_factory.mktemp("planted")
    log = folder / "planted.log"
    for name in names():
        (folder / f"{name}.py").write_text(PLANTED.format(log=str(log), name=name))
    for name in ("ipython_config", "ipython_kernel_config", "jupyter_config", "jupyter_client_config"):
        (folder / f"{name}.py").write_text(PLANTED.format(log=str(log), name=name))
    folder.chmod(0o1777)
    return folder, log


def run(planted, home, *command, **more):
    """What was planted and ran, and how the command ended."""
    folder, log = planted
    log.unlink(missing_ok=True)
    variables = environment(home, **more)
    variables.pop("PYTEST_CURRENT_TEST", None)
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return sorted(set(log.read_text().split())) if log.exists() else [], done


def test_a_command_that_starts_python_plainly_does_run_what_is_planted(planted, tmp_path):
    ran, _ = run(planted, tmp_path / "home", sys.executable, "-c", "import requests")
    assert {"requests", "linecache"} & {*ran}  # the second one first, from Python 3.13 on


SMALL = ("-p", "key_length", str(QUICK_BITS))
SETTINGS = f"""\
key_length = {QUICK_BITS}

[notices]
urls = ["env:NOTICE"]

[[hooks]]
name = "after"
command = ["true"]
"""
IDENTITY = "{home}/connections/prod/current"
IMPORT = (
    *("import", "imported", "--key", f"{IDENTITY}/key.pem", "--certificate", f"{IDENTITY}/chain.pem"),
    *("--connector-url", "{url}", "--ca-file", "{ca_file}"),
)
ESTABLISH = ("establish", "prod", "--sandbox", *BITS)
SERVE = ("sandbox", "--state", "{home}/another-sandbox")
DASK_FLEET = ("fleet", "renew", "prod", "--force")
COMMANDS = (
    ((), 0),
    (("--help",), 0),
    (("status", "prod"), 0),
    (("status", "prod", "--check"), 1),  # the hook has not run
    (IMPORT, 0),
    (("doctor", "prod"), 0),
    (("hooks", "prod"), 0),
    (("renew", "prod", "--force", *BITS), 0),
    (("run", "02_maintain_connection", "-p", "connection", "prod", *SMALL), 0),
    (("run", "02_maintain_connection", "-p", "connection", "prod", "--if-due"), 0),
    (("run", "05_explorer", "--practice"), 0),
    (("fleet", "status"), 0),
    (("fleet", "renew", "--force", "--jobs", "2"), 0),
    (("run", "04_fleet", "--practice"), 0),
    (("run", "06_break_it_safely", *SMALL), 0),
    (("metrics",), 0),
    (("journal", "prod"), 0),
    (("path", "prod", "identity"), 0),
    (("settings", "prod"), 0),
    (("export", "prod"), 0),
    (("explain", "Busy"), 0),
    (("completion", "bash"), 0),
    (("notebooks", "copies"), 0),
    (("rollback", "prod"), 0),
    (("revoke", "prod", "--yes", "--all"), 0),
    (("forget", "prod", "--yes"), 0),
)


def paths_of(commands, before=()):
    """The words that name each command of a click group, those of its groups included."""
    for name, command in commands.commands.items():
        words = (*before, name)
        yield from paths_of(command, words) if isinstance(command, click.Group) else [words]


def test_each_command_of_the_program_is_run():
    run_here = [ESTABLISH, SERVE, DASK_FLEET, *(arguments for arguments, _ in COMMANDS)]
    known = set(paths_of(group))
    named = {words for words in known for arguments in run_here if arguments[: len(words)] == words}
    assert named == known


def test_no_command_runs_what_is_planted(planted, tmp_path, proof):
    """In the order of a connection's life: each command has something to do."""
    home, found = tmp_path / "home", {}
    ran, done = run(planted, home, UCL, *ESTABLISH)
    assert (ran, done.returncode) == ([], 0), done.stderr
    (home / "connections" / "prod" / "settings.toml").write_text(SETTINGS)
    (home / "connections" / "prod" / "settings.toml").chmod(0o600)
    with shared(home) as ucl:  # the sandbox stays, however long a command takes
        known = {"home": home, "url": ucl.certificate_secured_connector_url, "ca_file": ucl.ca_file}
        for command, code in COMMANDS:
            arguments = [word.format(**known) for word in command]
            ran, done = run(planted, home, UCL, *arguments, NOTICE="json://localhost:1/")
            if (ran, done.returncode) != ([], code):
                found[" ".join(arguments)] = (ran, done.returncode, done.stdout[-500:], done.stderr[-500:])
    shutil.rmtree(planted[0] / "copies")
    assert found == {}
    proof("planted", "commands that ran none of the planted modules", len(COMMANDS) + 1)
    proof("planted", "modules planted", len(names()))


def test_a_sandbox_in_the_foreground_runs_none(planted, tmp_path, proof):
    folder, log = planted
    log.unlink(missing_ok=True)
    arguments = [word.format(home=tmp_path) for word in SERVE]
    assert served(*arguments, cwd=folder, env=environment(tmp_path / "home")) == (True, 0)
    assert not log.exists()
    proof("planted", "commands that ran none of the planted modules", 1)


def test_a_fleet_of_a_dask_cluster_runs_none(planted, tmp_path, proof):
    """``ucl`` is started in the folder. Scheduler and worker are started elsewhere, see ``test_dask_folder.py``."""
    home = tmp_path / "home"
    ran, done = run(planted, home, UCL, *ESTABLISH)
    assert (ran, done.returncode) == ([], 0), done.stderr
    (tmp_path / "cluster").mkdir()
    with shared(home), Cluster(tmp_path / "cluster", workers=1) as cluster:
        ran, done = run(planted, home, UCL, *DASK_FLEET, *cluster.options)
    assert (ran, done.returncode) == ([], 0), done.stderr
    assert b"renewed" in done.stdout
    proof("planted", "commands that ran none of the planted modules", 1)


@pytest.mark.parametrize("engine", [("--engine", "ucl"), ()], ids=["engine ucl", "plain papermill"])
def test_papermill_runs_what_is_planted_only_without_our_engine(engine, planted, tmp_path):
    notebook = find_notebook("02")
    options = ["-k", "python3", "-l", "python", "--no-progress-bar", *SMALL, "-p", "home", tmp_path / "home"]
    options += ["-p", "practice", "true"]
    ran, done = run(planted, tmp_path / "home", BIN / "papermill", *engine, *options, notebook, tmp_path / "out.ipynb")
    assert (ran == [], done.returncode == 0) == (bool(engine), bool(engine)), done.stderr[-2000:]


def test_a_notebook_beside_planted_modules_runs_none(planted, tmp_path):
    """Its own folder is on the path only where no other user can write."""
    shutil.copy(find_notebook("02"), planted[0] / "mine.ipynb")
    ran, done = run(
        planted, tmp_path / "home", UCL, "run", "mine.ipynb", *SMALL, "--practice", "-o", tmp_path / "out.ipynb"
    )
    assert (ran, done.returncode) == ([], 0), done.stderr


FLEET = """
from ucl_helpers.fleet.executors import Processes
executor = Processes(1)
print(executor.submit(len, "abc").result())
executor.shutdown()
"""


def test_the_servers_of_a_fleet_run_none_where_a_program_of_the_users_own_starts_them(planted, tmp_path):
    ran, done = run(planted, tmp_path / "home", sys.executable, "-P", "-c", FLEET)
    assert (ran, done.stdout) == ([], b"3\n"), done.stderr
    (tmp_path / "program.py").write_text(FLEET)
    ran, done = run(planted, tmp_path / "home", sys.executable, tmp_path / "program.py")
    assert (ran, done.stdout) == ([], b"3\n"), done.stderr


SETTINGS_OF_PICTURES = {
    "a FIFO": (os.mkfifo, True),
    "a symlink": (lambda path: path.symlink_to("/etc/passwd"), True),
    "writable by others": (lambda path: (path.touch(), path.chmod(0o666)), True),
    "a file of this user": (lambda path: (path.touch(), path.chmod(0o644)), False),
    "a folder": (Path.mkdir, False),
    "nothing": (lambda _: None, False),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("made", SETTINGS_OF_PICTURES)
def test_pictures_are_not_drawn_by_the_settings_of_another_user(made, tmp_path):
    make, refused = SETTINGS_OF_PICTURES[made]
    make(tmp_path / "matplotlibrc")
    command = [sys.executable, "-P", "-c", "import ucl_helpers.views.charts"]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "would read matplotlibrc in the current folder" in done.stderr) == (refused, refused), done


# -- every place that starts an interpreter ----------------------------------------------------------------------------


def unsafe_starts(text):
    """Lines that name ``sys.executable`` as a program to start, and do not go on with ``-P``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.List | ast.Tuple):
            words = [ast.unparse(word) for word in node.elts]
            if "sys.executable" in words and "'-P'" not in words:
                yield node.lineno


def test_each_place_that_starts_an_interpreter_starts_it_in_safe_path_mode():
    sources = {path: path.read_text() for package in PACKAGES for path in package.rglob("*.py")}
    assert [f"{path}:{line}" for path, text in sources.items() for line in unsafe_starts(text)] == []
    assert sum("sys.executable" in text for text in sources.values()) >= 4
    # A Connection starts nothing; what else multiprocessing has starts interpreters without -P.
    starts = re.compile(r"(?m)ProcessPool|(from|import) multiprocessing(?!\.connection import Connection$)")
    assert [path.name for path, text in sources.items() if starts.search(text)] == []


@pytest.mark.parametrize(("line", "count"), [("[sys.executable, '-c', x]", 1), ("[sys.executable, '-P', '-m', x]", 0)])
def test_a_place_that_does_not_is_found(line, count):
    assert len(list(unsafe_starts(line))) == count


def test_the_folder_is_what_it_is_meant_to_be(planted):
    folder, _ = planted
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert len(list(folder.glob("*.py"))) > 300
    assert os.access(folder / "requests.py", os.R_OK)
