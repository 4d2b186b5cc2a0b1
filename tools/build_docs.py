"""Build the documentation site in ``build/site``, for ``make docs``.

It executes the notebooks with their defaults, in a temporary home folder and with one sandbox. Any error, warning or
broken link within the site makes it exit with 1. It does not follow links to other hosts, because some machines cannot
reach them.
"""

import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from sphinx.cmd.build import main as sphinx

from ucl_sandbox import shared
from ucl_sandbox.state import owner_of

ROOT = Path(__file__).parent.parent
SITE, DOCTREES, EXECUTED = (ROOT / "build" / name for name in ("site", "doctrees", "jupyter_execute"))
STRICT = ["--nitpicky", "--fail-on-warning", "--keep-going"]


def build() -> int:
    """Build the whole site again with Sphinx. Return its exit code."""
    for folder in (SITE, DOCTREES, EXECUTED):
        shutil.rmtree(folder, ignore_errors=True)
    folders = ["--conf-dir", str(ROOT / "docs"), "--doctree-dir", str(DOCTREES), str(ROOT), str(SITE)]
    return sphinx(["--builder", "html", *STRICT, *folders])


def main() -> None:
    """Build the site, and exit with the code of Sphinx."""
    with TemporaryDirectory(prefix="ucl-docs-") as name:
        home = Path(name).resolve() / "home"
        os.environ |= {"UCL_HOME": str(home), "UCL_PRACTICE": "1"}
        with shared(home, linger=timedelta(seconds=1)) as sandbox:
            code = build()
        while owner_of(sandbox.state):  # it writes to the folder until it ends
            Event().wait(0.1)
    sys.exit(code)


if __name__ == "__main__":
    main()
