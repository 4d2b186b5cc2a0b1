"""Connections as metrics for Prometheus: gauges with the label ``connection``, written by prometheus_client.

The names are an interface: alert rules and dashboards rest on them. What is not known of a connection has no sample,
but for ``ucl_last_looked_timestamp_seconds``, a dead man's switch, which is 0 then. No value is a secret.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from ucl_helpers.connection.files import require_own_links, write
from ucl_helpers.connection.status import STATES, Status
from ucl_helpers.errors import UsageError
from ucl_helpers.extras import missing
from ucl_helpers.operate.monitoring import hooks_pending

try:
    from prometheus_client import CollectorRegistry, Gauge, generate_latest
except ModuleNotFoundError:
    raise missing("prometheus_client", "metrics") from None

MODE = 0o644
"""Readable by others on purpose: another user's node_exporter reads it."""
ENDING = ".prom"
_GAUGES = {
    "ucl_certificate_not_before_timestamp_seconds": "NotBefore of the certificate in use.",
    "ucl_certificate_not_after_timestamp_seconds": "NotAfter of the certificate in use.",
    "ucl_renewal_due_timestamp_seconds": "When a renewal is due.",
    "ucl_last_looked_timestamp_seconds": "When a run last looked whether it is due; 0: never.",
    "ucl_last_attempt_timestamp_seconds": "When a renewal or an establishment last began.",
    "ucl_last_success_timestamp_seconds": "When the newest certificate came into use.",
    "ucl_renewal_failures": "Failed attempts in a row.",
    "ucl_refused_since_timestamp_seconds": "Since when UCL refuses the certificate, which may be an outage.",
    "ucl_refusal_ends_timestamp_seconds": "From when on that refusal is critical.",
    "ucl_generation_number": "Number of the generation in use.",
    "ucl_hooks_pending": "Hooks that still have to run for the certificate in use.",
}


def render(statuses: Iterable[Status], now: datetime) -> bytes:
    """All gauges of these connections in Prometheus' text format.

    Args:
        statuses: of each connection one.
        now: when they were read (UTC).
    """
    registry = CollectorRegistry()
    gauges = {name: Gauge(name, text, ["connection"], registry=registry) for name, text in _GAUGES.items()}
    state = Gauge("ucl_state", "1 for the state that the connection is in.", ["connection", "state"], registry=registry)
    for status in statuses:
        for name, value in _values(status).items():
            if value is not None:
                gauges[name].labels(status.name).set(value)
        for one in STATES:
            state.labels(status.name, one).set(one == status.state)
    written = Gauge("ucl_metrics_written_timestamp_seconds", "When these metrics were written.", registry=registry)
    written.set(now.timestamp())
    return generate_latest(registry)


def write_textfile(path: Path, metrics: bytes) -> None:
    """Put metrics where node_exporter's textfile collector reads them: whole, by one rename, mode 0644.

    Raises:
        UsageError: node_exporter would not read a file of this name.
        StorageFailed: it cannot be written, or a symlink of another user is on the way; what was there before stays.
    """
    if path.suffix != ENDING:
        raise UsageError(
            f"{path.name} does not end in {ENDING}: node_exporter passes it over.", remedy=f"Name it like ucl{ENDING}."
        )
    require_own_links(path.absolute().parent)
    write(path.absolute(), metrics, MODE)


def _values(status: Status) -> dict[str, float | None]:
    validity, due, known = status.validity, status.due, status.attempts
    number = (status.generation or "").partition("-")[0]
    return {
        "ucl_certificate_not_before_timestamp_seconds": _seconds(validity.not_before if validity else None),
        "ucl_certificate_not_after_timestamp_seconds": _seconds(validity.not_after if validity else None),
        "ucl_renewal_due_timestamp_seconds": _seconds(due.at if due else None),
        "ucl_last_looked_timestamp_seconds": _seconds(known.last_looked) or 0.0,
        "ucl_last_attempt_timestamp_seconds": _seconds(known.last_attempt),
        "ucl_last_success_timestamp_seconds": _seconds(known.last_success),
        "ucl_renewal_failures": known.failures,
        "ucl_refused_since_timestamp_seconds": _seconds(known.refused_since),
        "ucl_refusal_ends_timestamp_seconds": _seconds(status.critical_refusal),
        "ucl_generation_number": int(number) if number.isdecimal() else None,
        "ucl_hooks_pending": hooks_pending(status),
    }


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
