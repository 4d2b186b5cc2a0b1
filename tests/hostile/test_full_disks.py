"""A disk that is full or read-only, met at every boundary: nothing is signed whose answer could not be kept.

The disk is a small one of the kernel's (tmpfs) that is filled until just so many blocks, or files, are left. Whatever
happens then, the identity in use stays, and with room again the next run ends well, without a second signature.
"""

import os
import subprocess
from contextlib import contextmanager, suppress

import pytest
from quick_keys import QUICK_BITS
from steps import install, pending_of
from stored import grow_old

from ucl_helpers import establish, renew, status_of
from ucl_helpers.connection import pending
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed, UCLError

pytest_plugins = ["procedure_fixtures"]
pytestmark = pytest.mark.needs_root("only root mounts a disk in this process")
BLOCK = os.sysconf("SC_PAGE_SIZE")
ROOMY, FILES = 12 << 20, 2000
ENOUGH = {"blocks": 48, "files": 25}  # left of a disk: more than a renewal needs


def mounted(*command):
    return subprocess.run(["mount", *command], capture_output=True, check=False).returncode == 0


@contextmanager
def disk(folder):
    """A small disk of its own in a folder."""
    folder.mkdir()
    if not mounted("-t", "tmpfs", "-o", f"size={ROOMY},nr_inodes={FILES},mode=700", "tmpfs", folder):
        pytest.skip("root may not mount a tmpfs here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def home(tmp_path):
    with disk(tmp_path / "disk") as folder:
        yield Home(folder)


@pytest.fixture
def secure(home, ucl, clock, between, tmp_path):
    clock.set(hours=-1)
    connection = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    return connection


def free(folder, what):
    told = os.statvfs(folder)
    return told.f_bavail if what == "blocks" else told.f_favail


def fill(folder, what, left):
    """Take all of a disk but so much."""
    taken = folder / "taken"
    taken.mkdir(exist_ok=True)
    if what == "blocks" and free(folder, what) > left:
        with (taken / "blocks").open("ab") as file:
            before = file.tell()
            os.posix_fallocate(file.fileno(), before, (free(folder, what) - left) * BLOCK)
    while free(folder, what) > left:
        (taken / str(free(folder, what))).touch()


@contextmanager
def scarce(folder, what, left):
    fill(folder, what, left)
    assert free(folder, what) == left
    try:
        yield
    finally:
        empty(folder)


def empty(folder):
    for one in (folder / "taken").iterdir():
        one.unlink()
    (folder / "taken").rmdir()


@contextmanager
def read_only(folder):
    assert mounted("-o", "remount,ro", folder)
    try:
        yield
    finally:
        assert mounted("-o", "remount,rw", folder)


def amounts(what, whole):
    """Every amount up to what is enough; shortened: some, and each near the place where it begins to be enough."""
    return (
        range(ENOUGH[what]) if whole else [*range(0, 34, 6), *range(34, 44, 2)] if what == "blocks" else range(0, 25, 4)
    )


def signed(between):
    return len(between.seen("sign"))


# -- full before anything is asked for ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["blocks", "files"])
def test_a_renewal_on_a_full_disk_keeps_what_is_in_use_and_signs_once(secure, between, what, proof, *, whole):
    said = []
    for left in amounts(what, whole):
        grow_old(secure)
        before, asked = secure.current, signed(between)
        with scarce(secure.home.path, what, left):
            with suppress(StorageFailed):
                renew(secure)
            said.append(secure.current != before)
            secure.current.check_whole()
        assert said[-1] or secure.current == before
        assert signed(between) - asked == said[-1] or pending_of(secure).answer()
        if not said[-1]:
            assert renew(secure).outcome == "renewed"
        assert signed(between) == asked + 1
    assert (said[0], said[-1]) == (False, True)
    proof("hostile", f"renewals on a disk with few {what} left", len(said))


@pytest.mark.parametrize("what", ["blocks", "files"])
def test_an_establishment_on_a_full_disk_is_whole_or_none_and_signs_once(
    home, ucl, between, what, proof, *, director, whole
):
    said = []
    for left in amounts(what, whole):
        connection, asked = home.new(f"new-{left}"), signed(between)
        connection.write_settings({"key_length": QUICK_BITS})
        with scarce(home.path, what, left):
            with suppress(UCLError):
                establish(connection, director, ca_file=ucl.ca_file)
            said.append(connection.current is not None)
        if not said[-1]:
            assert signed(between) - asked == bool(pending_of(connection).answer())
            establish(connection, director, ca_file=ucl.ca_file)
        connection.current.check_whole()
        assert signed(between) == asked + 1
    assert (said[0], said[-1]) == (False, True)
    proof("hostile", f"establishments on a disk with few {what} left", len(said))


# -- full when the answer comes ----------------------------------------------------------------------------------------


def fills_up(folder, left):
    """While UCL signs, somebody else takes all of the disk but so many blocks."""

    def meddle(forward, call):
        reply = forward()
        fill(folder, "blocks", left)
        return reply

    return meddle


@pytest.mark.parametrize("left", range(4))
def test_a_disk_that_fills_up_while_ucl_signs_does_not_lose_the_answer(secure, between, left, proof):
    between.on("sign", fills_up(secure.home.path, left))
    before = secure.current
    with suppress(StorageFailed):
        renew(secure)
    before.check_whole()
    assert secure.current != before or pending_of(secure).answer()
    empty(secure.home.path)
    assert secure.current != before or renew(secure).outcome == "renewed"
    assert signed(between) == 1
    proof("hostile", "disks that filled up while UCL signed", 1)


def test_without_the_room_it_keeps_it_would_be_lost(secure, between, monkeypatch):
    monkeypatch.setattr(pending, "_ROOM", 0)
    between.on("sign", fills_up(secure.home.path, 0))
    with pytest.raises(StorageFailed, match="No space left"):
        renew(secure)
    assert pending_of(secure).answer() is None
    empty(secure.home.path)
    assert (renew(secure).outcome, signed(between)) == ("renewed", 2)


def test_a_token_is_not_spent_in_vain_when_the_disk_fills_up(home, ucl, between, token):
    connection = home.new("new")
    connection.write_settings({"key_length": QUICK_BITS})
    between.on("sign", fills_up(home.path, 0))
    with suppress(StorageFailed):
        establish(connection, token, ca_file=ucl.ca_file)
    empty(home.path)
    if connection.current is None:
        assert establish(connection, None, ca_file=ucl.ca_file).outcome == "established"
    assert signed(between) == 1


# -- read-only ---------------------------------------------------------------------------------------------------------


def test_on_a_read_only_disk_nothing_is_asked_for_and_what_is_there_can_be_used(secure, between):
    with read_only(secure.home.path):
        with pytest.raises(StorageFailed, match=r"Read-only.*--home or UCL_HOME"):
            renew(secure)
        with pytest.raises(StorageFailed, match="Read-only"):
            secure.home.new("another")
        assert status_of(secure).state == "valid"
        secure.current.check_whole()
    assert between.calls == []
    assert renew(secure).outcome == "renewed"
