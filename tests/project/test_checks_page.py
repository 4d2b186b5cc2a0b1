"""docs/reference/checks.md lists every check on a new certificate, as ``ucl_helpers/checks.py`` makes and explains it.

``UCL_WRITE_TABLE=1 pytest tests/project/test_checks_page.py`` writes the table.
"""

import re
from pathlib import Path

import pytest
from certificates import checks
from written_tables import keep

import ucl_helpers.checks

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "checks.md"
HEAD = "| check | expected |"


def meanings(text):
    """What the list in the module's docstring says of each check."""
    entries = re.findall(r"^- ``(.+?)``: (.*?)(?=^- |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(meaning.replace("``", "`").split()) for name, meaning in entries}


def made():
    """Every check on a right certificate, by the name on the page: what it expects, and what it is if it fails."""
    check, found = ucl_helpers.checks._check, {}

    def recorded(name, passed, expected, text, *, otherwise="failed"):
        name = re.sub(r"^signed by .*", "signed by …", name)  # one for each link
        found[name] = (re.sub(r"\b[0-9a-f]{16}…", "FINGERPRINT", expected), otherwise)
        return check(name, passed, expected, text, otherwise=otherwise)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ucl_helpers.checks, "_check", recorded)
        checks()
    return found


def rows():
    means = meanings(ucl_helpers.checks.__doc__)
    return [
        (name, expected, otherwise, means[name][0].upper() + means[name][1:])
        for name, (expected, otherwise) in made().items()
    ]


def unexplained(text):
    """Differences between the checks and the list of their meanings."""
    named, there = meanings(text), made()
    lacking = [
        f"{name} has no meaning in the docstring of ucl_helpers/checks.py" for name in there if name not in named
    ]
    return lacking + [f"{name} is no check" for name in named if name not in there]


def test_every_check_is_explained_in_order():
    text = ucl_helpers.checks.__doc__
    assert unexplained(text) == []
    assert list(meanings(text)) == list(made())


def test_a_check_without_a_meaning_is_found():
    text = ucl_helpers.checks.__doc__.replace("- ``issuer``:", "- ``other``:")
    assert unexplained(text) == [
        "issuer has no meaning in the docstring of ucl_helpers/checks.py",
        "other is no check",
    ]


def test_the_page_has_a_line_for_every_check():
    keep(PAGE, HEAD, rows())
