r"""What is to be done next for a connection, by its status. Pure.

===================================================  =================================================
settings not usable                                  ``settings``: let the user edit them
damaged; what is under way cannot be read            ``doctor``: it finds the command that mends it
not yet valid                                        ``doctor``: a clock is wrong
refused                                              ``doctor``: it asks UCL again, and names the way back
an establishment is signed, to be verified           ``finish`` it: that takes no token
expired, revoked, not established                    ``establish`` it, which takes a one-time token
due, or a renewal was sent for signing               ``renew``, and not wait for the next try where it has just failed …
… and it failed as does not pass by itself           ``doctor``
hooks still have to run                              ``hooks``
all else                                             nothing
===================================================  =================================================

The first that holds counts. What was begun and not sent waits until the renewal is due.
"""

from dataclasses import dataclass
from typing import Literal

from ucl_helpers.connection.status import BEGUN, SIGNED, STATES, Status
from ucl_helpers.errors import Busy, RetryLater
from ucl_helpers.tables import moment

Action = Literal["doctor", "establish", "finish", "hooks", "renew", "settings"]
PASSING = {RetryLater.exit_code, Busy.exit_code}
"""Exit codes of failures that pass by themselves."""

_NOT_USABLE: dict[str, Action] = {"settings not usable": "settings", "damaged": "doctor", "not yet valid": "doctor"}


@dataclass(frozen=True)
class Step:
    """What is to be done, and why."""

    action: Action
    why: str


def next_step(status: Status) -> Step | None:
    """What is to be done for a connection, or None while nothing is."""
    left = status.under_way
    if status.state in _NOT_USABLE:
        return Step(_NOT_USABLE[status.state], status.problem or status.state)
    if left and left.procedure == "damaged":
        return Step("doctor", "what is under way cannot be read")
    if left and left.procedure == "establish" and left.stage == SIGNED:
        return Step("finish", f"under way: {left}")
    if status.state == "refused":
        return Step("doctor", "UCL refused it when it was to be revoked")
    if status.state in {"expired", "revoked", "not established"}:
        since = f" {moment(status.validity.not_after)}" if status.state == "expired" and status.validity else ""
        return Step("establish", f"{status.state}{since}")
    return _renewal(status) or _hooks(status)


def urgency(status: Status) -> tuple[int, str]:
    """What connections are sorted by: first those that work the least, of equals by name."""
    return -STATES.index(status.state), status.name


def _renewal(status: Status) -> Step | None:
    left, known = status.under_way, status.attempts
    if status.state == "due" and status.due:
        why = f"due since {moment(status.due.at)}"
    elif left and left.procedure == "renew" and left.stage != BEGUN:
        why = f"under way: {left}"
    else:
        return None
    if known.last_error is None:
        return Step("renew", why)
    wait = f"; next try not before {moment(again)}" if (again := known.next_try(status.now)) else ""
    why = f"{why}; failed {known.failures} in a row, the last: {known.last_error}{wait}"
    return Step("renew" if known.last_error.exit_code in PASSING else "doctor", why)


def _hooks(status: Status) -> Step | None:
    waiting = ", ".join(status.pending_hooks)
    return Step("hooks", f"hooks still have to run: {waiting}") if waiting else None
