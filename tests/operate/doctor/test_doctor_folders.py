"""What the file system of a home folder offers, locks among it, each tried and each lacking once."""

import pytest
from steps import tree

from ucl_helpers.connection.store import Home
from ucl_helpers.operate.doctor import diagnose_home, folders
from ucl_helpers.operate.doctor.folders import file_system, local_locks


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir(mode=0o700)
    return Home(tmp_path / "home")


def test_a_file_system_that_offers_everything_is_well_and_nothing_stays_behind(home):
    finding = file_system(home)
    assert (finding.status, tree(home.path), list(home.path.iterdir())) == ("ok", {}, [])
    assert "file system" in [finding.name for finding in diagnose_home(home, offline=True).diagnoses[0]]


def never_free(*_):
    raise BlockingIOError("Resource temporarily unavailable")


def not_there(*_):
    raise OSError(37, "No locks available")


@pytest.mark.parametrize(
    ("flock", "text"),
    [
        (lambda *_: None, "no locks (a lock that is held can be taken again)"),
        (never_free, "no locks (resource temporarily unavailable)"),
        (not_there, "no locks (no locks available)"),
    ],
    ids=["they do nothing", "they are never free", "there are none"],
)
def test_locks_that_do_not_hold_are_found(home, monkeypatch, proof, flock, text):
    monkeypatch.setattr("fcntl.flock", flock)
    finding = file_system(home)
    assert (finding.status, finding.exit_code, list(home.path.iterdir())) == ("failed", 10, [])
    assert text in finding.found
    proof("doctor", "faults planted and named", 1)


@pytest.mark.parametrize(("option", "status"), [("local_lock=flock", "warning"), ("", "ok")])
def test_a_mount_withlocal_locks_is_a_warning(home, monkeypatch, option, status):
    monkeypatch.setattr(folders, "local_locks", lambda _: option)
    finding = file_system(home)
    assert (finding.status, option in finding.found) == (status, True)


def test_a_home_that_is_not_there_is_not_tried(tmp_path):
    assert file_system(Home(tmp_path / "none")).status == "skipped"
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
    assert local_locks(Home(path).path, tmp_path / "mountinfo") == option


def test_where_there_is_no_such_table_nothing_is_told(tmp_path):
    assert local_locks(tmp_path, tmp_path / "none") == ""
