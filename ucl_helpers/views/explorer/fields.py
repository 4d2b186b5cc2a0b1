"""Fields for text. A secret that is pasted into a field does not stay in the page.

JupyterLab keeps the text of a field in the widget's model. It writes the models into the notebook if the user has
switched on *Save Widget State Automatically*. So each field has a form, such as the path of a file, and keeps only text
of that form in which no secret is recognised. Any other text is replaced by the empty string before the kernel's model
has it, and a message says what to enter instead. The message never repeats the text.

Not recognised: a secret that has the form of its field, such as ``hunter2`` as a name. Between the user's input and the
kernel's answer the page holds the text. This takes milliseconds, but lasts as long as a cell runs that was started
before, and for ever if the kernel is dead. A notebook that is saved in that time, with widget states, holds the text.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ipywidgets import Layout, Text
from traitlets import Unicode, validate

from ucl_helpers.connection.store import CONNECTION_NAME
from ucl_helpers.errors import SecretFound, UCLError, UsageError
from ucl_helpers.headless.parameters import refuse_secret
from ucl_helpers.models import Outcome
from ucl_helpers.urls import check_url
from ucl_helpers.views.notebook import failure

LONGEST = 10_000
"""Characters. A longer text is refused without a search."""

_FOR_ONE_TIME = "The explorer needs no token. To establish a connection, run: ucl establish NAME --token file:PATH"
_FOR_BEARER = "The explorer does not call the Director. Run in a terminal: ucl establish NAME --bearer file:PATH"
_MARKS = (  # the first that matches names the secret
    (re.compile(r"-----BEGIN "), "the content of a PEM file", ""),
    (re.compile(r"[?&]token=|%3Ftoken%3D|\bconnector-token\b", re.IGNORECASE), "a one-time token", _FOR_ONE_TIME),
    (re.compile(r"(?i)(^|authorization\W{1,3})(bearer|basic)\s+\S"), "a bearer token or a password", _FOR_BEARER),
    (re.compile(r"\b(token|bearer|passphrase|password|secret)[\"']?\s*[=:]", re.IGNORECASE), "a secret", ""),
    (re.compile(r"://[^/\s]*@"), "a URL with a password", ""),
)
_HEX = re.compile(r"[0-9A-Fa-f:]{48,}")
_WORD = re.compile(r"[A-Za-z0-9_+=-]{24,}")
_CHANGES = 0.4
"""Share of neighbours of different classes (upper case, lower case, digit, other). Random base64 has 0.65."""


@dataclass(frozen=True)
class Form:
    """The form of a text that a field accepts.

    Attributes:
        what: names it in messages, such as ``the path of a file``.
        accepts: whether a text has this form; the text has no blanks around it and is not empty.
        advice: what to enter, as a sentence.
        is_file: whether the text names a file that exists. Such a text may look random.
    """

    what: str
    accepts: Callable[[str], object]
    advice: str
    is_file: Callable[[str], bool] = lambda _: False

    def refusal(self, label: str, text: str) -> UCLError | None:
        """Return why the field ``label`` does not keep a text, or None if it does."""
        emptied = "The field was emptied, and the text was not used."
        if len(text) > LONGEST:
            return UsageError(f"{label}: a text of more than {LONGEST} characters. {emptied}", remedy=self.advice)
        if secret := _secret_in(text, may_look_random=self.is_file(text)):
            kind, advice = secret
            return SecretFound(f"{label}: this is {kind}, not {self.what}. {emptied}", remedy=advice or self.advice)
        if text and not self.accepts(text):
            return UsageError(f"{label}: this is not {self.what}. {emptied}", remedy=self.advice)
        return None


class Field(Text):
    """A line of text that is checked as a whole: when the user leaves the field or presses Enter.

    Args:
        label: shown before the field; names it in messages.
        hint: shown in the field while it is empty.
        form: what it takes.
        refused: shows the message when a text was refused.
    """

    # ipywidgets would send the text back to all pages before it is checked (JUPYTER_WIDGETS_ECHO).
    value = Unicode().tag(sync=True, echo_update=False)

    def __init__(self, label: str, hint: str, form: Form, refused: Callable[[Outcome], None]) -> None:
        self._form, self._refused = form, refused
        super().__init__(
            description=label,
            placeholder=hint,
            continuous_update=False,
            style={"description_width": "8em"},
            layout=Layout(width="min(40em, 95%)"),
        )

    @validate("value")
    def _only_its_form(self, proposal: dict[str, str]) -> str:
        # A validator, not an observer: the value that observers see and that is sent is the empty one.
        error = self._form.refusal(self.description, proposal["value"].strip())
        if error is None:
            return proposal["value"]
        self._refused(failure(error))
        return ""


def _secret_in(text: str, *, may_look_random: bool) -> tuple[str, str] | None:
    """Return the kind of secret that a text holds and the advice for that kind, or None. The one place that decides."""
    for mark, kind, advice in _MARKS:
        if mark.search(text):
            return kind, advice
    value: object = text
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
    try:
        refuse_secret("text", text)
        refuse_secret("text", value)
    except (SecretFound, UsageError):
        return "a private key or a token", ""
    if not may_look_random and (_HEX.search(text) or any(_looks_random(word) for word in _WORD.findall(text))):
        return "what looks like a key or a token", ""
    return None


def _looks_random(word: str) -> bool:
    classes = [(letter.isupper(), letter.islower(), letter.isdigit()) for letter in word]
    changes = sum(before != after for before, after in pairwise(classes))
    return all(map(any, zip(*classes, strict=True))) and changes >= _CHANGES * (len(word) - 1)


def _is_file(text: str) -> bool:
    with suppress(OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown user
        return Path(text).expanduser().is_file()
    return False


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~", "./", "../")) or _is_file(text)


def _is_address(text: str) -> bool:
    with suppress(UsageError):
        return not re.search(r"[?#]", check_url(text))
    return False


PATH = Form(
    "the path of a file",
    _is_path,
    "Enter the path of a file on the machine of the kernel, such as ~/ucl/key.pem. Only you should be able to read it.",
    _is_file,
)
ADDRESS = Form(
    "an https URL without parameters",
    _is_address,
    "Enter the certificate-secured Connector URL, such as https://gateway.example.com/connector/graphql.",
)
REFERENCE = Form(
    "a reference",
    re.compile(r"env:[A-Za-z_]\w*|file:.+").fullmatch,
    "Enter a reference: env:NAME for an environment variable of the kernel, or file:PATH.",
    lambda text: _is_file(text.removeprefix("file:")),
)
NAME = Form(
    "a name",
    CONNECTION_NAME.fullmatch,
    "Enter a name of your choice, such as prod: letters, digits, dot, dash and underscore, 64 at most.",
)
PLAN = Form(
    "a plan of faults",
    re.compile(r"[a-z0-9-]+(:[0-9.]+)?|\{.*", re.DOTALL).fullmatch,
    "Enter the name of a fault, such as http-503:0.5, or a plan in JSON.",
)
