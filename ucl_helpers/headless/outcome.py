"""What is told of a run, for programs: ``outcome.json``, whose schema is ``docs/reference/outcome.schema.json``.

It says what was done or why not, how the connection stands, what went wrong and what helps, and how long each step
took: a step is what stands under one heading of the notebook. It holds no secret.
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
from ucl_helpers.errors import SecretRedacted, UCLError
from ucl_helpers.headless.parameters import refuse_secret
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.redaction.sources import WatchedSecrets
from ucl_helpers.models import OUTCOME_MIME
from ucl_helpers.tables import moment

SCHEMA_VERSION = 1
INTERRUPTED, STOPPED = 130, "stopped"
_HEADING = re.compile(r"^#{1,3} +(.+?) *$", re.MULTILINE)
Cells = Sequence[Mapping[str, Any]]


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
class Record:
    """One run of a notebook.

    Attributes:
        source: the notebook that was run.
        parameters: what it was given; ``connection`` and ``home`` are looked at.
        started: an aware moment, UTC.
        told: what it came to, once it has ended.
    """

    source: str
    parameters: Mapping[str, Any]
    started: datetime
    told: dict[str, Any] = field(default_factory=dict)

    def end(self, cells: Cells, error: BaseException | None, redactor: Redactor) -> None:
        """Work out what the run came to.

        Args:
            cells: as they were executed.
            error: what ended the run: the failure of a cell, or something else; None if all cells were executed.
            redactor: takes secrets out.
        """
        ended = datetime.now(UTC)
        outcome = outcome_of(cells)
        told = redactor.value(_ending(cells, outcome, error), "outcome")
        if (found := redactor.error()) and told["outcome"] != STOPPED:
            told |= _with_secrets(told, found)
        told["connection"] = outcome.get("connection") or self.parameters.get("connection") or None
        stands = self._standing(told["connection"])
        if told.get("fingerprint") in {None, stands.get("fingerprint")}:
            told = {**told, **stands}
        told["redacted"] = [vars(find) for find in redactor.finds]
        times = {"started": timestamp(self.started), "ended": timestamp(ended)}
        spent = {
            "seconds": round((ended - self.started).total_seconds(), 3),
            "steps": list(steps(cells, Path(self.source).stem)),
        }
        self.told = {**told, **times, **redactor.value(spent, "outcome")}

    def as_json(self, notebook: str | Path | None) -> dict[str, Any]:
        """For programs.

        Args:
            notebook: where the executed notebook lies.
        """
        where = {"source": self.source, "notebook": str(notebook) if notebook else None}
        return {"schemaVersion": SCHEMA_VERSION, "kind": "run", **self.told, **where}

    def _standing(self, name: object) -> dict[str, Any]:
        """How the connection stands now, whatever the run came to; nothing if that cannot be told."""
        with suppress(UCLError, OSError, ValueError):
            if isinstance(name, str) and name:
                return identity_facts(Connection(Home(str(self.parameters.get("home") or "")), name))
        return {}


def refused(source: str | Path, parameters: Mapping[str, Any], error: UCLError) -> Record:
    """The record of a run that did not begin, since ``error`` forbids it."""
    kept = {}
    for name in ("connection", "home"):
        with suppress(UCLError):  # nobody may have looked at them yet
            refuse_secret(name, value := str(parameters.get(name) or ""))
            kept[name] = value
    record = Record(str(source), kept, datetime.now(UTC))
    record.end((), error, Redactor(WatchedSecrets(kept)))
    return record


def write_refusal(output: Path, source: str | Path, parameters: Mapping[str, Any], error: UCLError) -> None:
    """Write the outcome of a run that did not begin: nobody is to take that of an earlier one for it.

    Where it cannot be written, or there is no folder for it, it is left out; the caller raises ``error``.
    """
    if not output.absolute().parent.is_dir():
        return
    with suppress(UCLError):
        make_output_folder(output.absolute().parent)
        write_outcome(outcome_path(output.absolute()), refused(source, parameters, error).as_json(None))


def identity_facts(connection: Connection) -> dict[str, Any]:
    """Fingerprint, validity and due date of the identity in use.

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
    """Where the outcome of a run lies: ``X.outcome.json`` beside ``X.ipynb``."""
    return notebook.with_name(f"{notebook.name.removesuffix('.ipynb')}.outcome.json")


def write_outcome(path: Path, told: Mapping[str, Any]) -> None:
    """Write it whole, mode 0600.

    Raises:
        StorageFailed: it could not be written.
    """
    write(path, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def outcome_of(cells: Cells) -> dict[str, Any]:
    """The last outcome that a cell has shown; empty if none has."""
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    found = [output["data"][OUTCOME_MIME] for output in outputs if OUTCOME_MIME in output.get("data", {})]
    return dict(found[-1]) if found and isinstance(found[-1], Mapping) else {}


def steps(cells: Cells, name: str = "") -> Iterator[dict[str, Any]]:
    """The headings with code below them: name, seconds, and ``completed``, ``failed`` or ``pending``.

    Args:
        cells: of an executed notebook.
        name: of what stands before the first heading.
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
    found = {one.get("status") for one in below}
    status = "failed" if "failed" in found else "completed" if found == {"completed"} else "pending"
    return {"name": name, "seconds": round(sum(one.get("duration") or 0.0 for one in below), 3), "status": status}


def _ending(cells: Cells, outcome: Mapping[str, Any], error: BaseException | None) -> dict[str, Any]:
    """What the run came to: what stopped it, or else what the notebook says of itself."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else INTERRUPTED
        remedy = "Nothing is lost; run it again to go on."
        return {"outcome": STOPPED, "exitCode": code, "message": "The run was told to stop.", "remedy": remedy}
    if isinstance(error, UCLError):
        told = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy or None}
        return {"outcome": "failed", "exitCode": error.exit_code, **told}
    unrun = [number for number, cell in enumerate(cells, 1) if _is_unrun(cell)]
    if isinstance(error, CellFailed) and error.is_exit:
        rest = f"; cells after it were not run: {len(unrun)}" if unrun else ""
        return {"outcome": "done", "exitCode": 0, "message": f"Cell {error.index + 1} ended the run{rest}.", **outcome}
    if error is None and unrun:
        error = CellFailed(unrun[0] - 1, "CellNotExecuted", f"cell {unrun[0]} was not executed")
    if error is None:
        return {"outcome": "done", "exitCode": 0, **outcome}
    name, text = (error.name, error.text) if isinstance(error, CellFailed) else (type(error).__name__, str(error))
    if outcome.get("exitCode"):
        return {"outcome": "failed", "error": name, "message": text, **outcome}
    return {"outcome": "failed", "exitCode": 1, "error": name, "message": text}


def _is_unrun(cell: Mapping[str, Any]) -> bool:
    """Whether a code cell was never begun."""
    status = cell["metadata"].get("papermill", {}).get("status")
    return cell["cell_type"] == "code" and status not in {"completed", "failed"}


def _with_secrets(told: Mapping[str, Any], found: SecretRedacted) -> dict[str, Any]:
    """What a secret that was found changes; what the run did, and why it failed, is reported as well."""
    also = f" It also failed: {told.get('error')}: {told.get('message')}" if told["exitCode"] else ""
    message, remedy = found.message + also, found.remedy
    return {"exitCode": found.exit_code, "error": type(found).__name__, "message": message, "remedy": remedy}


def timestamp(at: datetime) -> str:
    """A UTC moment to the millisecond, as ISO 8601: ``2026-04-15T09:00:00.123Z``."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
