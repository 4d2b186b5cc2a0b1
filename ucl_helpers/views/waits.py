"""What a cell waits for, as a line below it that goes when the wait is over."""

from dataclasses import dataclass
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from ucl_helpers.progress import listen
from ucl_helpers.views.markup import element


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
