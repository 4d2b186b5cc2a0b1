"""A key begun before it is asked for: by `ucl renew --force`, and for a notebook that will ask for one."""

import subprocess
import sys

import pytest
from command_line import Shell
from steps import install
from test_looking import begun
from test_runner import printed, write_notebook

from ucl_helpers.automation.looking import key_to_make
from ucl_helpers.automation.runner import run_notebook
from ucl_helpers.clock import utc_now
from ucl_helpers.keymaker import AHEAD, KeyMaker, begin
from ucl_helpers.sandbox import Sandbox
from ucl_helpers.store import Home

SHOW = "from ucl_helpers.keymaker import AHEAD\nprint(list(AHEAD))"
"""In a cell, or after the program was loaded: which keys were begun ahead."""


@pytest.fixture
def connection(tmp_path):
    with Sandbox() as ucl:
        return install(Home(tmp_path / "home"), ucl, tmp_path)


def test_whoever_asks_first_for_so_many_bits_takes_the_key_that_was_begun_ahead():
    AHEAD[2048] = ahead = begin(2048)
    other, first, second = KeyMaker(2056), KeyMaker(2048), KeyMaker(2048)
    assert other.key().key_size == 2056
    assert first.key() is ahead.result()
    assert second.key() is not ahead.result()


def test_a_run_is_sure_of_its_key_unless_it_may_not_be_due(connection):
    given, now = {"home": str(connection.home.path), "connection": connection.name}, utc_now()
    (connection.path / "settings.toml").write_text("key_length = 3072\n")
    assert key_to_make({"home": given["home"]}, now) is None
    assert key_to_make(given, now) == 3072
    assert key_to_make({**given, "key_length": 2048}, now) == 2048
    assert key_to_make({**given, "only_if_due": True}, now) is None
    assert key_to_make({**given, "only_if_due": True}, connection.due(now).at) == 3072
    (connection.path / "settings.toml").write_text("key_length = ")
    assert key_to_make(given, now) is None


def test_a_key_that_is_pending_is_used_again(connection):
    given = {"home": str(connection.home.path), "connection": connection.name}
    begun(connection)
    assert key_to_make(given, utc_now()) is not None
    for name in ("key.pem", "csr.pem"):
        (connection.pending.path / name).write_bytes(b"PEM")
        (connection.pending.path / name).chmod(0o600)
    assert key_to_make(given, utc_now()) is None


@pytest.mark.parametrize(("parameters", "ahead"), [("key_length: int = 0", "[2048]"), ("bits: int = 0", "[]")])
def test_it_is_begun_for_a_notebook_that_takes_its_length(connection, tmp_path, parameters, ahead):
    (connection.path / "settings.toml").write_text("key_length = 2048\n")
    notebook = tmp_path / "notebook.ipynb"
    write_notebook(notebook, SHOW, parameters=f"{parameters}\nhome: str = ''\nconnection: str = ''")
    given = {"home": str(connection.home.path), "connection": connection.name}
    assert printed(run_notebook(notebook, tmp_path / "out.ipynb", given).output) == f"{ahead}\n"


@pytest.mark.parametrize(
    ("arguments", "ahead"),
    [
        (["renew", "prod", "--force"], "[4096]"),
        (["renew", "prod"], "[]"),
        (["renew", "prod", "--force", "--key-length", "2048"], "[]"),
        (["status", "--force"], "[]"),
    ],
)
def test_the_program_begins_it_where_it_will_be_asked_for(arguments, ahead):
    code = f"import sys\nsys.argv[1:] = {arguments}\nimport ucl_helpers_command\n{SHOW}"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == f"{ahead}\n"


def test_what_it_was_begun_for_in_vain_ends_as_ever(tmp_path):
    said = Shell(tmp_path / "home").ucl("renew", "nobody", "--force")
    assert (said.code, said.err.partition(":")[0]) == (2, "UnknownConnection")
