"""The group of all commands, and the one place where errors become exit codes."""

import sys
from pathlib import Path
from typing import Any

import click

from ucl_helpers import __version__
from ucl_helpers.cli import connect, keep, tools
from ucl_helpers.cli.common import EXIT_CODES, FILE, complain
from ucl_helpers.errors import StorageFailed, UCLError

INTERRUPTED = 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Keep a UCL client certificate alive: establish a connection, renew it, revoke it.",
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="ucl")
@click.option("--home", type=FILE, help="Where connections lie [default: UCL_HOME, else the user's data folder].")
@click.pass_context
def group(context: click.Context, home: Path | None) -> None:
    """Remember what all commands share."""
    context.obj = {"home": home}


for command in (*connect.COMMANDS, *keep.COMMANDS, *tools.COMMANDS):
    group.add_command(command)


def main(arguments: list[str] | None = None) -> Any:
    """Run ``ucl`` and end with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = group.main(args=given, prog_name="ucl", standalone_mode=False)
    except UCLError as error:
        complain(error, json_output="--json" in given)
        code = error.exit_code
    except OSError as error:
        complain(
            StorageFailed(f"The system said no: {error}.", remedy="Mend that, then run it again."), json_output=False
        )
        code = StorageFailed.exit_code
    except click.exceptions.Abort:
        click.echo("Interrupted; nothing is lost, run it again to go on.", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)
