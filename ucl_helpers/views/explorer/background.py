"""What takes time is done in a thread, one thing after the other, so that no call blocks the page.

While something is done, its controls are off and a line says what is waited for. Errors are shown in the place of a
result, and what failed can be tried again.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event, Lock
from typing import Any

from ipywidgets import HTML, Button, Layout

from ucl_helpers.errors import UCLError
from ucl_helpers.progress import listening
from ucl_helpers.tables import Tabular
from ucl_helpers.views.cards import html_of
from ucl_helpers.views.charts import Picture
from ucl_helpers.views.markup import Html, card, element, joined
from ucl_helpers.views.notebook import failure

Act = Callable[[], object]
May = Callable[[], bool]


def always() -> bool:
    """For a control that is off only while something is done."""
    return True


class Pane(HTML):
    """A place for results: what there was before makes way."""

    def fill(self, act: Act, name: str = "") -> UCLError | None:
        """Show what ``act`` returns, or the error that it raises, as of the connection ``name``; returns the error."""
        try:
            self.show(act())
        except UCLError as error:
            self.show(failure(error, name))
            return error
        except BaseException:
            self.show()  # what was said meanwhile is true no longer
            raise
        return None

    def show(self, *results: object) -> None:
        """Show results, one below the other."""
        shown = joined(_html(result) for result in _flat(results))
        self.value = element("div", shown, style="line-height:1.45") if shown else ""  # widgets' own is for one line


class Work:
    """One thread, the line that says what it does, and the controls that are off meanwhile."""

    def __init__(self) -> None:
        self.line = HTML(layout=Layout(min_height="2em"))
        self.after: Act = always  # looks at what has changed, once something has been done
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._controls: dict[Any, May] = {}
        self._done = 0  # how much: who watches the page sees by it that something has come to its end
        self._changing = Lock()
        self._idle = Event()
        self._idle.set()
        self._say("")

    def button(self, text: str, what: str, act: Act, may: May = always, **options: Any) -> Button:
        """A button that has ``act`` done; ``what`` says so meanwhile."""
        button = Button(description=text, layout=Layout(width="auto"), **options)
        button.on_click(lambda _: self.do(what, act, button))
        return self.control(button, may)

    def control(self, control: Any, may: May = always) -> Any:
        """Something that is off while anything is done, and whenever it ``may`` not be used."""
        self._controls[control] = may
        return control

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done."""
        return self._idle.is_set()

    def do(self, what: str, act: Act, pressed: Any = None) -> None:
        """Have it done, unless something else is. What was ``pressed`` stays on, and keeps the keyboard's focus."""
        with self._changing:
            if not self.is_idle:
                return
            self._idle.clear()
            for control in self._controls:
                control.disabled = control.disabled or control is not pressed
            self._say(what)
        # In a copy of this context the kernel knows which cell its messages belong to.
        self._thread.submit(copy_context().run, self._run, what, act).add_done_callback(self._ended)

    def settled(self, seconds: float | None = None) -> bool:
        """Wait until nothing is done any more, so many seconds at most; False if something still is."""
        if not self._idle.wait(seconds):
            return False
        with self._changing:  # the controls are as they should be by now
            return True

    def _run(self, what: str, act: Act) -> None:
        try:
            with listening(lambda text: self._say(text or what)):
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
            self._say("", _wrong(error) if error else "")

    def _say(self, waits_for: str, wrong: str = "") -> None:
        message = f"⏳ {waits_for}" if waits_for else ""
        self.line.value = element("div", message, wrong, role="status", data_done=str(self._done))


def _flat(results: Iterable[object]) -> Iterable[object]:
    for result in results:
        if isinstance(result, list | tuple):
            yield from _flat(result)
        else:
            yield result


def _html(result: object) -> str:
    match result:
        case Tabular():
            return html_of(result)
        case Picture():
            return result.html
    return result if isinstance(result, Html) else str(result)


def allowed(may: May) -> bool:
    """What cannot even be looked at offers nothing to do; the panels tell why."""
    try:
        return may()
    except UCLError:
        return False


def _wrong(error: BaseException) -> Html:
    if isinstance(error, UCLError):
        return html_of(failure(error))
    message = f"{type(error).__name__}: {error}"
    return card("A defect of the explorer", element("p", message), element("p", "Nothing is lost; please report it."))
