"""What happens after a procedure, whatever it came to: pending hooks are run, and who wants to know is told.

Whoever runs a procedure calls this once it is over and the connection's lock is released: the command line, a fleet,
``ucl run``. A notebook runs its hooks itself.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ucl_helpers import errors
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import HookFailed, UCLError
from ucl_helpers.models import Outcome
from ucl_helpers.operate.hook_results import HookResults
from ucl_helpers.operate.hooks import run_hooks
from ucl_helpers.operate.notices import notify


@dataclass(frozen=True)
class Aftermath:
    """What came after.

    Attributes:
        outcome: the procedure's, with the hooks' results in its facts, and exit code 13 if one failed.
        hooks: what became of each.
        error: the failed hook, or what kept all from being run; None when all is well.
    """

    outcome: Outcome
    hooks: HookResults
    error: UCLError | None = None


_WELL = {"renewed", "established", "imported", "not-due"}  # outcomes that put an end to failures told before


def after(connection: Connection, outcome: Outcome) -> Aftermath:
    """After a success, or when nothing was due. Nothing is raised: the certificate is in place."""
    try:
        hooks = run_hooks(connection)
    except UCLError as error:
        hooks = HookResults(connection.name)
        facts = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy or None}
        told = Aftermath(replace(outcome, facts={**outcome.facts, **facts}, exit_code=error.exit_code), hooks, error)
    else:
        told = Aftermath(hooks.complete(outcome), hooks, hooks.error)
    if told.error or outcome.outcome in _WELL:
        notify(connection, told.error)
    return told


def after_error(
    connection: Connection, error: UCLError, *, tell: Callable[[Connection, UCLError], object] | None = None
) -> None:
    """After a failure; hooks that an earlier run has left are run also now.

    Args:
        connection: the one whose procedure failed.
        error: what stopped it.
        tell: sends the notice, in place of :func:`ucl_helpers.operate.notices.notify`.
    """
    with suppress(UCLError):
        run_hooks(connection)
    (tell or notify)(connection, error)


def after_run(connection: Connection, told: Mapping[str, Any]) -> None:
    """After a notebook that was run headless: it has run the hooks itself, unless it failed before it came to that.

    Args:
        connection: the one that it was run for.
        told: its outcome as JSON: ``exitCode``, ``error``, ``message``, ``remedy``.
    """
    error, code = None, told.get("exitCode")
    if told.get("outcome") == "stopped":  # by somebody who knows of it
        return
    if code:
        kind = getattr(errors, str(told.get("error")), UCLError)
        kind = kind if isinstance(kind, type) and issubclass(kind, UCLError) else UCLError
        error = kind(
            str(told.get("message") or f"The run ended with exit code {code}."), remedy=told.get("remedy") or ""
        )
        if not isinstance(error, HookFailed):
            with suppress(UCLError):
                run_hooks(connection)
    notify(connection, error)
