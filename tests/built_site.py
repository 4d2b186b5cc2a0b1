"""The built site, for tests that look at it; a plugin: ``pytest_plugins = ["built_site"]``. ``make docs`` builds it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"
SOURCES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs",
    "notebooks",
    "ucl_helpers",
    "ucl_sandbox",
]


def newest(path):
    """When the newest file below a path was written."""
    found = [one for one in [path, *path.rglob("*")] if one.is_file() and "__pycache__" not in one.parts]
    return max(one.stat().st_mtime for one in found)


@pytest.fixture(scope="session")
def site():
    """The folder of the built site."""
    if not (SITE / "index.html").exists():
        pytest.skip("there is no built site in build/site: make docs")
    if (SITE / "index.html").stat().st_mtime < max(newest(ROOT / name) for name in SOURCES):
        pytest.skip("the site in build/site is older than what it was built from: make docs")
    return SITE
