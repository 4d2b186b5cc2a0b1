"""Show the explorer: the choice of a connection, a line that says what is done, and a panel behind each tab."""

from contextlib import ExitStack
from typing import Any

from ipywidgets import Accordion, Dropdown, HBox, Tab, VBox

from ucl_helpers import practice
from ucl_helpers.connection.status import Status
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UsageError
from ucl_helpers.views.cards import html_of
from ucl_helpers.views.explorer.background import Act, Pane, Work, note
from ucl_helpers.views.explorer.fields import ADDRESS, NAME, PATH, REFERENCE, Field
from ucl_helpers.views.explorer.panel import ROW, Desk
from ucl_helpers.views.explorer.panels import WIDE, Doctor, FaultsPanel, Overview, Past, Pending
from ucl_helpers.views.explorer.renew_panel import Steps
from ucl_helpers.views.markup import element, joined

PRACTICE = "practice-05"
FIELDS = {
    "name": ("Name", "of your choice, such as prod", NAME),
    "key_file": ("Key", "path of a PEM, DER or PKCS #12 file", PATH),
    "certificate_file": ("Certificate", "path; may hold the chain", PATH),
    "chain_file": ("Chain", "path, if it is a file of its own", PATH),
    "ca_file": ("Server CA", "path; empty: the system's trust", PATH),
    "connector_url": ("Connector URL", "the certificate-secured one", ADDRESS),
    "passphrase": ("Passphrase", "a reference: env:NAME or file:PATH", REFERENCE),
}


class Chooser:
    """The part above all panels: the choice of a connection, practice, and the import from files."""

    def __init__(self, desk: Desk, work: Work, changed: Act) -> None:
        self.desk, self.work, self._changed = desk, work, changed
        self._names = work.control(Dropdown(description="Connection", style=WIDE))
        self._names.observe(lambda change: self._choose(change["new"]), "value")
        self._showing = False  # True while this class changes the choice itself
        look = work.button("Refresh", "Looking.", self._nothing)
        practise = work.button("Practise", "Opening a connection for practice at the sandbox.", self._practise)
        practise.tooltip = "Open a practice connection at the sandbox on this machine"
        self._result = Pane()
        self._fields = {
            name: work.control(Field(label, hint, form, self._result.show))
            for name, (label, hint, form) in FIELDS.items()
        }
        hint = note("The files stay where they are, on the machine of the kernel. Nothing is uploaded.")
        button = work.button("Import", "UCL is asked whether it accepts this identity.", self._import)
        form = VBox([hint, *self._fields.values(), HBox([button])])
        more = Accordion([form], titles=("Import a connection from files",))
        self.widget = VBox([HBox([self._names, look, practise], layout=ROW), self._result, more])

    def refresh(self) -> None:
        """Show the names of all connections. The chosen one stays chosen if it still exists."""
        there = self.desk.home.names()
        if self.desk.name and self.desk.name not in there:
            self._result.show(element("p", f"{self.desk.name} is gone."))
            self.desk.name = ""
            self._changed()
        self._show([("choose one", ""), *((name, name) for name in there)])

    def _show(self, options: list[tuple[str, str]]) -> None:
        self._showing = True
        try:
            with self._names.hold_sync():
                if list(self._names.options) != options:
                    self._names.options = options
                self._names.value = self.desk.name
        finally:
            self._showing = False

    def _choose(self, name: str) -> None:
        if self._showing or name == self.desk.name:
            return
        if not self.work.is_idle:  # the running action belongs to the present connection
            self._show(list(self._names.options))
        else:
            self.desk.name = name
            self._result.show()
            self._changed()
            self.work.do("Looking.", self._nothing, self._names)

    def _nothing(self) -> None:
        """Do nothing: everything is refreshed after each action."""

    def _practise(self) -> None:
        self._result.fill(
            lambda: self._take(practice.open_connection(home=self.desk.home.path, practice=PRACTICE, asked=True).name)
        )

    def _import(self) -> None:
        self._result.fill(self._imported)

    def _imported(self) -> object:
        given = {name: field.value.strip() for name, field in self._fields.items()}
        name = given.pop("name")
        if not name or not given["key_file"]:
            raise UsageError("Name and key are needed to import a connection.", remedy="Fill them in.")
        if Connection(self.desk.home, name).current is not None:
            raise UsageError(f"{name} is there already.", remedy="Choose it above, or choose another name.")
        return self._take(practice.open_connection(name, self.desk.home.path, practice="", asked=False, **given).name)

    def _take(self, name: str) -> object:
        self.desk.name = name
        self._changed()
        return element("p", f"{name} is chosen.")


_PATIENCE = 2.0  # seconds
_INSTEAD = element("p", "To see the explorer here, with its six tabs, run this notebook. This is the connection:")


class Explorer:
    """The explorer. It shows widgets, or the card of the connection where widgets are not available."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.work, at_sandbox = desk, Work(), Work()
        self.steps, self.faults = Steps(desk, self.work), FaultsPanel(desk, at_sandbox)
        kinds = (Past, Pending, Doctor)
        self._panels = (Overview(desk, self.work), self.steps, *(kind(desk, self.work) for kind in kinds), self.faults)
        self._chooser = Chooser(desk, self.work, self._changed)
        tabs = Tab([panel.widget for panel in self._panels], titles=[panel.title for panel in self._panels])
        self.widget = VBox([self._chooser.widget, self.work.line, tabs])
        self.work.after = self._refresh
        self.work.do("Looking.", lambda: None)

    def status(self) -> Status:
        """Read the state of the chosen connection; raise UsageError if none is chosen."""
        return self.desk.status()

    def settled(self, seconds: float | None = None) -> bool:
        """Wait until no action runs, so many seconds at most; return False if one still does."""
        return self.work.settled(seconds) and self.faults.work.settled(seconds)

    def _refresh(self) -> None:
        """Refresh every panel, even if one of them fails."""
        with ExitStack() as looks:  # calls each, in reverse order, even if one fails
            for look in (self.faults.look, *(panel.refresh for panel in reversed(self._panels)), self._chooser.refresh):
                looks.callback(look)

    def _changed(self) -> None:
        for panel in self._panels:
            panel.changed()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        self.settled(_PATIENCE)  # first show real data, but do not wait for a call that hangs
        bundle, status = self.widget._repr_mimebundle_(), self.status() if self.desk.is_chosen else None
        shown = {"text/plain": str(status), "text/html": joined([_INSTEAD, html_of(status)])} if status else {}
        return {**bundle, **shown}


def explore(connection: Connection | None = None, home: Home | None = None) -> Explorer:
    """Return the explorer, which the last line of a cell shows.

    Args:
        connection: the connection to show first; None to choose one in the page.
        home: the home folder if no connection is given; None for ``UCL_HOME`` or the user's data folder.
    """
    return Explorer(Desk(connection.home, connection.name) if connection else Desk(home or Home()))
