"""Show the explorer: the choice of a connection, a line that says what is done, and a panel behind each tab."""

from contextlib import ExitStack
from typing import Any

from ipywidgets import Accordion, Dropdown, HBox, Tab, VBox

from ucl_helpers import practice
from ucl_helpers.connection.status import Status
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UsageError
from ucl_helpers.views.cards import html_of
from ucl_helpers.views.explorer.background import Act, Pane, Work
from ucl_helpers.views.explorer.fields import ADDRESS, NAME, PATH, REFERENCE, Field
from ucl_helpers.views.explorer.panel import ROW, Desk
from ucl_helpers.views.explorer.panels import Doctor, FaultsPanel, Overview, Past, Pending
from ucl_helpers.views.explorer.renew_panel import Steps
from ucl_helpers.views.markup import element

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
_WIDE = {"description_width": "8em"}


class Chooser:
    """What stands above all panels."""

    def __init__(self, desk: Desk, work: Work, changed: Act) -> None:
        self.desk, self.work, self._changed = desk, work, changed
        self._names = work.control(Dropdown(description="Connection", style=_WIDE))
        self._names.observe(lambda change: self._choose(change["new"]), "value")
        self._showing = False  # the choice is being changed by us
        look = work.button("Look again", "Looking.", self._nothing)
        practise = work.button("Practise", "Opening a connection for practice at the sandbox.", self._practise)
        practise.tooltip = "Open a practice connection at the sandbox on this machine"
        self._result = Pane()
        self._fields = {
            name: work.control(Field(label, hint, form, self._result.show))
            for name, (label, hint, form) in FIELDS.items()
        }
        hint = Pane()
        hint.show(element("p", "The files stay where they are, on the machine of the kernel; nothing is uploaded."))
        button = work.button("Import", "UCL is asked whether it accepts this identity.", self._import)
        form = VBox([hint, *self._fields.values(), button])
        more = Accordion([form], titles=("Import a connection from files",))
        self.widget = VBox([HBox([self._names, look, practise], layout=ROW), self._result, more])

    def refresh(self) -> None:
        """The names that are there; the chosen one stays chosen if it can."""
        there = self.desk.home.names()
        if self.desk.name and self.desk.name not in there:
            self._result.show(element("p", f"{self.desk.name} is gone."))
            self.desk.name = ""
            self._changed()
        options = [("choose one", ""), *((name, name) for name in there)]
        self._show(options)

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
        if not self.work.is_idle:  # what is being done is done with the connection that it was begun with
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
        given = {name: field.value.strip() for name, field in self._fields.items()}
        self._result.fill(lambda: self._imported(given.pop("name"), given))

    def _imported(self, name: str, given: dict[str, str]) -> object:
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


class Explorer:
    """Shows itself as widgets; where there are none, as the card of the connection."""

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
        """Where the connection stands that is chosen; raises UsageError if none is."""
        return self.desk.status()

    def settled(self, seconds: float | None = None) -> bool:
        """Wait until nothing is being done, so many seconds at most; False if something still is."""
        return self.work.settled(seconds) and self.faults.work.settled(seconds)

    def _refresh(self) -> None:
        """Refresh every panel, even if one of them fails."""
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
