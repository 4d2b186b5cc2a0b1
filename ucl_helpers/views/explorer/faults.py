"""Faults at the sandbox, switched on and off: to watch the toolkit survive them.

It has a thread of its own, so that a fault can be taken back while a step waits because of it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from ipywidgets import Dropdown, HBox, Layout

from ucl_helpers import practice
from ucl_helpers.views.explorer.fields import PLAN, Field
from ucl_helpers.views.explorer.panel import ROW, Panel
from ucl_helpers.views.explorer.work import Pane, allowed
from ucl_helpers.views.markup import Html, card, element, table

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
        """The choice of a scene, what is to be seen of it, and what has struck."""
        scene = Dropdown(description="Fault", options=list(SCENES), style=_WIDE, layout=Layout(width="min(30em, 95%)"))
        self._scene = self.work.control(scene, self._may)
        self._told, self._pane = Pane(), Pane()
        self._own = self.work.control(Field("Plan", "http-503:0.5", PLAN, self._pane.show), self._may_own)
        self._scene.observe(lambda _: self._tell(), "value")
        on = self.work.button("Switch on", "Switching on.", self._switch_on, self._may)
        off = self.work.button("Switch all off", "Switching off.", self._switch_off, self._may)
        look = self.work.button("See what struck", "Looking.", self._look, self._may)
        self._tell()
        buttons = HBox([on, off, look], layout=ROW)
        return [self._scene, self._told, self._own, buttons, self.work.line, self._pane]

    def look(self) -> None:
        """See what has struck, unless something else is done here."""
        self.work.do("Looking.", self._look, self._own)  # somebody may be writing there

    def _tell(self) -> None:
        plan, told = SCENES[self._scene.value]
        self._told.show(element("p", told))
        if plan:
            self._own.value = plan
        self._own.disabled = not allowed(self._may_own)

    def _may(self) -> bool:
        """The faults are those of this home's sandbox; a connection may follow another one."""
        if not self.desk.is_chosen or (ready := self.desk.connection.settings.sandbox) is None:
            return False
        own = self.desk.home.path / "sandbox" / "ready.json"
        return (self.desk.connection.path / ready).resolve() == own.resolve()

    def _may_own(self) -> bool:
        return self._may() and self._scene.value == OWN

    def _switch_on(self) -> None:
        self._pane.fill(lambda: _plan(practice.change_faults(self.desk.home, self._own.value)))

    def _switch_off(self) -> None:
        self._pane.fill(lambda: _plan(practice.change_faults(self.desk.home, "")))

    def _look(self) -> None:
        if allowed(self._may):
            self._pane.fill(lambda: _plan(practice.change_faults(self.desk.home)))
        else:
            self._pane.show(
                element("p", "Faults are for this home's sandbox: choose a connection that practises there.")
            )


def _plan(told: Mapping[str, Any]) -> Html:
    struck = told["struck"]
    rows = [(one["kind"], one.get("operation", "each call"), str(struck.get(one["kind"], 0))) for one in told["faults"]]
    if not rows:
        return card("Faults", element("p", "None: the sandbox behaves."))
    told_all = element("p", "They strike whoever uses this sandbox, until they are used up or switched off.")
    return card("Faults", table(("kind", "strikes at", "has struck"), rows), told_all)
