"""What is wrong, and what mends it: ``ucl doctor``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ucl_helpers.cli.common import FILE, as_json, say, with_home
from ucl_helpers.cli.completion import connections
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UsageError

if TYPE_CHECKING:
    from ucl_helpers.operate.doctor import Diagnoses, Diagnosis


@click.command("doctor")
@click.argument("name", required=False, shell_complete=connections)
@click.option("--offline", is_flag=True, help="Call nobody: look at this machine only.")
@click.option("--url", metavar="URL", help="Look at the way to this URL of UCL, before there is a connection.")
@click.option("--ca-file", type=FILE, help="With --url: PEM of what verifies the server [default: the system's CAs].")
@with_home
@as_json
def doctor_command(
    name: str | None, url: str | None, ca_file: Path | None, home: Home, *, offline: bool, json_output: bool
) -> None:
    """Look at everything that can be wrong with connection NAME, or with all connections.

    \b
    Examples:
      ucl doctor
      ucl doctor prod
      ucl doctor prod --offline --json
      ucl doctor --url https://HOST/connector/graphql --ca-file server-ca.pem

    For each thing it says what was found and the one command that mends it. It changes nothing, takes no lock of a
    connection and has nothing signed. In a folder of its own in the home folder it tries what the file system offers.
    One call asks UCL for the configuration. With --url it needs no connection: it looks at the home folder, and at
    network, proxy and trust on the way to that URL. The exit code is 0 when nothing failed (warnings allowed), else
    that of the error which the first failure stands for.
    """
    from ucl_helpers.operate.doctor import diagnose, diagnose_home, diagnose_way

    one = Connection(home, name) if name else None
    if url is None and ca_file is not None:
        raise UsageError("--ca-file belongs to --url.", remedy="Add --url, or leave --ca-file out.")
    if url is not None and (offline or (one and one.location.exists())):
        why = "--offline calls no URL" if offline else f"{name} has a URL of its own, which ucl doctor {name} looks at"
        raise UsageError(f"--url cannot be used here: {why}.", remedy="Leave one of them out.")
    found: Diagnosis | Diagnoses
    if url is not None:
        found = diagnose_way(home, url, ca_file=ca_file)
    else:
        found = diagnose(one, offline=offline) if one else diagnose_home(home, offline=offline)
    say(json.dumps(found.as_json(), indent=1) if json_output else str(found), found.exit_code)
    click.get_current_context().exit(found.exit_code)


COMMANDS = (doctor_command,)
