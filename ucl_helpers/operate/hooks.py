"""Hooks: the user's programs that pass on a new certificate after it has become current.

The law of this file:

1.  Hooks run after activation and outside the connection's lock, so that a slow one holds no renewal up.
2.  Each runs at least once for every generation, and again with every run until it succeeds. It may run twice for one
    (if this process is killed before the success is on disk), so hooks have to be idempotent.
3.  No two processes run hooks of a connection at once: they hold ``hooks.lock``, which hooks do not inherit.
4.  A hook gets an environment that is built from nothing. The rest of the operator's environment is not passed on.
5.  All are tried, in their order. A failed hook stops neither the others nor the procedure.
"""

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ucl_helpers.connection import files, state
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.settings import Hook
from ucl_helpers.connection.state import pending_for, pending_hooks
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import Busy, HookFailed, StorageFailed, UsageError, printable
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.redaction.sources import WatchedSecrets
from ucl_helpers.models import Outcome
from ucl_helpers.operate import programs
from ucl_helpers.tables import Row, Tabular, moment

__all__ = ["HookResult", "HookResults", "pending_hooks", "require_unlocked", "run_hooks"]

_PASSED_ON = re.compile(r"PATH|HOME|LANG|LC_[A-Z]+|TZ|USER|LOGNAME|TMPDIR")
_EVENTS = {"establish": "established", "renew": "renewed", "import": "imported"}
_LINES, _CHARACTERS, _OTHERS_WRITE = 5, 500, 0o022


@dataclass(frozen=True)
class HookResult:
    """The result of one hook.

    Attributes:
        name: as in the settings.
        status: ``not needed`` means that it has succeeded before for the same generation.
        problem: why it failed, for example ``exit code 3``; empty if it did not.
        exit_code: of its process, negative if a signal ended it; None if it did not start or its time was over.
        seconds: how long it ran, to the tenth.
        output: the last lines that it printed, if it failed.
    """

    name: str
    status: Literal["done", "failed", "not needed"]
    problem: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    output: str = ""

    def __str__(self) -> str:
        if self.status == "not needed":
            return "it has succeeded for this generation"
        return f"{self.problem or 'done'} ({self.seconds:.1f} s)"

    def as_json(self) -> dict[str, Any]:
        """Return the result for programs, without the output, which is in the hook's log."""
        facts = {"problem": self.problem or None, "exitCode": self.exit_code, "seconds": self.seconds}
        return {"name": self.name, "status": self.status, **facts}


@dataclass(frozen=True)
class HookResults(Tabular):
    """The results of all hooks of a connection.

    Attributes:
        connection: its name.
        generation: the name of the generation they ran for; None when none is configured, or nothing is established.
        results: in the order of the settings.
        busy: the other process that runs them now; the next run does what that process leaves to do.
        logs: the folder that keeps what each printed, ``NAME.log``.
    """

    connection: str
    generation: str | None = None
    results: tuple[HookResult, ...] = ()
    busy: str | None = None
    logs: str | None = None

    title: ClassVar[str] = "Hooks"
    header: ClassVar[Row] = ("hook", "status", "what happened")

    @property
    def failed(self) -> dict[str, str]:
        """Return the hooks that failed, and why."""
        return {result.name: result.problem for result in self.results if result.status == "failed"}

    @property
    def error(self) -> HookFailed | None:
        """Return the failures as an error, without the hooks' output; None if no hook failed."""
        if not (failed := self.failed):
            return None
        problems = "; ".join(f"{name}: {problem}" for name, problem in failed.items())
        subject, runs = ("A hook", "It runs") if len(failed) == 1 else (f"{len(failed)} hooks", "They run")
        search = ""
        if programs.NOT_IN_PATH in problems:
            path = os.environ.get("PATH", os.defpath)
            search = f" Give the whole path of a program, or change PATH, which is {path}."
        again = f"{runs} again with the next run, or by: ucl hooks {self.connection}"
        logs = f". What was printed is kept in {self.logs}" if self.logs else ""
        return HookFailed(
            f"{subject} of {self.connection} failed: {problems}.",
            remedy=f"The certificate is in place.{search} {again}{logs}",
            connection=self.connection,
            failed=failed,
        )

    @property
    def exit_code(self) -> int:
        """Return 13 if a hook failed, else 0."""
        return HookFailed.exit_code if self.failed else 0

    @property
    def summary(self) -> str | None:
        """Return all results in one line; None if no hook was run."""
        parts = [f"{result.name}: {result}" for result in self.results if result.status != "not needed"]
        return "; ".join([*parts, *([f"busy: {self.busy} runs them"] if self.busy else [])]) or None

    def complete(self, outcome: Outcome) -> Outcome:
        """Add the hooks to an outcome, with exit code 13 if one failed after a success."""
        if self.summary is None:
            return outcome
        facts: dict[str, Any] = {**outcome.facts, "hooks": self.summary}
        if (error := self.error) is None or outcome.exit_code:
            return replace(outcome, facts=facts)
        return replace(outcome, facts=facts | {"hooks_failed": ", ".join(self.failed)}).with_error(error)

    def rows(self) -> list[Row]:
        """Return a row for each hook, with the output of a failed hook below its reason."""
        rows: list[Row] = [(hook.name, hook.status, f"{hook}\n{hook.output}".rstrip()) for hook in self.results]
        if self.busy:
            rows.append(("", "busy", f"{self.busy} runs them; the next run does the rest"))
        if self.failed and self.logs:
            rows.append(("", "", f"what they printed is kept in {self.logs}"))
        return rows or [("none configured", "", "")]

    def as_json(self) -> dict[str, Any]:
        """Return the results for programs."""
        return {
            "connection": self.connection,
            "generation": self.generation,
            "exitCode": self.exit_code,
            "busy": self.busy,
            "logs": self.logs,
            "hooks": [result.as_json() for result in self.results],
        }


def run_hooks(connection: Connection, *, everything: bool = False) -> HookResults:
    """Run the connection's pending hooks, or all of them. A failure is in the results and is not raised.

    Args:
        connection: established, or nothing is run.
        everything: also those that have succeeded for this generation.

    Raises:
        UsageError: this process holds the connection's lock.
        InvalidSettings: the settings cannot be used.
        StorageFailed: a file could not be read or written, or other users may write the settings.
    """
    require_unlocked(connection, "Hooks")
    if not (connection.read_settings().hooks if everything else pending_hooks(connection)):
        return _results(connection, connection.current, {})
    _require_safe_settings(connection.path / "settings.toml")
    ran, generation, busy = dict[str, HookResult](), None, None
    lock = files.Lock(connection.path / state.HOOKS_LOCK, *connection.folders)
    while (current := connection.current) and current != generation:
        # A process that activates another generation meanwhile finds the lock held, and leaves its hooks to this loop.
        generation, busy = current, None
        try:
            with lock.held():
                hooks = connection.read_settings().hooks
                chosen = hooks if everything and not ran else pending_for(connection, generation, hooks)
                ran |= {hook.name: _run(connection, generation, hook) for hook in chosen}
        except Busy as error:
            busy = str(error.data["holder"])
    return _results(connection, generation, ran, busy)


def require_unlocked(connection: Connection, what: str) -> None:
    """Refuse to begin a task that may take long while this process holds the connection's lock. Raises UsageError."""
    if connection.lock.is_ours:
        problem = f"{what} of {connection.name} cannot run while its lock is held."
        raise UsageError(problem, remedy="Run them when it is released.")


def _require_safe_settings(settings: Path) -> None:
    """Refuse settings that other users can write: they would choose what this user runs."""
    with files.storage("look at", settings):
        facts = settings.stat()
    if facts.st_uid not in {os.geteuid(), 0} or facts.st_mode & _OTHERS_WRITE:
        raise StorageFailed(
            f"{settings} can be changed by others, so no hook in it is run.",
            remedy=f"Look through it, then run: chmod go-w {shlex.quote(str(settings))}; it has to be yours or root's.",
        )


def _results(
    connection: Connection, generation: Generation | None, ran: Mapping[str, HookResult], busy: str | None = None
) -> HookResults:
    hooks = connection.read_settings().hooks if generation else ()
    if not hooks or generation is None:
        return HookResults(connection.name)
    pending = {hook.name for hook in pending_for(connection, generation, hooks)}
    # Hooks that are pending and did not run here are left to another process.
    shown = [hook.name for hook in hooks if hook.name in ran or hook.name not in pending]
    results = tuple(ran.get(name, HookResult(name, "not needed")) for name in shown)
    return HookResults(connection.name, generation.name, results, busy, str(connection.path / "hooks"))


def _run(connection: Connection, generation: Generation, hook: Hook) -> HookResult:
    with suppress(StorageFailed):  # a full disk keeps no hook from being run
        state.forget_success(connection, hook)
    completed = programs.run(hook.command, _environment(connection, generation), hook.timeout)
    output, problem = _without_secrets(connection, completed.output), printable(completed.problem)
    result = HookResult(hook.name, "done", exit_code=completed.code, seconds=round(completed.seconds, 1))
    facts = {"hook": hook.name, "generation": generation.name, "exit_code": completed.code, "seconds": result.seconds}
    try:
        files.make_private_folder(connection.home.path, connection.path / "hooks")
        files.write(connection.path / "hooks" / f"{hook.name}.log", output)
        if not problem:
            state.note_success(connection, generation, hook)
            connection.record("hook-succeeded", **facts)
            return result
        state.note_failure(connection, generation, hook, problem)
        connection.record("hook-failed", **facts, problem=problem)
    except StorageFailed as error:  # the hooks after it still run
        problem = f"{problem or 'done'}, and that could not be kept: {error.message}"
    return replace(result, status="failed", problem=problem, output=_last_lines(output))


def _without_secrets(connection: Connection, output: bytes) -> bytes:
    """Remove keys, tokens and the secrets that the settings refer to from what a hook printed."""
    secrets = WatchedSecrets({"connection": connection.name, "home": str(connection.home.path)})
    text = Redactor(secrets).text(output.decode(errors="surrogateescape"), "")
    return text.encode(errors="surrogateescape")


def _last_lines(output: bytes) -> str:
    lines = output.decode(errors="replace").rstrip().splitlines()[-_LINES:]
    return printable("\n".join(lines)[-_CHARACTERS:])


def _environment(connection: Connection, generation: Generation) -> dict[str, str]:
    """Build the environment of a hook. All paths lead into one generation, so that its files belong together."""
    passed_on = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    event, previous = _event(connection, generation)
    file = {name: str(generation.path / f"{name.lower()}.pem") for name in ("IDENTITY", "KEY", "CERTIFICATE", "CHAIN")}
    return {
        "PATH": os.defpath,
        **passed_on,
        "UCL_CONNECTION": connection.name,
        "UCL_HOME": str(connection.home.path),
        "UCL_EVENT": event,
        "UCL_GENERATION": generation.name,
        "UCL_GENERATION_PATH": str(generation.path),
        **{f"UCL_{name}_FILE": path for name, path in file.items()},
        "UCL_FINGERPRINT": generation.fingerprint,
        "UCL_PREVIOUS_FINGERPRINT": previous,
        "UCL_NOT_AFTER": moment(generation.validity.not_after),
    }


def _event(connection: Connection, generation: Generation) -> tuple[str, str]:
    """Return how this generation became current, and the fingerprint before it; else how it was made."""
    if activation := connection.activation_of(generation):
        return activation.event, activation.previous or ""
    source, previous = generation.facts.get("source"), generation.facts.get("previous")
    return _EVENTS.get(str(source), "unknown"), str(previous or "")
