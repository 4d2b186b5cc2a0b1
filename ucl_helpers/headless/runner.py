"""Run a notebook headless through papermill, and read its outcome.

The notebook is the procedure; the runner starts it, saves it and reports how it ended. It knows nothing of renewal.
Papermill, which takes seconds to import, is imported once there is something to run.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucl_helpers.connection.files import make_output_folder, read_regular, storage, write
from ucl_helpers.errors import UCLError, UsageError
from ucl_helpers.headless import DEADLINE
from ucl_helpers.headless.leftovers import hold, sweep
from ucl_helpers.headless.notebook_file import LARGEST_NOTEBOOK, read_notebook
from ucl_helpers.headless.parameters import Parameter, accept, declared
from ucl_helpers.headless.record import Record, outcome_path, write_outcome, write_refusal
from ucl_helpers.headless.signals import noted
from ucl_helpers.tables import printable

if TYPE_CHECKING:
    from ucl_helpers.headless.kernel import EncryptedKernelManager

_WORKING = re.compile(r"\..+-[0-9a-f]{8}\.run")


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        output: the executed notebook, mode 0600; its ``outcome.json`` lies beside it.
        told: what that says; see ``docs/reference/outcome.md``.
    """

    output: Path
    told: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """The outcome's exit code; a notebook that failed without one ends with 1."""
        return int(self.told["exitCode"])

    @property
    def error(self) -> str | None:
        """Name and text of what stopped it, and what helps; or None."""
        told = f"{self.told.get('error', '')}: {self.told.get('message', '')}"
        return f"{told}\n{self.told.get('remedy') or ''}".strip() if self.told.get("error") else None


def parameters_of(notebook: Path) -> dict[str, Parameter]:
    """What a notebook can be given, by name.

    Raises:
        UsageError: it is not a notebook.
        StorageFailed: it cannot be read.
    """
    return declared(read_notebook(notebook))


def run_notebook(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, object] | None = None,
    *,
    deadline: timedelta = DEADLINE,
    home: Path | None = None,
) -> RunResult:
    """Execute a notebook by this interpreter, in the current folder, and save what came out.

    The executed notebook appears whole, mode 0600, at the end of the run, with its
    ``outcome.json``: also of one that failed, was interrupted, or whose kernel did not start. While it runs, a hidden
    folder beside it (0700) shows how far it is; that of a run that was killed goes away with the next. A run that is
    refused before it begins has its ``outcome.json``, too, and no notebook.

    Args:
        notebook: the file to run; it is not changed.
        output: where the executed notebook goes; what is there is replaced.
        parameters: by name; text is converted to the type the notebook declares.
        deadline: how long it may take; then it is interrupted.
        home: a home folder whose secrets are looked for in the outputs, beside those of the parameter ``home``,
            ``UCL_HOME`` and the default.

    Raises:
        UsageError: the notebook cannot be read, or does not take these parameters.
        SecretFound: a parameter or a cell holds a secret.
        StorageFailed: the output cannot be written, or the kernel's files cannot.
        KeyboardInterrupt, SystemExit: SIGINT, or SIGTERM (143), came before all was done.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder.", remedy="Name the file that the executed notebook goes to.")
    records: list[Record] = []
    try:
        told = _run(notebook, output.absolute(), parameters or {}, deadline, home, records=records)
    except UCLError as error:
        if not records:
            write_refusal(output, notebook, parameters or {}, error)
        raise
    return RunResult(output.absolute(), told)


def _run(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, object],
    deadline: timedelta,
    home: Path | None,
    *,
    records: list[Record],
) -> dict[str, Any]:
    content = read_notebook(notebook)
    values = accept(declared(content), parameters)
    stops: list[BaseException] = []
    with noted(stops), closing(_begun_kernel(notebook)) as kernel:
        from ucl_helpers.headless.execution import execute

        make_output_folder(output.parent)  # else another user could put a folder in the place of the hidden one
        with storage("write", output):
            sweep(output.parent, _WORKING)
            working, held = hold(lambda: _begun(output))
        saved = working / output.name
        try:
            source = notebook.absolute()
            execute(content, source, saved, values, deadline, records=records, kernel=kernel, home=home, stops=stops)
        finally:
            told = _keep(working, output, records)
            os.close(held)
    return told


def _begun_kernel(notebook: Path) -> "EncryptedKernelManager":
    """Start the kernel, which loads IPython while this process loads papermill."""
    from ucl_helpers.headless.kernel import EncryptedKernelManager

    with storage("run", notebook):
        return EncryptedKernelManager.begun(notebook.absolute().parent)


def _begun(output: Path) -> Path:
    """The hidden folder: papermill writes there, and whoever sees the lock on it leaves it alone."""
    working = output.with_name(f".{output.stem}-{secrets.token_hex(4)}.run")
    working.mkdir(mode=0o700)
    return working


def _keep(working: Path, output: Path, records: Sequence[Record]) -> dict[str, Any]:
    """Save what was executed so far, and what came of it, under their final names, by one rename each."""
    try:
        executes = (working / output.name).exists()
        if executes:
            executed = json.loads(read_regular(working / output.name, LARGEST_NOTEBOOK))
            executed["metadata"]["papermill"]["output_path"] = printable(str(output))
            write(output, (json.dumps(executed, indent=1, ensure_ascii=False) + "\n").encode())
        told = records[-1].as_json(output if executes else None) if records else {}
        if told:
            write_outcome(outcome_path(output), told)
        return told
    finally:
        shutil.rmtree(working, ignore_errors=True)
