"""Is everything here that the notebooks need?"""

import os
import ssl
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ucl_helpers.models import Check
from ucl_helpers.store import Home
from ucl_helpers.views.checked import Checks

NEEDED = ("cryptography", "requests", "papermill", "jupyterlab")
OLDEST = (3, 11)


def check_setup(home: str | Path | None = None) -> Checks:
    """Look at Python, OpenSSL, the packages, the home folder and proxies. Nobody is called.

    Args:
        home: where connections lie; None or empty for ``UCL_HOME`` or the user's data folder.
    """
    return Checks(tuple(_look(Home(home))))


def _look(home: Home) -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", "ok" if sys.version_info >= OLDEST else "failed", "3.11 or newer", python)
    yield Check(
        "OpenSSL", "ok" if ssl.HAS_TLSv1_2 else "failed", "speaks TLS 1.2", ssl.OPENSSL_VERSION.split(" ", 2)[1]
    )
    for package in NEEDED:
        found = _version(package)
        yield Check(package, "ok" if found else "warning", "installed", found or "not installed")
    folder = next(one for one in (home.path, *home.path.parents) if one.exists())
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield Check("home folder", "ok" if writable else "failed", "can be written", str(home.path))
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    yield Check("proxy", "ok", "used for UCL if set", "set" if proxy else "none")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
