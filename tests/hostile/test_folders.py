"""Every command refuses every folder that another user could change, before it reads or writes anything there.

A defect is planted in one folder that we use, or above the home folder. Then each command is run that uses this folder.
It ends with an error that names the folder, and nothing has changed: not in the home folder, not where a planted
symlink leads. Without the defect the same commands end with the exit codes of :data:`ENDS`, see
:func:`test_without_a_defect_each_command_ends_as_expected`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import papermill
import pytest
from command_line import UCL, environment
from notebook_runs import write_notebook
from processes import own_process
from steps import install
from test_planted import look
from tracing import KEEP_DUMPABLE, STRACE, UNFIT

from ucl_helpers.cli.main import main
from ucl_helpers.connection.files import read_regular
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.headless.notebooks import find_notebook
from ucl_helpers.headless.run import run_notebook
from ucl_helpers.practice import open_connection
from ucl_helpers.procedures.renewal import renew
from ucl_sandbox import Access, Sandbox, SandboxError, join
from ucl_sandbox.process import USERS_LOCK
from ucl_sandbox.server import READY_FILE, ready_file

pytest_plugins = ["procedure_fixtures"]
STRANGER = 65534
as_root = pytest.mark.needs_root("only root gives files to another user")

READING = (
    *("status prod", "status prod --json", "path prod key", "journal prod", "settings prod", "export prod"),
    *("doctor prod --offline", "status prod --check"),
)
WRITING = (
    *("renew prod --force", "renew prod --dry-run", "revoke prod --all --yes", "rollback prod", "hooks prod"),
    *("forget prod --even-if-valid --yes", "settings prod --set settings.toml"),
)
OF_ALL = ("status", "", "fleet status", "metrics", "doctor --offline", "fleet renew --jobs 1")
MAKING = (
    "establish new --sandbox",
    "settings new --set settings.toml",
    "sandbox",
    "run 02_maintain_connection --practice",
)
IMPORT = "import other --key key.pem --certificate chain.pem --connector-url {} --ca-file ca.pem"
USERS = {
    ".": (*READING, *WRITING, *OF_ALL, *MAKING, IMPORT),
    "connections": (*READING, *WRITING, *OF_ALL, IMPORT, "settings new --set settings.toml"),
    "connections/prod": (*READING, *WRITING),
    "connections/prod/generations": (*READING, *WRITING),
    "connections/prod/pending": (*READING, *WRITING),
    "connections/prod/aside": (*READING, *WRITING),
    "sandbox": ("sandbox", "establish new --sandbox", "establish prod --sandbox"),
    "runs": ("run 02_maintain_connection --practice", "run 02 -p connection prod --if-due", "fleet renew --jobs 1"),
    "fleet": ("fleet renew --jobs 1", "fleet renew --jobs 1 --force"),
}
"""Each folder, and the commands that use it; the home folder's are all."""
DISTINCT = tuple(dict.fromkeys(command for commands in USERS.values() for command in commands))
ENDS = {
    "establish prod --sandbox": (2, "prod is a real connection, not one for practice"),
}
"""Exit code and a part of the message of each command that does not end with 0 when its folders are in order."""


def linked(path):
    """The folder is moved to a victim's, and a symlink leads there."""
    target = Path(os.environ["VICTIM"]) / "moved"
    path.rename(target)
    path.symlink_to(target)
    if path.name == "home":  # its own symlink a user may have made, another user's may not
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


DEFECTS = {
    "another owner": lambda path: os.chown(path, STRANGER, STRANGER),
    "a group that can write": lambda path: path.chmod(0o770),
    "everybody who can write": lambda path: path.chmod(0o1777),
    "a symlink": linked,
}
ABOVE = {
    "a parent that everybody can write to": lambda path: path.parent.chmod(0o777),
    "a grandparent that everybody can write to": lambda path: path.parent.parent.chmod(0o777),
    "a parent of another owner": lambda path: os.chown(path.parent, STRANGER, STRANGER),
    "a parent that another group can write to": lambda path: (
        os.chown(path.parent, 0, STRANGER),
        path.parent.chmod(0o775),
    ),
}
BY_ROOT = {"another owner", "a parent of another owner", "a parent that another group can write to"}
CASES = [(place, defect) for place in USERS for defect in DEFECTS] + [(".", defect) for defect in ABOVE]
PARAMETERS = [
    pytest.param(*case, marks=as_root if case[1] in BY_ROOT or case == (".", "a symlink") else ()) for case in CASES
]


@pytest.fixture
def home(tmp_path):
    """The home folder, two folders below the test's own."""
    (tmp_path / "outer" / "parent").mkdir(parents=True, mode=0o755)
    return Home(tmp_path / "outer" / "parent" / "home")


@pytest.fixture
def prod(secure, tmp_path, monkeypatch, ucl):
    """An established connection, every folder that there can be, and files to import and to set."""
    for place in USERS:
        (secure.home.path / place).mkdir(mode=0o700, exist_ok=True)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    monkeypatch.setenv("VICTIM", str(victim))
    monkeypatch.chdir(tmp_path)
    for name in ("key.pem", "chain.pem"):
        shutil.copy(secure.current.path / name, tmp_path / name)
    shutil.copy(ucl.ca_file, tmp_path / "ca.pem")
    (tmp_path / "settings.toml").write_text("keep = 4\n")
    return secure


def said_by(capfd, home, *arguments):
    """The exit code, and what is said; the command runs in this process."""
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home.path), *arguments])
    out, err = capfd.readouterr()
    return ended.value.code, out + err


@pytest.mark.parametrize(("place", "defect"), PARAMETERS)
def test_a_folder_with_a_defect_is_refused_by_every_command(prod, between, tmp_path, capfd, place, *, defect, proof):
    folder, url, calls = prod.home.path / place, between.certificate_secured_connector_url, len(between.calls)
    {**DEFECTS, **ABOVE}[defect](folder)
    before = look(tmp_path)
    for command in USERS[place]:
        code, said = said_by(capfd, prod.home, *command.format(url).split())
        assert code == (3 if "--check" in command else 10), (command, said)
        words = re.sub(r"\s+", "", said.replace("\\n", ""))
        assert str(folder) in words, (command, said)
        assert re.search("chmodgo-w|chmod-R|chown|sudo-u|rm|Chooseapath|Chooseafolder", words), (command, said)
        assert {path: facts for path, facts in look(tmp_path).items() if before.get(path) != facts} == {}, command
        assert before.keys() == look(tmp_path).keys(), command
    assert len(between.calls) == calls
    proof("folders", "planted links and foreign folders refused", len(USERS[place]))


@pytest.mark.parametrize(("place", "defect"), [one for one in PARAMETERS if one.values[0] in {".", "connections/prod"}])
def test_so_it_is_by_the_functions_that_notebooks_call(prod, tmp_path, place, defect, proof):
    {**DEFECTS, **ABOVE}[defect](prod.home.path / place)
    before, path = look(tmp_path), prod.home.path
    acts = (
        lambda: Home(path).connection("prod"),
        lambda: Connection(Home(path), "prod").session(),
        Connection(Home(path), "prod").read_settings,
        lambda: Connection(Home(path), "prod").journal(),
        lambda: Connection(Home(path), "prod").generations(),
        lambda: Connection(Home(path), "prod").pending,
        lambda: renew(Connection(Home(path), "prod")),
        lambda: Home(path).new("prod"),
        lambda: open_connection("prod", path, practice=""),
        lambda: open_connection("prod", path, practice="", key_file="key.pem"),
    )
    for act in acts:
        with pytest.raises(StorageFailed, match=r"chmod|chown|rm |Choose"):
            act()
    status = status_of(Connection(Home(path), "prod"))
    assert (status.state, status.generation) == ("damaged", None)
    assert look(tmp_path) == before
    proof("folders", "planted links and foreign folders refused", len(acts) + 1)


def served(*arguments, **options):
    """Start ``ucl``, and end it by SIGTERM once it announces that it serves: whether it did, and its exit code."""
    with subprocess.Popen([UCL, *arguments], stderr=subprocess.PIPE, text=True, **options) as server:
        announced = any("server CA" in line for line in server.stderr)
        server.terminate()
        server.stderr.read()
    return announced, server.returncode


@pytest.mark.parametrize("command", DISTINCT, ids=lambda command: command or "no command")
def test_without_a_defect_each_command_ends_as_expected(prod, between, capfd, command):
    """Each command runs on a connection of its own, which was renewed once: so `rollback` has an earlier generation."""
    assert renew(Connection(Home(prod.home.path), "prod")).outcome == "renewed"
    code, message = ENDS.get(command, (0, ""))
    if command == "sandbox":
        assert served(command, env=environment(prod.home.path)) == (True, 0)
        return
    with own_process(prod.home.path) if needs_sandbox(command) else nullcontext():
        ended, said = said_by(capfd, prod.home, *command.format(between.certificate_secured_connector_url).split())
    assert (ended, message in said) == (code, True), said


def needs_sandbox(command):
    """Whether a command practises. Its sandbox then runs beforehand, and ends with the test."""
    return "--sandbox" in command or command == "run 02_maintain_connection --practice"


def test_each_exception_among_the_exit_codes_belongs_to_a_command():
    assert ENDS.keys() <= set(DISTINCT)


def test_current_leads_into_the_folder_of_generations_alone(prod, tmp_path):
    """A generation that another user has put there is not read."""
    generation = prod.current.path
    generation.chmod(0o770)
    with pytest.raises(StorageFailed, match="can be changed by others"):
        prod.require_current()
    generation.chmod(0o750)  # as with a group of readers in the settings
    assert prod.require_current().path == generation


TRACED = ("status prod", "export prod", "establish new --sandbox", "sandbox", "run 02_maintain_connection --practice")


def opened_below(home, log, command):
    """Trace a command: its exit code, its standard error, and its calls that open or change files below the home."""
    calls = ("-e", "trace=%file,ftruncate,prctl", "-e", "signal=none")
    tracing = [STRACE, *KEEP_DUMPABLE, "-f", "-qq", *calls, "-o", log]
    options = {"env": environment(home.path), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*tracing, UCL, *command.split()], **options) as process:
        said = ""
        for line in process.stderr:
            said += line
            if "server CA" in line:  # the sandbox serves, until the program that is traced gets SIGTERM
                os.kill(json.loads((home.path / "sandbox" / READY_FILE).read_text())["pid"], signal.SIGTERM)
    lines = [line for line in log.read_text().splitlines() if f"{home.path}/" in line]
    opened = [line for line in lines if re.search(r" (open\w*|mkdir\w*|rename\w*|unlink\w*|creat)\(", line)]
    return process.returncode, said, opened


@pytest.mark.skipif(bool(UNFIT), reason=UNFIT)
@pytest.mark.parametrize("defect", [True, False], ids=["refused", "without a defect"])
@pytest.mark.parametrize("command", TRACED)
def test_no_file_is_opened_below_a_home_that_is_refused(prod, tmp_path, command, *, defect, proof):
    """Seen from outside of the process; the twin is the same command without the defect, which opens files there."""
    if defect:
        prod.home.path.chmod(0o777)
    with own_process(prod.home.path) if needs_sandbox(command) and not defect else nullcontext():
        code, said, opened = opened_below(prod.home, tmp_path / "calls", command)
    assert (code, opened != []) == ((10, False) if defect else (0, True)), (said, opened)
    proof("folders", "planted links and foreign folders refused", int(defect))


# -- the sandbox -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "defect",
    [pytest.param(one, marks=as_root) if one in {*BY_ROOT, "a symlink"} else one for one in (*DEFECTS, *ABOVE)],
)
def test_a_state_folder_with_a_defect_is_refused(tmp_path, capfd, monkeypatch, defect, proof):
    monkeypatch.setenv("VICTIM", str(tmp_path))
    state = tmp_path / "outer" / "home"
    state.mkdir(parents=True)
    {**DEFECTS, **ABOVE}[defect](state)
    before = look(tmp_path)
    code, said = said_by(capfd, Home(tmp_path / "another"), "sandbox", "--state", str(state))
    assert (code, look(tmp_path)) == (2, before), said
    assert str(state) in said
    with pytest.raises(SandboxError, match=r"chmod|chown|Choose"), Sandbox(state):
        pass
    assert look(tmp_path) == before
    proof("folders", "planted links and foreign folders refused", 2)


def test_a_state_folder_without_a_defect_is_used(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    with Sandbox(tmp_path / "state") as ucl:
        assert ucl.state == tmp_path / "state"


REFUSED = (USERS_LOCK, "start.lock", "lock", "state.sqlite", "state.sqlite-wal")
"""Files that the sandbox opens in place: a symlink is an error, wherever it leads."""
MADE_ONCE = ("client-root.pem", "client-intermediate.pem", "server-root.pem")
"""Files that the sandbox reads if they exist, and makes otherwise: only a symlink that leads nowhere is replaced."""
REPLACED = ("process.log", READY_FILE, "server.pem", "server-ca.pem")
"""Files that the sandbox writes at every start: a symlink is replaced, wherever it leads."""
LINKED = [
    *((name, target, True) for name in REFUSED for target in ("precious", "missing")),
    *((name, target, target == "precious") for name in MADE_ONCE for target in ("precious", "missing")),
    *((name, target, False) for name in REPLACED for target in ("precious", "missing")),
]


@pytest.mark.parametrize(("name", "target", "refused"), LINKED)
def test_no_file_of_the_sandbox_is_written_through_a_symlink(tmp_path, name, target, *, refused, proof):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    state = tmp_path / "home" / "sandbox"
    state.mkdir(parents=True, mode=0o700)
    state.parent.chmod(0o700)
    (state / name).symlink_to(victim / target)
    before = look(victim)
    if refused:
        with pytest.raises(SandboxError) as error:
            join(state.parent)
        log = state / "process.log"  # what the process that did not start has written
        assert f"{state / name} is a symlink" in str(error.value) + (log.read_text() if log.exists() else "")
        assert (state / name).is_symlink()
    else:
        with own_process(state.parent):
            assert (state / name).is_file()
            assert not (state / name).is_symlink()
    assert look(victim) == before
    proof("folders", "planted links and foreign folders refused", 1)


def test_each_file_of_a_sandbox_is_among_those_that_are_tried(tmp_path):
    with own_process(tmp_path / "home"):
        made = {path.name for path in (tmp_path / "home" / "sandbox").iterdir()}
    assert made - {"state.sqlite-shm"} <= {name for name, *_ in LINKED}, made


ACCESS = {"director_token": "a bearer", "ca_file": Path("ca.pem"), "state": Path("state"), "pid": 1}


@pytest.fixture
def access():
    texts = ("director_url", "tenant", "application_id", "connector_url", "certificate_secured_connector_url")
    return Access(**ACCESS, **dict.fromkeys(texts, ""))


@pytest.mark.parametrize("name", ["ready.json", ".ready.json.{}"], ids=["itself", "a draft of this process"])
def test_a_ready_file_is_not_written_through_a_symlink(tmp_path, access, name, proof):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "public"
    folder.mkdir()
    folder.chmod(0o1777)  # as the system's folder for temporary files
    (folder / name.format(os.getpid())).symlink_to(victim)
    with ready_file(folder / "ready.json", access):
        assert b"a bearer" in read_regular(folder / "ready.json", follow=False)
    assert victim.read_text() == "precious"
    assert not (folder / "ready.json").exists()
    proof("folders", "planted links and foreign folders refused", 1)


def test_a_ready_file_that_another_user_could_replace_is_refused(tmp_path, capfd):
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o777)
    arguments = ("--state", str(tmp_path / "state"), "--ready-file", str(tmp_path / "public" / "ready.json"))
    code, said = said_by(capfd, Home(tmp_path / "home"), "sandbox", *arguments)
    assert (code, list((tmp_path / "public").iterdir())) == (2, []), said


def test_a_lock_that_is_never_given_back_ends_the_wait(tmp_path, monkeypatch):
    """A process that was stopped holds it."""
    monkeypatch.setattr(sys.modules[join.__module__], "_DEADLINE", 0.1)
    for name in (USERS_LOCK, "start.lock"):
        home = tmp_path / name
        (home / "sandbox").mkdir(parents=True, mode=0o700)
        script = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(); input()"
        holding = [sys.executable, "-c", script, home / "sandbox" / name]
        with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout
            holder.stdout.readline()
            with pytest.raises(SandboxError, match=f"still holds .*{name}"):
                join(home)
            holder.communicate(b"\n")


# -- outputs -----------------------------------------------------------------------------------------------------------

NOTEBOOK = (
    '{"cells": [], "metadata": {"kernelspec": {"name": "python3", "display_name": "P", "language": "python"}},'
    ' "nbformat": 4, "nbformat_minor": 5}'
)


def test_an_executed_notebook_is_not_written_where_another_user_could_replace_it(tmp_path, proof):
    (tmp_path / "empty.ipynb").write_text(NOTEBOOK)
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o777)
    with pytest.raises(StorageFailed, match="no sticky bit"):
        run_notebook(tmp_path / "empty.ipynb", tmp_path / "public" / "out.ipynb")
    assert list((tmp_path / "public").iterdir()) == []
    (tmp_path / "public").chmod(0o1777)
    assert run_notebook(tmp_path / "empty.ipynb", tmp_path / "public" / "out.ipynb").exit_code == 0
    proof("folders", "planted links and foreign folders refused", 1)


# -- outputs that the user names ---------------------------------------------------------------------------------------

OUTPUTS = (
    "metrics --textfile {}/x.prom",
    "fleet renew -o {}/x.json",
    "run 02_maintain_connection --if-due -p connection prod -o {}/x.ipynb",
    "notebooks {}/copies",
)


@as_root
@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize(("owner", "refused"), [(STRANGER, True), (0, False)])
def test_an_output_is_not_written_through_a_symlink_of_another_user(
    *, tmp_path, home, capfd, command, owner, refused, proof
):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shared" / "link").symlink_to(tmp_path / "elsewhere")
    os.lchown(tmp_path / "shared" / "link", owner, owner)
    with Sandbox() as ucl:
        install(home, ucl, tmp_path)
        code, said = said_by(capfd, home, *command.format(tmp_path / "shared" / "link").split())
    assert (code, [*(tmp_path / "elsewhere").iterdir()] == []) == ((10, True) if refused else (0, False)), said
    assert ("is a symlink of user" in said) == refused
    proof("folders", "outputs by way of a symlink of another user refused", int(refused))


@as_root
@pytest.mark.parametrize(("owner", "refused"), [(STRANGER, True), (0, False)])
def test_a_notebook_that_another_user_put_in_the_current_folder_is_not_run_by_its_name(
    tmp_path, monkeypatch, owner, refused
):
    tmp_path.chmod(0o1777)
    monkeypatch.chdir(tmp_path)
    planted = write_notebook(tmp_path / "02_maintain_connection.ipynb")
    os.chown(planted, owner, owner)
    if refused:
        with pytest.raises(UsageError, match=r"was not run: it belongs to user .* name it as \./02_maintain"):
            find_notebook(planted.name)
    else:
        assert find_notebook(planted.name) == planted
    assert find_notebook(f"./{planted.name}") == planted
    assert find_notebook(planted.stem) != planted


@pytest.mark.parametrize(
    ("mode", "group", "refused"),
    [(0o666, -1, True), (0o644, -1, False), pytest.param(0o664, STRANGER, True, marks=as_root)],
)
def test_a_notebook_that_other_users_can_change_is_not_run_by_its_name(tmp_path, monkeypatch, mode, group, *, refused):
    monkeypatch.chdir(tmp_path)
    notebook = write_notebook(tmp_path / "mine.ipynb")
    os.chown(notebook, -1, group)
    notebook.chmod(mode)
    if refused:
        with pytest.raises(UsageError, match=rf"was not run: other users can change it \(mode 0{mode:o}\)"):
            find_notebook(notebook.name)
    else:
        assert find_notebook(notebook.name) == notebook
    assert find_notebook(f"./{notebook.name}") == notebook


@as_root
@pytest.mark.parametrize(("owner", "refused"), [(STRANGER, True), (0, False)])
def test_the_engine_does_not_write_through_a_symlink_of_another_user(tmp_path, owner, refused):
    notebook = write_notebook(tmp_path / "in.ipynb", "print('here')")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    (tmp_path / "victim").write_text("as it was")
    (tmp_path / "shared" / "out.ipynb").symlink_to(tmp_path / "victim")
    os.lchown(tmp_path / "shared" / "out.ipynb", owner, owner)
    engine = {"engine_name": "ucl", "kernel_name": "python3", "language": "python", "progress_bar": False}
    if refused:
        with pytest.raises(StorageFailed, match="is a symlink of user"):
            papermill.execute_notebook(notebook, tmp_path / "shared" / "out.ipynb", **engine)
    else:
        papermill.execute_notebook(notebook, tmp_path / "shared" / "out.ipynb", **engine)
    assert ((tmp_path / "victim").read_text() == "as it was") == refused
