"""What papermill and nbformat do for a headless run, and how their failures are told."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError
from nbformat import ValidationError, validate

from ucl_helpers.automation.kernel import KERNEL_NAME, QUIET, EncryptedKernelManager
from ucl_helpers.errors import UsageError
from ucl_helpers.files import storage

_STUMBLES = (AssertionError, AttributeError, KeyError, RecursionError, TypeError)  # nbformat's, over what is none
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it warns of, and that a kernel died, is told by us


def must_be_valid(content: dict[str, Any], notebook: Path) -> None:
    """What a file holds follows the notebook format; cells without an id are allowed, and get one.

    Raises:
        UsageError: it does not; names the file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of cells without an id
            validate(content)
    except (ValidationError, *_STUMBLES) as error:
        reason = str(getattr(error, "message", "") or f"nbformat cannot read it ({type(error).__name__})")
        raise UsageError(f"{notebook} is not a Jupyter notebook: {reason[:200]}.") from None


def execute(notebook: Path, working: Path, values: Mapping[str, object]) -> str | None:
    """Let papermill run it; the error is returned as text, since only its name and text survive the kernel."""
    try:
        with storage("run", notebook):
            papermill.execute_notebook(
                _literal(notebook),
                _literal(working),
                dict(values),
                kernel_name=KERNEL_NAME,
                language="python",
                progress_bar=False,
                kernel_manager_class=EncryptedKernelManager,
                extra_arguments=[QUIET],
            )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except (RuntimeError, NoSuchKernel, CellTimeoutError) as error:  # the kernel did not start, died, or is stuck
        return f"{type(error).__name__}: {error}"
    return None


def _literal(path: Path) -> str:
    """A path as papermill takes it: it fills in ``{…}``, and ours mean themselves."""
    return str(path).replace("{", "{{").replace("}", "}}")
