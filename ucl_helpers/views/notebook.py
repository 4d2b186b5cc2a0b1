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
    """Return an error as an outcome, with its message, its remedy and its exit code."""
    return Outcome("failed", connection or "this run").with_error(error)


def attempt(act: Callable[..., Outcome], connection: Connection, **given: Any) -> Outcome:
    """Call ``act``, and return its outcome, or its error as an outcome, so that the notebook goes on."""
    try:
        return act(connection, **given)
    except UCLError as error:
        return failure(error, connection.name)


def broken(assertion: AssertionError) -> ChecksFailed:
    """Return a failed assertion of a notebook as a typed error, which names the checks that failed."""
    subject = assertion.args[0] if assertion.args else ""
    failed = [check for check in subject.checks if check.status == "failed"] if isinstance(subject, Checks) else []
    text = "; ".join(f"{check.name}: expected {check.expected}, found {check.found}" for check in failed) or str(
        subject
    )
    return ChecksFailed(
        f"An assertion of the notebook failed. {text.strip()[:MESSAGE_LENGTH]}".strip(),
        remedy="The cell above the error shows the values that were checked.",
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
    """Show each typed error and failed assertion of this notebook as a card before it stops the notebook.

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
    """A line that says what a cell waits for; empty when the wait is over."""

    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        line = element("div", self.text, role="status", style="opacity:.8") if self.text else ""
        return {"text/plain": self.text, "text/html": line}


class Line:
    """Shows each text in the same place while a cell runs."""

    def __init__(self, shell: Any) -> None:
        self._shell, self._cell = shell, -1
        self._handle: DisplayHandle | None = None

    def __call__(self, text: str) -> None:
        """Show a text; an empty text removes the line."""
        if self._cell == self._shell.execution_count and self._handle:
            self._handle.update(Wait(text))
        elif text:
            self._cell, self._handle = self._shell.execution_count, display(Wait(text), display_id=True)


def show_waits() -> None:
    """Show in this notebook what a cell waits for. Outside of IPython this does nothing."""
    if shell := get_ipython():
        listen(Line(shell))
