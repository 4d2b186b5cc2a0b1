"""A file that the user names is read only if it is a regular file of bounded size, so no command waits for ever.

A FIFO without a writer blocks a plain ``open``, and a device may never end. Each command ends at once with a usage
error that names the file and the reason. The twin gives a regular file to the same option: its content is what is then
complained of.
"""

import os
import re

import pytest
from test_folders import said_by

from ucl_helpers import session
from ucl_helpers.automation.runner import run_notebook
from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.files import LARGEST_FILE
from ucl_helpers.references import resolve
from ucl_helpers.sandbox import Sandbox
from ucl_helpers.tls import tls_context

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
