"""The patterns of hard English stay rare in all that people read; and each is found where it is."""

import pytest

from tools.prose import FIELD, PATTERNS, counts, figures, prose

LIMIT = 2.0  # per 1,000 words, of each of the first four patterns: a reminder, above the figures of the day
FIRST = list(PATTERNS)[:4]
KINDS = ["README", "docs", "notebooks", "help", "comments", "docstrings", "messages"]


@pytest.fixture(scope="module")
def measured():
    return figures()


@pytest.mark.parametrize("kind", KINDS)
def test_the_patterns_are_rare(measured, kind):
    assert {name: measured[kind][name] for name in FIRST if measured[kind][name] > LIMIT} == {}
    assert measured[kind]["words"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("What was cut off goes on.", FIRST[0]),
        ("It ended. Who reads it resolves the link.", FIRST[0]),
        ("Nobody is called.", FIRST[1]),
        ("The key lies there.", FIRST[2]),
        ("It begins anew.", FIRST[3]),
        ("It failed; run it again.", ": and ;"),
        ("Name your connection.", "you, your"),
        ("A file, for example a key.", "for example, such as"),
    ],
)
def test_a_pattern_is_found(text, name):
    assert {pattern: number for pattern, number in counts(text).items() if number and pattern != "words"} == {name: 1}


@pytest.mark.parametrize(
    "text", ["What is a CSR?", "`ucl` shows what it did.", "The connection at 10:30 uses https://x."]
)
def test_a_plain_sentence_has_none(text):
    assert sum(counts(text).values()) == counts(text)["words"]


def test_code_and_tables_are_no_prose():
    assert prose("Run `nobody`.\n\n```\nnobody\n```\n\n| nobody | lies |\n").split() == ["Run", "code."]


def test_each_pattern_has_a_figure_of_the_field():
    assert len(FIELD) == len(PATTERNS)
