"""What all panels of the explorer share: the desk that says which connection is shown, and their base class."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ipywidgets import Layout, VBox

from ucl_helpers.connection.status import Status, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UsageError
from ucl_helpers.views.explorer.background import Work
from ucl_helpers.views.markup import Html, element

ROW = Layout(flex_flow="row wrap", align_items="center")
"""How widgets stand beside each other, or below where there is no room."""


@dataclass
class Desk:
    """The home folder, and which connection is looked at."""

    home: Home
    name: str = ""

    @property
    def connection(self) -> Connection:
        """It.

        Raises:
            UsageError: none is chosen, or it is gone.
        """
        if not self.name:
            raise UsageError("No connection is chosen.", remedy="Choose one above, practise, or import one.")
        return self.home.connection(self.name)

    @property
    def is_chosen(self) -> bool:
        """Whether one is."""
        return bool(self.name)

    def status(self) -> Status:
        """Where it stands."""
        return status_of(self.connection)


def hooks_to_run(status: Status) -> Html:
    """That hooks wait, and where they are run; nothing if none does."""
    names = ", ".join(status.pending_hooks)
    return element("p", f"Hooks to be run: {names}. Run them on the tab Pending.") if names else Html()


class Panel:
    """A part of the explorer, behind a tab of its own."""

    title: ClassVar[str]

    def __init__(self, desk: Desk, work: Work) -> None:
        self.desk, self.work = desk, work
        self.widget = VBox(self.parts())

    def parts(self) -> list[Any]:
        """Its widgets, from top to bottom."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Show what is so by now; called in the thread of the work, after anything was done."""

    def changed(self) -> None:
        """Another connection is chosen: what was shown of the one before goes."""
