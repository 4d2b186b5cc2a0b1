"""Share code between commands: the home folder, completion, output, notices and hooks after a run."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import OutputLost, UCLError, UsageError, explained_by
from ucl_helpers.extras import require
from ucl_helpers.models import Outcome
from ucl_helpers.policy import parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])


class _FileType(click.Path):
    """A path; unlike click's, an empty text is not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "" and param:
            raise UsageError(f"{param.opts[0]} is empty.", remedy="If it is a variable of the shell, set it.")
        return super().convert(value, param, ctx)


FILE = _FileType(path_type=Path)
REFERENCE = "env:NAME|file:PATH|prompt"
_OF_THE_ERROR = ("error", "message", "remedy", "hooks_failed")

EXIT_CODES = """\
\b
Exit codes:
   0  done, or not due
   1  unexpected
   2  usage: a name, option, parameter or file is not usable
   3  retry later: nothing is lost, run it again
   4  refused by the server
   5  the server is not trusted; nothing was sent
   6  a certificate failed its checks
   7  UCL wants another subject or names another host: needs consent
   8  busy: another process is using this connection
   9  refused: a secret was passed in plain text
  10  storage: a file could not be read or written, or is corrupt
  11  a new one-time token is needed; key and CSR are kept
  12  an answer that does not follow the Connector's schema
  13  a hook failed; the certificate is in place
  14  a notebook showed a secret; the outputs that held it were removed
  15  the command has done its work; its output could not be written
 130  interrupted
 143  terminated
"""


def with_home(command: Command) -> Command:
    """Add the option ``--home``, which is accepted before and after the command's name."""

    def choose(context: click.Context, _: click.Parameter, value: Path | None) -> Home | Path | None:
        given = value or context.find_root().params.get("home")
        return given if context.resilient_parsing else Home(given)  # completion shows no errors

    option = click.option(
        "--home", type=FILE, callback=choose, help="Where connections are stored [default: UCL_HOME]."
    )
    return option(command)


def as_json(command: Command) -> Command:
    """Add the flag ``--json``."""
    return click.option("--json", "json_output", is_flag=True, help="Print JSON, for programs.")(command)


def common_options(command: Command) -> Command:
    """Add ``--home`` and ``--json``, in the order of the help."""
    return with_home(as_json(command))


def connections(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return names of connections for the shell's completion, from the home folder of ``--home`` or ``UCL_HOME``."""
    with suppress(UCLError, OSError):
        return [name for name in Home(context.params.get("home")).names() if name.startswith(incomplete)]
    return []


def connection_options(command: Command) -> Command:
    """Add the argument ``NAME``, ``--home`` and ``--json``."""
    return click.argument("name", shell_complete=connections)(common_options(command))


def open_by_name(home: Home, name: str) -> Connection:
    """Return an existing connection. For a practice connection, start its sandbox if it does not run."""
    connection = home.connection(name)
    if connection.is_sandbox:
        require("sandbox")
        from ucl_helpers.practice import sandbox_of

        sandbox_of(home)
    return connection


def show(outcome: Outcome, *, json_output: bool) -> None:
    """Print the outcome of a procedure; see :func:`say`."""
    text = json.dumps(outcome.as_json(), indent=1) if json_output else str(outcome)
    say(text, outcome.exit_code, done=f"{outcome.connection}: {outcome.outcome}.")


def say(text: str, exit_code: int, *, done: str = "") -> None:
    """Print the result of a command.

    Args:
        text: for standard output.
        exit_code: the exit code of the command. If it is not 0, a text that cannot be written does not change it.
        done: a description of the work done, for the error that the text could not be written.

    Raises:
        OutputLost: the text could not be written.
    """
    try:
        click.echo(text)
    except OutputLost as lost:
        error = OutputLost(f"{done} {lost.message}".strip(), remedy=lost.remedy)
        if not exit_code:
            raise error from None
        print_error(error, error.exit_code, json_output=False)


def show_report(report: Any, exit_code: int, *, json_output: bool) -> None:
    """Print an object that has ``as_json``, for people or for programs."""
    say(json.dumps(report.as_json(), indent=1) if json_output else str(report), exit_code)


def finish(connection: Connection, outcome: Outcome, *, json_output: bool) -> None:
    """Run what is pending after a procedure, print the outcome, and end with its exit code."""
    from ucl_helpers.operate.notices import complete_run

    done = complete_run(connection, outcome)
    if json_output:
        show(done.outcome, json_output=True)
    else:
        facts = {name: fact for name, fact in done.outcome.facts.items() if name not in _OF_THE_ERROR}
        show(replace(done.outcome, facts=facts), json_output=False)
        if done.hooks.failed:
            click.echo(str(done.hooks), err=True)
        if done.error:
            print_error(done.error, done.error.exit_code, json_output=False)
    click.get_current_context().exit(done.outcome.exit_code)


@contextmanager
def notifying_on_error(connection: Connection) -> Iterator[None]:
    """Send the notices of the connection for an error in the block, and raise it again."""
    from ucl_helpers.operate.notices import report_failure

    try:
        yield
    except OutputLost:
        raise  # this is no error of the connection
    except UCLError as error:
        report_failure(connection, error)
        raise


def print_error(error: UCLError, exit_code: int, *, json_output: bool) -> None:
    """Print an error: for people on standard error, for programs as JSON on standard output."""
    if json_output:
        facts = {"outcome": "failed", **error.as_json(), "exitCode": exit_code, "data": dict(error.data)}
        click.echo(json.dumps(facts, indent=1, default=str))
        return
    is_signal, name = exit_code != error.exit_code, type(error).__name__  # a signal's code is none of the classes'
    click.secho(error.message if is_signal else f"{name}: {error.message}", err=True, fg="red")
    if error.remedy:
        click.echo(error.remedy, err=True)
    if not is_signal and (explained := explained_by(name)):
        click.secho(explained, err=True, dim=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask the user on standard error, unless ``yes`` is set. Any answer but ``y`` or ``yes`` means no.

    Raises:
        UsageError: the answer is no, or there is none.
    """
    if yes:
        return
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    answer = sys.stdin.readline() if sys.stdin else ""
    if not answer.endswith("\n"):
        click.echo(err=True)
    if answer.strip().lower() not in {"y", "yes"}:
        raise UsageError("Not confirmed; nothing was done.", remedy="Answer y, or say --yes.")


class Duration(click.ParamType[timedelta]):
    """A duration such as ``90d``, ``36h`` or ``30s``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Convert a text; fail with a usage error if it is not a duration."""
        try:
            return value if isinstance(value, timedelta) else parse_duration(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
