"""A notebook executed headless for papermill; what the engine ``ucl`` does.

The law of this file:

1.  Parameters and sources are looked at before the notebook is written: a secret in them is refused, and the outcome
    says so.
2.  Every save is without secrets, by a rename, mode 0600; also when the run fails, is stopped or comes to its deadline.
3.  When it returns or raises, the kernel is gone and the outcome is told.

Papermill itself writes the notebook once more when the engine is done: without secrets, since those were taken out of
the very object it writes, and with the same mode, but in place. A program that reads the file at that moment may read
half of it. ``ucl run`` lets it write in a hidden folder, and renames the file afterwards.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from traceback import format_exception
from types import TracebackType
from typing import Any, Self

import nbformat
from papermill.engines import NotebookExecutionManager
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import LocalHandler, papermill_io
from papermill.translators import translate_parameters

from ucl_helpers.connection.files import require_protected_folder, write
from ucl_helpers.errors import UCLError, UsageError
from ucl_helpers.headless import DEADLINE, KERNEL_NAME
from ucl_helpers.headless.cells import HeadlessClient
from ucl_helpers.headless.interruption import handling_signals, noting_signals
from ucl_helpers.headless.kernel import QUIET, EncryptedKernelManager
from ucl_helpers.headless.outcome import CellFailed, Record, outcome_path, refused, write_outcome, write_refusal
from ucl_helpers.headless.parameters import BUILT_IN, Parameter, declared, refuse_secret, typed
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.redaction.sources import WatchedSecrets
from ucl_helpers.policy import parse_duration

_LOG = logging.getLogger("papermill.ucl")
_LOG.setLevel(logging.INFO)  # at DEBUG nbclient would log what cells print


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
        redactor: takes the secrets out.
        saves_each_cell: whether it is saved before the end.
        options: papermill's ``progress_bar`` and ``log_output``.
    """

    def __init__(self, nb: Any, redactor: Redactor, *, saves_each_cell: bool, **options: Any) -> None:
        super().__init__(nb, nb.metadata.papermill["output_path"], autosave_cell_every=0, **options)
        self._redactor, self._saves_each_cell, self._is_saved = redactor, saves_each_cell, False
        self._cells = dict.fromkeys(range(1, len(nb.cells) + 1), "")  # as JSON
        self._touched = set(self._cells)
        self.path = local_path(self.output_path)

    @property
    def condemned(self) -> set[int]:
        """Indexes of the cells whose outputs gave way to a note, because one held a secret."""
        return {number - 1 for number in self._redactor.condemned}

    def touch(self, index: int) -> None:
        """This cell is not any more what it was when it was saved."""
        self._touched.add(index + 1)

    def cell_start(self, cell: Any, cell_index: int, **more: Any) -> None:
        """Note when the cell began; what was saved after the one before stays."""
        self.touch(cell_index)
        self._is_saved = True
        super().cell_start(cell, cell_index, **more)
        self._is_saved = False

    def notebook_complete(self, **more: Any) -> None:
        """Save for the last time; of cells that were not run, papermill would say that they are completed."""
        unrun = [cell for cell in self.nb.cells if cell.cell_type == "code" and self._is_pending(cell)]
        self._is_saved = True
        super().notebook_complete(**more)
        self._is_saved = False
        for cell in unrun:
            cell.metadata.papermill["status"] = self.PENDING
        self.save()

    def _is_pending(self, cell: Any) -> bool:
        return bool(cell.metadata.papermill["status"] == self.PENDING)

    def save(self, **_: Any) -> None:
        """Take the secrets out; then save, unless only the end is saved.

        What is replaced after the next cell is neither looked at nor laid out for readers, and may not outlast a power
        cut; the end is and does.
        """
        if self._is_saved:
            return
        ends = self.end_time is not None
        searched = self._redactor.notebook(self.nb, None if ends else self._touched)
        if self._saves_each_cell or ends:
            if self.path is not None:
                text = nbformat.writes(self.nb) if ends else self._as_json(searched)
                write(self.path, text.encode(), durable=ends)
            elif self._saves_each_cell:
                super().save()
        self._touched.clear()

    def _as_json(self, changed: Iterable[int]) -> str:
        """The notebook, of whose cells the others are as they were."""
        self._cells |= {number: json.dumps(self.nb.cells[number - 1]) for number in changed}
        others = json.dumps({key: value for key, value in self.nb.items() if key != "cells"})
        return f'{{"cells": [{", ".join(self._cells.values())}], {others[1:]}'


def run(  # what papermill passes, and ``deadline`` and ``tell``
    nb: Any,
    *,
    output_path: str | None = None,
    input_path: str | None = None,
    progress_bar: bool | dict[str, Any] = False,
    log_output: bool = False,
    stdout_file: Any = None,
    stderr_file: Any = None,
    start_timeout: int = 60,
    execution_timeout: int | None = None,
    autosave_cell_every: int = 0,
    deadline: timedelta | float | str = DEADLINE,
    tell: Callable[[Record], None] | None = None,
    kernel: EncryptedKernelManager | None = None,
    home: Path | None = None,
    stops: list[BaseException] | None = None,
    source: Path | None = None,
) -> Any:
    """Execute a notebook that papermill has prepared.

    Args:
        nb: the notebook; changed in place.
        output_path: None if it is to be saved only at the end.
        input_path: where it came from.
        progress_bar: whether, or how, progress is shown on standard error.
        log_output: whether what cells print is logged, when they are over.
        stdout_file: what cells print on standard output is written there too, when they are over.
        stderr_file: likewise.
        start_timeout: seconds until the kernel must have started.
        execution_timeout: seconds that each cell may take; None for any.
        autosave_cell_every: not followed; it is saved between cells only.
        deadline: how long the whole run may take: seconds, or a text such as ``30m``.
        tell: gets the record of the run instead of the file ``outcome.json`` beside the notebook.
        kernel: the kernel, if it was started already; it is ended.
        home: a home folder whose secrets are looked for, beside those of parameters and environment.
        stops: what the run is to end with, if signals came already.
        source: the file that the notebook was read from, if papermill was given its content.

    Raises:
        UsageError: the notebook does not take these parameters; only the outcome was written, nothing was run.
        SecretFound: a secret stands in a parameter or in a cell; only the outcome was written, nothing was run.
        SecretRedacted: the notebook showed a secret; the outputs that held it were removed from all that was written.
        DeadlineExceeded: the run, or a cell, took too long.
        KeyboardInterrupt, SystemExit: SIGINT, or SIGTERM (143), came.
        StorageFailed: the notebook could not be saved, or another user can replace the file that it is written to.
    """
    del autosave_cell_every
    if source is not None:
        input_path = nb.metadata.papermill["input_path"] = str(source)
    parameters = nb.metadata.papermill.get("parameters", {})
    try:
        redactor = _accepted(nb, parameters, home)
    except UCLError as error:
        if tell is not None:
            tell(refused(input_path or "", parameters, error))
        else:
            with suppress(UCLError):
                if path := local_path(nb.metadata.papermill["output_path"]):
                    write_refusal(path, input_path or "", parameters, error)
        raise
    record = Record(str(input_path or ""), parameters, datetime.now(UTC))
    manager = RedactingManager(
        nb, redactor, saves_each_cell=output_path is not None, progress_bar=progress_bar, log_output=log_output
    )
    nb.metadata.papermill = _as_utf8(nb.metadata.papermill)
    stops = [] if stops is None else stops
    with noting_signals(stops) as note, _Ending(manager, redactor, record, tell) as ending:
        manager.notebook_start()
        client = HeadlessClient(
            manager,
            without_secrets=lambda text: redactor.text(text, "what the kernel printed"),
            deadline=_duration(deadline),
            cell_seconds=execution_timeout,
            kernel=kernel,
            notebook_folder=_folder(input_path),
            stops=stops,
            note=note,
            kernel_name=KERNEL_NAME,
            startup_timeout=start_timeout,
            extra_arguments=[QUIET],
            log=_LOG,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
        )
        with handling_signals(client.stop):
            client.execute()
        ending.failure = client.failure
    return nb


def _accepted(nb: Any, parameters: dict[str, Any], home: Path | None) -> Redactor:
    """Refuse parameters and cells with which nothing may run; return what takes secrets out."""
    for name, value in parameters.items():
        refuse_secret(name, value)
    _convert(nb, parameters)
    defaults = {name: one.default for name, one in _declared(nb).items() if one.default is not None}
    redactor = Redactor(WatchedSecrets({**defaults, **parameters}, home))
    redactor.refuse_sources(nb.cells)
    return redactor


class _Ending:
    """However the run ends, the notebook is saved and the outcome told; that a secret got out is an error too.

    Attributes:
        failure: of a cell.
    """

    def __init__(
        self, manager: RedactingManager, redactor: Redactor, record: Record, tell: Callable[[Record], None] | None
    ) -> None:
        self._manager, self._redactor, self._record, self._tell = manager, redactor, record, tell
        self.failure: CellFailed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending = self._save(error)
        if ending is not None and ending is not error:
            raise ending from None

    def _save(self, error: BaseException | None) -> BaseException | None:
        """Save the notebook, tell the outcome; what the run ends with, by now."""
        self._manager.cleanup_pbar()
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        failed = _completed(self._manager)
        ending = error if stopped else failed or error
        if ending is not None:  # whoever shows it shows what led to it as well
            self._redactor.text("".join(format_exception(ending)), "the error of the run")
        failure = _clean(self.failure, self._manager, self._redactor)
        self._record.end(self._manager.nb.cells, ending or failure, self._redactor)
        if not stopped:
            ending = self._redactor.error() or ending or _unseen(failure, self._manager.nb.cells)
        path = self._manager.path
        if self._tell is not None:
            self._tell(self._record)
        elif path is not None:
            write_outcome(outcome_path(path), self._record.as_json(path))
        return ending


def _clean(failure: CellFailed | None, manager: RedactingManager, redactor: Redactor) -> CellFailed | None:
    """A failure without secrets; if the outputs of its cell gave way to a note, without its text, too."""
    if failure is None or failure.is_exit:
        return failure
    place = f"cell {failure.index + 1}, error"
    text = redactor.text(failure.text, place)
    condemned = failure.index in manager.condemned and not text.isdigit()
    return CellFailed(failure.index, redactor.text(failure.name, place), "[removed]" if condemned else text)


def _unseen(failure: CellFailed | None, cells: Sequence[Any]) -> PapermillExecutionError | None:
    """A failure that papermill would not find, since no output of type ``error`` shows it; else papermill raises it."""
    if failure is None or failure.is_exit:
        return None
    cell = cells[failure.index]
    shown = [CellFailed(0, out["ename"], out["evalue"]) for out in cell.outputs if out["output_type"] == "error"]
    if not all(one.is_exit for one in shown):
        return None
    where = (failure.index, cell.execution_count, cell.source)
    return PapermillExecutionError(*where, failure.name, failure.text, traceback=[f"{failure.name}: {failure.text}"])


def _completed(manager: RedactingManager) -> UCLError | None:
    """Save the notebook for the last time; an error if that cannot be done."""
    try:
        manager.notebook_complete()
    except UCLError as error:
        return error
    return None


def _convert(nb: Any, parameters: dict[str, Any]) -> None:
    """Convert the parameters, whose types papermill has guessed, to the types that the notebook declares."""
    known = _declared(nb)
    given = {name: value for name, value in parameters.items() if not name.startswith(BUILT_IN)}
    if known and (converted := typed(known, given)) != given:
        parameters.update(converted)
        for cell in nb.cells:
            if "injected-parameters" in cell.metadata.get("tags", ()):
                cell.source = translate_parameters(KERNEL_NAME, "python", parameters, "Parameters")


def _declared(nb: Any) -> dict[str, Parameter]:
    with suppress(UsageError):  # they are not Python, which the kernel tells
        return declared(nb)
    return {}


def _as_utf8(value: Any) -> Any:
    """The same, with each byte of a path that is not UTF-8 as an escape: no notebook file could hold it otherwise."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_as_utf8(held) for held in value]
    return (
        nbformat.from_dict({name: _as_utf8(one) for name, one in value.items()}) if isinstance(value, dict) else value
    )


def _folder(input_path: str | None) -> Path | None:
    """Return the folder that a notebook came from; None if it was not a file."""
    path = Path(input_path or "").absolute()
    return path.parent if input_path and path.is_file() else None


def _duration(given: timedelta | float | str) -> timedelta:
    if isinstance(given, str):
        return parse_duration(given)
    return given if isinstance(given, timedelta) else timedelta(seconds=given)
