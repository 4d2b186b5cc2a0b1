"""What papermill and nbformat do for a headless run, and how their failures are told."""

import json
import logging
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError
from nbformat import ValidationError, validate

from ucl_helpers.automation.engine import KERNEL_NAME
from ucl_helpers.automation.kernel import EncryptedKernelManager
from ucl_helpers.automation.record import Record
from ucl_helpers.errors import DeadlineExceeded, SecretRedacted, UsageError
from ucl_helpers.files import storage

_STUMBLES = (AssertionError, AttributeError, KeyError, RecursionError, TypeError)  # nbformat's, over what is none
_TOLD = (papermill.PapermillExecutionError, SecretRedacted, DeadlineExceeded)  # the record says why
_KERNEL = (RuntimeError, CellTimeoutError)  # it did not start, died, or is stuck; the record says so, too
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
    for number, cell in enumerate(content["cells"], 1):
        try:
            json.dumps(cell, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            told = f"Cell {number} of {notebook} holds half a surrogate, which no file in UTF-8 can hold."
            raise UsageError(told, remedy="Take it out.") from None


def execute(
    notebook: Path,
    working: Path,
    values: Mapping[str, object],
    deadline: timedelta,
    *,
    records: list[Record],
    kernel: EncryptedKernelManager,
    home: Path | None,
    stops: list[BaseException],
) -> None:
    """Let papermill run it by the engine ``ucl``, which adds the record of the run to ``records``, however it ends.

    Args:
        notebook: what is run.
        working: where papermill writes.
        values: of the parameters.
        deadline: how long it may take.
        records: gets the record.
        kernel: executes the cells.
        home: a home folder whose secrets are looked for as well.
        stops: what the run is to end with, if signals came already.
    """
    try:
        with storage("run", notebook):
            papermill.execute_notebook(
                _literal(notebook),
                _literal(working),
                dict(values),
                kernel_name=KERNEL_NAME,
                language="python",
                progress_bar=False,
                deadline=deadline,
                tell=records.append,
                engine_name="ucl",
                kernel=kernel,
                home=home,
                stops=stops,
            )
    except (*_TOLD, *_KERNEL):
        if not records:
            raise


def _literal(path: Path) -> str:
    """A path as papermill takes it: it fills in ``{…}``, and ours mean themselves."""
    return str(path).replace("{", "{{").replace("}", "}}")
