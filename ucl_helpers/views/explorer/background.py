"""Run slow actions in a thread, one after the other, so that no call blocks the page.

During an action the controls are off, and a line says what the action waits for. An error is shown in place of the
result, and the user can try the action again.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event, Lock
from typing import Any

from ipywidgets import HTML, Button, Layout

from ucl_helpers.errors import ChecksFailed, UCLError
from ucl_helpers.models import Checks
from ucl_helpers.progress import listening
from ucl_helpers.tables import Tabular
from ucl_helpers.views.cards import html_of, panel
from ucl_helpers.views.markup import Html, badge, card, element, joined
from ucl_helpers.views.notebook import failure

Act = Callable[[], object]
May = Callable[[], bool]


def always() -> bool:
    """Allow a control at any time except during an action."""
    return True


class Pane(HTML):
    """A place for results. New results replace earlier ones."""

    def fill(self, act: Act, name: str = "") -> UCLError | None:
        """Show what ``act`` returns, or the error that it raises for the connection ``name``; return the error.

        An error of checks is shown with the table of all checks.
        """
        try:
            self.show(act())
        except UCLError as error:
            table = Checks(error.checks) if isinstance(error, ChecksFailed) and error.checks else ""
            self.show(failure(error, name), table)
            return error
        except BaseException:
            self.show()  # the text shown so far is no longer true
            raise
        return None

    def show(self, *results: object) -> None:
        """Show results, one below the other."""
        flat = [part for result in results for part in (result if isinstance(result, list) else [result])]
        self._draw(joined(map(_html, flat)))

    def _draw(self, content: Html) -> None:
        # The line height of widgets suits one line only.
        self.value = element("div", content, style="line-height:1.45") if content else ""


def note(text: str) -> Pane:
    """Return a pane that shows a sentence."""
    pane = Pane()
    pane.show(element("p", text))
    return pane


class Fold(Pane):
    """A pane for one action, with a title that folds it, and with what the action has waited for."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title, self._state, self._content = title, "", Html()
        self._waits: list[str] = []

    def begin(self, *texts: Html) -> None:
        """Show texts while the action runs. The waits of an earlier action are forgotten."""
        self._waits, self._state = [], ""
        self.show(*texts)

    def add_wait(self, text: str) -> None:
        """Show one more text about a wait, for example a retry."""
        self._waits.append(text)
        self._draw(self._content)

    def fill(self, act: Act, name: str = "") -> UCLError | None:
        """Show the result or the error of ``act``, and name the state in the title."""
        error = super().fill(act, name)
        self._state = "failed" if error else "ok"
        self._draw(self._content)
        return error

    def fold(self) -> None:
        """Leave only the title in sight until the reader unfolds the pane."""
        self._draw(self._content, is_open=False)

    def _draw(self, content: Html, *, is_open: bool = True) -> None:
        self._content = content
        if not content:
            return super()._draw(content)
        title = joined((self._title, " ", badge(self._state) if self._state else ""))
        waits = card("Waits of this step", element("ol", *(element("li", text) for text in self._waits)))
        return super()._draw(panel(title, waits if self._waits else "", content, is_open=is_open))


class Work:
    """A thread, the line that says what it does, and the controls that are off during an action."""

    def __init__(self) -> None:
        self.line = HTML(layout=Layout(min_height="32px"))  # one line, so that nothing moves
        self.after: Act = always  # called after each action, to show what has changed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._controls: dict[Any, May] = {}
        self._done = 0  # number of actions that have ended; the page shows it to tests
        self._changing = Lock()
        self._idle = Event()
        self._idle.set()
        self.say("")

    def button(self, text: str, what: str, act: Act, may: May = always, **options: Any) -> Button:
        """Return a button that runs ``act``; the line shows ``what`` during the action."""
        button = Button(description=text, layout=Layout(width="auto"), **options)
        button.on_click(lambda _: self.do(what, act, button))
        return self.control(button, may)

    def control(self, control: Any, may: May = always) -> Any:
        """Register a control that is off during each action, and whenever ``may`` returns False."""
        self._controls[control] = may
        return control

    @property
    def is_idle(self) -> bool:
        """Whether no action runs."""
        return self._idle.is_set()

    def do(self, what: str, act: Act, pressed: Any = None) -> None:
        """Run ``act`` unless another action runs. The control ``pressed`` stays on, and keeps the keyboard's focus."""
        with self._changing:
            if not self.is_idle:
                return
            self._idle.clear()
            for control in self._controls:
                control.disabled = control.disabled or control is not pressed
            self.say(what)
        # In a copy of this context the kernel knows which cell its messages belong to.
        self._thread.submit(copy_context().run, self._run, what, act).add_done_callback(self._ended)

    def settled(self, seconds: float | None = None) -> bool:
        """Wait until no action runs, so many seconds at most; return False if one still does."""
        if not self._idle.wait(seconds):
            return False
        with self._changing:  # the controls are up to date once this lock is free
            return True

    def _run(self, what: str, act: Act) -> None:
        try:
            with listening(lambda text: self.say(text or what)):
                act()
        finally:
            self.after()

    def _ended(self, done: Future[None]) -> None:
        error = done.exception()
        with self._changing:  # a control that is on again accepts a click
            self._done += 1
            self._idle.set()
            for control, may in self._controls.items():
                control.disabled = not allowed(may)
            self.say("", _wrong(error) if error else "")

    def say(self, waits_for: str, wrong: str = "") -> None:
        """Show what the running action waits for, or an error. Of a failed try, only the next one."""
        message = f"Working: {waits_for[waits_for.rfind(' Try ') + 1 :]}" if waits_for else ""
        self.line.value = element("div", message, wrong, role="status", data_done=str(self._done))


def _html(result: object) -> str:
    if isinstance(result, Tabular):
        return html_of(result)
    if isinstance(html := getattr(result, "html", None), str):  # of a picture, or of a step's card
        return html
    return result if isinstance(result, Html) else str(result)


def allowed(may: May) -> bool:
    """Return whether a control may be used; False if the connection cannot be read. The panels show the reason."""
    try:
        return may()
    except UCLError:
        return False


def _wrong(error: BaseException) -> Html:
    if isinstance(error, UCLError):
        return html_of(failure(error))
    message = f"{type(error).__name__}: {error}"
    return card("A defect of the explorer", element("p", message), element("p", "Nothing is lost; please report it."))
