"""Where the notebooks are: in the wheel, or in the checkout of an editable install."""

import os
import stat
from pathlib import Path

from ucl_helpers.connection.files import make_output_folder, read_regular, storage, write
from ucl_helpers.errors import UsageError
from ucl_private_files import UnsafePath, others_can_write, require_protected_folder

PACKAGE = Path(__file__).resolve().parent.parent


def notebooks_directory() -> Path:
    """The folder of the notebooks that belong to this installation."""
    installed = PACKAGE / "_notebooks"
    return installed if installed.is_dir() else PACKAGE.parent / "notebooks"


def find_notebook(name: str) -> Path:
    """A notebook by path, by name (``02_maintain_connection``) or by the beginning of its name (``02``).

    Raises:
        UsageError: there is none, or more than one; the error lists the notebooks. Or a notebook of this name is in the
            current folder, and another user can change it.
    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        if name == path.name:  # it may have been meant as the name of one of ours
            _refuse_planted(path)
        return path.resolve()
    if len(path.parts) > 1:
        raise UsageError(f"There is no notebook {name}.", remedy="Check the path; it must end in .ipynb.")
    ours = sorted(notebooks_directory().glob("*.ipynb"))
    exact = [notebook for notebook in ours if name in (notebook.name, notebook.stem)]
    names = ", ".join(notebook.stem for notebook in ours)
    found = exact or [notebook for notebook in ours if name and notebook.stem.startswith(name)]
    if len(found) != 1:
        raise UsageError(
            f"{name!r} names {'more than one notebook' if found else 'no notebook'}.",
            remedy=f"Give the path of an .ipynb file that is there, or one of {names}.",
        )
    return found[0]


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


def copy_notebooks(directory: Path) -> list[Path]:
    """Copy the notebooks into a folder, which is made if missing; a copy that is there already and equal is left.

    Raises:
        UsageError: a file of that name is there and differs. Then nothing is copied.
        StorageFailed: the folder or a file cannot be read or written.
    """
    make_output_folder(directory)
    copies = {directory / notebook.name: notebook for notebook in sorted(notebooks_directory().glob("*.ipynb"))}
    with storage("read", directory):
        texts = {copy: notebook.read_bytes() for copy, notebook in copies.items()}
        there = {copy: read_regular(copy, follow=False) for copy in copies if copy.exists() or copy.is_symlink()}
    changed = [copy.name for copy, text in there.items() if text != texts[copy]]
    if changed:
        raise UsageError(
            f"{directory} has its own {', '.join(changed)}; nothing was copied.",
            remedy="Copy into another folder, or move these away.",
        )
    for copy in texts.keys() - there.keys():
        write(copy, texts[copy], 0o644)
    return list(copies)
