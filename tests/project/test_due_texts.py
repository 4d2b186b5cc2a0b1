"""Every number of the due rule in a text is the one in ``ucl_helpers/policy.py``.

``UCL_WRITE_TABLE=1 pytest tests/project/test_due_texts.py`` writes the examples again. Sentences are for you to change:
a failure names the file and the words that it must contain.
"""

import json
import os
import re
from pathlib import Path

import pytest
from test_due_page import DAY, START, lasting

from ucl_helpers import policy
from ucl_helpers.connection.status import Status
from ucl_helpers.operate import monitoring
from ucl_helpers.operate.monitoring import Report, verdict
from ucl_helpers.policy import due
from ucl_helpers.tables import moment, span

ROOT = Path(__file__).parents[2]
SHARES = {0.05: "a twentieth", 0.1: "a tenth", 0.25: "a quarter", 0.4: "four tenths", 0.75: "three quarters"}
SPANS = {
    "1 min": "a minute",
    "1 h": "an hour",
    "12 h": "half a day",
    "1 d": "a day",
    "10 d": "ten days",
    "30 d": "a month",
}


def share(value):
    return SHARES.get(value, f"{value * 100:g} %")


def length(value):
    return SPANS.get(span(value), span(value))


def left(lifetime):
    """What is left of a certificate at its due date, without jitter."""
    part, _ = policy.SHORT_SHARE if lifetime < policy.SHORT_LIFETIME else policy.SHARE
    return length(lifetime * (1 - part))


# -- sentences ---------------------------------------------------------------------------------------------------------


def sentences():
    """The words that a file must contain, for each file with a number of the rule in its prose."""
    usual, short = policy.SHARE[1], policy.SHORT_SHARE[1]
    below, jitter = length(policy.SHORT_LIFETIME), share(policy.JITTER)
    refusal, refused_for = share(policy.REFUSAL_SHARE), length(policy.LONGEST_REFUSAL)
    late, too_late = share(monitoring.WARNING_SHARE), share(monitoring.CRITICAL_SHARE)
    least = length(policy.MIN_INTERVAL)
    return {
        "docs/reference/due.md": [
            f"after {usual} of its lifetime, or after {short} of it",
            below,
            f"{jitter} of the lifetime",
            f"{least} by default",
            share(policy.INTERVAL_SHARE),
            f"from {length(policy.FIRST_PAUSE)} to {length(policy.LONGEST_PAUSE)}",
            f"{share(policy.PAUSE_SHARE)} of the remaining time",
            f"{length(policy.LONGEST_ASKED)} at most",
            f"{refusal} of the time that was left",
            f"{refused_for} at most",
            f"{late} of the time between due date and end has passed",
            f"{too_late} have",
        ],
        "docs/reference/monitoring.md": [
            f"{too_late} of the time between due date and end have passed",
            f"{late} has",
        ],
        "docs/reference/settings.md": [f"else after {usual} of the lifetime"],
        "docs/reference/errors.md": [
            f"[{refusal} of the certificate's remaining validity]",
            f"not longer than {refused_for}",
        ],
        "docs/explanation/comparison.md": [
            f"| {usual} of the lifetime, less jitter; {short} of it below {below} |",
            f"after {usual} of the lifetime",
            f"jitter of up to {jitter} of the lifetime",
        ],
        "docs/how-to/outage.md": [f"({refused_for} at most)"],
        "deploy/prometheus/ucl.rules.yml": [late, too_late.split()[0]],
        "ucl_helpers/connection/settings.py": [
            f"instead of after {usual} of the lifetime",
            f"else after {usual} of the lifetime",
        ],
        "notebooks/02_maintain_connection.ipynb": [
            f"after {usual} of the certificate's lifetime",
            f"after {short} of it if the certificate lives less than {below}",
        ],
        "notebooks/04_fleet.ipynb": [
            f"It is {left(90 * DAY)} if the certificate lives 90 days, and {left(DAY)} if it lives one day."
        ],
        "notebooks/06_break_it_safely.ipynb": [
            f"exit code 3 for {refused_for} at most",
            f"waits for {refused_for} at most",
            f"| 3, after {refused_for} at most 4 |",
        ],
    }


def plain(path):
    """A file's prose on one line: of a notebook, its Markdown; without the marks of comments."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    elif path.endswith(".yml"):
        text = re.sub(r"^ *# ?", "", text, flags=re.MULTILINE)
    return " ".join(text.split())


def missing():
    return [
        f"{path} must say: {words}"
        for path, phrases in sentences().items()
        for words in phrases
        if words not in plain(path)
    ]


def test_the_sentences_have_the_numbers_of_the_rule():
    assert not missing(), "\n".join(["", *missing()])


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("SHARE", (0.61, "an odd share"), "notebooks/02_maintain_connection.ipynb"),
        ("SHORT_SHARE", (0.61, "an odd share"), "docs/explanation/comparison.md"),
        ("SHORT_LIFETIME", 11.5 * DAY, "docs/reference/due.md"),
        ("JITTER", 0.061, "docs/reference/due.md"),
        ("LONGEST_REFUSAL", 1.5 * DAY, "notebooks/06_break_it_safely.ipynb"),
    ],
)
def test_a_sentence_with_another_number_is_found(monkeypatch, name, value, path):
    monkeypatch.setattr(policy, name, value)
    assert any(line.startswith(f"{path} must say: ") for line in missing())


# -- examples: the connection of docs/reference/due.md -----------------------------------------------------------------

LIFE = lasting(90 * DAY)


def example(now=START):
    return due(LIFE, seed="prod/0d7f3a4c", now=now)


def checked():
    now = START + 30 * DAY + DAY / 24
    status = Status("prod", "valid", now, generation="000001-ab", validity=LIFE, due=example(now))
    return str(Report({"prod": verdict(status)}))


EXAMPLES = {
    "README.md": (
        r"^next renewal due   .*$",
        lambda: f"next renewal due   {moment(example().at)} ({example().reason})",
    ),
    "docs/how-to/headless.md": (
        r"^prod: not-due until .*$",
        lambda: f"prod: not-due until {moment(example().at)} ({example().reason})",
    ),
    "docs/how-to/monitoring.md": (r"^UCL OK - prod: .*$", checked),
    "docs/reference/outcome.md": (
        r'^ "notBefore": .*\n "notAfter": .*\n "dueAt": .*$',
        lambda: "\n".join(
            f' "{name}": "{moment(at)}",'
            for name, at in (("notBefore", START), ("notAfter", LIFE.not_after), ("dueAt", example().at))
        ),
    ),
}


@pytest.mark.parametrize("path", EXAMPLES)
def test_the_examples_are_computed(path):
    pattern, compute = EXAMPLES[path]
    text = (ROOT / path).read_text("utf-8")
    if os.environ.get("UCL_WRITE_TABLE"):
        text = re.sub(pattern, lambda _: compute(), text, flags=re.MULTILINE)
        (ROOT / path).write_text(text, "utf-8")
    assert re.findall(pattern, text, re.MULTILINE) == [compute()], f"{path} must say: {compute()}"


def test_the_notebooks_were_run_by_this_rule():
    """If this fails, run ``make notebooks``."""
    stale = {
        f"{path.name}: {rule}"
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for rule in re.findall(r"([a-z ]+) of 90 d, less", path.read_text("utf-8"))
        if not rule.endswith(policy.SHARE[1])
    }
    assert not stale, "\n".join(["run make notebooks:", *sorted(stale)])
