"""Find, copy and read notebook files.

The toolkit's own notebooks are in the wheel, or in the checkout of an editable install.

Jupyter and papermill run notebooks that do not follow the format: with cell ids before they were allowed, without them
where they are required, twice the same, or with fields that the format does not know. So does ``ucl run``. A notebook
that was read here follows the format: 4.5, each cell with an id, code cells without outputs, which a run replaces.
"""

import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ucl_helpers.connection.files import make_output_folder, read_regular, storage, write
from ucl_helpers.errors import UsageError
from ucl_helpers.formats.texts import encoding_of, text_of
from ucl_private_files import UnsafePath, others_can_write, require_protected_folder

PACKAGE = Path(__file__).resolve().parent.parent


def packaged(folder: str) -> Path:
    """Return a folder that belongs to this installation, ``notebooks`` or ``docs``, from the wheel or the checkout."""
    installed = PACKAGE / f"_{folder}"
    return installed if installed.is_dir() else PACKAGE.parent / folder


def find_notebook(name: str) -> Path:
    """Return a notebook by path, by name (``02_maintain_connection``) or by the beginning of its name (``02``).

    Raises:
        UsageError: there is none, or more than one; the error lists the notebooks. Or a notebook of this name is in the
            current folder, and another user can change it.
    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        if name == path.name:  # the user may mean the toolkit's notebook of this name
            _refuse_planted(path)
        return path.resolve()
    if len(path.parts) > 1:
        raise UsageError(f"There is no notebook {name}.", remedy="Check the path; it must end in .ipynb.")
    ours = sorted(packaged("notebooks").glob("*.ipynb"))
    exact = [notebook for notebook in ours if name in (notebook.name, notebook.stem)]
    names = ", ".join(notebook.stem for notebook in ours)
    matches = exact or [notebook for notebook in ours if name and notebook.stem.startswith(name)]
    if len(matches) != 1:
        raise UsageError(
            f"{name!r} names {'more than one notebook' if matches else 'no notebook'}.",
            remedy=f"Give the path of an .ipynb file that is there, or one of {names}.",
        )
    return matches[0]


def packaged_text(notebook: Any) -> str:
    """Return the file of the toolkit's notebook whose cells a notebook has; an empty text if it is another notebook."""
    sources = {
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", ())
    }
    for path in sorted(packaged("notebooks").glob("*.ipynb")):
        text = path.read_text("utf-8")
        if sources and sources <= {"".join(cell["source"]) for cell in json.loads(text)["cells"]}:
            return text
    return ""


def _refuse_planted(path: Path) -> None:
    """Refuse a notebook in the current folder that another user has put there or can replace."""
    problem, status = "", path.stat()
    try:
        require_protected_folder(path.absolute())
    except UnsafePath as error:
        problem = f"it {error.problem}"
    if status.st_uid not in {os.geteuid(), 0}:
        problem = f"it belongs to user {status.st_uid}"
    elif others_can_write(status):
        problem = f"other users can change it (mode {stat.S_IMODE(status.st_mode):04o})"
    if problem:
        raise UsageError(
            f"{path} in the current folder was not run: {problem}.",
            remedy=f"If you trust it, name it as ./{path}. For the toolkit's notebook, leave out .ipynb.",
        )


_MOVED = re.compile(rb"(\]\()\.\./(docs/)|(\]\((?:\.\./)+)notebooks/")
"""Links between notebooks and pages, of which a folder of copies has the pages below the notebooks."""


def copy_notebooks(directory: Path) -> list[Path]:
    """Copy the notebooks into a folder, which is made if missing, and the pages that they link to into its ``docs``.

    A copy that is there already and equal is left. Returns the copies of the notebooks.

    Raises:
        UsageError: a file of that name is there and differs. Then nothing is copied.
        StorageFailed: the folder or a file cannot be read or written.
    """
    docs = packaged("docs")
    files = {directory / notebook.name: notebook for notebook in sorted(packaged("notebooks").glob("*.ipynb"))}
    found = [page for page in docs.glob("[!_]*/**/*.*") if page.suffix in {".md", ".svg"}]
    pages = {directory / "docs" / page.relative_to(docs): page for page in found}
    make_output_folder(directory)
    with storage("read", directory):
        texts = {copy: _MOVED.sub(rb"\1\2\3", path.read_bytes()) for copy, path in (files | pages).items()}
        there = {copy: read_regular(copy, follow=False) for copy in texts if copy.exists() or copy.is_symlink()}
    changed = [str(copy.relative_to(directory)) for copy, text in there.items() if text != texts[copy]]
    if changed:
        raise UsageError(
            f"{directory} has its own {', '.join(changed)}; nothing was copied.",
            remedy="Copy into another folder, or move these away.",
        )
    for copy in texts.keys() - there.keys():
        make_output_folder(copy.parent)
        write(copy, texts[copy], 0o644)
    return list(files)


NBFORMAT, MINOR = 4, 5
LARGEST_NOTEBOOK = 512 * 1024 * 1024
"""Bytes, with outputs."""
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FIELDS = {
    "code": {"cell_type", "id", "metadata", "source", "outputs", "execution_count"},
    **{kind: {"cell_type", "id", "metadata", "source", "attachments"} for kind in ("markdown", "raw")},
}
_SAVE_AGAIN = "Get the file again from its source. If JupyterLab opens it, you can also save it again there."


def read_notebook(notebook: Path) -> dict[str, Any]:
    """Return a notebook as JSON of format 4.5.

    Raises:
        UsageError: it is not a notebook, or is saved as UTF-16; says what it is.
        StorageFailed: it cannot be read.
    """
    with storage("read", notebook):
        data = read_regular(notebook, LARGEST_NOTEBOOK)
    content = _parsed(data, notebook)
    metadata = _object(content.get("metadata"))
    kernel = metadata.get("kernelspec")
    if isinstance(kernel, dict) and isinstance(kernel.get("name"), str):
        kernel.setdefault("display_name", kernel["name"])
    elif kernel is not None:
        del metadata["kernelspec"]
    used_ids = set[str]()
    cells = [_whole_cell(cell, number, notebook, used_ids) for number, cell in enumerate(content["cells"], 1)]
    return {"nbformat": NBFORMAT, "nbformat_minor": MINOR, "metadata": metadata, "cells": cells}


def _parsed(data: bytes, notebook: Path) -> dict[str, Any]:
    encoding, _ = encoding_of(data)
    if encoding != "utf-8":
        raise _not_a_notebook(notebook, f"it is saved as {encoding.upper()[:6]}, not as UTF-8; iconv converts it")
    try:
        content = json.loads(text_of(data))
    except (ValueError, RecursionError) as error:
        raise _not_a_notebook(notebook, f"it is not JSON ({error})" if data else "it is empty") from None
    if not isinstance(content, dict):
        raise _not_a_notebook(notebook, "it is JSON, but not an object")
    if (version := content.get("nbformat")) != NBFORMAT:
        raise _not_a_notebook(notebook, f"it has format {version!r}, and ucl reads format {NBFORMAT}")
    cells = content.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise _not_a_notebook(notebook, "it has no list of cells")
    return content


def _whole_cell(cell: Mapping[str, Any], number: int, notebook: Path, used_ids: set[str]) -> dict[str, Any]:
    kind, source = cell.get("cell_type"), cell.get("source")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise _not_a_notebook(notebook, f"cell {number} is neither code, markdown nor raw")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise _not_a_notebook(notebook, f"cell {number} has no source")
    metadata = _object(cell.get("metadata"))
    tags = metadata.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        del metadata["tags"]
    whole = {name: value for name, value in cell.items() if name in _FIELDS[kind]}
    whole |= {"cell_type": kind, "id": _own_id(cell.get("id"), used_ids), "metadata": metadata, "source": source}
    if kind == "code":
        whole |= {"outputs": [], "execution_count": None}
    try:
        json.dumps(whole, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = f"Cell {number} of {notebook} contains a lone surrogate, which UTF-8 cannot encode."
        raise UsageError(message, remedy="Remove this character from the cell.") from None
    return whole


def _object(value: object) -> dict[str, Any]:
    """Return a copy of metadata, without papermill's part if that is not an object."""
    copied = dict(value) if isinstance(value, dict) else {}
    if not isinstance(copied.get("papermill", {}), dict):
        del copied["papermill"]
    return copied


def _own_id(given: object, used_ids: set[str]) -> str:
    is_usable = isinstance(given, str) and _ID.fullmatch(given) and given not in used_ids
    chosen = str(given) if is_usable else secrets.token_hex(4)
    used_ids.add(chosen)
    return chosen


def _not_a_notebook(notebook: Path, reason: str) -> UsageError:
    return UsageError(f"{notebook} is not a Jupyter notebook of format {NBFORMAT}: {reason}.", remedy=_SAVE_AGAIN)
