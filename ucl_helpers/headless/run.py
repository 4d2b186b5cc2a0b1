"""Run a notebook headless through papermill, and read its outcome.

The notebook is the procedure; the runner starts it, saves it and reports how it ended. It knows nothing of renewal.
Papermill, which takes seconds to import, is imported once there is something to run.
"""

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucl_helpers.connection.files import make_output_folder, read_regular, storage, write
from ucl_helpers.errors import DeadlineExceeded, SecretRedacted, UCLError, UsageError
from ucl_helpers.headless import DEADLINE, KERNEL_NAME
from ucl_helpers.headless.interruption import hold_locked, noting_signals, remove_abandoned
from ucl_helpers.headless.notebooks import LARGEST_NOTEBOOK, read_notebook
from ucl_helpers.headless.outcome import Record, outcome_path, write_outcome, write_refusal
from ucl_helpers.headless.parameters import Parameter, accept, declared
from ucl_helpers.tables import printable

if TYPE_CHECKING:
    from ucl_helpers.headless.kernel import EncryptedKernelManager

_WORKING = re.compile(r"\..+-[0-9a-f]{8}\.run")


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        output: the executed notebook, mode 0600; its ``outcome.json`` lies beside it.
        outcome: what that says; see ``docs/reference/outcome.md``.
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
        told = f"{self.outcome.get('error', '')}: {self.outcome.get('message', '')}"
        return f"{told}\n{self.outcome.get('remedy') or ''}".strip() if self.outcome.get("error") else None


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
    with noting_signals(stops), closing(_begun_kernel(notebook)) as kernel:
        make_output_folder(output.parent)  # else another user could put a folder in the place of the hidden one
        with storage("write", output):
            remove_abandoned(output.parent, _WORKING)
            working, held = hold_locked(lambda: _begun(output))
        saved = working / output.name
        try:
            source = notebook.absolute()
            _execute(content, source, saved, values, deadline, records=records, kernel=kernel, home=home, stops=stops)
        finally:
            told = _keep(working, output, records)
            os.close(held)
    return told


def _execute(
    content: Mapping[str, Any],
    notebook: Path,
    working: Path,
    values: Mapping[str, object],
    deadline: timedelta,
    *,
    records: list[Record],
    kernel: "EncryptedKernelManager",
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
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # its warnings; the outcome reports a dead kernel
    told = (papermill.PapermillExecutionError, SecretRedacted, DeadlineExceeded)  # the record says why
    kernel_died = (RuntimeError, CellTimeoutError)  # it did not start, died, or is stuck; the record says so, too
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
    except (*told, *kernel_died):
        if not records:
            raise


def _literal(path: Path) -> str:
    """A path as papermill takes it: it fills in ``{…}``, and ours mean themselves."""
    return str(path).replace("{", "{{").replace("}", "}}")


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


KEEP = 200
"""So many runs are kept."""

_YOUNG = timedelta(days=1)
_RUN = re.compile(r"(.+-(\d{8}T\d{6}\.\d{6}Z))\.(?:ipynb|outcome\.json)")


def default_output(folder: Path, notebook: Path, now: datetime) -> Path:
    """Where an executed notebook is kept: ``folder/02_maintain_connection-20260131T235959.123456Z.ipynb``.

    Args:
        folder: the folder of all runs.
        notebook: the notebook that is run.
        now: an aware moment.
    """
    return folder / f"{notebook.stem}-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.ipynb"


def not_due_path(folder: Path, notebook: Path, connection: str) -> Path:
    """Where the outcome of the last look at a connection lies that found nothing to do."""
    return folder / f"{notebook.stem}-{connection}-looked.outcome.json"


def prune(folder: Path, now: datetime, keep: int = KEEP) -> None:
    """Throw away the oldest runs: all but ``keep``, and but those younger than a day. Other files are left alone."""
    with suppress(OSError):  # another run may do the same; what cannot be removed stays
        runs: dict[tuple[str, str], list[Path]] = {}
        for path in folder.iterdir():
            if found := _RUN.fullmatch(path.name):
                runs.setdefault((found[2], found[1]), []).append(path)
        for (moment, _), paths in sorted(runs.items())[:-keep]:
            if now - datetime.strptime(moment, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC) > _YOUNG:
                for path in paths:
                    path.unlink(missing_ok=True)
