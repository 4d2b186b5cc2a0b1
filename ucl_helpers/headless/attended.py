"""Does a person run this notebook, or a program?"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_BY_HAND = {"jupyter-nbconvert", "jupyter-execute", "nbconvert", "nbclient", "voila"}
_WORDS = 3  # of a command line: interpreter, -m, program


def is_attended() -> bool:
    """Return whether somebody can be asked, by the current cell's request; True outside of a notebook.

    JupyterLab and others with a person in front of them allow input (``allow_stdin`` of Jupyter's protocol). Papermill,
    ``ucl run`` and services that run notebooks do not. ``jupyter nbconvert --execute`` and ``jupyter execute`` do not
    either, but they take no parameters, so no connection can have been meant: they count as a person's, as Voilà does.
    """
    ipython: Any = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython else None
    if kernel is None:
        return True
    request = kernel.get_parent("shell").get("content", {})
    return bool(request.get("allow_stdin", True)) or _started_by_hand(os.environ.get("JPY_PARENT_PID", ""))


def _started_by_hand(starter: str) -> bool:
    import psutil  # which every kernel has, since ipykernel needs it

    with suppress(ValueError, psutil.Error):
        words = psutil.Process(int(starter)).cmdline()[:_WORDS]
        return not _BY_HAND.isdisjoint(Path(word).stem for word in words)
    return False
