"""Renew step by step. Each button calls :class:`ucl_helpers.procedures.renewal.Renewal`, as in notebook 02."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ipywidgets import Checkbox, Dropdown, HBox
from pygments.lexers.graphql import GraphQLLexer

from ucl_helpers.errors import ConsentNeeded, HostChanged, SettledElsewhere, SubjectChanged
from ucl_helpers.models import Outcome
from ucl_helpers.operations import CONFIGURATION, SIGN
from ucl_helpers.procedures.renewal import Renewal
from ucl_helpers.progress import listening
from ucl_helpers.views.cards import code_block
from ucl_helpers.views.explorer.background import Fold, Pane
from ucl_helpers.views.explorer.panel import ROW, Panel, hooks_to_run
from ucl_helpers.views.markup import Html, card, element
from ucl_helpers.views.notebook import failure
from ucl_helpers.views.step_card import step_card


@dataclass(frozen=True)
class Step:
    """A step: its method, its button, what it does in a sentence, what it sends, and the text shown meanwhile."""

    name: str
    label: str
    description: str
    sends: str = ""
    meanwhile: str = ""


STEPS = (
    Step(
        "configuration",
        "1 Configuration",
        "Ask UCL, as the certificate in use, which subject the new one must have.",
        CONFIGURATION,
        "Asking UCL for the configuration.",
    ),
    Step(
        "request",
        "2 Key and request",
        "Make a private key and a signing request; both are on disk before the request is sent.",
        meanwhile="Making key and request.",
    ),
    Step("sign", "3 Sign", "Send the request to UCL, which signs it.", SIGN, "Waiting for the signature."),
    Step(
        "decode",
        "4 Decode and check",
        "Decode the chain and check everything about it.",
        meanwhile="Decoding and checking.",
    ),
    Step(
        "verify",
        "Verify",
        "Let the new certificate make a call itself, over a new TLS connection.",
        CONFIGURATION,
        "The new certificate calls UCL.",
    ),
    Step(
        "activate", "Activate", "Put it to use: one rename. Until here the old one is in use.", meanwhile="Activating."
    ),
)
SIZES = (("the connection's setting", 0), ("2048 bits, quick", 2048), ("3072 bits", 3072), ("4096 bits", 4096))


class Steps(Panel):
    """The four steps of the tutorial, then verify and activate."""

    title: ClassVar[str] = "Renew"

    def parts(self) -> list[Any]:
        """Return the controls for all steps, a button for each step, and the results below all buttons.

        So a result, whatever its length, moves no button.
        """
        self._renewal: Renewal | None = None
        self._done, self._offered = 0, ""
        self._panes = [Fold(step.label) for step in STEPS]
        self._note = Pane()
        self._size = self.work.control(Dropdown(options=SIZES, description="Key length"), self._may_choose)
        boxes: dict[type[ConsentNeeded], str] = {
            SubjectChanged: "Accept the new subject",
            HostChanged: "Accept the new host",
        }
        self._consent = {
            kind: self.work.control(Checkbox(description=text, indent=False), self._may_begin)
            for kind, text in boxes.items()
        }
        for box in self._consent.values():
            box.layout.display = "none"
        all_left = self.work.button(
            "Run the remaining steps", "Renewing.", self._all, self._may_go_on, button_style="primary"
        )
        again = self.work.button("Begin again", "Beginning again.", self._drop, self._may_begin)
        lines = [self._line(number, step) for number, step in enumerate(STEPS)]
        head = HBox([self._size, all_left, again, *self._consent.values()], layout=ROW)
        return [self._note, head, *lines, *self._panes]

    def take(self, number: int) -> bool:
        """Do a step, show its result and fold the others; return whether it succeeded."""
        step, pane = STEPS[number], self._panes[number]

        def report(text: str) -> None:
            self.work.say(text or step.meanwhile)
            if text:
                pane.add_wait(text)

        for other in self._panes:
            other.fold()
        self.work.say(step.meanwhile)
        pane.begin(*_sending(step))
        try:
            with listening(report):
                error = pane.fill(lambda: list(self._taken(number)), self.desk.name)
        finally:
            self._done = sum(step.name in self._renewal.results for step in STEPS) if self._renewal else 0
        if isinstance(error, SettledElsewhere):  # nothing is left to resume: step 1 starts a new renewal
            self._end()
            for other in self._panes[:number] + self._panes[number + 1 :]:
                other.show()
        elif isinstance(error, ConsentNeeded) and self._renewal is not None:
            box = self._consent[type(error)]
            box.layout.display = ""
            consent = element("p", f"To consent, tick “{box.description}” and press the button again.")
            pane.show(self._renewal.exchange or "", failure(error, self.desk.name), consent)
        return error is None

    def refresh(self) -> None:
        """Show an interrupted renewal, and select its key length, since another length would start a new one."""
        self._note.fill(self._unfinished, self.desk.name)

    def _unfinished(self) -> object:
        if not self.desk.is_chosen or self._renewal is not None:
            return ""
        status = self.desk.status()
        if not self._may_begin():
            message = f"{self.desk.name} cannot be renewed, since it is not established. Finish with: "
            return element("p", message, element("code", self.desk.connection.establish_command()))
        if status.under_way is None:
            return ""
        pending = self.desk.connection.pending.read_state()
        if pending.id != self._offered:  # only once, since the user may then choose another length
            self._offered = pending.id
            self._offer(pending.bits)
        return element("p", f"Under way is {status.under_way}. Step 1 looks at it and goes on from there.")

    def changed(self) -> None:
        """Forget the renewal, because another connection is chosen."""
        self._drop()
        self._offer(0)
        self._offered = ""

    def _line(self, number: int, step: Step) -> HBox:
        def may() -> bool:
            return self._may_go_on() and number <= self._done

        button = self.work.button(step.label, step.meanwhile, lambda: self.take(number), may)
        button.layout.width = "12em"
        description = Pane()
        description.show(element("span", step.description))
        return HBox([button, description], layout=ROW)

    def _taken(self, number: int) -> Iterator[object]:
        if self._renewal is None:
            self._renewal = Renewal.begin(self.desk.connection, key_length=self._size.value or None)
        self._renewal.accept_new_subject = self._consent[SubjectChanged].value
        self._renewal.accept_new_host = self._consent[HostChanged].value
        earlier = self._renewal.exchange
        result = getattr(self._renewal, STEPS[number].name)()
        if isinstance(result, Outcome):
            yield element("p", "The renewal is done. To start the next one, press “Begin again”.")
        yield step_card(self._renewal, result, earlier)
        if isinstance(result, Outcome):
            yield self.desk.status()
            yield hooks_to_run(self.desk.status())

    def _all(self) -> None:
        for number in range(self._done, len(STEPS)):
            if not self.take(number):
                break

    def _drop(self) -> None:
        self._end()
        for pane in self._panes:
            pane.show()

    def _end(self) -> None:
        if self._renewal is not None:
            self._renewal.close()
            self._offer(0)  # the next renewal need not have the same key length
        self._renewal, self._done = None, 0
        for box in self._consent.values():
            box.value, box.layout.display = False, "none"

    def _offer(self, bits: int) -> None:
        """Offer the key lengths and ``bits``, and select ``bits``; 0 stands for the connection's own setting."""
        is_listed = bits in dict(SIZES).values()
        with self._size.hold_sync():
            self._size.options = SIZES if is_listed else (*SIZES, (f"{bits} bits, as begun", bits))
            self._size.value = bits

    def _may_begin(self) -> bool:
        return self.desk.is_chosen and self.desk.connection.current is not None

    def _may_choose(self) -> bool:
        return self._may_begin() and self._renewal is None

    def _may_go_on(self) -> bool:
        return self._may_begin() and self._done < len(STEPS)


def _sending(step: Step) -> list[Html]:
    if not step.sends:
        return [element("p", step.meanwhile)]
    return [card("On its way", code_block(step.sends, GraphQLLexer()), element("p", "No answer yet."))]
