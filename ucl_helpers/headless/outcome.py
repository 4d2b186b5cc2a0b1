"""Record a run for programs: ``outcome.json``, whose schema is ``docs/reference/outcome.schema.json``.

It says what was done or why not, which identity the connection has now, what went wrong and what helps, and how long
each step took. A step is the code under one heading of the notebook. The record holds no secret.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucl_helpers.connection.files import make_output_folder, write
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UCLError
from ucl_helpers.headless import CellFailed
from ucl_helpers.headless.parameters import refuse_secret
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.redaction.sources import WatchedSecrets
from ucl_helpers.models import OUTCOME_MIME
from ucl_helpers.tables import moment, timestamp

SCHEMA_VERSION = 1
INTERRUPTED, STOPPED = 130, "stopped"
_HEADING = re.compile(r"^#{1,3} +(.+?) *$", re.MULTILINE)
Cells = Sequence[Mapping[str, Any]]


@dataclass
class Record:
    """One run of a notebook.

    Attributes:
        source: the notebook that was run.
        parameters: what it was given; ``connection`` and ``home`` are used.
        started: an aware moment, UTC.
        outcome: of the run, once it has ended.
    """

    source: str
    parameters: Mapping[str, Any]
    started: datetime
    outcome: dict[str, Any] = field(default_factory=dict)

    def end(self, cells: Cells, error: BaseException | None, redactor: Redactor) -> None:
        """Derive the outcome from the executed cells and the connection on disk.

        Args:
            cells: as they were executed.
            error: what ended the run: the failure of a cell, or something else; None if all cells were executed.
            redactor: removes secrets.
        """
        ended, shown = datetime.now(UTC), outcome_of(cells)
        outcome = redactor.value(_ending(cells, shown, error), "outcome")
        if (secret := redactor.error()) and outcome["outcome"] != STOPPED:
            also = f" It also failed: {outcome.get('error')}: {outcome.get('message')}" if outcome["exitCode"] else ""
            outcome |= secret.as_json() | {"message": secret.message + also}
        outcome["connection"] = name = shown.get("connection") or self.parameters.get("connection") or None
        with suppress(UCLError, OSError, ValueError):  # there may be no such connection
            if isinstance(name, str):
                facts = identity_facts(Connection(Home(str(self.parameters.get("home") or "")), name))
                if outcome.get("fingerprint") in {None, facts["fingerprint"]}:
                    outcome |= facts
        outcome["redacted"] = [vars(find) for find in redactor.finds]
        outcome |= {"started": timestamp(self.started), "ended": timestamp(ended)}
        outcome["seconds"] = round((ended - self.started).total_seconds(), 3)
        outcome["steps"] = redactor.value([*steps(cells, Path(self.source).stem)], "outcome")
        self.outcome = outcome

    def as_json(self, notebook: str | Path | None) -> dict[str, Any]:
        """Return it for programs.

        Args:
            notebook: where the executed notebook is.
        """
        where = {"source": self.source, "notebook": str(notebook) if notebook else None}
        return {"schemaVersion": SCHEMA_VERSION, "kind": "run", **self.outcome, **where}


def write_refusal(output: Path, source: str | Path, parameters: Mapping[str, Any], error: UCLError) -> None:
    """Write the outcome of a run that did not begin, so that an earlier one is not taken for it.

    If it cannot be written, or there is no folder for it, nothing happens: the caller raises ``error``.
    """
    output = output.absolute()
    if not output.parent.is_dir():
        return
    kept = {}
    for name in ("connection", "home"):
        with suppress(UCLError):  # they may not have been checked yet
            refuse_secret(name, value := str(parameters.get(name) or ""))
            kept[name] = value
    record = Record(str(source), kept, datetime.now(UTC))
    record.end((), error, Redactor(WatchedSecrets(kept)))
    with suppress(UCLError):
        make_output_folder(output.parent)
        write_outcome(outcome_path(output), record.as_json(None))


def identity_facts(connection: Connection) -> dict[str, Any]:
    """Return fingerprint, validity and due date of the identity in use.

    Raises:
        UCLError: it is not established, or damaged.
    """
    current = connection.require_current()
    validity = current.validity
    return {
        "fingerprint": current.fingerprint,
        "notBefore": moment(validity.not_before),
        "notAfter": moment(validity.not_after),
        "dueAt": moment(connection.due(datetime.now(UTC)).at),
    }


def outcome_path(notebook: Path) -> Path:
    """Return where the outcome of a run is: ``X.outcome.json`` beside ``X.ipynb``."""
    return notebook.with_name(f"{notebook.name.removesuffix('.ipynb')}.outcome.json")


def write_outcome(path: Path, outcome: Mapping[str, Any]) -> None:
    """Write an outcome whole, mode 0600.

    Raises:
        StorageFailed: it could not be written.
    """
    write(path, (json.dumps(outcome, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def outcome_of(cells: Cells) -> dict[str, Any]:
    """Return the last outcome that a cell has shown; empty if none has."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    outcomes = [output["data"][OUTCOME_MIME] for output in outputs if OUTCOME_MIME in output.get("data", {})]
    return dict(outcomes[-1]) if outcomes and isinstance(outcomes[-1], Mapping) else {}


def steps(cells: Cells, name: str = "") -> Iterator[dict[str, Any]]:
    """Yield the headings with code below them: name, seconds, and ``completed``, ``failed`` or ``pending``.

    Args:
        cells: of an executed notebook.
        name: of the code before the first heading.
    """
    below = list[Mapping[str, Any]]()
    for cell in [*cells, {"cell_type": "markdown", "source": "# the end"}]:
        heading = _HEADING.search("".join(cell["source"])) if cell["cell_type"] == "markdown" else None
        if heading:
            if below:
                yield _step(name, below)
            name, below = heading[1], []
        elif cell["cell_type"] == "code":
            below.append(cell["metadata"].get("papermill", {}))


def _step(name: str, below: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    statuses = {cell.get("status") for cell in below}
    status = "failed" if "failed" in statuses else "completed" if statuses == {"completed"} else "pending"
    return {"name": name, "seconds": round(sum(cell.get("duration") or 0.0 for cell in below), 3), "status": status}


def _ending(cells: Cells, shown: Mapping[str, Any], error: BaseException | None) -> dict[str, Any]:
    """Derive the outcome from the error that stopped the run, or else from the outcome that the notebook has shown."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else INTERRUPTED
        remedy = "Nothing is lost; run it again to go on."
        return {"outcome": STOPPED, "exitCode": code, "message": "The run was told to stop.", "remedy": remedy}
    if isinstance(error, UCLError):
        return {"outcome": "failed", **error.as_json()}
    unrun = [number for number, cell in enumerate(cells, 1) if _is_unrun(cell)]
    if isinstance(error, CellFailed) and error.is_exit:
        rest = f"; cells after it were not run: {len(unrun)}" if unrun else ""
        return {"outcome": "done", "exitCode": 0, "message": f"Cell {error.index + 1} ended the run{rest}.", **shown}
    if error is None and unrun:
        error = CellFailed(unrun[0] - 1, "CellNotExecuted", f"cell {unrun[0]} was not executed")
    if error is None:
        return {"outcome": "done", "exitCode": 0, **shown}
    name, text = (error.name, error.text) if isinstance(error, CellFailed) else (type(error).__name__, str(error))
    of_notebook = shown if shown.get("exitCode") else {"exitCode": 1}
    return {"outcome": "failed", "error": name, "message": text, **of_notebook}


def _is_unrun(cell: Mapping[str, Any]) -> bool:
    """Return whether a code cell was never begun."""
    status = cell["metadata"].get("papermill", {}).get("status")
    return cell["cell_type"] == "code" and status not in {"completed", "failed"}
