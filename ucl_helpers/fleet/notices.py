"""Notices of a fleet: that an endpoint fails for now is told once a day, not by each connection that finds it so.

::

    HOME/fleet/told/…     a file for each endpoint and its recipients; made when it is told, removed when it is over

The first connection tells it, by its own settings, and tells that it is over. That it has become critical is told once
more, since that is what somebody has to act on. Connections with other recipients tell
theirs. What lasts, and what says nothing of the endpoint, is told by each connection, as by ``ucl renew``.
"""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from ucl_helpers.connection import files
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import RetryLater, UCLError
from ucl_helpers.fleet.breaker import endpoint_of, verdict
from ucl_helpers.operate.notices import REMIND_AFTER, is_critical, notify


def notify_once(connection: Connection, error: UCLError) -> None:
    """Tell of a failure, unless it is a temporary one of the endpoint, and told already for another connection."""
    if verdict(error) is None or not isinstance(error, RetryLater):
        notify(connection, error)
        return
    note = _note(connection, critical=is_critical(connection, error))
    if note and _is_first(connection, note) and not notify(connection, error):
        note.unlink(missing_ok=True)


def is_over(connection: Connection) -> None:
    """Remember that the endpoint works: the next outage is told again."""
    for critical in (False, True):
        if note := _note(connection, critical=critical):
            with suppress(OSError):
                note.unlink(missing_ok=True)


def _note(connection: Connection, *, critical: bool) -> Path | None:
    """Return the file that says that it is told; None when the connection names no recipient."""
    with suppress(UCLError):
        if urls := connection.settings.notices.urls:
            mark = hashlib.sha256("\n".join([endpoint_of(connection.url), *urls]).encode()).hexdigest()[:16]
            return connection.home.folder("fleet") / "told" / f"{mark}{'-critical' if critical else ''}"
    return None


def _is_first(connection: Connection, note: Path) -> bool:
    """Whether no other process has told it today; the first of several at once makes the file."""
    with suppress(UCLError):
        files.make_private_folder(connection.home.path, note.parent.parent, note.parent)
    with suppress(OSError):
        if time.time() - note.stat().st_mtime >= REMIND_AFTER.total_seconds():
            note.unlink(missing_ok=True)
    try:
        note.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # a notice too many is better than none
        return True
    return True
