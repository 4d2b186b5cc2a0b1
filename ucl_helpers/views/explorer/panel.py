"""What all panels of the explorer share: the desk that says which connection is shown, and their base class."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ipywidgets import Layout, VBox

from ucl_helpers.connection.status import Status, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UsageError
from ucl_helpers.views.explorer.background import Pane, Work
from ucl_helpers.views.markup import Html, element

ROW = Layout(flex_flow="row wrap", align_items="center")
"""Puts widgets beside each other, and on further lines if there is no room."""


@dataclass
class Desk:
    """The home folder, and the name of the connection that is shown."""

    home: Home
    name: str = ""

    @property
    def connection(self) -> Connection:
        """The chosen connection.

        Raises:
            UsageError: none is chosen, or it no longer exists.
        """
        if not self.name:
            raise UsageError("No connection is chosen.", remedy="Choose one above, practise, or import one.")
        return self.home.connection(self.name)

    @property
    def is_chosen(self) -> bool:
        """Whether a connection is chosen."""
        return bool(self.name)

    def status(self) -> Status:
        """Read the state of the chosen connection from disk."""
        return status_of(self.connection)


def hooks_to_run(status: Status) -> Html:
    """Say which hooks are pending and where to run them; return empty HTML if there are none."""
    names = ", ".join(status.pending_hooks)
    return element("p", f"Hooks to be run: {names}. Run them on the tab Pending.") if names else Html()


class Panel:
    """A part of the explorer, behind a tab of its own."""

    title: ClassVar[str]

    def __init__(self, desk: Desk, work: Work) -> None:
        self.desk, self.work = desk, work
        self._pane, self._outcome = Pane(), Pane()
        self.widget = VBox(self.parts())

    def parts(self) -> list[Any]:
        """Return the widgets of the panel, from top to bottom."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Show the present state. It is called in the worker thread after each action."""

    def changed(self) -> None:
        """Clear what the panel shows of a connection, because another one is chosen."""
        self._pane.show()
        self._outcome.show()
