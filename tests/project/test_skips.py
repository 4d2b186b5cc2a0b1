"""What an ordinary user cannot run is skipped with its reason, counted, and selected as a whole for root."""

import os
import re
import subprocess
import sys

import pytest
from command_line import environment
from jupyter_servers import ROOT

EXAMPLE = """
import pytest

@pytest.mark.needs_root("only root gives files away")
@pytest.mark.parametrize("number", range(3))
def test_gives_a_file_away(number):
    pass

def test_an_ordinary_one():
    pass
"""
ORDINARY = ("unshare", "--user") if os.geteuid() == 0 else ()  # with an effective user id that is not 0
SKIPPED = "needs root: only root gives files away"


def run(folder, *flags, started_by=()):
    """The end of a run of the example, with this project's plugins."""
    (folder / "test_example.py").write_text(EXAMPLE)
    (folder / "conftest.py").symlink_to(ROOT / "tests" / "conftest.py")
    command = [
        *started_by,
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        folder,
        *flags,
        folder,
    ]
    variables = {**environment(), "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False).stdout


@pytest.fixture
def ordinary():
    """Starts a program as a user who is not root."""
    if subprocess.run([*ORDINARY, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    return ORDINARY


def test_for_an_ordinary_user_it_is_skipped_and_counted(tmp_path, ordinary):
    said = run(tmp_path, started_by=ordinary)
    assert re.search(rf"= skipped, by reason =+\n +3  {SKIPPED}\n", said)
    assert "1 passed, 3 skipped" in said.splitlines()[-1]


def test_with_no_skips_it_fails(tmp_path, ordinary):
    said = run(tmp_path, "--no-skips", started_by=ordinary)
    assert "1 passed, 3 errors" in said.splitlines()[-1]


@pytest.mark.needs_root("only root sees that nothing is skipped")
def test_for_root_it_runs(tmp_path):
    said = run(tmp_path)
    assert "4 passed" in said.splitlines()[-1]
    assert "skipped" not in said


def test_it_can_be_selected(tmp_path):
    said = run(tmp_path, "-m", "needs_root", "--collect-only", "-q")
    assert "3/4 tests collected (1 deselected)" in said


# -- every test --------------------------------------------------------------------------------------------------------

BY_HAND = re.compile(r"skipif\([^\n]*(?:geteuid|getuid)|if os\.gete?uid\(\)[^\n]*\n\s+pytest\.skip")


def test_every_test_that_needs_root_says_so_by_the_marker():
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "test_skips.py"]
    assert paths
    assert [path.name for path in paths if BY_HAND.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    "text",
    [
        'pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root")',
        'if os.getuid() != 0:\n        pytest.skip("only root")',
    ],
)
def test_one_that_does_not_would_be_found(text):
    assert BY_HAND.search(text)
