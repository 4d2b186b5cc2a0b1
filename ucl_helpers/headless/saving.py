"""Where papermill writes the executed notebook, and how: without secrets, whole or not at all, mode 0600.

A path on this machine is written to by a rename. What is none (``s3://…``, a pipe, standard output) is left to
papermill; what goes there is without secrets too.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import NotebookExecutionManager
from papermill.iorw import LocalHandler, papermill_io

from ucl_helpers.connection.files import require_protected_folder, write
from ucl_helpers.headless.redaction import Redactor


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
