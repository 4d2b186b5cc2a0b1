"""Execute a notebook headless for papermill: the work of the engine ``ucl``.

The rules of this file:

1.  Parameters and sources are checked before the notebook is written. If they hold a secret, nothing runs, and the
    outcome says so.
2.  Every save is without secrets, by a rename, mode 0600; also when the run fails, is stopped or passes its deadline.
    What is no file on this machine (``s3://…``, a pipe, standard output) is written by papermill, without secrets too.
3.  When it returns or raises, the kernel is gone and the outcome is recorded.

Papermill itself writes the notebook once more when the engine is done: without secrets, since they were removed from
the very object that it writes, and with the same mode, but in place. A program that reads the file at that moment may
read half of it. ``ucl run`` lets papermill write in a hidden folder, and renames the file afterwards.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from traceback import format_exception
from typing import Any

import nbformat
from papermill.engines import NotebookExecutionManager
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import LocalHandler, papermill_io
from papermill.translators import translate_parameters

from ucl_helpers.connection.files import require_protected_folder, write
from ucl_helpers.errors import UCLError, UsageError
from ucl_helpers.headless import DEADLINE, KERNEL_NAME, CellFailed, RunContext
from ucl_helpers.headless.cells import HeadlessClient
from ucl_helpers.headless.interruption import handling_signals, noting_signals
from ucl_helpers.headless.kernel import QUIET, EncryptedKernelManager
from ucl_helpers.headless.notebooks import packaged_text
from ucl_helpers.headless.outcome import Record, outcome_path, write_outcome, write_refusal
from ucl_helpers.headless.parameters import BUILT_IN, Parameter, declared, refuse_secret, typed
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.redaction.sources import WatchedSecrets
from ucl_helpers.policy import parse_duration

_WARNINGS = logging.getLogger(__name__)
_LOG = logging.getLogger("papermill.ucl")
_LOG.setLevel(logging.INFO)  # at DEBUG nbclient would log what cells print


def run(
    nb: Any,
    *,
    output_path: str | None = None,
    input_path: str | None = None,
    progress_bar: bool | dict[str, Any] = False,
    log_output: bool = False,
    start_timeout: int = 60,
    execution_timeout: int | None = None,
    autosave_cell_every: int = 0,
    deadline: timedelta | float | str = DEADLINE,
    context: RunContext | None = None,
    **files: Any,
) -> Any:
    """Execute a notebook that papermill has prepared.

    Args:
        nb: the notebook; changed in place.
        output_path: None if it is to be saved only at the end.
        input_path: where it came from.
        progress_bar: whether, or how, progress is shown on standard error.
        log_output: whether the output of a cell is logged, when the cell is over.
        start_timeout: seconds until the kernel must have started.
        execution_timeout: seconds that each cell may take; None for any.
        autosave_cell_every: ignored; the notebook is saved between cells only.
        deadline: how long the whole run may take: seconds, or a text such as ``30m``.
        context: what ``ucl run`` adds.
        files: papermill's ``stdout_file`` and ``stderr_file``, which get the output of each cell, when it is over.

    Raises:
        UsageError: the notebook does not take these parameters; only the outcome was written, nothing was run.
        SecretFound: a parameter or a cell holds a secret; only the outcome was written, nothing was run.
        SecretRedacted: the notebook showed a secret; the outputs that held it were removed from all that was written.
        DeadlineExceeded: the run, or a cell, took too long.
        KeyboardInterrupt, SystemExit: SIGINT, or SIGTERM (143), came.
        StorageFailed: the notebook could not be saved, or another user can replace the file that it is written to.
    """
    del autosave_cell_every
    context = context or RunContext()
    metadata = nb.metadata.papermill
    if context.source:
        input_path = metadata["input_path"] = str(context.source)
    parameters = metadata.get("parameters", {})
    try:
        redactor = _accepted(nb, parameters, context.home)
    except UCLError as error:
        if not context.source:
            with suppress(UCLError):
                if path := local_path(metadata["output_path"]):
                    write_refusal(path, input_path or "", parameters, error)
        raise
    record = Record(input_path or "", parameters, datetime.now(UTC))
    options = {"progress_bar": progress_bar, "log_output": log_output}
    manager = RedactingManager(nb, redactor, saves_each_cell=output_path is not None, **options)
    nb.metadata.papermill = _as_utf8(metadata)
    with noting_signals(context.stops) as note, _recorded(manager, redactor, record, context):
        manager.notebook_start()
        kernel = context.kernel or EncryptedKernelManager()
        kernel.without_secrets = lambda text: redactor.text(text, "what the kernel printed")
        path = Path(input_path or "").absolute()
        kernel.notebook_folder = path.parent if input_path and path.is_file() else None
        client = HeadlessClient(
            manager,
            kernel,
            deadline=_duration(deadline),
            cell_seconds=execution_timeout,
            stops=context.stops,
            note=note,
            startup_timeout=start_timeout,
            extra_arguments=[QUIET],
            log=_LOG,
            log_output=log_output,
            **files,
        )
        with handling_signals(client.stop):
            client.execute()
    return nb


def _accepted(nb: Any, parameters: dict[str, Any], home: Path | None) -> Redactor:
    """Refuse parameters and cells that hold secrets, and return the object that removes secrets.

    Parameters, whose types papermill has guessed, become what the notebook declares.
    """
    for name, value in parameters.items():
        refuse_secret(name, value)
    language = str((nb.metadata.get("kernelspec") or {}).get("language") or "python")
    if "python" not in language.lower():
        raise UsageError(
            f"The notebook is written in {language}, and ucl runs Python.", remedy="Run it with papermill."
        )
    parameters_cell: dict[str, Parameter] = {}
    with suppress(UsageError):  # the cell is not Python, and the kernel will say so
        parameters_cell = declared(nb)
    given = {name: value for name, value in parameters.items() if not name.startswith(BUILT_IN)}
    if parameters_cell and (converted := typed(parameters_cell, given)) != given:
        parameters.update(converted)
        for cell in nb.cells:
            if "injected-parameters" in cell.metadata.get("tags", ()):
                cell.source = translate_parameters(KERNEL_NAME, "python", parameters, "Parameters")
    defaults = {name: parameter.default for name, parameter in parameters_cell.items() if parameter.default is not None}
    redactor = Redactor(WatchedSecrets({**defaults, **parameters}, home))
    for kind in redactor.secrets.forget_words(lambda: packaged_text(nb)):
        _WARNINGS.warning(
            "The %s is a word of this notebook, so the outputs are not searched for it. Choose a longer passphrase.",
            kind,
        )
    redactor.refuse_sources(nb.cells)
    return redactor


def _as_utf8(value: Any) -> Any:
    """Return a value with an escape for each byte of a path that is not UTF-8, which no notebook file can hold."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_as_utf8(held) for held in value]
    if isinstance(value, dict):
        return nbformat.from_dict({name: _as_utf8(held) for name, held in value.items()})
    return value


def _duration(given: timedelta | float | str) -> timedelta:
    if isinstance(given, str):
        return parse_duration(given)
    return given if isinstance(given, timedelta) else timedelta(seconds=given)


def local_path(output_path: str | None) -> Path | None:
    """Return the file on this machine that papermill's output path names, or None if it names no file.

    Raises:
        StorageFailed: another user can replace the file, or made a symlink on the way to it.
    """
    handler = papermill_io.get_handler(output_path) if output_path else None
    if not isinstance(handler, LocalHandler):
        return None
    here = handler.cwd(None)
    handler.cwd(here)
    path = Path(here or "", output_path or "")
    require_protected_folder(path)  # papermill writes through symlinks of other users too
    path = path.resolve()
    return path if path.is_file() or not path.exists() else None


class RedactingManager(NotebookExecutionManager):
    """Keeps the state of a run for papermill; every save is without secrets.

    It saves before the first cell, after each, and at the end; never within a cell, where half of a secret may have
    been printed.

    Args:
        nb: the notebook, which is changed in place.
        redactor: removes the secrets.
        saves_each_cell: whether it is saved before the end.
        options: papermill's ``progress_bar`` and ``log_output``.

    Attributes:
        path: the file that it is saved to; None if papermill saves it elsewhere.
        failure: of the cell that stopped the notebook.
    """

    def __init__(self, nb: Any, redactor: Redactor, *, saves_each_cell: bool, **options: Any) -> None:
        super().__init__(nb, nb.metadata.papermill["output_path"], autosave_cell_every=0, **options)
        self._redactor, self._saves_each_cell, self._is_saved = redactor, saves_each_cell, False
        self.path = local_path(self.output_path)
        self.failure: CellFailed | None = None

    @property
    def condemned(self) -> set[int]:
        """Indexes of the cells whose outputs gave way to a note, because one held a secret."""
        return {number - 1 for number in self._redactor.condemned}

    def cell_start(self, cell: Any, cell_index: int, **more: Any) -> None:
        """Note when the cell began. The notebook is not saved, since it was saved after the previous cell."""
        self._is_saved = True
        super().cell_start(cell, cell_index, **more)
        self._is_saved = False

    def notebook_complete(self, **more: Any) -> None:
        """Save for the last time. Cells that were not run stay pending; papermill would call them completed."""
        code = [cell for cell in self.nb.cells if cell.cell_type == "code"]
        unrun = [cell for cell in code if cell.metadata.papermill["status"] == self.PENDING]
        self._is_saved = True
        super().notebook_complete(**more)
        self._is_saved = False
        for cell in unrun:
            cell.metadata.papermill["status"] = self.PENDING
        self.save()

    def save(self, **_: Any) -> None:
        """Remove the secrets; then save, unless only the end is saved.

        A save between two cells is not laid out for readers and may not survive a power cut; the last one is and does.
        """
        if self._is_saved:
            return
        ends = self.end_time is not None
        self._redactor.notebook(self.nb)
        if self.path is not None and (self._saves_each_cell or ends):
            text = nbformat.v4.writes_json(self.nb) if ends else json.dumps(self.nb)
            write(self.path, text.encode(), durable=ends)
        elif self._saves_each_cell:
            super().save()


@contextmanager
def _recorded(manager: RedactingManager, redactor: Redactor, record: Record, context: RunContext) -> Iterator[None]:
    """Save the notebook and record the outcome, however the block ends. A secret in an output is an error."""
    error: BaseException | None = None
    try:
        yield
    except BaseException as caught:
        error = caught
        raise
    finally:
        ending = _end(manager, redactor, record, error)
        if context.source:
            context.record = record
        elif manager.path is not None:
            write_outcome(outcome_path(manager.path), record.as_json(manager.path))
        if ending is not None and ending is not error:
            raise ending from None


def _end(
    manager: RedactingManager, redactor: Redactor, record: Record, error: BaseException | None
) -> BaseException | None:
    """Save the notebook, derive the outcome, and return the error that the run ends with."""
    stopped = isinstance(error, KeyboardInterrupt | SystemExit)
    try:
        manager.notebook_complete()
    except UCLError as unsaved:
        error = error if stopped else unsaved
    if error is not None:  # a program that shows it may show its causes too
        redactor.text("".join(format_exception(error)), "the error of the run")
    failure = _clean(manager, redactor)
    record.end(manager.nb.cells, error or failure, redactor)
    if not stopped:
        error = redactor.error() or error or _without_output(failure, manager.nb.cells)
    return error


def _clean(manager: RedactingManager, redactor: Redactor) -> CellFailed | None:
    """Return a cell's failure without secrets, and without its text if the outputs of the cell were removed."""
    failure = manager.failure
    if failure is None or failure.is_exit:
        return failure
    place = f"cell {failure.index + 1}, error"
    text = redactor.text(failure.text, place)
    condemned = failure.index in manager.condemned and not text.isdigit()
    return CellFailed(failure.index, redactor.text(failure.name, place), "[removed]" if condemned else text)


def _without_output(failure: CellFailed | None, cells: Sequence[Any]) -> PapermillExecutionError | None:
    """Return a failure that no output of type ``error`` shows, or None, since papermill raises the others."""
    if failure is None or failure.is_exit:
        return None
    cell = cells[failure.index]
    shown = [CellFailed(0, out["ename"], out["evalue"]) for out in cell.outputs if out["output_type"] == "error"]
    if not all(error.is_exit for error in shown):
        return None
    where = (failure.index, cell.execution_count, cell.source)
    return PapermillExecutionError(*where, failure.name, failure.text, traceback=[f"{failure.name}: {failure.text}"])
