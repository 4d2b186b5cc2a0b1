"""Notices of failure and recovery, through apprise (extra ``notify``), to the URLs that the settings refer to.

::

    HOME/connections/NAME/notices.json    {"told": {"3": "2026-01-31T06:25:00+00:00"}}

The file says what of a series of failures has been told, by exit code, and when: a failure that lasts is told once,
then once a day, and then that it is over. An outage of UCL is told as a warning, and once more when it is critical.
URLs hold passwords: they are looked up when there is something to send, and go to the process that sends through its
standard input. A notice that cannot be sent stops nothing; standard error and the journal say so, and the next run
tries again.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import remembered
from ucl_helpers.connection.exports import json_object
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import Busy, HookFailed, Outage, PossibleOutage, UCLError, UsageError, Waiting
from ucl_helpers.extras import require
from ucl_helpers.operate.monitoring import verdict
from ucl_helpers.tables import moment, printable, span

Kind = Literal["failure", "reminder", "recovery"]
REMIND_AFTER = timedelta(hours=23)  # a daily run may be early
LIMIT_SECONDS = 30
_OUTAGES = (Outage, PossibleOutage)
_SENDER = (sys.executable, "-P", "-m", "ucl_helpers.operate.sender")
_TYPES = {"failure": "failure", "reminder": "warning", "recovery": "success"}


def notify(connection: Connection, error: UCLError | None, *, clock: Clock = utc_now) -> bool:
    """Tell what a run of this connection came to, if somebody wants to know and does not yet.

    Args:
        connection: its settings say who is told, and after how many failures.
        error: what stopped the run, or the failed hook; None: all is well.
        clock: our clock, aware, UTC.

    Returns:
        Whether a notice was sent now.

    Raises:
        UsageError: this process holds the connection's lock; it would be held for as long as the network takes.
    """
    if connection.lock.is_ours:
        raise UsageError(
            f"Notices of {connection.name} cannot be sent while its lock is held.",
            remedy="Send them when it is released.",
        )
    try:
        notices = connection.settings.notices
    except UCLError:  # the run tells it
        return False
    if not notices.urls:
        return False
    try:
        told, now, known = _told(connection), clock(), remembered(connection)
        if error is None and known.failures:  # nothing was tried since
            return False
        last = known.last_error.error if known.last_error else ""
        critical = error is not None and is_critical(connection, error, clock)
        enough = critical or known.failures >= notices.after_failures or type(error).__name__ != last
        kind = what_to_tell(told, error, enough=enough, now=now, critical=critical)
        words = _words(connection, kind, error, known.failures, now) if kind else {}
        if kind == "failure" and isinstance(error, _OUTAGES) and not critical:
            words = {**words, "type": "warning"}
        if kind and _send(connection, notices.urls, kind, words):
            told = {**told, _matter(error, critical=critical): now} if error else {}
            text = json.dumps({"told": {code: at.isoformat(timespec="seconds") for code, at in told.items()}})
            files.write(connection.path / "notices.json", text.encode())
            return True
    except UCLError as problem:
        _warn(connection, str(problem))
    return False


def is_critical(connection: Connection, error: UCLError, clock: Clock = utc_now) -> bool:
    """Whether an error is an outage, which passes by itself, and yet there may be no time for that."""
    if not isinstance(error, _OUTAGES):
        return False
    with suppress(UCLError):
        return verdict(status_of(connection, clock, whole=False)).word == "CRITICAL"
    return False


def what_to_tell(
    told: Mapping[str, datetime], error: UCLError | None, *, enough: bool, now: datetime, critical: bool = False
) -> Kind | None:
    """What has to be told, or None. Pure.

    Args:
        told: what of this series has been told, by exit code, and when; empty when none is known of.
        error: of this run, or None. That another process is at work, or a pause is not over, is no failure.
        enough: whether so many attempts in a row have failed that it is to be told, or this was something else.
        now: the moment to judge.
        critical: whether a failure that passes by itself has lasted too long for that.
    """
    if error is None:
        return "recovery" if told else None
    if isinstance(error, Busy | Waiting):
        return None
    if (at := told.get(_matter(error, critical=critical))) is None:
        return "failure" if enough else None
    return "reminder" if abs(now - at) >= REMIND_AFTER else None


def _matter(error: UCLError, *, critical: bool) -> str:
    """What an error is told as, once and then once a day."""
    return f"{error.exit_code}{' critical' if critical else ''}"


def _told(connection: Connection) -> dict[str, datetime]:
    """What is known to have been told; of a file that is damaged, nothing."""
    path, found = connection.path / "notices.json", None
    with files.storage("read", path), suppress(FileNotFoundError):
        found = (json_object(path.read_bytes()) or {}).get("told")
    with suppress(TypeError, ValueError, AttributeError):
        told = {code: datetime.fromisoformat(at) for code, at in (found or {}).items()}
        return told if all(at.tzinfo for at in told.values()) else {}
    return {}


def _words(
    connection: Connection, kind: Kind, error: UCLError | None, failures: int, now: datetime
) -> Mapping[str, str]:
    name, lines = connection.name, [f"Connection {connection.name} on {socket.gethostname()}"]
    if error is None:
        title = f"{name}: well again"
        lines.append("What was told as a failure is over.")
    else:
        what = "a hook failed" if isinstance(error, HookFailed) else f"failed ({type(error).__name__})"
        title = f"{name}: {what}" + (", still" if kind == "reminder" else "")
        lines += [error.message, error.remedy]
        lines += [f"Failures in a row: {failures}."] if failures > 1 else []
    with suppress(UCLError):
        end = connection.require_current().validity.not_after
        lines.append(f"Its certificate is valid to {moment(end)} ({_left(end - now)}).")
    lines.append(f"To look at it: ucl doctor {name}")
    return {"type": _TYPES[kind], "title": title, "body": "\n".join(filter(None, lines))}


def _left(left: timedelta) -> str:
    return f"{span(left)} left" if left > timedelta(0) else "expired"


def _send(connection: Connection, references: Sequence[str], kind: Kind, words: Mapping[str, str]) -> bool:
    """Send it to all; whether it has reached anybody. Who it did not reach is told."""
    require("notify")
    urls = dict[str, str]()
    for one in references:
        try:
            urls[one] = resolve(one, what="notices.urls")
        except UsageError as error:
            _warn(connection, str(error))
    reached = dict(zip(urls, _told_each({**words, "urls": list(urls.values())}), strict=False)) if urls else {}
    for one in urls:
        if not reached.get(one):
            _warn(connection, f"{one} leads to a URL that did not take it, or not within {LIMIT_SECONDS} s.")
    if any(reached.values()):
        connection.record("notice-sent", kind=kind, title=words["title"])
    return any(reached.values())


def _told_each(notice: Mapping[str, object]) -> list[bool]:
    """Who of the URLs has taken it, in their order; empty when the sender came to no end."""
    with suppress(subprocess.SubprocessError, OSError, ValueError):
        done = subprocess.run(
            _SENDER,
            input=json.dumps(notice).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_SECONDS,
            check=True,
        )
        return [bool(one) for one in json.loads(done.stdout)]
    return []


def _warn(connection: Connection, problem: str) -> None:
    """Say that a notice was not sent, and go on."""
    with suppress(UCLError):
        connection.record("notice-failed", problem=problem)
    with suppress(OSError, ValueError, AttributeError):  # closed, or not there
        sys.stderr.write(f"{connection.name}: a notice was not sent. {printable(problem)}\n")
