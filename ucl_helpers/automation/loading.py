"""Papermill loaded without what would only be of use to others."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

_GRAMMAR, _ASKED = "rfc3987_syntax", "is_valid_syntax"


@contextmanager
def grammar_when_asked() -> Iterator[None]:
    """What is loaded within asks for the grammar of IRIs only when it has an IRI to check.

    Where JupyterLab is installed, jsonschema finds a package that makes a parser of that grammar as it is loaded, which
    takes a second. Papermill loads jsonschema, by nbformat, whose schema has no IRIs.
    """
    if _GRAMMAR in sys.modules or find_spec(_GRAMMAR) is None:
        yield
        return
    stand_in = ModuleType(_GRAMMAR)
    setattr(stand_in, _ASKED, _ask)
    sys.modules[_GRAMMAR] = stand_in
    try:
        yield
    finally:
        del sys.modules[_GRAMMAR]


def _ask(*given: str) -> object:
    return getattr(importlib.import_module(_GRAMMAR), _ASKED)(*given)
