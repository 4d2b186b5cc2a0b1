"""Fixtures for the tests of the doctor; a plugin, as ``procedure_fixtures`` is, which it needs."""

import pytest
from steps import install


@pytest.fixture(autouse=True)
def without_a_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def at(home, ucl, tmp_path):
    """A connection that is kept with another URL."""
    return lambda url: install(home, ucl, tmp_path, url=url)


@pytest.fixture
def count(proof):
    def planted(*, mended=0):
        proof("doctor", "faults planted and named", 1)
        proof("doctor", "faults mended by the command that was named", mended)

    return planted
