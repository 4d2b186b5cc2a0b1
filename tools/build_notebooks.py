"""Run every notebook with its defaults in a new sandbox, and write it back executed and normalised.

``make notebooks`` runs this. It writes nothing unless all notebooks have run.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import nbformat

from tools.normalise_notebooks import dump, normalise
from ucl_helpers.headless.run import parameters_of, run_notebook
from ucl_sandbox import shared
from ucl_sandbox.state import owner_of

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SHOWN_HOME = "~/.local/share/ucl-helpers"


def build(notebook: Path, folder: Path) -> str:
    """Return the text of the executed and normalised notebook. Exit if the notebook fails."""
    print(notebook.name, flush=True)
    practice = {"practice": True} if "practice" in parameters_of(notebook) else {}
    result = run_notebook(notebook, folder / notebook.name, practice)
    if result.exit_code:
        sys.exit(f"{notebook.name} ended with {result.exit_code}: {result.error}")
    home = os.environ["UCL_HOME"]
    literal = {home: SHOWN_HOME, str(folder): "~", str(NOTEBOOKS.parent): ".", str(Path.home()): "~"}
    executed = nbformat.read(result.output, as_version=4)
    executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
    return dump(normalise(executed, literal))


def main() -> None:
    """Run the notebooks named on the command line, or all."""
    notebooks = [Path(name).absolute() for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb"))
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["UCL_HOME"] = str(folder / "home")
        os.chdir(folder)  # so that no notebook depends on its own folder
        with shared(folder / "home", linger=timedelta(seconds=1)) as sandbox:
            built = {notebook: build(notebook, folder) for notebook in notebooks}
        while owner_of(sandbox.state):  # it writes to the folder until it ends
            Event().wait(0.1)
    for notebook, text in built.items():
        notebook.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
