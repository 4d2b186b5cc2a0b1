"""The set-up is checked: Python, the clock, OpenSSL, packages, the home folder, proxies."""

import errno
import os
from datetime import timedelta

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from stored import locked_out

from ucl_helpers import views
from ucl_helpers.views import setup

PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture
def no_proxy(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def row(checks, name):
    """Status and finding of one check."""
    (found,) = ((one.status, one.found) for one in checks.checks if one.name == name)
    return found


def not_ok(checks):
    return [(one.name, one.status) for one in checks.checks if one.status != "ok"]


@pytest.mark.usefixtures("no_proxy")
def test_the_set_up_here_is_complete(tmp_path):
    checks = views.check_setup(tmp_path / "not" / "there" / "yet")
    assert checks.ok
    assert ("proxy", "ok", "used for UCL if set", "none") in checks.rows()
    names = [one.name for one in checks.checks]
    assert names == ["Python", "clock", "OpenSSL", *setup.NEEDED, "home folder", "proxy"]
    assert row(checks, "OpenSSL")[1].endswith(f", {backend.openssl_version_text().split()[1]} in cryptography")
    assert not_ok(views.check_setup(tmp_path)) == []


@pytest.mark.usefixtures("no_proxy")
def test_a_home_that_is_a_file_fails_and_a_missing_package_warns(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert not_ok(views.check_setup(place)) == [("home folder", "failed")]
    monkeypatch.setattr("ucl_helpers.views.setup.NEEDED", ("cryptography", "no-such-package"))
    assert not_ok(views.check_setup(tmp_path)) == [("no-such-package", "warning")]


@pytest.mark.usefixtures("no_proxy")
def test_a_home_that_may_not_be_looked_for_fails(tmp_path):
    (tmp_path / "closed" / "home").mkdir(parents=True)
    with locked_out(tmp_path / "closed"):
        assert not_ok(views.check_setup(tmp_path / "closed" / "home" / "below")) == [("home folder", "failed")]


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(("years", "status"), [(-1, "failed"), (0, "ok"), (20, "ok"), (31, "failed")])
def test_a_clock_that_cannot_be_right_fails(years, status, tmp_path):
    then = setup.WRITTEN + timedelta(days=366 * years)
    assert row(views.check_setup(tmp_path, lambda: then), "clock") == (status, f"{then:%Y-%m-%dT%H:%M:%SZ}")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(("mode", "looked"), [(0o777, []), (0o700, ["ok"])])
def test_no_file_is_opened_in_a_home_that_others_can_change(tmp_path, monkeypatch, mode, looked):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    if mode == 0o777:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: pytest.fail("a file was opened in the home folder"))
    assert [check.status for check in views.check_setup(home).checks if check.name == "locks"] == looked


@pytest.mark.usefixtures("no_proxy")
def test_locks_are_tried_where_there_is_a_home_and_nothing_is_left(tmp_path, monkeypatch):
    assert row(views.check_setup(tmp_path), "locks") == ("ok", "they do")
    assert list(tmp_path.iterdir()) == []

    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("ucl_helpers.views.setup.fcntl.flock", refused)  # a file system without locks is not at hand
    assert row(views.check_setup(tmp_path), "locks") == ("failed", "No locks available")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("variable", PROXIES[:4])
def test_a_proxy_is_told_by_its_variable_with_the_hosts_that_are_excepted(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "http://user:s3cr3t@proxy.example")
    monkeypatch.setenv("NO_PROXY", "ucl.internal, .example")
    found = f"{variable}, but for this machine, ucl.internal, .example"
    assert row(views.check_setup(tmp_path), "proxy") == ("ok", found)
    monkeypatch.delenv("NO_PROXY")
    checks = views.check_setup(tmp_path)
    assert row(checks, "proxy") == ("ok", f"{variable}, but for this machine")
    assert checks.ok
    assert "s3cr3t" not in str(checks)
