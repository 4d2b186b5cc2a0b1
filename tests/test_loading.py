"""What loads papermill leaves grammars alone that take a second, until somebody has a text to check by them."""

import subprocess
import sys

import pytest

LOAD = """
import gc, sys
from contextlib import nullcontext
from ucl_helpers.automation.loading import lightly
how, package, form, good, bad = sys.argv[1:]
with lightly() if how == "lightly" else nullcontext():
    import papermill
print(package in sys.modules, gc.isenabled())
from jsonschema import FormatChecker
print(*[FormatChecker().conforms(text, form) for text in (good, bad)], package in sys.modules)
"""
FORMATS = {
    "iri": ("lark", "https://ucl.example/ü", "no IRI"),
    "uri": ("rfc3986_validator", "https://ucl.example/", "no URI"),
    "duration": ("arrow", "P3D", "three days"),
}


def loaded(how, form):
    package, good, bad = FORMATS[form]
    command = [sys.executable, "-c", LOAD, how, package, form, good, bad]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("form", FORMATS)
def test_a_grammar_is_loaded_once_there_is_something_to_check(form):
    assert loaded("lightly", form) == ["False True", "True False True"]


@pytest.mark.parametrize("form", FORMATS)
def test_otherwise_it_is_loaded_with_papermill(form):
    assert loaded("at once", form) == ["True True", "True False True"]
