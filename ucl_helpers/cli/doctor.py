"""What is wrong, and what mends it: ``ucl doctor``."""

import json

import click

from ucl_helpers.cli.common import as_json, say, with_home
from ucl_helpers.cli.completion import connections
from ucl_helpers.store import Connection, Home


@click.command("doctor")
@click.argument("name", required=False, shell_complete=connections)
@click.option("--offline", is_flag=True, help="Call nobody: look at this machine only.")
@with_home
@as_json
def doctor_command(name: str | None, home: Home, *, offline: bool, json_output: bool) -> None:
    """Look at everything that can be wrong with connection NAME, or with all connections.

    \b
    Examples:
      ucl doctor
      ucl doctor prod
      ucl doctor prod --offline --json

    For each thing it says what was found and the one command that mends it. It changes nothing, takes no lock of a
    connection and has nothing signed; without NAME it also tries in the home folder whether locks hold. One call asks
    UCL for the configuration. The exit code is 0 when nothing failed (warnings allowed), else that of the error which
    the first failure stands for.
    """
    from ucl_helpers.automation.doctor import diagnose, diagnose_home

    one = Connection(home, name) if name else None
    found = diagnose(one, offline=offline) if one else diagnose_home(home, offline=offline)
    say(json.dumps(found.as_json(), indent=1) if json_output else str(found), found.exit_code)
    click.get_current_context().exit(found.exit_code)


COMMANDS = (doctor_command,)
