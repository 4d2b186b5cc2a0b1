"""Show a connection in the explorer's panels: overview, history, pending, doctor, faults."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ipywidgets import Button, Dropdown, HBox, Layout

from ucl_helpers import practice
from ucl_helpers.connection.status import Status
from ucl_helpers.errors import UsageError
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.operate.hooks import run_hooks
from ucl_helpers.procedures.rollback import rollback
from ucl_helpers.tables import Row
from ucl_helpers.views.cards import certificate
from ucl_helpers.views.charts import Picture, history
from ucl_helpers.views.explorer.background import Pane, allowed, note
from ucl_helpers.views.explorer.fields import PLAN, Field
from ucl_helpers.views.explorer.panel import ROW, Panel, hooks_to_run
from ucl_helpers.views.markup import Html, card, element, table
from ucl_helpers.views.notebook import failure


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
        chosen = Dropdown(description="Generation", style={"description_width": "initial"}, layout=Layout(width="auto"))
        self._chosen = self.work.control(chosen, self._may)
        waits_for = "UCL is asked whether it accepts that certificate."
        button = self.work.button("Use this one", waits_for, self._back, self._may)
        hint = note(
            "The toolkit first asks UCL whether it accepts that certificate. If not, nothing changes. The certificate "
            "in use is kept too, so you can return in the same way."
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
        return [note("These checks change nothing."), HBox([whole, near], layout=ROW), self._pane]

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
KNOWN = "; known are "  # between the problem of a plan and the list of all names
SCENES: Mapping[str, tuple[str, str]] = {  # what fails → the plan, and its effect
    "The answer to the signing is lost": (
        "lost-answer",
        "UCL signs, but its answer does not arrive. Step 3 sends the same request again.",
    ),
    "UCL answers 503, twice": (
        '{"faults": [{"kind": "http-503", "at": "certificate", "times": 2}]}',
        "The next step that calls UCL waits and tries again. It shows each try.",
    ),
    "Too many calls": (
        '{"faults": [{"kind": "http-429", "at": "certificate", "times": 1, "value": 3}]}',
        "UCL answers the next call with 429 and asks for a pause of 3 seconds. The step waits and tries again.",
    ),
    "A certificate for another key": (
        '{"faults": [{"kind": "another-key", "at": "certificate", "times": 1}]}',
        "Step 4 fails, and the certificate in use stays. Press step 3 again, and UCL signs the same request again.",
    ),
    "UCL refuses the certificate": (
        '{"faults": [{"kind": "http-400-empty", "at": "certificate", "operation": "configuration", "times": 1}]}',
        "UCL answers step 1 with an empty 400, as after a revocation. The fault strikes once: press step 1 again.",
    ),
    "No answer arrives": (
        '{"faults": [{"kind": "black-hole", "at": "certificate", "times": 1}]}',
        "The next step waits for half a minute at most. If you switch the faults off, it continues at once.",
    ),
    "UCL cannot be reached": (
        "away",
        "Steps that call UCL give up after some tries. Switch the faults off and press the step again.",
    ),
    "One call in five fails": ("grumpy", "Most renewals succeed after a retry. The table shows which faults struck."),
    OWN: ("", "A name, such as http-503:0.5, or a plan in JSON, as docs/reference/sandbox.md describes it."),
}
WIDE = {"description_width": "8em"}


class FaultsPanel(Panel):
    """Which faults strike at the sandbox, and how often they have."""

    title: ClassVar[str] = "Faults"

    def parts(self) -> list[Any]:
        """Return the choice of a scene, its description, and the faults that have struck."""
        scene = Dropdown(description="Fault", options=list(SCENES), style=WIDE, layout=Layout(width="min(30em, 95%)"))
        self._scene = self.work.control(scene, self._may)
        self._hint = Pane()
        self._own = self.work.control(Field("Plan", "http-503:0.5", PLAN, self._pane.show), self._may_own)
        self._scene.observe(lambda _: self._tell(), "value")
        on = self.work.button("Switch on", "Switching on.", lambda: self._change(self._own.value), self._may)
        off = self.work.button("Switch all off", "Switching off.", lambda: self._change(""), self._may)
        look = self.work.button("Show what happened", "Looking.", self._look, self._may)
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
        self._own.layout.display = "none" if plan else ""

    def _may(self) -> bool:
        """Return whether the chosen connection uses this home folder's sandbox."""
        if not self.desk.is_chosen or (ready := self.desk.connection.read_settings().sandbox) is None:
            return False
        own = self.desk.home.path / "sandbox" / "ready.json"
        return (self.desk.connection.path / ready).resolve() == own.resolve()

    def _may_own(self) -> bool:
        return self._may() and self._scene.value == OWN

    def _change(self, plan: str | None) -> None:
        self._pane.fill(lambda: self._changed_to(plan))

    def _changed_to(self, plan: str | None) -> list[object]:
        """Change the faults, and return those in effect. A plan that is not valid changes nothing and is shown."""
        try:
            return [_plan(practice.change_faults(self.desk.home, plan))]
        except UsageError as error:
            problem, _, names = error.message.partition(KNOWN)  # all names would fill the page
            short = error.replaced(f"{problem}. The faults stay as they are.") if names else error
            return [failure(short), _plan(practice.change_faults(self.desk.home))]

    def _look(self) -> None:
        if allowed(self._may):
            self._change(None)
        else:
            self._pane.show(element("p", "Faults are for this home's sandbox: choose a connection that uses it."))


def _plan(faults: Mapping[str, Any]) -> Html:
    struck = faults["struck"]
    rows = [
        (fault["kind"], fault.get("operation", "each call"), f"{times}{', used up' * (times >= most)}")
        for fault in faults["faults"]
        for times, most in [(struck.get(fault["kind"], 0), fault.get("times") or float("inf"))]
    ]
    if not rows:
        return card("Faults", element("p", "None. The sandbox answers as UCL does."))
    duration = element("p", "They affect every program that uses this sandbox, until they are used up or switched off.")
    return card("Faults", table(("kind", "strikes at", "struck"), rows), duration)
