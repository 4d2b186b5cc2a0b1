"""Whether locks hold on a home folder: found out with another process, and not where they do nothing."""

import os

import pytest
from steps import tree

from ucl_helpers.connection.store import Home
from ucl_helpers.operate.doctor import diagnose_home
from ucl_helpers.operate.doctor.locks import _local_locks, locks


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir(mode=0o700)
    return Home(tmp_path / "home")


@pytest.fixture
def another(tmp_path, monkeypatch):
    """Whatever Python process is started next has something else in the place of ``flock``."""

    def patched(code):
        (tmp_path / "sitecustomize.py").write_text(f"import builtins, fcntl, io\n{code}\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    return patched


def test_locks_that_hold_are_well_and_nothing_stays_behind(home):
    finding = locks(home)
    assert (finding.status, tree(home.path), list(home.path.iterdir())) == ("ok", {}, [])
    assert "locks" in [one.name for one in diagnose_home(home, offline=True).diagnoses[0]]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("fcntl.flock = lambda *_: None", "another process gets a lock that ucl holds"),
        ("def flock(*_): raise BlockingIOError\nfcntl.flock = flock", "does not get a free lock"),
        ("def flock(*_): raise OSError(37, 'No locks available')\nfcntl.flock = flock", "No locks available"),
        ("real = open\nbuiltins.open = lambda one: io.StringIO('old') if one[-4:] == 'read' else real(one)", "renamed"),
    ],
    ids=["they do nothing", "they are never free", "there are none", "renames are not seen"],
)
def test_locks_that_do_not_hold_are_found(home, another, proof, code, text):
    another(code)
    finding = locks(home)
    assert (finding.status, finding.exit_code, list(home.path.iterdir())) == ("failed", 10, [])
    assert text in finding.found
    proof("doctor", "faults planted and named", 1)


def test_a_home_that_is_not_there_is_not_tried(tmp_path):
    assert locks(Home(tmp_path / "none")).status == "skipped"
    assert not (tmp_path / "none").exists()


ROOT = "1 0 8:1 / / rw,relatime - ext4 /dev/root rw"
NFS = "2 1 0:5 / /shared\\040home rw,relatime shared:1 - nfs4 server:/x rw,vers=4.2,local_lock={}"


@pytest.mark.parametrize(
    ("lines", "path", "option"),
    [
        ([ROOT, NFS.format("none")], "/shared home/ucl", ""),
        ([ROOT, NFS.format("all")], "/shared home/ucl", "local_lock=all"),
        ([ROOT, NFS.format("flock")], "/shared home/ucl", "local_lock=flock"),
        ([ROOT, NFS.format("all")], "/home/ucl", ""),
        ([ROOT, NFS.format("all"), "3 2 8:2 / /shared\\040home/ucl rw - ext4 /dev/b rw"], "/shared home/ucl/x", ""),
        ([], "/home/ucl", ""),
        (["nonsense"], "/home/ucl", ""),
    ],
)
def test_a_mount_that_keeps_its_locks_to_itself_is_told_by_its_options(tmp_path, lines, path, option):
    (tmp_path / "mountinfo").write_text("\n".join(lines))
    assert _local_locks(Home(path).path, tmp_path / "mountinfo") == option


def test_where_there_is_no_such_table_nothing_is_told(tmp_path):
    assert _local_locks(tmp_path, tmp_path / "none") == ""
