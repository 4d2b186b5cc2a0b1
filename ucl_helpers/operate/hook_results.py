"""What became of a connection's hooks: as it is shown, and as it becomes part of an outcome. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar, Literal

from ucl_helpers.errors import HookFailed
from ucl_helpers.models import Outcome
from ucl_helpers.tables import Row, Shown

Happened = Literal["done", "failed", "not needed"]
NOT_IN_PATH = "in no folder of PATH"
"""Ends a hook's problem where a program was looked for. The error names the folders once."""


@dataclass(frozen=True)
class HookResult:
    """What became of one hook.

    Attributes:
        name: as in the settings.
        status: ``not needed`` means that it has succeeded before, for this very generation.
        problem: why it failed, such as ``exit code 3``; empty if it did not.
        exit_code: of its process, negative if a signal ended it; None if there was none, or its time was over.
        took: how long it ran.
        said: the last lines that it printed.
    """

    name: str
    status: Happened
    problem: str = ""
    exit_code: int | None = None
    took: timedelta = timedelta(0)
    said: str = ""

    @property
    def seconds(self) -> float:
        """How long it ran, to the tenth of a second."""
        return round(self.took.total_seconds(), 1)


@dataclass(frozen=True)
class HookResults(Shown):
    """What became of all hooks of a connection.

    Attributes:
        connection: its name.
        generation: the name of the generation they ran for; None when none is configured, or nothing is established.
        results: in the order of the settings.
        busy: who runs them just now, if that is another process; what it leaves to do, the next run does.
        logs: the folder that keeps what each printed, ``NAME.log``.
        search: the ``PATH`` of hooks.
    """

    connection: str
    generation: str | None = None
    results: tuple[HookResult, ...] = ()
    busy: str | None = None
    logs: str | None = None
    search: str = ""

    title: ClassVar[str] = "Hooks"
    header: ClassVar[Row] = ("hook", "status", "what happened")

    @property
    def failed(self) -> dict[str, str]:
        """The hooks that failed, and why."""
        return {one.name: one.problem for one in self.results if one.status == "failed"}

    @property
    def error(self) -> HookFailed | None:
        """That hooks failed, as an error; None when none did. What they printed is not in it."""
        if not (failed := self.failed):
            return None
        told = "; ".join(f"{name}: {problem}" for name, problem in failed.items())
        what, runs = ("A hook", "It runs") if len(failed) == 1 else (f"{len(failed)} hooks", "They run")
        search = ""
        if any(NOT_IN_PATH in problem for problem in failed.values()):
            search = f" Give the whole path of a program, or change PATH, which is {self.search}."
        kept = f". What was printed is kept in {self.logs}" if self.logs else ""
        remedy = (
            f"The certificate is in place.{search} {runs} again with the next run, or by: ucl hooks "
            f"{self.connection}{kept}"
        )
        return HookFailed(
            f"{what} of {self.connection} failed: {told}.",
            remedy=remedy,
            connection=self.connection,
            failed=failed,
        )

    @property
    def exit_code(self) -> int:
        """13 when one failed."""
        return HookFailed.exit_code if self.failed else 0

    @property
    def summary(self) -> str | None:
        """All in one line; None when there is nothing to tell."""
        told = [f"{one.name}: {_happened(one)}" for one in self.results if one.status != "not needed"]
        return "; ".join([*told, *([f"busy: {self.busy} runs them"] if self.busy else [])]) or None

    def complete(self, outcome: Outcome) -> Outcome:
        """An outcome that tells of the hooks as well, and has exit code 13 if one failed after a success."""
        if self.summary is None:
            return outcome
        facts: dict[str, Any] = {**outcome.facts, "hooks": self.summary}
        if (error := self.error) is None or outcome.exit_code:
            return replace(outcome, facts=facts)
        facts |= {"hooks_failed": ", ".join(self.failed), "error": type(error).__name__}
        facts |= {"message": error.message, "remedy": error.remedy}
        return replace(outcome, facts=facts, exit_code=error.exit_code)

    def rows(self) -> list[Row]:
        """One row a hook; what a failed one printed stands below its reason."""
        return list(self._rows()) or [("none configured", "", "")]

    def _rows(self) -> Iterator[Row]:
        for one in self.results:
            yield one.name, one.status, _happened(one) + (f"\n{one.said}" if one.said else "")
        if self.busy:
            yield "", "busy", f"{self.busy} runs them; what it leaves to do, the next run does"
        if self.failed and self.logs:
            yield "", "", f"what they printed is kept in {self.logs}"

    def as_json(self) -> dict[str, Any]:
        """For programs; what hooks printed is left to their logs."""
        return {
            "connection": self.connection,
            "generation": self.generation,
            "exitCode": self.exit_code,
            "busy": self.busy,
            "logs": self.logs,
            "hooks": [
                {
                    "name": one.name,
                    "status": one.status,
                    "problem": one.problem or None,
                    "exitCode": one.exit_code,
                    "seconds": one.seconds,
                }
                for one in self.results
            ],
        }


def _happened(one: HookResult) -> str:
    if one.status == "not needed":
        return "it has succeeded for this generation"
    return f"{one.problem or 'done'} ({one.seconds:.1f} s)"
