"""Show a connection in the explorer's panels: overview, history, pending, doctor, faults."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ipywidgets import Button, Dropdown, HBox, Layout

from ucl_helpers import practice
from ucl_helpers.connection.status import Status
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.operate.hooks import run_hooks
from ucl_helpers.procedures.rollback import rollback
from ucl_helpers.tables import Row
from ucl_helpers.views.cards import certificate
from ucl_helpers.views.charts import Picture, history
from ucl_helpers.views.explorer.background import Pane, allowed
from ucl_helpers.views.explorer.fields import PLAN, Field
from ucl_helpers.views.explorer.panel import ROW, Panel, hooks_to_run
from ucl_helpers.views.markup import Html, card, element, table


class Overview(Panel):
    """The state of the connection, and the certificate in use."""

    title: ClassVar[str] = "Overview"

    def parts(self) -> list[Any]:
        """Return one pane."""
        return [self._pane]

    def refresh(self) -> None:
        """Show status and certificate, or the status alone if the connection is not established."""
        self._pane.fill(self._seen, self.desk.name)

    def _seen(self) -> list[object]:
        status = self.desk.status()
        if status.validity is None:
            return [status]
        return [status, certificate(self.desk.connection.require_current().certificate)]


class Past(Panel):
    """The generations that are kept, and a button that goes back to one of them."""

    title: ClassVar[str] = "History"

    def parts(self) -> list[Any]:
        """Return the picture, then the choice of a generation to go back to."""
        style = {"description_width": "initial"}
        chosen = Dropdown(description="Generation", style=style, layout=Layout(width="auto"))
        self._chosen = self.work.control(chosen, self._may)
        waits_for = "UCL is asked whether it accepts that certificate."
        button = self.work.button("Go back to it", waits_for, self._back, self._may)
        hint = Pane()
        hint.show(
            element(
                "p",
                "UCL is asked first whether it accepts that certificate; if not, nothing changes. The one in use now "
                "is kept too, so that you can come back in the same way.",
            )
        )
        return [self._pane, hint, HBox([self._chosen, button], layout=ROW), self._outcome]

    def refresh(self) -> None:
        """Show the picture and the choice. The chosen generation stays chosen if it still exists."""
        if self._pane.fill(self._seen, self.desk.name):
            self._offer([])

    def changed(self) -> None:
        """Clear the picture and the choice."""
        super().changed()
        self._offer([])

    def _seen(self) -> Picture:
        connection = self.desk.connection
        in_use, kept = connection.current, reversed(connection.generations())
        self._offer([generation.name for generation in kept if in_use is None or generation.name != in_use.name])
        return history(connection)

    def _offer(self, names: list[str]) -> None:
        with self._chosen.hold_sync():
            kept = self._chosen.value
            self._chosen.options = names
            self._chosen.value = kept if kept in names else next(iter(names), None)

    def _may(self) -> bool:
        return bool(self._chosen.options)

    def _back(self) -> None:
        def go_back() -> list[object]:
            return [rollback(self.desk.connection, self._chosen.value), hooks_to_run(self.desk.status())]

        self._outcome.fill(go_back, self.desk.name)


class Pending(Panel):
    """An interrupted procedure, failed attempts, and hooks that have not run."""

    title: ClassVar[str] = "Pending"

    def parts(self) -> list[Any]:
        """Return what is pending, and a button that runs the hooks."""
        button = self.work.button("Run pending hooks", "Hooks are run.", self._run, self._may)
        return [self._pane, HBox([button], layout=ROW), self._outcome]

    def refresh(self) -> None:
        """Show what is pending, read from disk."""
        self._pane.fill(lambda: _pending(self.desk.status()), self.desk.name)

    def _may(self) -> bool:
        return self.desk.is_chosen and bool(self.desk.status().pending_hooks)

    def _run(self) -> None:
        self._outcome.fill(lambda: run_hooks(self.desk.connection), self.desk.name)


class Doctor(Panel):
    """Everything that can be wrong, each with the command that fixes it."""

    title: ClassVar[str] = "Doctor"

    def parts(self) -> list[Any]:
        """Return a button for each kind of diagnosis, and the last diagnosis."""

        def button(text: str, waits_for: str, *, offline: bool) -> Button:
            return self.work.button(text, waits_for, lambda: self._diagnose(offline=offline), self._may)

        whole = button("Look, and ask UCL", "Looking, and asking UCL.", offline=False)
        near = button("Look at this machine only", "Looking.", offline=True)
        hint = Pane()
        hint.show(element("p", "Looking changes nothing."))
        return [hint, HBox([whole, near], layout=ROW), self._pane]

    def _may(self) -> bool:
        return self.desk.is_chosen

    def _diagnose(self, *, offline: bool) -> None:
        self._pane.fill(lambda: diagnose(self.desk.connection, offline=offline), self.desk.name)


def _pending(status: Status) -> Html:
    rows: list[Row] = [
        ("under way", status.pending or "nothing"),
        ("failed in a row", str(status.attempts.failures)),
        ("last error", str(status.attempts.last_error or "none")),
        ("hooks to be run", ", ".join(status.pending_hooks) or "none"),
    ]
    return card("Pending", table(("what", "now"), rows))


OWN = "A plan of your own"
SCENES: Mapping[str, tuple[str, str]] = {  # what goes wrong → the plan, and what is to be seen
    "The answer to the signing is lost": (
        "lost-answer",
        "Step 3 takes a little longer: UCL has signed, its answer never came, and the same request is sent again.",
    ),
    "UCL cannot answer, twice": (
        '{"faults": [{"kind": "http-503", "at": "certificate", "times": 2}]}',
        "Step 1, 3 or Verify waits and asks again, and says so meanwhile.",
    ),
    "Too many calls": (
        '{"faults": [{"kind": "http-429", "at": "certificate", "times": 1, "value": 3}]}',
        "The next call is asked to come back in 3 seconds, waits that long, and is then answered.",
    ),
    "A certificate for another key": (
        '{"faults": [{"kind": "another-key", "at": "certificate", "times": 1}]}',
        "Step 4 finds it, and nothing is put to use. Press step 3 again: the same request is signed once more.",
    ),
    "UCL does not know us": (
        '{"faults": [{"kind": "http-400-empty", "at": "certificate", "operation": "configuration", "times": 1}]}',
        "Step 1 is refused by a 400 without a word, as after a revocation. This time pressing it again helps.",
    ),
    "Nothing ever comes": (
        '{"faults": [{"kind": "black-hole", "at": "certificate", "times": 1}]}',
        "The next step waits, half a minute at most; switch the faults off, and it goes on at once.",
    ),
    "Nobody is there": (
        "away",
        "Steps that call UCL give up after some tries. Switch the faults off and press the step again.",
    ),
    "One call in five goes wrong": ("grumpy", "Most renewals come through all the same; look at what struck."),
    OWN: ("", "A name, such as http-503:0.5, or JSON; the sandbox's page has them all."),
}
_WIDE = {"description_width": "8em"}


class FaultsPanel(Panel):
    """Which faults strike at the sandbox, and how often they have."""

    title: ClassVar[str] = "Faults"

    def parts(self) -> list[Any]:
        """Return the choice of a scene, its description, and the faults that have struck."""
        scene = Dropdown(description="Fault", options=list(SCENES), style=_WIDE, layout=Layout(width="min(30em, 95%)"))
        self._scene = self.work.control(scene, self._may)
        self._hint = Pane()
        self._own = self.work.control(Field("Plan", "http-503:0.5", PLAN, self._pane.show), self._may_own)
        self._scene.observe(lambda _: self._tell(), "value")
        on = self.work.button("Switch on", "Switching on.", lambda: self._change(self._own.value), self._may)
        off = self.work.button("Switch all off", "Switching off.", lambda: self._change(""), self._may)
        look = self.work.button("See what struck", "Looking.", self._look, self._may)
        self._tell()
        buttons = HBox([on, off, look], layout=ROW)
        return [self._scene, self._hint, self._own, buttons, self.work.line, self._pane]

    def changed(self) -> None:
        """Keep what is shown: the faults are those of the home folder."""

    def look(self) -> None:
        """Show which faults have struck, unless this panel is busy."""
        self.work.do("Looking.", self._look, self._own)  # the user may be typing there

    def _tell(self) -> None:
        plan, description = SCENES[self._scene.value]
        self._hint.show(element("p", description))
        if plan:
            self._own.value = plan
        self._own.disabled = not allowed(self._may_own)

    def _may(self) -> bool:
        """Return whether the chosen connection uses this home folder's sandbox."""
        if not self.desk.is_chosen or (ready := self.desk.connection.read_settings().sandbox) is None:
            return False
        own = self.desk.home.path / "sandbox" / "ready.json"
        return (self.desk.connection.path / ready).resolve() == own.resolve()

    def _may_own(self) -> bool:
        return self._may() and self._scene.value == OWN

    def _change(self, plan: str | None) -> None:
        self._pane.fill(lambda: _plan(practice.change_faults(self.desk.home, plan)))

    def _look(self) -> None:
        if allowed(self._may):
            self._change(None)
        else:
            hint = "Faults are for this home's sandbox: choose a connection that practises there."
            self._pane.show(element("p", hint))


def _plan(faults: Mapping[str, Any]) -> Html:
    struck = faults["struck"]
    rows = [
        (fault["kind"], fault.get("operation", "each call"), str(struck.get(fault["kind"], 0)))
        for fault in faults["faults"]
    ]
    if not rows:
        return card("Faults", element("p", "None: the sandbox behaves."))
    duration = element("p", "They affect every program that uses this sandbox, until they are used up or switched off.")
    return card("Faults", table(("kind", "strikes at", "has struck"), rows), duration)
