"""Where the records of runs are kept: ``HOME/runs``, each under its moment, the oldest of very many thrown away.

::

    HOME/runs/02_maintain_connection-20260131T235959.123456Z.ipynb          the executed notebook
    HOME/runs/02_maintain_connection-20260131T235959.123456Z.outcome.json   what came of it
    HOME/runs/02_maintain_connection-prod-looked.outcome.json               the last look that found nothing to do

A look that finds nothing to do replaces the one before, so that a thousand of them displace no record of a run.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

KEEP = 200
"""So many runs are kept."""

_YOUNG = timedelta(days=1)
_RUN = re.compile(r"(.+-(\d{8}T\d{6}\.\d{6}Z))\.(?:ipynb|outcome\.json)")


def default_output(folder: Path, notebook: Path, now: datetime) -> Path:
    """Where an executed notebook is kept: ``folder/02_maintain_connection-20260131T235959.123456Z.ipynb``.

    Args:
        folder: the folder of all runs.
        notebook: the notebook that is run.
        now: an aware moment.
    """
    return folder / f"{notebook.stem}-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.ipynb"


def looked_path(folder: Path, notebook: Path, connection: str) -> Path:
    """Where the outcome of the last look at a connection lies that found nothing to do."""
    return folder / f"{notebook.stem}-{connection}-looked.outcome.json"


def prune(folder: Path, now: datetime, keep: int = KEEP) -> None:
    """Throw away the oldest runs: all but ``keep``, and but those younger than a day. Other files are left alone."""
    with suppress(OSError):  # another run may do the same; what cannot be removed stays
        runs: dict[tuple[str, str], list[Path]] = {}
        for path in folder.iterdir():
            if found := _RUN.fullmatch(path.name):
                runs.setdefault((found[2], found[1]), []).append(path)
        for (moment, _), paths in sorted(runs.items())[:-keep]:
            if now - datetime.strptime(moment, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC) > _YOUNG:
                for path in paths:
                    path.unlink(missing_ok=True)
