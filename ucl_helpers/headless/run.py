"""Run a notebook headless through papermill, from its parameters to its outcome, and keep the records of runs.

The notebook is the procedure; this module starts it, saves it and reports how it ended. It knows nothing of renewal.
Papermill, which takes seconds to import, is imported once there is something to run.

The records are in ``HOME/runs``, each under its moment, and the oldest of very many are deleted::

    HOME/runs/02_maintain_connection-20260131T235959.123456Z.ipynb          the executed notebook
    HOME/runs/02_maintain_connection-20260131T235959.123456Z.outcome.json   what came of it
    HOME/runs/02_maintain_connection-prod-looked.outcome.json               the last check that found nothing to do

A check that finds nothing to do replaces the previous one, so that a thousand of them displace no record of a run.
"""

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ucl_helpers.connection.files import make_output_folder, read_regular, storage, write
from ucl_helpers.errors import DeadlineExceeded, SecretRedacted, UCLError, UsageError, printable
from ucl_helpers.headless import DEADLINE, KERNEL_NAME, RunContext
from ucl_helpers.headless.interruption import hold_locked, noting_signals, remove_abandoned
from ucl_helpers.headless.notebooks import LARGEST_NOTEBOOK, read_notebook
from ucl_helpers.headless.outcome import outcome_path, write_outcome, write_refusal
from ucl_helpers.headless.parameters import Parameter, accept, declared

KEEP = 200
"""So many runs are kept."""

_WORKING = re.compile(r"\..+-[0-9a-f]{8}\.run")
_YOUNG = timedelta(days=1)
_RUN = re.compile(r"(.+-(\d{8}T\d{6}\.\d{6}Z))\.(?:ipynb|outcome\.json)")


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        output: the executed notebook, mode 0600; its ``outcome.json`` is beside it.
        outcome: the content of that file; see ``docs/reference/outcome.md``.
    """

    output: Path
    outcome: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """The outcome's exit code; a notebook that failed without one ends with 1."""
        return int(self.outcome["exitCode"])

    @property
    def error(self) -> str | None:
        """Name and text of what stopped it, and what helps; or None."""
        message = f"{self.outcome.get('error', '')}: {self.outcome.get('message', '')}"
        return f"{message}\n{self.outcome.get('remedy') or ''}".strip() if self.outcome.get("error") else None


def parameters_of(notebook: Path) -> dict[str, Parameter]:
    """Return what a notebook can be given, by name.

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
    """Execute a notebook by this interpreter, in the current folder, and save the result.

    The executed notebook appears whole, mode 0600, at the end of the run, with its
    ``outcome.json``: also of one that failed, was interrupted, or whose kernel did not start. While it runs, a hidden
    folder beside it (0700) shows how far it is; that of a run that was killed goes away with the next. A run that is
    refused before it begins has its ``outcome.json``, too, and no notebook.

    Args:
        notebook: the file to run; it is not changed.
        output: where the executed notebook goes; what is there is replaced.
        parameters: by name; text is converted to the type the notebook declares.
        deadline: how long it may take; then it is interrupted.
        home: a home folder whose secrets are searched for in the outputs, beside those of the parameter ``home``,
            ``UCL_HOME`` and the default.

    Raises:
        UsageError: the notebook cannot be read, or does not take these parameters.
        SecretFound: a parameter or a cell holds a secret.
        StorageFailed: the output cannot be written, or the kernel's files cannot.
        KeyboardInterrupt, SystemExit: SIGINT, or SIGTERM (143), came before all was done.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder.", remedy="Name the file that the executed notebook goes to.")
    output, context = output.absolute(), RunContext(source=notebook.absolute(), home=home)
    try:
        outcome = _run(notebook, output, parameters or {}, deadline, context)
    except UCLError as error:
        if context.record is None:
            write_refusal(output, notebook, parameters or {}, error)
        raise
    return RunResult(output, outcome)


def _run(
    notebook: Path, output: Path, parameters: Mapping[str, object], deadline: timedelta, context: RunContext
) -> Mapping[str, Any]:
    content = read_notebook(notebook)
    values = accept(declared(content), parameters)
    with noting_signals(context.stops):
        from ucl_helpers.headless.kernel import EncryptedKernelManager

        with storage("run", notebook):  # the kernel loads IPython while this process loads papermill
            context.kernel = EncryptedKernelManager.begun(notebook.absolute().parent)
        with closing(context.kernel):
            make_output_folder(output.parent)  # else another user could put a folder in the place of the hidden one
            with storage("write", output):
                remove_abandoned(output.parent, _WORKING)
                working, held = hold_locked(lambda: _make_working_folder(output))
            try:
                with storage("run", notebook):
                    _execute(content, working / output.name, values, deadline, context)
            finally:
                outcome = _keep(working, output, context)
                os.close(held)
    return outcome


def _execute(
    content: Mapping[str, Any], saved: Path, values: Mapping[str, object], deadline: timedelta, context: RunContext
) -> None:
    """Let papermill run the notebook by the engine ``ucl``; raise only what the record of the run does not say."""
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # the outcome says all that it would warn of
    recorded = (papermill.PapermillExecutionError, SecretRedacted, DeadlineExceeded)
    kernel_failed = (RuntimeError, CellTimeoutError)  # it did not start, died, or hangs
    try:
        papermill.execute_notebook(
            nbformat.from_dict(content),  # the file may be one that papermill itself does not read
            str(saved).replace("{", "{{").replace("}", "}}"),  # papermill replaces {…} in paths
            dict(values),
            kernel_name=KERNEL_NAME,
            language="python",
            progress_bar=False,
            engine_name="ucl",
            deadline=deadline,
            context=context,
        )
    except (*recorded, *kernel_failed):
        if context.record is None:
            raise


def _make_working_folder(output: Path) -> Path:
    """Make the hidden folder in which papermill writes."""
    working = output.with_name(f".{output.stem}-{secrets.token_hex(4)}.run")
    working.mkdir(mode=0o700)
    return working


def _keep(working: Path, output: Path, context: RunContext) -> Mapping[str, Any]:
    """Save what was executed so far, and its outcome, under their final names, by one rename each."""
    try:
        executes = (working / output.name).exists()
        if executes:
            executed = json.loads(read_regular(working / output.name, LARGEST_NOTEBOOK))
            executed["metadata"]["papermill"]["output_path"] = printable(str(output))
            write(output, (json.dumps(executed, indent=1, ensure_ascii=False) + "\n").encode())
        outcome = context.record.as_json(output if executes else None) if context.record else {}
        if outcome:
            write_outcome(outcome_path(output), outcome)
        return outcome
    finally:
        shutil.rmtree(working, ignore_errors=True)


def default_output(folder: Path, notebook: Path, now: datetime) -> Path:
    """Return where an executed notebook is kept: ``folder/02_maintain_connection-20260131T235959.123456Z.ipynb``.

    Args:
        folder: the folder of all runs.
        notebook: the notebook that is run.
        now: an aware moment.
    """
    return folder / f"{notebook.stem}-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.ipynb"


def not_due_path(folder: Path, notebook: Path, connection: str) -> Path:
    """Return where the outcome of the last check of a connection is kept that found nothing to do."""
    return folder / f"{notebook.stem}-{connection}-looked.outcome.json"


def prune(folder: Path, now: datetime, keep: int = KEEP) -> None:
    """Delete the oldest runs: all but ``keep``, and but those younger than a day. Other files are left alone."""
    with suppress(OSError):  # another run may delete the same files, and a file that cannot be deleted is no failure
        runs: dict[tuple[str, str], list[Path]] = {}
        for path in folder.iterdir():
            if match := _RUN.fullmatch(path.name):
                runs.setdefault((match[2], match[1]), []).append(path)
        for (moment, _), paths in sorted(runs.items())[:-keep]:
            if now - datetime.strptime(moment, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC) > _YOUNG:
                for path in paths:
                    path.unlink(missing_ok=True)
