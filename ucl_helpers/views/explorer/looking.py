"""Looking at a connection: where it stands, its history with the way back, what is pending, and the doctor."""

from typing import Any, ClassVar

from ipywidgets import Dropdown, HBox, Layout

from ucl_helpers.connection.status import Status
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.operate.hooks import run_hooks
from ucl_helpers.procedures.generations import rollback
from ucl_helpers.tables import Row
from ucl_helpers.views.cards import certificate
from ucl_helpers.views.drawing import Picture
from ucl_helpers.views.explorer.panel import ROW, Panel, hooks_to_run
from ucl_helpers.views.explorer.work import Pane
from ucl_helpers.views.history import history
from ucl_helpers.views.markup import Html, card, element, table


class Overview(Panel):
    """Where the connection stands, and the certificate in use."""

    title: ClassVar[str] = "Overview"

    def parts(self) -> list[Any]:
        """One pane."""
        self._pane = Pane()
        return [self._pane]

    def refresh(self) -> None:
        """Status and certificate; of what is not established, the status alone."""
        self._pane.fill(self._seen, self.desk.name)

    def changed(self) -> None:
        """What another connection was like goes."""
        self._pane.show()

    def _seen(self) -> list[object]:
        status = self.desk.status()
        readable = status.validity is not None
        return [status, *([certificate(self.desk.connection.require_current().certificate)] if readable else [])]


class Past(Panel):
    """The generations that are kept, and the way back to one of them: the undoing of an activation."""

    title: ClassVar[str] = "History"

    def parts(self) -> list[Any]:
        """The picture, then which generation to go back to."""
        self._pane, self._outcome = Pane(), Pane()
        style = {"description_width": "initial"}
        chosen = Dropdown(description="Generation", style=style, layout=Layout(width="auto"))
        self._chosen = self.work.control(chosen, self._may)
        button = self.work.button(
            "Go back to it", "UCL is asked whether it accepts that certificate.", self._back, self._may
        )
        told = Pane()
        told.show(
            element(
                "p",
                "UCL is asked first whether it accepts that certificate; if not, nothing changes. The one in use now "
                "is kept too, so that you can come back in the same way.",
            )
        )
        return [self._pane, told, HBox([self._chosen, button], layout=ROW), self._outcome]

    def refresh(self) -> None:
        """The picture and the choice; the chosen one stays chosen if it can, else it is the newest."""
        if self._pane.fill(self._seen, self.desk.name):
            self._offer([])

    def changed(self) -> None:
        """The picture of another connection goes, and with it the way back."""
        self._pane.show()
        self._outcome.show()
        self._offer([])

    def _seen(self) -> Picture:
        connection = self.desk.connection
        in_use, kept = connection.current, reversed(connection.generations())
        self._offer([one.name for one in kept if in_use is None or one.name != in_use.name])
        return history(connection)

    def _offer(self, names: list[str]) -> None:
        with self._chosen.hold_sync():
            kept = self._chosen.value
            self._chosen.options = names
            self._chosen.value = kept if kept in names else next(iter(names), None)

    def _may(self) -> bool:
        return bool(self._chosen.options)

    def _back(self) -> None:
        self._outcome.fill(self._gone_back, self.desk.name)

    def _gone_back(self) -> list[object]:
        return [rollback(self.desk.connection, self._chosen.value), hooks_to_run(self.desk.status())]


class Pending(Panel):
    """What is still to be done: a procedure under way, a next try after failures, hooks."""

    title: ClassVar[str] = "Pending"

    def parts(self) -> list[Any]:
        """What is pending, and the hooks to be run."""
        self._pane, self._results = Pane(), Pane()
        button = self.work.button("Run pending hooks", "Hooks are run.", self._run, self._may)
        return [self._pane, HBox([button], layout=ROW), self._results]

    def refresh(self) -> None:
        """As the disk has it."""
        self._pane.fill(lambda: _pending(self.desk.status()), self.desk.name)

    def changed(self) -> None:
        """What another connection has pending goes, and the results of its hooks."""
        self._pane.show()
        self._results.show()

    def _may(self) -> bool:
        return self.desk.is_chosen and bool(self.desk.status().pending_hooks)

    def _run(self) -> None:
        self._results.fill(lambda: run_hooks(self.desk.connection), self.desk.name)


class Doctor(Panel):
    """Everything that can be wrong, each with what mends it."""

    title: ClassVar[str] = "Doctor"

    def parts(self) -> list[Any]:
        """Two ways of looking, and what was found."""
        self._pane = Pane()
        whole = self.work.button("Look, and ask UCL", "Looking, and asking UCL.", self._look, self._may)
        near = self.work.button("Look at this machine only", "Looking.", self._look_near, self._may)
        told = Pane()
        told.show(element("p", "Looking changes nothing."))
        return [told, HBox([whole, near], layout=ROW), self._pane]

    def changed(self) -> None:
        """The diagnosis of another connection goes."""
        self._pane.show()

    def _may(self) -> bool:
        return self.desk.is_chosen

    def _look(self) -> None:
        self._pane.fill(lambda: diagnose(self.desk.connection), self.desk.name)

    def _look_near(self) -> None:
        self._pane.fill(lambda: diagnose(self.desk.connection, offline=True), self.desk.name)


def _pending(status: Status) -> Html:
    rows: list[Row] = [
        ("under way", status.pending or "nothing"),
        ("failed in a row", str(status.attempts.failures)),
        ("last error", str(status.attempts.last_error or "none")),
        ("hooks to be run", ", ".join(status.pending_hooks) or "none"),
    ]
    return card("Pending", table(("what", "now"), rows))
