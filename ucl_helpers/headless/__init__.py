"""Notebooks run by papermill: engine, kernel, parameters, outcome, and the search for secrets."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ucl_helpers.headless.kernel import EncryptedKernelManager
    from ucl_helpers.headless.outcome import Record

KERNEL_NAME = "python3"
"""What papermill calls the kernel of this interpreter."""
DEADLINE = timedelta(hours=1)
"""How long a run may take if the caller sets no deadline."""


class CellFailed(Exception):
    """A cell raised an exception, or was not executed.

    Attributes:
        index: of the cell, from 0.
        name: of the exception's class.
        text: of the exception.
        is_exit: it is ``sys.exit()`` or ``sys.exit(0)``: as papermill has it, the notebook ends itself and succeeds.
    """

    def __init__(self, index: int, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.index, self.name, self.text = index, name, text
        self.is_exit = (name, text) in {("SystemExit", ""), ("SystemExit", "0")}


@dataclass
class RunContext:
    """What ``ucl run`` passes to the engine, and gets back, beside papermill's own options.

    Attributes:
        source: the notebook's file, of which papermill was given the content. If it is None, the engine writes
            ``outcome.json`` itself, beside the notebook.
        home: a home folder whose secrets are searched for, beside those of parameters and environment.
        kernel: a kernel that was started already; the engine ends it.
        stops: what the run has to end with because of signals that came.
        record: the run's, once it has ended.
    """

    source: Path | None = None
    home: Path | None = None
    kernel: "EncryptedKernelManager | None" = None
    stops: list[BaseException] = field(default_factory=list)
    record: "Record | None" = None
