"""Renew one connection on a worker, with plain data as input and output.

The input is the name of a connection and of the generation that is to be replaced, never a key. The output is a result,
errors included. A task may run twice, because a worker that was killed may have finished it. So the connection must
still have the generation that it had when the run began, which is checked under its lock.

A temporary failure of an endpoint sends one notice a day, not one for each connection::

    HOME/fleet/told/…     a file for each endpoint and its recipients, made with the notice, removed when it is over

The first connection sends it, by its own settings, and one more notice when the failure becomes critical. Connections
with other recipients notify theirs. Other errors are sent for each connection, as by ``ucl renew``.
"""

import hashlib
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ucl_helpers.connection import files
from ucl_helpers.connection.status import needs, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import RetryLater, StorageFailed, UCLError
from ucl_helpers.fleet.pacing import endpoint_of, verdict
from ucl_helpers.fleet.report import NOT_DUE, RENEWED, RENEWED_BEFORE, Result, failure
from ucl_helpers.operate.notices import REMIND_AFTER, complete_run, is_critical, notify, report_failure
from ucl_helpers.procedures.renewal import renew
from ucl_helpers.wire.client import WAITS_WHEN_LIMITED


def renew_one(home: str, name: str, base: str | None, force: bool = False, again: bool = False) -> Result:
    """Renew a connection; every error comes back as data.

    Args:
        home: path of the home folder, as this machine sees it.
        name: of the connection.
        base: the generation that it had when the run began; if it has another one by now, there is nothing to do.
        force: also when it is not due, and also during the pause after an earlier failure.
        again: it was tried in this run before. The run decides when, so the pause after a failure does not count. A
            connection that is not due, and was not sent for signing, is still not renewed.
    """
    began, waits = time.monotonic(), WAITS_WHEN_LIMITED.set(False)
    try:
        result = _renew(Home(home).connection(name), base, force=force, again=again)
    except OSError as error:
        result = failure(StorageFailed(f"The system reported an error: {error.strerror or type(error).__name__}."))
    except Exception as error:
        result = failure(error)
    finally:
        WAITS_WHEN_LIMITED.reset(waits)
    return replace(result, seconds=round(time.monotonic() - began, 3))


def _renew(connection: Connection, base: str | None, *, force: bool, again: bool) -> Result:
    try:
        with connection.lock.held():
            # Another revision of the same identity is no renewal.
            is_replaced = base is not None and connection.require_current().stem != base.partition(".")[0]
            insists = not is_replaced and (force or (again and _has_work(connection)))
            outcome = renew(connection, only_if_due=not insists)  # also settles what an attempt left
    except UCLError as error:
        report_failure(connection, error, send=notify_once)
        raise
    if outcome.outcome == RENEWED:
        forget_notice(connection)
    word = RENEWED_BEFORE if is_replaced and outcome.outcome == NOT_DUE else outcome.outcome
    hook_error = complete_run(connection, outcome).error
    result = failure(hook_error, word) if hook_error else Result(word)
    return replace(result, fingerprint=outcome.facts.get("fingerprint"))


def _has_work(connection: Connection) -> bool:
    """Return whether it is due, or a request of it was sent for signing."""
    need = needs(status_of(connection, whole=False))
    return need is not None and need.renews


def notify_once(connection: Connection, error: UCLError) -> None:
    """Send a notice, unless the failure is a temporary one of the endpoint and another connection has sent it."""
    if verdict(error) is None or not isinstance(error, RetryLater):
        notify(connection, error)
        return
    mark = _mark(connection, critical=is_critical(connection, error))
    if mark and _is_first(connection, mark) and not notify(connection, error):
        mark.unlink(missing_ok=True)


def forget_notice(connection: Connection) -> None:
    """Record that the endpoint works, so that the next outage sends a notice again."""
    for critical in (False, True):
        if mark := _mark(connection, critical=critical):
            with suppress(OSError):
                mark.unlink(missing_ok=True)


def _mark(connection: Connection, *, critical: bool) -> Path | None:
    """Return the file that records the notice; None when the connection names no recipient."""
    with suppress(UCLError):
        if urls := connection.read_settings().notices.urls:
            digest = hashlib.sha256("\n".join([endpoint_of(connection.url), *urls]).encode()).hexdigest()[:16]
            return connection.home.folder("fleet") / "told" / f"{digest}{'-critical' if critical else ''}"
    return None


def _is_first(connection: Connection, mark: Path) -> bool:
    """Return whether no other process has sent this notice today. Of several at once, the first makes the file."""
    with suppress(UCLError):
        files.make_private_folder(connection.home.path, mark.parent.parent, mark.parent)
    with suppress(OSError):
        if time.time() - mark.stat().st_mtime >= REMIND_AFTER.total_seconds():
            mark.unlink(missing_ok=True)
    try:
        mark.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # a notice too many is better than none
        return True
    return True
