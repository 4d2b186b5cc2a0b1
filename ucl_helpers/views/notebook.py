"""Report errors and waits in a notebook, to people and to the program that runs it."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import ChecksFailed, UCLError
from ucl_helpers.headless.parameters import check_parameters
from ucl_helpers.models import Checks, Outcome
from ucl_helpers.progress import listen
from ucl_helpers.views.markup import element

Error = UCLError | AssertionError
MESSAGE_LENGTH = 200


def failure(error: UCLError, connection: str = "") -> Outcome:
    """An error as an outcome: what happened, what to do next, and its exit code."""
    return Outcome("failed", connection or "this run").with_error(error)


def attempt(act: Callable[..., Outcome], connection: Connection, **given: Any) -> Outcome:
    """What came of something that may fail: its outcome, or its typed error as one, shown as if it had stopped us."""
    try:
        return act(connection, **given)
    except UCLError as error:
        return failure(error, connection.name)


def broken(assertion: AssertionError) -> ChecksFailed:
    """An assertion of a notebook that does not hold, as a typed error; of checks, those that failed are named."""
    subject = assertion.args[0] if assertion.args else ""
    failed = [check for check in subject.checks if check.status == "failed"] if isinstance(subject, Checks) else []
    text = "; ".join(f"{check.name}: expected {check.expected}, found {check.found}" for check in failed) or str(
        subject
    )
    return ChecksFailed(
        f"What the notebook asserts does not hold. {text.strip()[:MESSAGE_LENGTH]}".strip(),
        remedy="The cell above the error shows what was looked at.",
        failed=[check.name for check in failed],
    )


def begin(variables: MutableMapping[str, Any], connection: str = "") -> None:
    """Begin a notebook: report its errors so that ``ucl run`` can read them, and give its parameters their types.

    Args:
        variables: the notebook's, ``globals()``.
        connection: the name that errors are reported for; empty for the parameter ``connection``.

    Raises:
        UsageError: a parameter has the wrong type, is unknown, or is a secret.
    """
    report_errors(connection)
    check_parameters(variables)
    report_errors(connection or str(variables.get("connection") or ""))


def report_errors(connection: str = "") -> None:
    """From now on, let typed errors and broken assertions of this notebook show themselves before they stop it.

    Only an error's name and text survive the kernel, so its exit code goes into an output. Outside of IPython this does
    nothing.
    """
    shell = get_ipython()
    if shell is None:
        return

    def show(shell: Any, kind: type[Error], error: Error, trace: TracebackType, tb_offset: Any = None) -> None:
        display(failure(broken(error) if isinstance(error, AssertionError) else error, connection))
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((UCLError, AssertionError), show)


@dataclass(frozen=True)
class Wait:
    """One line, or nothing."""

    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        line = element("div", f"⏳ {self.text}", role="status", style="opacity:.8") if self.text else ""
        return {"text/plain": self.text, "text/html": line}


class Line:
    """Shows each text in the same place, as long as one cell runs."""

    def __init__(self, shell: Any) -> None:
        self._shell, self._cell = shell, -1
        self._handle: DisplayHandle | None = None

    def __call__(self, text: str) -> None:
        """Show it, or let the line go."""
        if self._cell == self._shell.execution_count and self._handle:
            self._handle.update(Wait(text))
        elif text:
            self._cell, self._handle = self._shell.execution_count, display(Wait(text), display_id=True)


def show_waits() -> None:
    """From now on this notebook shows what it waits for. Outside of IPython this does nothing."""
    if shell := get_ipython():
        listen(Line(shell))
