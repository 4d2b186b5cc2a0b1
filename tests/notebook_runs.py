"""A notebook to run headless, and what its run left: texts, the mode of a file, an outcome that follows its schema."""

import json
import stat
from pathlib import Path

import jsonschema

PARAMETERS = 'name: str = "practice"  # whose\nnumber: int = 1  # how many\n'
SCHEMA = json.loads((Path(__file__).parents[1] / "docs/reference/outcome.schema.json").read_text())


def outcome(code):
    return f"from ucl_helpers.models import Outcome\nOutcome('said', name, exit_code={code})"


def write_notebook(path, *sources, parameters=PARAMETERS):
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{index}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for index, source in enumerate([parameters, *sources])
    ]
    cells[0]["metadata"]["tags"] = ["parameters"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    return path


def printed(path):
    cells = json.loads(path.read_text())["cells"]
    streams = (output for cell in cells for output in cell.get("outputs", ()) if output["output_type"] == "stream")
    return "".join("".join(stream["text"]) for stream in streams)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def must_follow_the_schema(told):
    """Raises an error that names what does not."""
    jsonschema.Draft202012Validator(SCHEMA).validate(told)
