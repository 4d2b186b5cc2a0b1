"""The explorer as a whole: the choice of a connection, a line that says what is done, and a panel behind each tab."""

from contextlib import ExitStack
from typing import Any

from ipywidgets import Tab, VBox

from ucl_helpers.connection.status import Status
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.views.cards import html_of
from ucl_helpers.views.explorer.choosing import Chooser
from ucl_helpers.views.explorer.faults import FaultsPanel
from ucl_helpers.views.explorer.looking import Doctor, Overview, Past, Pending
from ucl_helpers.views.explorer.panel import Desk
from ucl_helpers.views.explorer.steps import Steps
from ucl_helpers.views.explorer.work import Work

_PATIENCE = 2.0  # seconds


class Explorer:
    """Shows itself as widgets; where there are none, as the card of the connection."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.work, at_sandbox = desk, Work(), Work()
        self.steps, self.faults = Steps(desk, self.work), FaultsPanel(desk, at_sandbox)
        kinds = (Past, Pending, Doctor)
        self._panels = (Overview(desk, self.work), self.steps, *(kind(desk, self.work) for kind in kinds), self.faults)
        self._chooser = Chooser(desk, self.work, self._changed)
        tabs = Tab([one.widget for one in self._panels], titles=[one.title for one in self._panels])
        self.widget = VBox([self._chooser.widget, self.work.line, tabs])
        self.work.after = self._refresh
        self.work.do("Looking.", lambda: None)

    def status(self) -> Status:
        """Where the connection stands that is chosen; raises UsageError if none is."""
        return self.desk.status()

    def settled(self, seconds: float | None = None) -> bool:
        """Wait until nothing is being done, so many seconds at most; False if something still is."""
        return self.work.settled(seconds) and self.faults.work.settled(seconds)

    def _refresh(self) -> None:
        """Look at everything anew; what cannot be looked at keeps nothing else from it."""
        with ExitStack() as looks:  # it ends with its last
            for look in (self.faults.look, *(panel.refresh for panel in reversed(self._panels)), self._chooser.refresh):
                looks.callback(look)

    def _changed(self) -> None:
        for panel in self._panels:
            panel.changed()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        self.settled(_PATIENCE)  # what is shown at first has been looked at; a call that hangs holds no cell up
        bundle, status = self.widget._repr_mimebundle_(), self.status() if self.desk.is_chosen else None
        shown = {"text/plain": str(status), "text/html": html_of(status)} if status else {}
        return {**bundle, **shown}


def explore(connection: Connection | None = None, home: Home | None = None) -> Explorer:
    """The explorer, in the last line of a cell.

    Args:
        connection: the one to begin with; None to choose one in the page.
        home: where connections lie, if none is given; None for ``UCL_HOME`` or the user's data folder.
    """
    if connection is not None:
        return Explorer(Desk(connection.home, connection.name))
    return Explorer(Desk(home or Home()))
