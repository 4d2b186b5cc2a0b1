"""The group of all commands, and the one place where errors become exit codes."""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from ucl_helpers import __version__
from ucl_helpers.cli import completion, connect, doctor, explain, files, fleet, hooks, keep, tools, watch
from ucl_helpers.cli.common import EXIT_CODES, FILE, complain
from ucl_helpers.cli.streams import guard_streams
from ucl_helpers.connection.store import Home
from ucl_helpers.core_dumps import no_dumps_at_all
from ucl_helpers.errors import OutputLost, StorageFailed, UCLError, UsageError
from ucl_helpers.progress import listen

INTERRUPTED, TERMINATED = 130, 143
_STANDARD_ERROR = 2
_HELP = """Keep a UCL client certificate alive: establish a connection, renew it, revoke it.

\b
Examples:
  ucl establish practice --sandbox
  ucl status
  ucl renew practice --force
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help=_HELP,
    epilog=EXIT_CODES,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.version_option(__version__, prog_name="ucl")
@click.option("--home", type=FILE, help="Where connections lie [default: UCL_HOME, else the user's data folder].")
@click.pass_context
def group(context: click.Context, home: Path | None) -> None:
    """Without a command: where things stand, and what to do next."""
    if sys.stderr and sys.stderr.isatty():  # someone is looking
        listen(_tell)
    if context.invoked_subcommand is None:
        from ucl_helpers.operate.greeting import greeting

        click.echo(greeting(Home(home)))


def _tell(wait: str) -> None:
    if wait:
        click.echo(wait, err=True)


for module in (connect, keep, files, hooks, doctor, watch, fleet, tools, explain, completion):
    for command in module.COMMANDS:
        group.add_command(command)


def main(arguments: list[str] | None = None) -> Any:
    """Run ``ucl`` and end with its exit code."""
    _open_standard_streams()
    no_dumps_at_all()
    guard_streams()
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names and a server's words may not fit the terminal
    sys.excepthook = _unexpected
    try:
        code = group.main(args=given, prog_name="ucl", standalone_mode=False)
    except UCLError as error:
        code = _end(error, given)
    except OSError as error:
        code = _end(StorageFailed(f"The system said no: {error}.", remedy="Mend that, then run it again."), given)
        _silence()
    except SystemExit as stopped:
        if stopped.code == TERMINATED and "--json" not in given:
            _end(UCLError("Terminated.", remedy="Nothing is lost; run it again to go on."), given, TERMINATED)
        raise
    except click.exceptions.Abort:
        code = _end(UCLError("Interrupted.", remedy="Nothing is lost; run it again to go on."), given, INTERRUPTED)
    except click.ClickException as error:
        if "--json" in given:
            code = _end(UsageError(error.format_message(), remedy="ucl --help tells how."), given)
        else:
            error.show()
            code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_streams() -> None:
    """Open the null device for each standard stream that the caller closed.

    Otherwise the next file that is opened gets its number, and a program that is started would write there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _end(error: UCLError, given: list[str], code: int | None = None) -> int:
    code = error.exit_code if code is None else code
    try:
        complain(error, code, json_output="--json" in given and not isinstance(error, OutputLost))
    except OutputLost:  # then for people, on standard error
        complain(error, code, json_output=False)
    except OSError:  # its reader has gone
        _silence()
    return code


def _silence() -> None:
    """Let the interpreter not try once more, at its end, to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug: its type is told; its text and traceback, which might hold a secret, only to who asks for them."""
    if os.environ.get("UCL_DEBUG") or not issubclass(kind, Exception):
        sys.__excepthook__(kind, error, trace)
    else:
        _end(UCLError(f"Unexpected: {kind.__name__}.", remedy="With UCL_DEBUG=1 it tells where."), sys.argv)
