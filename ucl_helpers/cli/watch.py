"""Connections seen from outside: metrics for Prometheus, and the journal."""

import json
from pathlib import Path
from typing import Any

import click

from ucl_helpers.cli.common import FILE, as_json, with_home
from ucl_helpers.cli.completion import connections
from ucl_helpers.clock import moment_from, utc_now
from ucl_helpers.connection.journal import NUMBER
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.tables import moment, printable, text_table

SHORT = 16
"""Digits of a fingerprint that are shown in a line."""


@click.command("metrics")
@click.option("--textfile", type=FILE, help="FILE.prom for node_exporter's textfile collector [default: print them].")
@click.option("--practice", is_flag=True, help="Also of connections for practice.")
@with_home
def metrics_command(textfile: Path | None, home: Home, *, practice: bool) -> None:
    """Tell Prometheus of all connections: validity, due dates, attempts, failures, states.

    \b
    Examples:
      ucl metrics
      ucl metrics --textfile /var/lib/prometheus/node-exporter/ucl.prom

    It reads the disk only; nobody is called. The file is written whole, mode 0644, and holds no secret. Run it when a
    renewal was looked for, and every few minutes besides.
    """
    from ucl_helpers.operate.monitoring import render, write_textfile

    shown = [status_of(one) for one in home.connections()]
    metrics = render([one for one in shown if practice or not one.sandbox], utc_now())
    if textfile is None:
        click.echo(metrics, nl=False)
    else:
        write_textfile(textfile, metrics)


@click.command("journal")
@click.argument("name", shell_complete=connections)
@click.option("-n", "--last", type=click.IntRange(min=1), metavar="N", help="Only the last N events.")
@with_home
@as_json
def journal_command(name: str, last: int | None, home: Home, *, json_output: bool) -> None:
    """Tell the history of connection NAME: one line for each event, the newest last, times in UTC.

    \b
    Examples:
      ucl journal prod
      ucl journal prod -n 20
      ucl journal prod --json

    With --json it is a list of objects, as they stand in the journal. Nothing is decided by the journal, so it may be
    rotated or removed. If lines were lost and that can be noticed, the last line says so (with --json on standard
    error).
    """
    connection = home.connection(name)
    events, lost = connection.journal(), connection.lost_events()
    chosen = events[-last:] if last else events
    if json_output:
        click.echo(json.dumps(chosen, indent=1))
    elif chosen:
        click.echo(text_table([_line(one) for one in chosen]))
    else:
        click.echo(f"Nothing has happened to {name} yet." if lost is None else f"The journal of {name} has no events.")
    if lost is not None:
        click.echo(f"Lines were lost: {lost}.", err=json_output)


def _line(event: dict[str, Any]) -> tuple[str, str, str]:
    told = {name: value for name, value in event.items() if name not in {"time", "event", NUMBER} and value is not None}
    facts = "  ".join(f"{name}={_short(name, value)}" for name, value in told.items())
    when = moment_from(event.get("time"))
    return moment(when) if when else "unknown", printable(str(event.get("event"))), facts


def _short(name: str, value: Any) -> str:
    text = " ".join(printable(str(value)).split())
    if name in {"fingerprint", "previous"}:
        return text[:SHORT]
    return json.dumps(text, ensure_ascii=False) if " " in text else text


COMMANDS = (metrics_command, journal_command)
