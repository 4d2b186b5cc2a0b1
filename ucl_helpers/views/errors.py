"""Errors in a notebook: cause and remedy as a table, and the exit code for the program that runs it."""

from types import TracebackType
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display

from ucl_helpers.errors import UCLError
from ucl_helpers.models import Outcome


def failure(error: UCLError, connection: str = "") -> Outcome:
    """An error as an outcome: what happened, what to do next, and its exit code."""
    facts = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy or None}
    return Outcome("failed", connection or "this run", facts, error.exit_code)


def report_errors(connection: str = "") -> None:
    """From now on, let every typed error of this notebook show itself before it stops the notebook.

    Only an error's name and text survive the kernel, so its exit code goes into an output. Outside of IPython this does
    nothing.
    """
    shell = get_ipython()
    if shell is None:
        return

    def show(shell: Any, kind: type[UCLError], error: UCLError, trace: TracebackType, tb_offset: Any = None) -> None:
        display(failure(error, connection))
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((UCLError,), show)
