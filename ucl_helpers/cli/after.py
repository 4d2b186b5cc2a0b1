"""What commands do when a procedure is over: hooks, notices, and only then the outcome."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import click

from ucl_helpers.cli.common import complain, show
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import OutputLost, UCLError
from ucl_helpers.models import Outcome
from ucl_helpers.operate.notices import complete_run, report_failure

_OF_THE_ERROR = ("error", "message", "remedy", "hooks_failed")


def finish(connection: Connection, outcome: Outcome, *, json_output: bool) -> None:
    """Run what is pending, show what all came to, and end with its exit code."""
    done = complete_run(connection, outcome)
    if json_output:
        show(done.outcome, json_output=True)
    else:
        facts = {name: fact for name, fact in done.outcome.facts.items() if name not in _OF_THE_ERROR}
        show(replace(done.outcome, facts=facts), json_output=False)
        if done.hooks.failed:
            click.echo(str(done.hooks), err=True)
        if done.error:
            complain(done.error, done.error.exit_code, json_output=False)
    click.get_current_context().exit(done.outcome.exit_code)


@contextmanager
def notifying_on_error(connection: Connection) -> Iterator[None]:
    """Notify those who want to know of an error in the block, and raise it again."""
    try:
        yield
    except OutputLost:
        raise  # nothing is wrong with the connection
    except UCLError as error:
        report_failure(connection, error)
        raise
