"""Findings of the doctor: each names one thing that was examined, its state, and the command that repairs it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ucl_helpers.errors import InvalidSettings, StorageFailed, UCLError, printable
from ucl_helpers.tables import Row, Tabular, text_table

Status = Literal["ok", "warning", "failed", "skipped"]
SEVERITY: Mapping[Status, int] = {"failed": 0, "warning": 1, "ok": 2, "skipped": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        name: what was examined.
        status: a warning is not urgent; what was skipped could not be examined, and ``found`` says why.
        found: what was found.
        remedy: the command that repairs it, or what else is to be done; empty where nothing is.
        exit_code: of the error that it stands for, see :mod:`ucl_helpers.errors`; 0 unless it failed.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    exit_code: int = 0

    def named(self, name: str) -> "Finding":
        """Return the same finding under a name."""
        return replace(self, name=name)


def ok(text: str) -> Finding:
    """Return a finding that needs nothing to be done."""
    return Finding("", "ok", text)


def warning(problem: str, remedy: str) -> Finding:
    """Return a finding that the user should know, although the connection works."""
    return Finding("", "warning", problem, remedy)


def failed(problem: str, remedy: str, kind: type[UCLError]) -> Finding:
    """Return a finding that keeps the connection from working, or its key from being safe."""
    return Finding("", "failed", problem, remedy, kind.exit_code)


def skipped(why: str) -> Finding:
    """Return a finding for something that could not be examined, or is not there."""
    return Finding("", "skipped", why)


def examined(name: str, probe: Callable[[], Finding], *, to_edit_settings: str = "") -> Finding:
    """Call a probe and name its finding. An error of the toolkit or of the system becomes a finding as well.

    Args:
        name: of the finding.
        probe: what to call.
        to_edit_settings: the command that repairs settings, if the connection has settings.
    """
    try:
        finding = probe()
    except InvalidSettings as error:
        finding = failed(error.message, to_edit_settings or error.remedy, type(error))
    except UCLError as error:
        finding = failed(error.message, error.remedy, type(error))
    except OSError as error:
        problem = f"{error.filename or name}: {str(error.strerror or error).lower()}"
        finding = failed(problem, "Fix that, then run ucl doctor again.", StorageFailed)
    return finding.named(name)


@dataclass(frozen=True)
class Diagnosis(Tabular):
    """All findings, from near to far; ``name`` is the connection's, or that of the home folder."""

    name: str
    findings: Sequence[Finding]

    title: ClassVar[str] = "Diagnosis"
    header: ClassVar[Row] = ("examined", "status", "found", "what to do")

    @property
    def ok(self) -> bool:
        """True when nothing failed; warnings are allowed."""
        return not self.exit_code

    @property
    def worst(self) -> Finding:
        """Return the first finding that failed, else the first warning, else the first."""
        return min(self.findings, key=lambda finding: SEVERITY[finding.status])

    @property
    def exit_code(self) -> int:
        """Return the exit code of the first finding that failed, or 0."""
        return self.worst.exit_code

    def caption(self) -> str:
        """Return the name and the summary."""
        return f"{self.name}: {self.summary()}"

    def summary(self) -> str:
        """Return the worst finding in a few words."""
        worst = self.worst
        return "all is well" if SEVERITY[worst.status] == SEVERITY["ok"] else f"{worst.status}: {worst.name}"

    def rows(self) -> list[Row]:
        """Return a row for each finding."""
        return [(finding.name, finding.status, finding.found, finding.remedy) for finding in self.findings]

    def __str__(self) -> str:
        return _text(self)

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis for programs."""
        names = ("name", "status", "found", "remedy")
        findings = [dict(zip(names, row, strict=True)) for row in self.rows()]
        return {"name": self.name, "ok": self.ok, "exitCode": self.exit_code, "findings": findings}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.name == name)


@dataclass(frozen=True)
class Diagnoses(Tabular):
    """The home folder and every connection in it, one line each: the worst finding."""

    diagnoses: Sequence[Diagnosis]

    title: ClassVar[str] = "Diagnoses"
    header: ClassVar[Row] = ("connection", "status", "found", "what to do")

    @property
    def exit_code(self) -> int:
        """Return the exit code of the first diagnosis that failed, or 0."""
        return next((diagnosis.exit_code for diagnosis in self.diagnoses if not diagnosis.ok), 0)

    def caption(self) -> str:
        """Return how many were examined, and how many failed."""
        failures = sum(not diagnosis.ok for diagnosis in self.diagnoses)
        return f"home folder and connections: {len(self.diagnoses)} examined, {failures} failed"

    def rows(self) -> list[Row]:
        """Return the worst finding of each diagnosis."""
        return [_row(diagnosis) for diagnosis in self.diagnoses]

    def __str__(self) -> str:
        return _text(self)

    def as_json(self) -> list[dict[str, Any]]:
        """Return all diagnoses for programs, the home folder's first."""
        return [diagnosis.as_json() for diagnosis in self.diagnoses]


def _row(diagnosis: Diagnosis) -> Row:
    worst = diagnosis.worst
    if SEVERITY[worst.status] < SEVERITY["ok"]:
        return diagnosis.name, worst.status, f"{worst.name}: {worst.found}", worst.remedy
    return diagnosis.name, "ok", diagnosis.summary(), ""


def _text(shown: Tabular) -> str:
    """Put each remedy below its finding, on a line of its own, so that it can be copied."""
    rows = [(name, status, f"{text}\n→ {remedy}" if remedy else text) for name, status, text, remedy in shown.rows()]
    return f"{printable(shown.caption())}\n{text_table([shown.header[:3], *rows])}"
