"""Read without changing anything: status, path, journal, metrics, doctor, explain."""

import json
import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import click

from ucl_helpers import errors
from ucl_helpers.cli.common import FILE, common_options, connection_options, connections, show_report, with_home
from ucl_helpers.clock import moment_from, utc_now
from ucl_helpers.connection.exports import EXPORTS
from ucl_helpers.connection.journal import NUMBER
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UCLError, UsageError, printable
from ucl_helpers.tables import moment, text_table

if TYPE_CHECKING:
    from ucl_helpers.operate.doctor import Diagnoses, Diagnosis

_EXPORTED = {export.word: export.file for export in EXPORTS.values()}
FILES = {
    "key": "key.pem",
    "certificate": "certificate.pem",
    "chain": "chain.pem",
    "identity": "identity.pem",
    **_EXPORTED,
}
_ENTRY = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^]]+)]\([^)]+\)")
SHORT = 16
"""The number of digits of a fingerprint that a line shows."""


@click.command("status")
@click.argument("name", required=False, shell_complete=connections)
@click.option(
    "--check", is_flag=True, help="For monitoring: one line, exit code 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."
)
@common_options
def status_command(name: str | None, home: Home, *, check: bool, json_output: bool) -> None:
    """Show the state of connection NAME, or of all connections.

    \b
    Examples:
      ucl status
      ucl status prod --json
      ucl status prod --check

    It reads the disk and makes no network calls. The exit code is 0 in every state. With --check, the exit code says
    whether the named connection is well, or all connections that are not for practice.
    """
    if check:
        from ucl_helpers.operate.monitoring import check_home

        report = check_home(home, name)
        show_report(report, report.exit_code, json_output=json_output)
        click.get_current_context().exit(report.exit_code)
    if name is not None:
        status = status_of(home.connection(name))
        show_report(status, 0, json_output=json_output)
        return
    statuses = [status_of(connection) for connection in home.connections()]
    if json_output:
        click.echo(json.dumps([status.as_json() for status in statuses], indent=1))
    elif statuses:
        rows = [
            (
                status.name + (" (sandbox)" if status.sandbox else ""),
                status.state,
                moment(status.validity.not_after) if status.validity else "-",
                moment(status.due.at) if status.due else "-",
            )
            for status in statuses
        ]
        click.echo(text_table([("connection", "state", "valid to", "renewal due"), *rows]))
    else:
        click.echo(f"No connections in {home.path} yet. Begin with: ucl establish practice --sandbox")


@click.command("path")
@click.argument("name", shell_complete=connections)
@click.argument("what", type=click.Choice(list(FILES)))
@with_home
def path_command(name: str, what: str, home: Home) -> None:
    """Print the path of a file of connection NAME, such as its key.

    \b
    Examples:
      ucl path prod identity
      curl --cert "$(ucl path prod identity)" https://…

    The identity is key and chain in one file. The path contains the link `current`, so a renewal does not change it. A
    program that reads key and certificate from two files must resolve that link once. A program that reads `identity`
    always gets a matching pair.
    """
    connection = home.connection(name)
    file = connection.require_current().path / FILES[what]
    if what in _EXPORTED and not file.exists():
        raise UsageError(
            f"{name} has no {FILES[what]}.",
            remedy=f"Ask for it in [exports], then make it: ucl settings {name} --edit && ucl export {name}",
        )
    click.echo(bytes(connection.path / "current" / FILES[what]))  # exact, even if the terminal cannot show them


@click.command("metrics")
@click.option("--textfile", type=FILE, help="Write FILE.prom for node_exporter's textfile collector.")
@click.option("--practice", is_flag=True, help="Include connections for practice.")
@with_home
def metrics_command(textfile: Path | None, home: Home, *, practice: bool) -> None:
    """Print metrics of all connections for Prometheus.

    \b
    Examples:
      ucl metrics
      ucl metrics --textfile /var/lib/prometheus/node-exporter/ucl.prom

    The metrics are validity, due dates, attempts, failures and states. ucl reads them from disk and makes no calls. It
    writes the file with mode 0644 in one step. The file has no secrets. Run it after each renewal and every few
    minutes.
    """
    from ucl_helpers.operate.monitoring import render, write_textfile

    statuses = [status_of(connection) for connection in home.connections()]
    metrics = render([status for status in statuses if practice or not status.sandbox], utc_now())
    if textfile is None:
        click.echo(metrics, nl=False)
    else:
        write_textfile(textfile, metrics)


@click.command("journal")
@click.option("-n", "--last", type=click.IntRange(min=1), metavar="N", help="Print only the last N events.")
@connection_options
def journal_command(name: str, last: int | None, home: Home, *, json_output: bool) -> None:
    """Show the history of connection NAME.

    \b
    Examples:
      ucl journal prod
      ucl journal prod -n 20
      ucl journal prod --json

    It prints one line for each event, the newest last, with times in UTC. With --json it prints a list of objects. The
    journal decides nothing, so you may rotate or remove it. If ucl can detect that lines are missing, the last line
    says so (with --json on standard error).
    """
    connection = home.connection(name)
    events, lost = connection.journal(), connection.lost_events()
    chosen = events[-last:] if last else events
    if json_output:
        click.echo(json.dumps(chosen, indent=1))
    elif chosen:
        click.echo(text_table([_line(event) for event in chosen]))
    else:
        click.echo(f"Nothing has happened to {name} yet." if lost is None else f"The journal of {name} has no events.")
    if lost is not None:
        click.echo(f"Lines were lost: {lost}.", err=json_output)


def _line(event: dict[str, Any]) -> tuple[str, str, str]:
    others = {"time", "event", NUMBER}
    facts = {name: value for name, value in event.items() if name not in others and value is not None}
    text = "  ".join(f"{name}={_short(name, value)}" for name, value in facts.items())
    when = moment_from(event.get("time"))
    return moment(when) if when else "unknown", printable(str(event.get("event"))), text


def _short(name: str, value: Any) -> str:
    text = " ".join(printable(str(value)).split())
    if name in {"fingerprint", "previous"}:
        return text[:SHORT]
    return json.dumps(text, ensure_ascii=False) if " " in text else text


@click.command("doctor")
@click.argument("name", required=False, shell_complete=connections)
@click.option("--offline", is_flag=True, help="Make no network calls: check this machine only.")
@click.option("--url", metavar="URL", help="Check the network to this URL of UCL; needs no connection.")
@click.option("--ca-file", type=FILE, help="With --url: PEM file of the server's CA [default: the system's CAs].")
@common_options
def doctor_command(
    name: str | None, url: str | None, ca_file: Path | None, home: Home, *, offline: bool, json_output: bool
) -> None:
    """Check connection NAME, or all, and say how to fix problems.

    \b
    Examples:
      ucl doctor
      ucl doctor prod
      ucl doctor prod --offline --json
      ucl doctor --url https://HOST/connector/graphql --ca-file server-ca.pem

    For each check it prints the result and the one command that fixes it. It changes no connection, takes no lock of a
    connection and has nothing signed. It tries the features of the file system in a temporary folder in the home
    folder. It makes one call to UCL, for the configuration. With --url it needs no connection, and checks the home
    folder, and network, proxy and trust on the way to that URL. The exit code is 0 if nothing failed (warnings are
    allowed). Otherwise it is the exit code of the first failure.
    """
    from ucl_helpers.operate.doctor import diagnose, diagnose_home, diagnose_way

    connection = Connection(home, name) if name else None
    if url is None and ca_file is not None:
        raise UsageError("--ca-file belongs to --url.", remedy="Add --url, or leave --ca-file out.")
    if url is not None and (offline or (connection and connection.location.exists())):
        why = "--offline calls no URL" if offline else f"{name} has a URL of its own, which ucl doctor {name} looks at"
        raise UsageError(f"--url cannot be used here: {why}.", remedy="Leave one of them out.")
    report: Diagnosis | Diagnoses
    if url is not None:
        report = diagnose_way(home, url, ca_file=ca_file)
    else:
        report = diagnose(connection, offline=offline) if connection else diagnose_home(home, offline=offline)
    show_report(report, report.exit_code, json_output=json_output)
    click.get_current_context().exit(report.exit_code)


def catalogue() -> dict[str, str]:
    """Return the entries of the error page as plain text, by class name, from the wheel or the checkout."""
    from ucl_helpers.headless.notebooks import packaged

    page = packaged("docs") / "reference" / "errors.md"
    return {name: _LINK.sub(r"\1", entry).strip() for name, entry in _ENTRY.findall(page.read_text("utf-8"))}


def _class_of(asked: str) -> type[UCLError]:
    """Return an error class by its name, in upper or lower case, or the topmost class with an exit code."""
    kinds: list[type[UCLError]] = [getattr(errors, name) for name in catalogue()]
    for kind in kinds:
        if asked.lower() == kind.__name__.lower() or asked == str(kind.exit_code):
            return kind
    raise UsageError(f"There is no error {asked!r}.", remedy="All there are: ucl explain")


def names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return names of errors for the shell's completion."""
    return [name for name in catalogue() if name.lower().startswith(incomplete.lower())]


@click.command("explain")
@click.argument("error", required=False, shell_complete=names)
def explain_command(error: str | None) -> None:
    """Explain ERROR, a name or an exit code.

    \b
    Examples:
      ucl explain NotYetAccepted
      ucl explain 11

    It prints the meaning of the error, its likely causes and its remedies. Without ERROR, it prints all errors with
    their exit codes. Replace prod by the name of your connection.
    """
    if error is None:
        click.echo(dedent((errors.__doc__ or "").partition("::\n\n")[2]).rstrip())
        return
    kind = _class_of(error)
    kinds = [child.__name__ for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    below = [f"Kinds of it: {', '.join(kinds)}."] if kinds else []
    click.echo("\n\n".join([kind.__name__, catalogue()[kind.__name__], *below]))
