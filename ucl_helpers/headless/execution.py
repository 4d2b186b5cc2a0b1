"""What papermill and nbformat do for a headless run, and how their failures are told."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError

from ucl_helpers.connection.files import storage
from ucl_helpers.errors import DeadlineExceeded, SecretRedacted
from ucl_helpers.headless import KERNEL_NAME
from ucl_helpers.headless.kernel import EncryptedKernelManager
from ucl_helpers.headless.record import Record

_TOLD = (papermill.PapermillExecutionError, SecretRedacted, DeadlineExceeded)  # the record says why
_KERNEL = (RuntimeError, CellTimeoutError)  # it did not start, died, or is stuck; the record says so, too
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it warns of, and that a kernel died, is told by us


def execute(
    content: Mapping[str, Any],
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
        content: what is run, as it was read.
        notebook: where it came from.
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
                nbformat.from_dict(content),  # the file may be one that papermill itself does not read
                _literal(working),
                dict(values),
                kernel_name=KERNEL_NAME,
                language="python",
                progress_bar=False,
                deadline=deadline,
                tell=records.append,
                engine_name="ucl",
                source=notebook,
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
