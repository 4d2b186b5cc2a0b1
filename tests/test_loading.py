"""What loads papermill leaves a grammar alone that takes a second, until somebody has an IRI to check."""

import subprocess
import sys

LOAD = """
import sys
from contextlib import nullcontext
from ucl_helpers.automation.loading import grammar_when_asked
with grammar_when_asked() if sys.argv[1] == "when asked" else nullcontext():
    import papermill
print("lark" in sys.modules)
from jsonschema import FormatChecker
print(*[FormatChecker().conforms(text, "iri") for text in ("https://ucl.example/ü", "no IRI")], "lark" in sys.modules)
"""


def loaded(how):
    command = [sys.executable, "-c", LOAD, how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_grammar_is_loaded_once_there_is_an_iri_to_check():
    assert loaded("when asked") == ["False", "True False True"]


def test_otherwise_it_is_loaded_with_papermill():
    assert loaded("at once") == ["True", "True False True"]
