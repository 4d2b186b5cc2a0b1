"""What a killed run left is swept away by a later one; what somebody uses, or what is not ours, never is."""

import os
import re

import pytest

from ucl_helpers.headless.interruption import hold_locked, remove_abandoned

OURS = re.compile(r"\.ours-\d")


@pytest.fixture
def left(tmp_path):
    path = tmp_path / ".ours-1"
    path.touch(mode=0o600)
    return path


def test_what_nobody_holds_is_swept_away(left, tmp_path):
    (tmp_path / ".ours-2").mkdir(mode=0o700)
    (tmp_path / ".ours-2" / "kernel-1").touch()
    remove_abandoned(tmp_path, OURS)
    assert list(tmp_path.iterdir()) == []


def test_what_is_held_stays_until_it_is_let_go(left, tmp_path):
    path, descriptor = hold_locked(lambda: left)
    remove_abandoned(tmp_path, OURS)
    assert path.exists()
    os.close(descriptor)
    remove_abandoned(tmp_path, OURS)
    assert not path.exists()


def spoil(path, how):
    match how:
        case "open to others":
            path.chmod(0o640)
        case "another name":
            path.rename(path.with_name("ours-1"))
        case "a link":
            path.unlink()
            path.symlink_to(path.parent)
        case "somebody else's":
            os.chown(path, 65534, -1)


AS_ROOT = pytest.mark.needs_root("only root gives files away")


@pytest.mark.parametrize(
    "how", ["open to others", "another name", "a link", pytest.param("somebody else's", marks=AS_ROOT)]
)
def test_what_is_not_ours_stays(left, tmp_path, how):
    spoil(left, how)
    there = list(tmp_path.iterdir())
    remove_abandoned(tmp_path, OURS)
    assert list(tmp_path.iterdir()) == there != []


def test_a_sweep_that_is_faster_than_the_lock_is_noticed(tmp_path):
    made = iter([tmp_path / "swept", tmp_path / "kept"])

    def make():
        path = next(made)
        if path.name == "kept":
            path.touch()
        return path

    path, descriptor = hold_locked(make)
    os.close(descriptor)
    assert path.name == "kept"
