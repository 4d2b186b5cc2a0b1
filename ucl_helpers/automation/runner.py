"""Run a notebook headless through papermill, and read its outcome.

The notebook is the procedure; the runner starts it, saves it and reports how it ended. It knows nothing of renewal.
Papermill, which takes seconds to import, is imported once there is something to run.
"""

import json
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucl_helpers.automation.leftovers import hold, sweep
from ucl_helpers.automation.parameters import Parameter, accept, declared
from ucl_helpers.errors import UsageError
from ucl_helpers.files import make_directory, storage, write
from ucl_helpers.models import OUTCOME_MIME

NBFORMAT = 4
_STUMBLES = (AttributeError, KeyError, TypeError)  # over cells that are none
_WORKING = re.compile(r"\..+-[0-9a-f]{8}\.ipynb")
TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        output: the executed notebook, mode 0600.
        outcome: what the notebook said last about itself (``outcome``, ``exitCode``, …), or None.
        error: name and text of the exception that stopped it, or None.
    """

    output: Path
    outcome: Mapping[str, Any] | None
    error: str | None

    @property
    def exit_code(self) -> int:
        """The outcome's exit code; a notebook that failed without one, or with 0, ends with 1."""
        code = int(self.outcome.get("exitCode", 0)) if self.outcome else 0
        return code or (1 if self.error else 0)

    def as_json(self) -> dict[str, Any]:
        """For programs: the outcome, or that it failed where the notebook did not come to say so; and where it lies."""
        told = dict(self.outcome or {"outcome": "done"})
        if self.error and not told.get("exitCode"):
            name, _, text = self.error.partition(": ")
            told = {"outcome": "failed", "error": name, "message": text}
        return {**told, "exitCode": self.exit_code, "notebook": str(self.output)}


def default_output(folder: Path, notebook: Path, now: datetime) -> Path:
    """Where an executed notebook is kept: ``folder/02_maintain_connection-20260131T235959.123456Z.ipynb``.

    Args:
        folder: the folder of all runs.
        notebook: the notebook that is run.
        now: an aware moment.
    """
    return folder / f"{notebook.stem}-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.ipynb"


def parameters_of(notebook: Path) -> dict[str, Parameter]:
    """What a notebook can be given, by name.

    Raises:
        UsageError: it is not a notebook.
        StorageFailed: it cannot be read.
    """
    return _declared(_read(notebook), notebook)


def run_notebook(notebook: Path, output: Path, parameters: Mapping[str, object] | None = None) -> RunResult:
    """Execute a notebook in a kernel of this interpreter, in the current folder, and save what came out.

    The kernel connection is encrypted. The executed notebook appears whole, mode 0600, at the end of the run: also
    of one that failed, was interrupted, or whose kernel did not start. While it runs, a hidden file beside it (0600
    too) shows how far it is; that of a run that was killed goes away with the next.

    Args:
        notebook: the file to run; it is not changed.
        output: where the executed notebook goes; what is there is replaced.
        parameters: by name; text is converted to the type the notebook declares.

    Raises:
        UsageError: the notebook cannot be read, or does not take these parameters.
        SecretFound: a parameter holds a secret.
        StorageFailed: the output cannot be written, or the kernel's files cannot.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder.", remedy="Name the file that the executed notebook goes to.")
    content = _read(notebook)
    values = accept(_declared(content, notebook), parameters or {})
    from ucl_helpers.automation.execution import execute, must_be_valid

    must_be_valid(content, notebook)
    output = output.absolute()
    make_directory(output.parent)
    with storage("write", output):
        sweep(output.parent, _WORKING)
        working, held = hold(lambda: _begun(output))
    with _termination_unwinds():
        try:
            error = execute(notebook.absolute(), working, values)
        finally:
            executed = _keep(working, output)
            os.close(held)
    return RunResult(output, _outcome(executed), error)


def _begun(output: Path) -> Path:
    """The hidden file, empty: papermill writes into this very file, and its mode, 0600, stays."""
    working = output.with_name(f".{output.stem}-{secrets.token_hex(4)}.ipynb")
    write(working, b"")
    return working


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: the kernel is shut down and the notebook saved. Main thread only."""

    def end(*_: object) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep(working: Path, output: Path) -> dict[str, Any]:
    """Save what was executed so far under its final name, by one rename."""
    try:
        if not working.exists() or not working.stat().st_size:
            return {"cells": []}
        executed = _read(working)
        executed["metadata"]["papermill"]["output_path"] = str(output)
        write(output, (json.dumps(executed, indent=1, ensure_ascii=False) + "\n").encode())
        return executed
    finally:
        working.unlink(missing_ok=True)


def _outcome(executed: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The last outcome a cell has shown."""
    outputs = (output for cell in executed["cells"] for output in cell.get("outputs", ()))
    found = [output["data"][OUTCOME_MIME] for output in outputs if OUTCOME_MIME in output.get("data", {})]
    return found[-1] if found else None


def _declared(content: Mapping[str, Any], notebook: Path) -> dict[str, Parameter]:
    try:
        return declared(content)
    except _STUMBLES as error:
        raise UsageError(f"{notebook} is not a Jupyter notebook: {type(error).__name__} in a cell.") from None


def _read(notebook: Path) -> dict[str, Any]:
    """A notebook as JSON, without a look at what its cells hold."""
    with storage("read", notebook):
        text = notebook.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{notebook} is not a Jupyter notebook: {error}.") from error
    if isinstance(content, dict) and content.get("nbformat") == NBFORMAT:
        cells = content.get("cells")
        if isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells):
            return content
    raise UsageError(f"{notebook} is not a Jupyter notebook of format {NBFORMAT}.")
