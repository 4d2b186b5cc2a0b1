"""Hooks by hand: ``ucl hooks``."""

import json

import click

from ucl_helpers.cli.common import as_json, complain, say, with_home
from ucl_helpers.cli.completion import connections
from ucl_helpers.connection.store import Home
from ucl_helpers.operate.hooks import run_hooks


@click.command("hooks")
@click.argument("name", shell_complete=connections)
@click.option("--all", "everything", is_flag=True, help="Also hooks that have succeeded for this generation.")
@with_home
@as_json
def hooks_command(name: str, home: Home, *, everything: bool, json_output: bool) -> None:
    """Run the hooks of connection NAME that are pending.

    \b
    Examples:
      ucl hooks prod
      ucl hooks prod --all --json

    Hooks are commands in settings.toml. A hook is pending when it has not succeeded yet for the generation in use, or
    its command has changed since. Every renewal runs what is pending, also one that is not due.
    """
    results = run_hooks(home.connection(name), everything=everything)
    say(json.dumps(results.as_json(), indent=1) if json_output else str(results), results.exit_code)
    if results.error and not json_output:
        complain(results.error, results.exit_code, json_output=False)
    click.get_current_context().exit(results.exit_code)


COMMANDS = (hooks_command,)
