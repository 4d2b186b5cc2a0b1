"""Check that a machine has everything that the notebooks need."""

import fcntl
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cryptography.hazmat.backends.openssl.backend import backend

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed
from ucl_helpers.extras import install_command
from ucl_helpers.models import Check, Checks
from ucl_helpers.tables import moment
from ucl_helpers.wire.proxy import proxy_variable

NEEDED = ("cryptography", "requests", "papermill", "jupyterlab", "ipywidgets")
OLDEST = (3, 11)
WRITTEN, FAR = datetime(2026, 11, 1, tzinfo=UTC), datetime(2056, 11, 1, tzinfo=UTC)
"""A clock before the first date or after the second one is wrong."""


def check_setup(home: str | Path | None = None, clock: Clock = utc_now) -> Checks:
    """Check Python, the clock, OpenSSL, the packages, the home folder and proxies. It makes no network calls.

    Args:
        home: the home folder; None or empty for ``UCL_HOME`` or the user's data folder.
        clock: our clock, aware, UTC.
    """
    return Checks(tuple(_look(Home(home), clock())))


def _look(home: Home, now: datetime) -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", "ok" if sys.version_info >= OLDEST else "failed", "3.11 or newer", python)
    yield Check("clock", "ok" if WRITTEN <= now < FAR else "failed", "plausible", moment(now))
    ours, its = ssl.OPENSSL_VERSION.split(" ", 2)[1], backend.openssl_version_text().split(" ", 2)[1]
    versions = f"{ours} in Python, {its} in cryptography"
    yield Check("OpenSSL", "ok" if ssl.HAS_TLSv1_2 else "failed", "speaks TLS 1.2", versions)
    advice = f"not installed; install it with: {install_command('lab')}"
    for package in NEEDED:
        installed = _version(package)
        yield Check(package, "ok" if installed else "warning", "installed", installed or advice)
    folder = home.path
    with suppress(OSError):  # a parent folder may be unreadable; then it is not writable either
        folder = next(path for path in (home.path, *home.path.parents) if path.exists())
    writable = os.access(folder, os.W_OK | os.X_OK) and folder.is_dir()
    try:
        home.folder("connections")
    except StorageFailed as error:
        yield Check("home folder", "failed", "only you can change it", error.message)
    else:
        yield Check("home folder", "ok" if writable else "failed", "can be written", str(home.path))
        if writable and folder == home.path:
            problem = _locks(folder)
            yield Check("locks", "failed" if problem else "ok", "hold in the home folder", problem or "they do")
    yield _proxy()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _locks(folder: Path) -> str:
    """Return why ``flock`` does not work in a folder, or an empty text. ``ucl doctor`` tests more."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _proxy() -> Check:
    """Name the proxy's variable and the excepted hosts. Omit the proxy's URL, which may hold a password."""
    expected, used = "used for UCL if set", proxy_variable()
    if used is None:
        return Check("proxy", "ok", expected, "none")
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ["this machine", *excepted.replace(",", " ").split()]
    return Check("proxy", "ok", expected, f"{used}, but for {', '.join(hosts)}")
