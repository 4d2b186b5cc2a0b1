"""Complete a procedure: run pending hooks, and notify operators of failure and recovery.

The command line, a fleet and ``ucl run`` call :func:`complete_run`, :func:`report_failure` or
:func:`report_notebook_run` once the connection's lock is released. Notices go through apprise (extra ``notify``) to the
URLs that the settings refer to. ::

    HOME/connections/NAME/notices.json    {"told": {"3": "2026-01-31T06:25:00+00:00"}}

The file records which failures of a series were sent, by exit code, and when. A failure that lasts is sent once, then
once a day, and then that it is over. An outage of UCL is sent as a warning, and once more when it is critical.
URLs hold passwords: they are looked up when there is something to send, and go to the process that sends through its
standard input. If a notice cannot be sent, standard error and the journal say so, and the next run tries again.
"""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from ucl_helpers.clock import Clock, moment_from, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import remembered
from ucl_helpers.connection.files import json_object
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Connection
from ucl_helpers.core_dumps import no_dumps_at_all
from ucl_helpers.errors import (
    Busy,
    HookFailed,
    Outage,
    PossibleOutage,
    UCLError,
    UsageError,
    Waiting,
    error_class,
    printable,
)
from ucl_helpers.extras import require
from ucl_helpers.models import Outcome
from ucl_helpers.operate.hooks import HookResults, require_unlocked, run_hooks
from ucl_helpers.operate.monitoring import verdict
from ucl_helpers.tables import moment, span

Kind = Literal["failure", "reminder", "recovery"]
REMIND_AFTER = timedelta(hours=23)  # a daily run may be early
LIMIT_SECONDS = 30
FILE = "notices.json"
_OUTAGES = (Outage, PossibleOutage)
_SENDER = (sys.executable, "-P", "-m", "ucl_helpers.operate.notices")
_TYPES = {"failure": "failure", "reminder": "warning", "recovery": "success"}
_SUCCESSES = {"renewed", "established", "imported", "not-due"}  # outcomes that end a series of failures


@dataclass(frozen=True)
class CompletedRun:
    """A procedure that ended, with its hooks.

    Attributes:
        outcome: the procedure's, with the hooks' results in its facts, and exit code 13 if one failed.
        hooks: what each came to.
        error: the failed hook, or the reason why no hook could run; None if nothing failed.
    """

    outcome: Outcome
    hooks: HookResults
    error: UCLError | None = None


def complete_run(connection: Connection, outcome: Outcome) -> CompletedRun:
    """Run hooks and notify after a success, or when nothing was due. Nothing is raised: the certificate is in place."""
    try:
        hooks = run_hooks(connection)
    except UCLError as error:
        completed = CompletedRun(outcome.with_error(error), HookResults(connection.name), error)
    else:
        completed = CompletedRun(hooks.complete(outcome), hooks, hooks.error)
    if completed.error or outcome.outcome in _SUCCESSES:
        notify(connection, completed.error)
    return completed


def report_failure(
    connection: Connection, error: UCLError, *, send: Callable[[Connection, UCLError], object] | None = None
) -> None:
    """Notify of a procedure that failed, and run the hooks that an earlier run has left.

    Args:
        connection: the one whose procedure failed.
        error: what stopped it.
        send: sends the notice, in place of :func:`notify`.
    """
    with suppress(UCLError):
        run_hooks(connection)
    (send or notify)(connection, error)


def report_notebook_run(connection: Connection, outcome: Mapping[str, Any]) -> None:
    """Notify of a notebook that ran headless. It runs its hooks itself, unless it failed before that cell.

    Args:
        connection: the one that it ran for.
        outcome: as JSON: ``outcome``, ``exitCode``, ``error``, ``message``, ``remedy``.
    """
    code = outcome.get("exitCode")
    if outcome.get("outcome") == "stopped":  # the user who stopped it knows
        return
    if not code:
        notify(connection, None)
        return
    kind = error_class(outcome.get("error")) or UCLError
    message = str(outcome.get("message") or f"The run ended with exit code {code}.")
    error = kind(message, remedy=outcome.get("remedy") or "")
    if isinstance(error, HookFailed):
        notify(connection, error)
    else:
        report_failure(connection, error)


def notify(connection: Connection, error: UCLError | None, *, clock: Clock = utc_now) -> bool:
    """Send a notice of what a run came to, if the settings ask for one and it has not been sent yet.

    Args:
        connection: its settings say where notices go, and after how many failures.
        error: what stopped the run, or the failed hook; None after a success.
        clock: our clock, aware, UTC.

    Returns:
        Whether a notice was sent now.

    Raises:
        UsageError: this process holds the connection's lock; it would be held for as long as the network takes.
    """
    require_unlocked(connection, "Notices")
    try:
        notices = connection.read_settings().notices
    except UCLError:  # the run itself reports these settings
        return False
    if not notices.urls:
        return False
    try:
        sent, now, attempts = _sent(connection), clock(), remembered(connection)
        last = attempts.last_error.error if attempts.last_error else ""
        critical = error is not None and is_critical(connection, error, clock)
        enough = critical or attempts.failures >= notices.after_failures or type(error).__name__ != last
        kind = kind_to_send(sent, error, enough=enough, now=now, critical=critical)
        if kind is None or (error is None and attempts.failures):  # nothing was tried since
            return False
        text = _text(connection, kind, error, attempts.failures, now)
        if kind == "failure" and isinstance(error, _OUTAGES) and not critical:
            text["type"] = "warning"
        if _send(connection, notices.urls, kind, text):
            sent = {**sent, _key(error, critical=critical): now} if error else {}
            moments = {key: at.isoformat(timespec="seconds") for key, at in sent.items()}
            files.write(connection.path / FILE, json.dumps({"told": moments}).encode())
            return True
    except UCLError as problem:
        _warn(connection, str(problem))
    return False


def is_critical(connection: Connection, error: UCLError, clock: Clock = utc_now) -> bool:
    """Return whether an outage has lasted until the connection is critical."""
    if not isinstance(error, _OUTAGES):
        return False
    with suppress(UCLError):
        return verdict(status_of(connection, clock, whole=False)).word == "CRITICAL"
    return False


def kind_to_send(
    sent: Mapping[str, datetime], error: UCLError | None, *, enough: bool, now: datetime, critical: bool = False
) -> Kind | None:
    """Return which notice to send, or None. Pure.

    Args:
        sent: when each failure of this series was sent, by exit code; empty after a recovery.
        error: of this run, or None. ``Busy`` and ``Waiting`` are no failures.
        enough: whether as many attempts in a row have failed as the settings say, or this is another failure.
        now: the moment to judge.
        critical: whether a temporary failure has lasted too long.
    """
    if error is None:
        return "recovery" if sent else None
    if isinstance(error, Busy | Waiting):
        return None
    if (at := sent.get(_key(error, critical=critical))) is None:
        return "failure" if enough else None
    return "reminder" if abs(now - at) >= REMIND_AFTER else None


def _key(error: UCLError, *, critical: bool) -> str:
    return f"{error.exit_code}{' critical' if critical else ''}"


def _sent(connection: Connection) -> dict[str, datetime]:
    """Read which failures were sent, and when (UTC); none if the file is damaged."""
    path, content = connection.path / FILE, b""
    with files.storage("read", path), suppress(FileNotFoundError):
        content = files.read_regular(path)
    texts = (json_object(content) or {}).get("told")
    moments = {key: moment_from(text) for key, text in texts.items()} if isinstance(texts, dict) else {}
    return {key: at for key, at in moments.items() if at}


def _text(connection: Connection, kind: Kind, error: UCLError | None, failures: int, now: datetime) -> dict[str, str]:
    name, lines = connection.name, [f"Connection {connection.name} on {socket.gethostname()}"]
    if error is None:
        title = f"{name}: well again"
        lines.append("The failure of an earlier notice is over.")
    else:
        event = "a hook failed" if isinstance(error, HookFailed) else f"failed ({type(error).__name__})"
        title = f"{name}: {event}" + (", still" if kind == "reminder" else "")
        lines += [error.message, error.remedy]
        lines += [f"Failures in a row: {failures}."] if failures > 1 else []
    with suppress(UCLError):
        end = connection.require_current().validity.not_after
        remaining = f"{span(end - now)} left" if end > now else "expired"
        lines.append(f"Its certificate is valid to {moment(end)} ({remaining}).")
    lines.append(f"For details, run: ucl doctor {name}")
    return {"type": _TYPES[kind], "title": title, "body": "\n".join(filter(None, lines))}


def _send(connection: Connection, references: Sequence[str], kind: Kind, text: Mapping[str, str]) -> bool:
    """Send a notice to all URLs and warn of those that did not accept it; return whether one did."""
    require("notify")
    urls, accepted = dict[str, str](), list[str]()
    for reference in references:
        try:
            urls[reference] = resolve(reference, what="notices.urls")
        except UsageError as error:
            _warn(connection, str(error))
    with suppress(subprocess.SubprocessError, OSError, ValueError):  # it failed, or took too long
        sender = subprocess.run(
            _SENDER,
            input=json.dumps({**text, "urls": urls}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_SECONDS,
            check=True,
        )
        accepted = json.loads(sender.stdout)
    for reference in urls:
        if reference not in accepted:
            _warn(connection, f"The URL of {reference} did not accept it within {LIMIT_SECONDS} s.")
    if accepted:
        connection.record("notice-sent", kind=kind, title=text["title"])
    return bool(accepted)


def _warn(connection: Connection, problem: str) -> None:
    """Report that a notice was not sent, and go on."""
    with suppress(UCLError):
        connection.record("notice-failed", problem=problem)
    with suppress(OSError, ValueError, AttributeError):  # closed, or not there
        sys.stderr.write(f"{connection.name}: a notice was not sent. {printable(problem)}\n")


def _sender() -> None:
    """Send one notice as a process that can be given up: ``python -m ucl_helpers.operate.notices``.

    Standard input: ``{"urls": {REFERENCE: URL}, "type": "failure", "title": …, "body": …}``. Standard output: the
    references of the URLs that accepted it. URLs hold passwords, and apprise logs URLs, so all other output is lost.
    """
    no_dumps_at_all()
    logging.disable()
    import apprise

    notice = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def send(url: str) -> bool:
        service = apprise.Apprise(asset=apprise.AppriseAsset(storage_mode="memory"))
        text = {"title": notice["title"], "body": notice["body"], "body_format": apprise.NotifyFormat.TEXT}
        return bool(service.add(url) and service.notify(notify_type=notice["type"], **text))

    with ThreadPoolExecutor() as pool:
        results = zip(notice["urls"], pool.map(send, notice["urls"].values()), strict=True)
        accepted = [reference for reference, is_accepted in results if is_accepted]
    os.write(answer, json.dumps(accepted).encode())


if __name__ == "__main__":
    _sender()
