"""When a renewal is due. Pure: the clock is an argument.

The rule: two thirds of the lifetime, or half of it when that is below ten days, less a little jitter that is the
same for a connection every time it is asked; or ``renew_before`` from its settings, without jitter. ``renew_before``
never exceeds half the lifetime, so that short-lived certificates work.
"""

import hashlib
import re
from datetime import datetime, timedelta

from ucl_helpers.errors import UsageError
from ucl_helpers.models import Due, Validity
from ucl_helpers.show import span

SHORT_LIFETIME = timedelta(days=10)
JITTER = 0.05
MIN_INTERVAL = timedelta(hours=1)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> timedelta:
    """A duration such as ``30d``, ``36h``, ``90m``, ``45s`` or ``1d12h``.

    Raises:
        UsageError: it is something else, or zero.
    """
    parts = re.findall(r"([0-9]{1,9})\s*([smhdw])", text)
    whole = "".join(f"{number}{unit}" for number, unit in parts)
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not parts or whole != "".join(text.split()) or not 0 < seconds <= timedelta.max.days * 86400 // 1000:
        raise UsageError(f"{text!r} is not a duration.", remedy="Write it like 30d, 36h, 90m or 1d12h.")
    return timedelta(seconds=seconds)


def due(validity: Validity, *, seed: str, now: datetime, renew_before: timedelta | None = None) -> Due:
    """Is a renewal due at ``now`` (aware, UTC)?

    Args:
        validity: of the certificate in use.
        seed: names the connection, so that its jitter is its own and stays the same.
        now: the moment to judge.
        renew_before: due this long before NotAfter, instead of the rule by fractions.
    """
    lifetime = validity.lifetime
    if renew_before is not None:
        before = min(renew_before, lifetime / 2)
        at = validity.not_after - before
        cut = f", half of the lifetime instead of {span(renew_before)}" if before < renew_before else ""
        reason = f"renew_before = {span(before)}{cut}"
    else:
        share, name = (1 / 2, "half") if lifetime < SHORT_LIFETIME else (2 / 3, "two thirds")
        early = lifetime * (JITTER * fraction(seed))
        at = validity.not_before + lifetime * share - early
        reason = f"{name} of {span(lifetime)}, less {span(early)} of jitter"
    return Due(due=now >= at, at=at, reason=reason)


def state(validity: Validity, *, now: datetime, revoked: bool, is_due: bool) -> str:
    """One word for a connection: ``revoked``, ``expired``, ``not yet valid``, ``due`` or ``valid``."""
    if revoked:
        return "revoked"
    if now >= validity.not_after:
        return "expired"
    if now < validity.not_before - timedelta(minutes=5):
        return "not yet valid"
    return "due" if is_due else "valid"


def fraction(seed: str) -> float:
    """How much of the jitter a connection takes, from 0 to 1: always the same for its ``seed``."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]) / 2**64
