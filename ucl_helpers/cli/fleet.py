"""Handle many connections at once: ``ucl fleet status`` and ``ucl fleet renew``."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ucl_helpers.cli.common import FILE, Duration, common_options, connections, say, show_report
from ucl_helpers.connection.files import make_output_folder, require_protected_folder, write
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UsageError
from ucl_helpers.extras import require

if TYPE_CHECKING:
    from ucl_helpers.fleet.executors import Workers

_WIDTH = 36


@click.group("fleet")
def fleet_command() -> None:
    """Show the state of many connections, or renew them.

    \b
    Examples:
      ucl fleet status
      ucl fleet renew
    """


@fleet_command.command("status")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=connections)
@click.option("--practice", is_flag=True, help="Include connections for practice.")
@common_options
def status_command(patterns: tuple[str, ...], home: Home, *, practice: bool, json_output: bool) -> None:
    """Count connections by state, and name those with problems.

    \b
    Examples:
      ucl fleet status
      ucl fleet status 'prod-*' --json

    PATTERN is a name that may contain * and ?. Without PATTERN, connections for practice are left out, unless you add
    --practice. The command reads the disk and no keys. `ucl doctor` tries the keys. The exit code is 0 in every state.
    """
    from ucl_helpers.fleet.plan import fleet_status

    show_report(fleet_status(home, patterns, practice=practice), 0, json_output=json_output)


@fleet_command.command("renew")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=connections)
@click.option("--jobs", type=click.IntRange(1, 256), help="Number of processes [default: one for each processor].")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask cluster instead of processes: tls://HOST:PORT.")
@click.option("--tls-ca-file", type=FILE, help="With --scheduler: PEM file of its CA.")
@click.option("--tls-cert", type=FILE, help="With --scheduler: PEM file of your certificate.")
@click.option("--tls-key", type=FILE, help="With --scheduler: PEM file of your key.")
@click.option(
    "--patience",
    type=Duration(),
    default="1m",
    show_default=True,
    help="Time to wait for a scheduler that does not answer.",
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Calls to UCL in a second [default: 10].")
@click.option("--force", is_flag=True, help="Renew connections that are not due, too.")
@click.option("-o", "--output", type=FILE, help="File for the outcome [default: HOME/runs/fleet-….outcome.json].")
@common_options
def renew_command(
    patterns: tuple[str, ...],
    home: Home,
    jobs: int | None,
    scheduler: str | None,
    patience: timedelta,
    rate: float | None,
    output: Path | None,
    *,
    force: bool,
    json_output: bool,
    **tls: Path | None,
) -> None:
    """Renew due connections: all, or those that match PATTERN.

    \b
    Examples:
      ucl fleet renew
      ucl fleet renew 'prod-*' --jobs 8 --rate 20
      ucl fleet renew --scheduler tls://dask:8786 --tls-ca-file ca.pem --tls-cert cert.pem --tls-key key.pem

    One renewal makes three calls. --rate limits the calls of all workers together. If UCL answers 429, all of them slow
    down. A failed connection does not stop the others. On Ctrl-C or SIGTERM, ucl finishes the running renewals and
    ends. Run it again to continue, also with --force. It renews no connection twice.

    The exit code is 0 if all connections are renewed or not due. If renewals failed, it is the most common exit code
    among failures that are not temporary, or 3 or 8 if all are temporary. It is 130 or 143 if the run was stopped
    before all was done.
    """
    from ucl_helpers.fleet.pacing import DEFAULT_RATE
    from ucl_helpers.fleet.plan import alone, plan
    from ucl_helpers.fleet.run import renew_fleet

    output = (output or home.folder("runs") / f"fleet-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.outcome.json").absolute()
    if output.is_dir():
        raise UsageError(f"{output} is a folder.", remedy="Name the file that the outcome goes to.")
    require_protected_folder(output.parent)
    seconds = patience.total_seconds()
    with alone(home), _workers(jobs, scheduler, seconds, tls) as workers:
        planned = plan(home, patterns, force=force)
        if planned.practice:
            require("sandbox")
            from ucl_helpers.practice import sandbox_of

            sandbox_of(home)
        if planned.continued:
            click.echo(f"Going on with what was begun {planned.continued:%Y-%m-%dT%H:%M:%SZ}.", err=True)
        with _progress(len(planned.bases)) as progress:
            outcome = renew_fleet(planned, workers, rate=rate or DEFAULT_RATE, patience=seconds, progress=progress)
    make_output_folder(output.parent)
    write(output, (json.dumps(outcome.as_json(), indent=1) + "\n").encode())
    text = json.dumps(outcome.as_json(), indent=1) if json_output else f"{outcome}\noutcome  {output}"
    say(text, outcome.exit_code, done="The run of the fleet has ended.")
    click.get_current_context().exit(outcome.exit_code)


@contextmanager
def _workers(
    jobs: int | None, scheduler: str | None, patience: float, tls: dict[str, Path | None]
) -> Iterator["Workers"]:
    """Yield processes on this machine, or the workers of a scheduler."""
    if scheduler is None:
        if any(tls.values()):
            raise UsageError("TLS files are for a scheduler.", remedy="Give --scheduler tls://HOST:PORT, or none.")
        from ucl_helpers.fleet.executors import processes

        workers = processes(jobs or os.cpu_count() or 1)
        with workers.executor:
            yield workers
        return
    if jobs is not None:
        raise UsageError("--jobs is for this machine.", remedy="Leave it out: a scheduler knows its workers.")
    from ucl_helpers.fleet.executors import Scheduler

    chosen = Scheduler(scheduler, tls["tls_ca_file"], tls["tls_cert"], tls["tls_key"])
    chosen.require_safe()
    require("dask")
    from ucl_helpers.fleet.over_dask import dask

    with dask(chosen, patience=patience) as workers:
        yield workers


@contextmanager
def _progress(length: int) -> Iterator[Callable[..., Any]]:
    """Yield the function that advances a progress bar; without a terminal it does nothing."""
    if not (sys.stderr and sys.stderr.isatty()):
        yield lambda *_: None
        return
    with click.progressbar(length=length, label="renewing", width=_WIDTH, show_pos=True, file=sys.stderr) as bar:
        yield lambda *_: bar.update(1)
