"""Optional packages: what each extra needs, and the command that installs what is missing.

This project is not published. Anybody could register its name at a package index, so no advice installs it by that
name. The advice names the running interpreter, and either the third-party packages that are missing or the checkout.
"""

import json
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ucl_helpers.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

DISTRIBUTION = "ucl-helpers"
MODULES = {
    "dask": ("distributed",),
    "lab": ("matplotlib", "numpy"),
    "metrics": ("prometheus_client",),
    "notify": ("apprise",),
    "run": ("papermill", "ipykernel", "jupyter_client"),
    "sandbox": ("tornado", "graphql"),
}
"""The modules of each extra that this package imports."""


def require(extra: str) -> None:
    """Check that the modules of an extra can be imported, without importing them. Their versions are not checked.

    Raises:
        UsageError: a module is missing. The error names the module and the command that installs it.
    """
    for module in MODULES[extra]:
        if find_spec(module) is None:
            raise missing(module, extra)


def missing(module: str, extra: str) -> UsageError:
    """Return the error for a module that cannot be imported and belongs to an extra."""
    return UsageError(f"This needs {module}.", remedy=f"Install it with: {install_command(extra)}")


def missing_for(error: ModuleNotFoundError, extra: str) -> UsageError:
    """Return the error for an import that failed and belongs to an extra; names the package that is not installed."""
    return missing((error.name or "a package").partition(".")[0], extra)


def is_installed(extra: str) -> bool:
    """Return whether :func:`require` accepts an extra."""
    try:
        require(extra)
    except UsageError:
        return False
    return True


def install_command(extra: str) -> str:
    """Return the shell command that installs an extra into the environment of this interpreter.

    In an editable install the command names the checkout. Otherwise it names the packages of the extra that are not
    installed, with the versions that this distribution's metadata requires. If all are installed, for example because
    a version is too old, it names all of them.
    """
    from importlib.metadata import PackageNotFoundError, distribution  # takes 10 ms of each start of ucl

    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:  # imported from a checkout that is not installed
        return _pip_install("-e", f"{Path(__file__).parent.parent}[{extra}]")
    if checkout := _checkout(installed):
        return _pip_install("-e", f"{checkout}[{extra}]")
    marker = f"extra == '{extra}'"
    split = (line.partition(";") for line in installed.requires or ())
    requirements = [name.strip() for name, _, condition in split if condition.strip().replace('"', "'") == marker]
    return _pip_install(*([name for name in requirements if not _is_there(name)] or requirements))


def _pip_install(*arguments: str) -> str:
    """Return a command for pip, or for uv in an environment that uv made without pip."""
    python = sys.executable or "python3"
    command = ["uv", "pip", "install", "--python", python]
    if find_spec("pip") is not None:
        command = [python, "-m", "pip", "install"]
    return shlex.join([*command, *arguments])


def _checkout(installed: "Distribution") -> str:
    """Return the folder of an editable install (PEP 610), or an empty text."""
    source = json.loads(installed.read_text("direct_url.json") or "{}")
    editable = source.get("dir_info", {}).get("editable", False)
    return unquote(urlsplit(source["url"]).path) if editable else ""


def _is_there(requirement: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(re.split("[<=>]", requirement, maxsplit=1)[0])
    except PackageNotFoundError:
        return False
    return True
