"""Normalise executed notebooks, so that two runs give the same: ``python -m tools.normalise_notebooks FILE …``."""

import copy
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from tools.stand_ins import StandIns

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
VOLATILE = {"papermill", "execution", "ExecuteTime", "collapsed", "scrolled", "trusted"}
NOTHING = ({}, {"text/plain": "", "text/html": ""})  # a progress line leaves an empty output
WIDGET = "application/vnd.jupyter.widget-view+json"


def normalise(notebook: Mapping[str, Any], literal: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return an executed notebook without the data of its run. Do not change its sources.

    Args:
        notebook: as nbformat reads it. Papermill's metadata has the start of the run. Without it the notebook has been
            normalised before, and its times do not change.
        literal: texts of the machine, for example folders, and their replacements.
    """
    result: dict[str, Any] = copy.deepcopy(dict(notebook))
    began = result["metadata"].get("papermill", {}).get("start_time")
    stand_ins = StandIns(datetime.fromisoformat(began) if began else None, literal or {})
    result["metadata"] = {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}}
    for cell in result["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key not in VOLATILE and value}
    codes = [cell for cell in result["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(codes, start=1):
        cell["execution_count"] = number
        cell["outputs"] = [_numbered(output, number) for output in _merged(cell["outputs"])]
    for change in (stand_ins.learn, stand_ins.write):
        for cell in codes:
            cell["outputs"] = _changed(cell["outputs"], change)
    return result


def dump(notebook: Mapping[str, Any]) -> str:
    """Return the text of a notebook as it is written to a file."""
    return str(nbformat.writes(nbformat.from_dict(notebook))) + "\n"


def _merged(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove widgets and empty outputs, and join the pieces of each stream, because their number depends on timing."""
    result: list[dict[str, Any]] = []
    for output in outputs:
        if WIDGET in output.get("data", {}):
            del output["data"][WIDGET]
        if result and output["output_type"] == "stream" and output["name"] == result[-1].get("name"):
            result[-1]["text"] += output["text"]
        elif output.get("data") not in NOTHING:
            result.append(output)
    return result


def _numbered(output: dict[str, Any], number: int) -> dict[str, Any]:
    return {**output, "execution_count": number} if "execution_count" in output else output


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with a change applied to every text except images."""
    if isinstance(value, dict):
        return {key: item if key.startswith("image/p") else _changed(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def main() -> None:
    """Normalise the files named on the command line in place."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(dump(normalise(nbformat.read(path, as_version=4), {str(Path.home()): "~"})), encoding="utf-8")


if __name__ == "__main__":
    main()
