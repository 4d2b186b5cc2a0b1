"""The guard and the file primitives that the toolkit and its sandbox share, without either of them.

Each refusal has a twin that differs in the defect alone and is accepted.
"""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from ucl_private_files import (
    UnsafePath,
    create_private,
    make_private_folder,
    open_private,
    read_regular,
    require_private_folder,
    require_protected_folder,
    require_regular_or_missing,
    write_file,
)

STRANGER, ANOTHER, LONELY_GROUP = 65534, 65533, 61234
as_root = pytest.mark.needs_root("only root gives files to another user")


def as_user(uid, groups, act):
    """What a function returns in a process of an ordinary user, as text.

    A process of its own, because this one's imports would remember what that user cannot read.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writing, repr(act()).encode())
        except BaseException as error:  # noqa: BLE001
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as result:
        return result.read()


@pytest.fixture
def folder(tmp_path):
    """``tmp_path/outer/parent/folder``, private."""
    path = tmp_path / "outer" / "parent" / "folder"
    make_private_folder(path)
    return path


@pytest.fixture
def elsewhere(tmp_path):
    """A private folder of the name ``folder`` that a symlink can lead to."""
    path = tmp_path / "elsewhere" / "folder"
    make_private_folder(path)
    return path


@pytest.fixture
def public():
    """A folder that other users come to, as they do not to pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="ucl-public-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def link(path, target, owner=None):
    path.rename(path.with_name("kept"))
    path.symlink_to(target)
    if owner is not None:
        os.chown(path, owner, owner, follow_symlinks=False)


MODES = {
    "a group that can write": lambda path: path.chmod(0o770),
    "everybody who can write": lambda path: path.chmod(0o707),
    "everybody who can write, with a sticky bit": lambda path: path.chmod(0o1777),
}
PARENTS = {
    "a parent that everybody can write to": lambda path: path.parent.chmod(0o777),
    "a grandparent that everybody can write to": lambda path: path.parent.parent.chmod(0o777),
}
BY_ROOT = {
    "another owner": lambda path: os.chown(path, STRANGER, STRANGER),
    "a parent of another owner": lambda path: os.chown(path.parent, STRANGER, STRANGER),
    "a sticky parent of another owner": lambda path: (
        os.chown(path.parent, STRANGER, STRANGER),
        path.parent.chmod(0o1777),
    ),
    "a parent that a group of others can write to": lambda path: (
        os.chown(path.parent, 0, LONELY_GROUP),
        path.parent.chmod(0o2775),
    ),
}


@pytest.mark.parametrize("defect", [*MODES, *PARENTS, *[pytest.param(one, marks=as_root) for one in BY_ROOT]])
def test_a_folder_with_a_defect_is_refused(folder, defect, proof):
    assert require_private_folder(folder)
    {**MODES, **PARENTS, **BY_ROOT}[defect](folder)
    with pytest.raises(UnsafePath) as caught:
        require_private_folder(folder)
    assert caught.value.path == folder
    assert str(folder) in str(caught.value)
    proof("folders", "planted links and foreign folders refused", 1)


@pytest.mark.parametrize("defect", [*PARENTS, *[pytest.param(one, marks=as_root) for one in BY_ROOT]])
def test_a_folder_that_is_still_missing_is_refused_as_well(folder, defect):
    missing = folder / "a" / "b"
    assert not require_private_folder(missing)
    {**PARENTS, **BY_ROOT}[defect](folder)
    with pytest.raises(UnsafePath):
        make_private_folder(missing)
    assert list(folder.iterdir()) == []


@as_root
@pytest.mark.parametrize("place", ["folder", "parent"])
def test_a_symlink_of_this_user_is_followed_and_one_of_another_is_not(folder, elsewhere, place, proof):
    path, target = (folder, elsewhere) if place == "folder" else (folder.parent, elsewhere.parent)
    link(path, target)
    assert require_private_folder(folder)
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(UnsafePath, match=f"symlink of user {STRANGER}"):
        require_private_folder(folder)
    proof("folders", "planted links and foreign folders refused", 1)


@pytest.mark.parametrize("defect", [*MODES, "a parent that everybody can write to"])
def test_the_target_of_a_symlink_is_looked_at_in_the_same_way(folder, elsewhere, defect):
    link(folder, os.path.relpath(elsewhere, folder.parent))
    assert require_private_folder(folder)
    {**MODES, **PARENTS}[defect](elsewhere)
    with pytest.raises(UnsafePath):
        require_private_folder(folder)


def test_a_symlink_in_a_folder_below_is_refused_even_if_it_is_ours(folder, elsewhere):
    (folder / "below").mkdir(mode=0o700)
    require_private_folder(folder, folder / "below")
    link(folder / "below", elsewhere)
    with pytest.raises(UnsafePath, match=r"below is a symlink\. .*rm "):
        require_private_folder(folder, folder / "below")


def test_symlinks_in_a_circle_end(folder):
    link(folder, folder)
    with pytest.raises(OSError, match="Too many levels"):
        require_private_folder(folder)


def test_a_way_up_again_is_followed_as_the_kernel_does(folder, elsewhere):
    link(folder, elsewhere)
    assert require_private_folder(folder / ".." / "folder")  # from elsewhere, not from the parent
    elsewhere.parent.chmod(0o777)
    with pytest.raises(UnsafePath):
        require_private_folder(folder / ".." / "folder")


def test_a_sticky_folder_above_is_no_defect(folder):
    folder.parent.chmod(0o1777)
    assert require_private_folder(folder)
    require_protected_folder(folder.parent)
    folder.parent.chmod(0o777)
    with pytest.raises(UnsafePath, match="no sticky bit"):
        require_protected_folder(folder.parent)


@as_root
def test_what_belongs_to_another_user_in_a_sticky_folder_is_refused(folder):
    folder.parent.chmod(0o1777)
    os.chown(folder, STRANGER, STRANGER)
    with pytest.raises(UnsafePath, match=f"belongs to user {STRANGER}, and this is user 0"):
        require_private_folder(folder / "home")


@as_root
def test_a_group_of_this_user_alone_can_write_to_a_folder_above(public):
    """So it is of the root of a Kubernetes volume (``fsGroup``), and of a private group with a umask of 002."""
    volume = public / "volume"
    volume.mkdir()
    os.chown(volume, 0, LONELY_GROUP)
    volume.chmod(0o2775)
    assert as_user(STRANGER, [LONELY_GROUP], lambda: make_private_folder(volume / "ucl")) == "None"
    assert as_user(STRANGER, [LONELY_GROUP], lambda: require_private_folder(volume / "ucl")) == "True"
    refused = as_user(STRANGER, [LONELY_GROUP], lambda: require_private_folder(volume))
    assert "can be changed by others (mode 2775)" in refused
    assert "UnsafePath" in as_user(STRANGER, [], lambda: require_private_folder(volume / "ucl"))  # not in the group


@as_root
def test_a_folder_above_may_be_closed_to_us(public):
    outer = public / "outer"
    outer.mkdir(mode=0o711)
    (outer / "home").mkdir()
    os.chown(outer / "home", STRANGER, STRANGER)
    (outer / "home").chmod(0o700)
    assert as_user(STRANGER, [], lambda: require_private_folder(outer / "home")) == "True"  # searched, and not read
    outer.chmod(0o700)
    assert as_user(STRANGER, [], lambda: require_private_folder(outer / "home")) == "False"  # the next access says why


def test_the_error_says_what_helps(folder):
    folder.chmod(0o777)
    with pytest.raises(UnsafePath, match=f"can be changed by others .mode 0777.. Run: chmod go-w {folder}"):
        require_private_folder(folder)
    folder.chmod(0o700)
    folder.parent.chmod(0o777)
    with pytest.raises(UnsafePath, match=f"{folder.parent} can be changed by others.* Run: chmod go-w {folder.parent}"):
        require_private_folder(folder)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o644)
    return path


def test_a_file_is_written_in_the_place_of_a_symlink(folder, victim):
    (folder / "file").symlink_to(victim)
    write_file(folder / "file", b"new")
    assert (victim.read_text(), read_regular(folder / "file", follow=False)) == ("precious", b"new")
    assert stat.S_IMODE((folder / "file").lstat().st_mode) == 0o600
    assert [one.name for one in folder.iterdir()] == ["file"]


def test_a_log_is_made_in_the_place_of_a_symlink(folder, victim):
    (folder / "log").symlink_to(victim)
    os.close(create_private(folder / "log"))
    assert victim.read_text() == "precious"
    assert stat.S_IMODE((folder / "log").lstat().st_mode) == 0o600


def test_a_lock_is_not_opened_through_a_symlink(folder, victim):
    (folder / "lock").symlink_to(victim)
    for act in (lambda path: open_private(path, os.O_RDWR), require_regular_or_missing):
        with pytest.raises(UnsafePath, match=r"lock is a symlink\. Remove it: rm "):
            act(folder / "lock")
    (folder / "lock").unlink()
    require_regular_or_missing(folder / "lock")
    os.close(open_private(folder / "lock", os.O_RDWR))


def test_a_lock_that_others_could_hold_is_closed_to_them(folder):
    (folder / "lock").touch()
    (folder / "lock").chmod(0o666)
    os.close(open_private(folder / "lock", os.O_RDWR))
    assert stat.S_IMODE((folder / "lock").stat().st_mode) == 0o600


def test_a_fifo_is_neither_opened_as_a_lock_nor_read(folder):
    os.mkfifo(folder / "fifo", 0o600)
    with pytest.raises(UnsafePath, match="not a regular file"):
        open_private(folder / "fifo", os.O_RDWR)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(folder / "fifo")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/tty", "/dev/stdin", "/"])
def test_what_could_block_or_never_end_is_not_read(path):
    reading, writing = os.pipe()
    before = os.dup(0)
    os.dup2(reading, 0)
    try:
        with pytest.raises(OSError, match=r"not a regular file|Is a directory|No such device"):
            read_regular(Path(path))
    finally:
        os.dup2(before, 0)
        for descriptor in (before, reading, writing):
            os.close(descriptor)


def test_a_file_is_read_up_to_a_bound(folder):
    assert read_regular(Path(os.devnull)) == b""
    (folder / "file").write_bytes(b"12345")
    assert read_regular(folder / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(folder / "file", 4)
