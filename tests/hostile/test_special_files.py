"""A file that the user names is read only if it is a regular file of bounded size, so no command waits for ever.

A FIFO without a writer blocks a plain ``open``, and a device may never end. Each command ends at once with a usage
error that names the file and the reason. The twin gives a regular file to the same option: its content is what is then
complained of.
"""

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from command_line import UCL, Shell, environment
from processes import not_delivered
from quick_keys import QUICK_BITS
from test_folders import said_by

from ucl_helpers import renew
from ucl_helpers.connection.files import LARGEST_FILE, read_regular
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.settings import Settings
from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.headless.run import run_notebook
from ucl_helpers.wire import session
from ucl_helpers.wire.tls import tls_context
from ucl_sandbox import Sandbox

pytest_plugins = ["procedure_fixtures"]
URL = "--connector-url https://ucl.example/graphql"
NAMED = {
    "import --key": f"import new --key {{}} --certificate regular.pem {URL}",
    "import --certificate": f"import new --key key.pem --certificate {{}} {URL}",
    "import --chain": f"import new --key key.pem --certificate certificate.pem --chain {{}} {URL}",
    "import --ca-file": f"import new --key key.pem --certificate certificate.pem --ca-file {{}} {URL}",
    "import --passphrase": f"import new --key key.pem --certificate certificate.pem --passphrase file:{{}} {URL}",
    "establish --ca-file": f"establish new --token env:PATH --ca-file {{}} {URL}",
    "establish --token": f"establish new --token file:{{}} {URL}",
    "establish --bearer": "establish new --director-url https://d/ --tenant t --application-id a --bearer file:{}",
    "settings --set": "settings new --set {}",
    "export --from": "export prod --from file:{}",
    "sandbox --faults": "sandbox --faults {}",
    "run": "run {}",
    "fleet --tls-ca-file": "fleet renew --scheduler tls://d:1 --tls-ca-file {} --tls-cert {} --tls-key {}",
}
TEXT = ("import --passphrase", "establish --token", "establish --bearer", "export --from")
"""Any regular file will do for these."""


@pytest.fixture
def folder(secure, tmp_path, monkeypatch):
    """Files of an identity, a regular file that is none, and files that are not regular."""
    for name in ("key.pem", "certificate.pem"):
        (tmp_path / name).write_bytes((secure.current.path / name).read_bytes())
    (tmp_path / "regular.pem").write_text("\x00 not what it should be")
    os.mkfifo(tmp_path / "fifo.ipynb")
    (tmp_path / "link.ipynb").symlink_to("fifo.ipynb")
    with (tmp_path / "huge.ipynb").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # sparse: it takes no room
    monkeypatch.chdir(tmp_path)
    return tmp_path


SPECIAL = ("fifo.ipynb", "link.ipynb", "/dev/zero", "/dev/full")
REASON = r"not a regular file|neither a file|no notebook|no file"


def test_a_regular_file_without_a_size_is_read_whole_and_within_the_bound():
    """Files of ``/proc`` say that they have 0 bytes."""
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    content = read_regular(path)
    assert content.startswith(b"Name:")
    assert content.count(b"\n") == path.read_bytes().count(b"\n")
    with pytest.raises(OSError, match="larger than 100 bytes"):
        read_regular(path, 100)


@pytest.mark.parametrize("option", NAMED)
def test_no_command_waits_for_a_special_file(secure, folder, capfd, option, proof):
    for name in SPECIAL:
        code, said = said_by(capfd, secure.home, *NAMED[option].format(*[name] * 3).split())
        assert code == 2, said
        assert name in said
        assert re.search(REASON, said), said
    assert [one.name for one in secure.home.connections()] == ["prod"]
    proof("folders", "special files that were refused at once", len(SPECIAL))


@pytest.mark.parametrize("option", [one for one in NAMED if one not in {*TEXT, "run", "fleet --tls-ca-file"}])
def test_a_regular_file_is_read(secure, folder, capfd, option):
    code, said = said_by(capfd, secure.home, *NAMED[option].format("regular.pem").split())
    assert code == 2, said
    assert not re.search(REASON, said), said


@pytest.mark.parametrize("option", ["import --key", "import --certificate", "establish --token", "settings --set"])
def test_a_file_that_is_too_large_is_refused(secure, folder, capfd, option, proof):
    code, said = said_by(capfd, secure.home, *NAMED[option].format("huge.ipynb").split())
    assert (code, f"larger than {LARGEST_FILE:,} bytes" in said) == (2, True), said
    proof("folders", "special files that were refused at once", 1)


def test_a_pipe_is_refused_with_the_alternatives(tmp_path):
    """``file:<(command)`` of a shell: its writer may never end, and a run that resumes could not read it again."""
    reading, writing = os.pipe()
    os.write(writing, b"hunter2")
    try:
        with pytest.raises(UsageError, match=r"Pipes and devices are not read: .* env:NAME") as caught:
            resolve(f"file:/dev/fd/{reading}", what="--token")
        assert os.read(reading, 20) == b"hunter2"
    finally:
        os.close(reading)
        os.close(writing)
    assert "hunter2" not in str(caught.value)
    (tmp_path / "secret").write_text("hunter2\n")
    assert resolve(f"file:{tmp_path / 'secret'}", what="--token") == "hunter2"


def test_so_it_is_by_the_functions_that_notebooks_call(secure, folder):
    with pytest.raises(StorageFailed, match="not a regular file"):
        run_notebook(folder / "fifo.ipynb", folder / "out.ipynb")
    with pytest.raises(StorageFailed, match="not a regular file"):
        tls_context(folder / "fifo.ipynb", None)
    with pytest.raises(StorageFailed, match="not a regular file"):
        session.Session(secure.require_current, folder / "fifo.ipynb")
    with Sandbox() as ucl:
        tls_context(ucl.ca_file, None)


def test_a_ready_file_that_is_a_fifo_stops_no_look(secure, folder):
    (secure.path / "settings.toml").write_text(f'sandbox = "{folder / "fifo.ipynb"}"\n')
    assert secure.sandbox_url is None


def a_folder(path):
    path.mkdir()


def a_fifo(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket
        try:
            listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def a_device(path):
    path.symlink_to("/dev/full")


def a_broken_link(path):
    path.symlink_to("/nowhere/settings.toml")


def a_loop(path):
    path.symlink_to(path)


NO_SETTINGS = {
    a_folder: "is a folder",
    a_fifo: "is a FIFO, a socket or a device",
    a_socket: "is a FIFO, a socket or a device",
    a_device: "is a FIFO, a socket or a device",
    a_broken_link: "is a symlink to a file that is not there",
    a_loop: "is a symlink that leads to itself",
}
READ_SETTINGS = [
    "renew prod",
    "settings prod",
    "settings prod --set new.toml",
    "settings prod --edit",
    "export prod",
    "hooks prod",
    "revoke prod --yes",
    "rollback prod",
    "doctor prod --offline",
    "fleet renew",
]


@pytest.mark.kind("the right culprit: settings.toml that is no file")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("made", NO_SETTINGS, ids=lambda made: made.__name__)
def test_settings_that_are_no_file_are_named_and_the_remedy_works(secure, folder, made):
    renew(secure)
    shell, path = Shell(secure.home.path, folder), secure.path / "settings.toml"
    (folder / "new.toml").write_text("keep = 7\n")
    path.unlink(missing_ok=True)
    made(path)
    move = f"mv {path} {path}.old"
    for command in READ_SETTINGS if made in {a_folder, a_fifo} else READ_SETTINGS[:3]:
        said = shell.ucl(*command.split(), EDITOR="true")
        assert said.code == 2, (command, said)
        assert f"{path} {NO_SETTINGS[made]}. Settings are read from a file." in said.out + said.err, (command, said)
        assert move in said.out + said.err, (command, said)
    assert shell.ucl("status", "prod").out.startswith("prod: settings not usable")
    subprocess.run(move.split(), check=True)
    assert shell.ucl("settings", "prod", "--set", "new.toml").code == 0
    assert shell.ucl("renew", "prod", "--json").json["outcome"] in {"not-due", "renewed"}


def test_settings_that_are_a_link_to_a_file_or_to_nothing_on_purpose_are_read(secure, folder):
    """The twin."""
    path = secure.path / "settings.toml"
    path.rename(folder / "real.toml")
    path.symlink_to(folder / "real.toml")
    assert secure.read_settings().key_length == QUICK_BITS
    path.unlink()
    path.symlink_to(os.devnull)
    assert secure.read_settings() == Settings()


# -- the program itself ------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
@pytest.mark.parametrize("key", ["fifo.ipynb", "key.pem"])
def test_a_run_does_not_wait_for_a_key_file_that_is_a_fifo(secure, folder, between, ucl, *, key, proof):
    """Notebook 02 imports a new connection from files; the twin names a regular key, and the import succeeds."""
    parameters = {
        "connection": "new",
        "key_file": key,
        "certificate_file": "certificate.pem",
        "connector_url": between.certificate_secured_connector_url,
        "ca_file": ucl.ca_file,
        "key_length": QUICK_BITS,
    }
    given = [word for name, value in parameters.items() for word in ("-p", name, value)]
    options = ("-o", folder / "out.ipynb", "--deadline", "2m")
    said = Shell(secure.home.path, folder).ucl("run", "02_maintain_connection", *map(str, given), *options)
    if key == "key.pem":
        assert said.code == 0, said
        assert [one.name for one in secure.home.connections()] == ["new", "prod"]
    else:
        assert said.code == 2, said
        assert re.search(rf"UsageError: .*{re.escape(key)}.*{REASON}", said.err), said
        assert [one.name for one in secure.home.connections()] == ["prod"]
        proof("folders", "special files that were refused at once", 1)


HANGS_AT_IMPORT = """
open("reached", "w").close()  # waits until the test reads
open("never_written")
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("signals", [1, 2])
def test_a_run_that_is_stuck_before_the_notebook_starts_ends_after_the_second_sigterm(tmp_path, signals):
    """Papermill imports boto3 if it is installed. Here boto3 is a module of the user's, on a path that hangs.

    After one SIGTERM the run still waits; it ends once the import comes to an end.
    """
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "boto3.py").write_text(HANGS_AT_IMPORT)
    for name in ("reached", "never_written"):
        os.mkfifo(tmp_path / name)
    command = [UCL, "run", "05_explorer", "--practice", "-o", tmp_path / "out.ipynb"]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    variables = environment(tmp_path / "home", PYTHONPATH=str(modules))
    with subprocess.Popen(command, cwd=tmp_path, env=variables, **options) as process:
        (tmp_path / "reached").read_text()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            while not_delivered(Path(f"/proc/{process.pid}/status")):
                os.sched_yield()
        if signals == 1:
            with (tmp_path / "never_written").open("w"):  # it waits for this
                pass
        _, said = process.communicate()
    assert process.returncode == 143, said
    assert ("Terminated" in said) == (signals == 1), said  # a process that is ended says nothing
