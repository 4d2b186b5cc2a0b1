"""Papermill loaded without what would only be of use to others."""

import gc
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from types import ModuleType

_FORMATS: Mapping[str, Mapping[str, object]] = {
    "isoduration": {"parse_duration": None, "DurationParsingException": ValueError},  # of which it is one
    "rfc3986_validator": {"validate_rfc3986": None},
    "rfc3987_syntax": {"is_valid_syntax": None},
}
"""What jsonschema takes from packages that check a format; None for a function, which is loaded when it is called."""


@contextmanager
def lightly() -> Iterator[None]:
    """What is loaded within asks for grammars of URIs and durations only when it has one to check.

    Where JupyterLab is installed, jsonschema finds packages that make a parser as they are loaded, which takes a
    second. Papermill loads jsonschema, by nbformat, whose schema has none of these formats. Garbage is not looked for
    meanwhile: what is loaded stays.
    """
    asked = [name for name in _FORMATS if name not in sys.modules and find_spec(name) is not None]
    for name in asked:
        sys.modules[name] = stand_in = ModuleType(name)
        for attribute, there in _FORMATS[name].items():
            setattr(stand_in, attribute, there or partial(_call, name, attribute))
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        for name in asked:
            del sys.modules[name]
        if collects:
            gc.enable()


def _call(module: str, function: str, *given: object, **named: object) -> object:
    return getattr(importlib.import_module(module), function)(*given, **named)
