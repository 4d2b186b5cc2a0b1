"""One renewal as a worker makes it: plain data goes in, plain data comes out.

What comes in is the name of a connection and of the generation that is to be replaced, never a key; what goes out is
what became of it, an error included. A task may be run twice, since a worker that was killed may have been done: so the
connection must still have the generation that it had when the run began, and both is looked at under its lock.
"""

import time
from typing import TypedDict

from ucl_helpers.clock import utc_now
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import RateLimited, RetryLater, StorageFailed, UCLError, Waiting
from ucl_helpers.fleet.breaker import Verdict, verdict
from ucl_helpers.fleet.notices import is_over, notify_once
from ucl_helpers.operate.notices import complete_run, report_failure
from ucl_helpers.procedures.renewal import Renewal, renew
from ucl_helpers.wire.client import WAITS_WHEN_LIMITED

RENEWED, RENEWED_BEFORE, NOT_DUE, FAILED, LEFT = "renewed", "renewed-before", "not-due", "failed", "left"


class Result(TypedDict):
    """What became of one connection.

    Attributes:
        outcome: ``renewed``, ``renewed-before`` (since this run began: by an attempt that was cut off, or by another
            program), ``not-due``, ``failed`` or ``left`` (not done, since the run was stopped). When a hook failed, or
            could not be run, the error stands beside what the renewal came to.
        fingerprint: of the certificate in use now, or None when there is no telling.
        exitCode: of the error, see :mod:`ucl_helpers.errors`; 0 otherwise.
        error: ``class``, ``message`` and ``remedy``, or None.
        seconds: how long it took, on the worker.
        retryAfter: seconds after which UCL wants to be asked again, or None.
        limited: whether UCL answered 429.
        verdict: what the error says of the endpoint, see :mod:`ucl_helpers.fleet.breaker`.
        url: the one that was called when it failed, or None.
    """

    outcome: str
    fingerprint: str | None
    exitCode: int
    error: dict[str, str] | None
    seconds: float
    retryAfter: float | None
    limited: bool
    verdict: Verdict | None
    url: str | None


def renew_one(home: str, name: str, base: str | None, force: bool = False, again: bool = False) -> Result:
    """Renew a connection; whatever goes wrong comes back as data.

    Args:
        home: path of the home folder, as this machine sees it.
        name: of the connection.
        base: the generation that it had when the run began; if it has another one by now, there is nothing to do.
        force: also when it is not due, and though a pause after an earlier failure is not over.
        again: it was tried in this run before; the run decides when, so no pause is to be over. What is not due, and
            was not sent for signing, is not renewed all the same.
    """
    began, waits = time.monotonic(), WAITS_WHEN_LIMITED.set(False)
    try:
        told = _renewed(Home(home).connection(name), base, force=force, again=again)
    except UCLError as error:
        told = failure(error)
    except OSError as error:
        told = failure(StorageFailed(f"The system said no: {error.strerror or type(error).__name__}."))
    except Exception as error:
        told = failure(error)
    finally:
        WAITS_WHEN_LIMITED.reset(waits)
    return {**told, "seconds": round(time.monotonic() - began, 3)}


def _renewed(connection: Connection, base: str | None, *, force: bool, again: bool) -> Result:
    try:
        with connection.lock.held():
            # Another revision of the same identity is no renewal.
            before = base is not None and connection.require_current().stem != base.partition(".")[0]
            insists = not before and (force or (again and _has_work(connection)))
            outcome = renew(connection, only_if_due=not insists)  # also settles what an attempt left
    except UCLError as error:
        report_failure(connection, error, send=notify_once)
        raise
    if outcome.outcome == RENEWED:
        is_over(connection)
    done = RENEWED_BEFORE if before and outcome.outcome == NOT_DUE else outcome.outcome
    mark, wrong = outcome.facts.get("fingerprint"), complete_run(connection, outcome).error
    told = failure(wrong) if wrong else _result(done)
    return {**told, "outcome": done, "fingerprint": mark}


def _has_work(connection: Connection) -> bool:
    """Whether it is due, or a request of it was sent for signing."""
    state = connection.pending.state
    return connection.due(utc_now()).due or bool(state.get("kind") == Renewal.kind and state.get("sent"))


def _done(outcome: str, fingerprint: str | None) -> Result:
    return {**_result(outcome), "fingerprint": fingerprint}


def failure(error: BaseException) -> Result:
    """An error as data. Of one that is not ours only its class is told: its text might hold a secret."""
    if not isinstance(error, UCLError):
        error = UCLError(f"Unexpected: {type(error).__name__}.", remedy="Run it alone, with UCL_DEBUG=1: ucl renew.")
    told = {"class": type(error).__name__, "message": error.message, "remedy": error.remedy}
    after = None if isinstance(error, Waiting) else error.data.get("retry_after")  # that pause is for later runs
    return {
        **_result(FAILED),
        "exitCode": error.exit_code,
        "error": told,
        "retryAfter": after,
        "limited": isinstance(error, RateLimited),
        "verdict": verdict(error),
        "url": error.data.get("url"),
    }


def left() -> Result:
    """What is told of a connection that a stopped run has not done."""
    return _result(LEFT)


def not_tried(endpoint: str) -> Result:
    """What is told of a connection whose endpoint failed for others, so that it was not asked."""
    remedy = "Nothing of this connection has changed. The next run tries it."
    error = RetryLater(f"Not tried: {endpoint} fails for other connections too.", remedy=remedy)
    return {**failure(error), "outcome": LEFT}


def not_due(fingerprint: str | None) -> Result:
    """What is told of a connection that needed no worker."""
    return _done(NOT_DUE, fingerprint)


def _result(outcome: str) -> Result:
    return {
        "outcome": outcome,
        "fingerprint": None,
        "exitCode": 0,
        "error": None,
        "seconds": 0.0,
        "retryAfter": None,
        "limited": False,
        "verdict": None,
        "url": None,
    }
