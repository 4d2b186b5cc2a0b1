"""Decide when a renewal is due, and when a failed one is tried again. Pure: the clock is an argument.

A renewal is due after two thirds of the lifetime, or after half of it if the lifetime is below ten days. A little
jitter makes it due earlier. The jitter of a connection is always the same. ``renew_before`` in the settings replaces
this rule and has no jitter. It never exceeds half of the lifetime, so that short-lived certificates work. A certificate
is not due within ``min_interval`` after it came into use. Otherwise a certificate that is due from the start would be
renewed again and again.

A failed renewal is tried again after a pause. The pause doubles with each failure, and is shorter if little of the
certificate's lifetime is left. If the server asked for a pause, that pause comes first.
"""

import hashlib
import re
from datetime import datetime, timedelta

from ucl_helpers.errors import UsageError
from ucl_helpers.models import Due, Validity
from ucl_helpers.tables import span

SHORT_LIFETIME = timedelta(days=10)
# The share of the lifetime after which a renewal is due, and its name. docs/reference/due.md is written from these.
SHARE, SHORT_SHARE = (2 / 3, "two thirds"), (1 / 2, "half")
JITTER = 0.05  # of the lifetime, at most
MIN_INTERVAL = timedelta(hours=1)
INTERVAL_SHARE = 0.4  # of the lifetime; less than half of it minus the jitter, so that short lifetimes also fit
FIRST_PAUSE, LONGEST_PAUSE, PAUSE_SHARE = timedelta(minutes=1), timedelta(hours=1), 0.1
LONGEST_ASKED = timedelta(days=1)
LONGEST_REFUSAL, REFUSAL_SHARE = timedelta(days=1), 0.25
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> timedelta:
    """Parse a duration such as ``30d``, ``36h``, ``90m``, ``45s`` or ``1d12h``.

    Raises:
        UsageError: the text is not a duration, or the duration is zero.
    """
    parts = re.findall(r"([0-9]{1,9})\s*([smhdw])", text)
    whole = "".join(f"{number}{unit}" for number, unit in parts)
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    is_one = bool(parts) and whole == "".join(text.split()) and seconds <= timedelta.max.days * 86400 // 1000
    if not is_one or not seconds:
        wanted = "more than nothing" if is_one else "a duration"
        raise UsageError(f"{text!r} is not {wanted}.", remedy="Write it like 30d, 36h, 90m, 45s or 1d12h.")
    return timedelta(seconds=seconds)


def due(
    validity: Validity,
    *,
    seed: str,
    now: datetime,
    renew_before: timedelta | None = None,
    activated: datetime | None = None,
    min_interval: timedelta = MIN_INTERVAL,
) -> Due:
    """Return whether a renewal is due at ``now`` (aware, UTC), from when on, and by which rule.

    Args:
        validity: of the certificate in use.
        seed: names the connection. The jitter depends on it, so it is always the same for a connection.
        now: the moment to judge.
        renew_before: due this long before NotAfter, instead of the rule by fractions.
        activated: when the certificate came into use; None if that is not known. A moment after ``now`` does not count,
            because a clock was wrong.
        min_interval: not due before so long after ``activated``. At most four tenths of the lifetime, and of what was
            left of it at ``activated``, so that the certificate is always due before NotAfter.
    """
    lifetime = validity.lifetime
    if renew_before is not None:
        before = min(renew_before, lifetime / 2)
        at = validity.not_after - before
        cut = f", half of the lifetime instead of {span(renew_before)}" if before < renew_before else ""
        reason = f"renew_before = {span(before)}{cut}"
    else:
        share, name = SHORT_SHARE if lifetime < SHORT_LIFETIME else SHARE
        early = lifetime * (JITTER * fraction(seed))
        at = validity.not_before + lifetime * share - early
        reason = f"{name} of {span(lifetime)}, less {span(early)} of jitter"
    if activated is not None and activated <= now and activated < validity.not_after:
        most = INTERVAL_SHARE * min(lifetime, validity.not_after - activated)
        wait = min(min_interval, most)
        if activated + wait > at:
            at = activated + wait
            cut = f", four tenths of what was left instead of {span(min_interval)}" if most < min_interval else ""
            reason = f"min_interval = {span(wait)} since it came into use{cut}; else due before ({reason})"
    return Due(due=now >= at, at=at, reason=reason)


def next_try(
    failures: int, *, seed: str, now: datetime, not_after: datetime | None = None, retry_after: float = 0.0
) -> datetime:
    """Return when to try a renewal again that failed at ``now`` (aware, UTC) and is due.

    The pause doubles from a minute to an hour. Up to half of it is taken off, so that connections that failed together
    do not try again together. The pause is at most a tenth of the time to NotAfter, so that the last tries come before
    NotAfter. The server's own pause comes before it, but takes at most half of the time to NotAfter.

    Args:
        failures: in a row, this one included.
        seed: names the connection.
        now: when it failed.
        not_after: of the certificate in use; None if there is none.
        retry_after: seconds that the server asked for; at most a day counts.
    """
    pause = min(FIRST_PAUSE * (1 << min(failures - 1, 10)), LONGEST_PAUSE)
    pause *= 1 - fraction(f"{seed}/{failures}") / 2
    asked = min(timedelta(seconds=retry_after), LONGEST_ASKED)
    if not_after is not None and (remaining := not_after - now) > timedelta(0):
        pause, asked = min(pause, remaining * PAUSE_SHARE), min(asked, remaining / 2)
    return now + asked + pause


def refusal_ends(since: datetime, *, not_after: datetime | None) -> datetime:
    """Return the moment (UTC) from which a refusal that may be an outage no longer counts as a temporary failure.

    Until then passes a quarter of the time that the certificate had left when the refusal began, and at most a day. So
    most of that time is left for a person to act.

    Args:
        since: when UCL began to refuse (UTC).
        not_after: of the certificate that must be replaced in time; None if there is none.
    """
    period = LONGEST_REFUSAL if not_after is None else max(not_after - since, timedelta(0)) * REFUSAL_SHARE
    return since + min(period, LONGEST_REFUSAL)


def is_waiting(now: datetime, *, failed: datetime, not_before: datetime) -> bool:
    """Return whether ``now`` (UTC) is between a failure and its next try.

    The answer is no if the clock was set back since the failure, or if the pause is longer than any pause can be.
    """
    return failed <= now < not_before <= failed + LONGEST_ASKED + LONGEST_PAUSE


def state(validity: Validity, *, now: datetime, revoked: bool, is_due: bool) -> str:
    """Return the state of a connection: ``revoked``, ``expired``, ``not yet valid``, ``due`` or ``valid``."""
    if revoked:
        return "revoked"
    if now >= validity.not_after:
        return "expired"
    if now < validity.not_before - timedelta(minutes=5):
        return "not yet valid"
    return "due" if is_due else "valid"


def fraction(seed: str) -> float:
    """Return the share of the jitter that a connection takes, from 0 to 1. It is always the same for a ``seed``."""
    return int.from_bytes(fraction_bytes(seed)) / 2**64


def fraction_bytes(seed: str) -> bytes:
    """Return :func:`fraction` as a 64-bit integer, big-endian. The simulation calls it a million times."""
    return hashlib.sha256(seed.encode()).digest()[:8]
