"""Change a connection: renew, hooks, rollback, revoke, forget."""

from typing import Any

import click

from ucl_helpers.cli.common import (
    common_options,
    confirm,
    connection_options,
    connections,
    finish,
    notifying_on_error,
    open_by_name,
    print_error,
    show,
    show_report,
)
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UsageError
from ucl_helpers.models import NotNeeded, Outcome
from ucl_helpers.operate.hooks import run_hooks
from ucl_helpers.procedures.renewal import Renewal, renew
from ucl_helpers.procedures.revocation import doubtful_identities, forget, revoke, valid_identities
from ucl_helpers.procedures.rollback import rollback
from ucl_helpers.tables import moment


@click.command("renew")
@click.option("--force", is_flag=True, help="Renew now, even if it is not due.")
@click.option("--dry-run", is_flag=True, help="Make all steps that do not sign anything.")
@click.option("--accept-new-subject", is_flag=True, help="Consent to another subject than the one in use.")
@click.option("--accept-new-host", is_flag=True, help="Consent to another host of the certificate endpoint.")
@click.option("--key-length", type=int, help="RSA bits, 2048 to 8192 [default: the connection's setting, 4096].")
@connection_options
def renew_command(
    name: str,
    home: Home,
    *,
    force: bool,
    dry_run: bool,
    json_output: bool,
    **options: Any,  # those that Renewal.begin and renew share
) -> None:
    """Renew connection NAME when it is due.

    \b
    Examples:
      ucl renew prod
      ucl renew prod --force --json

    The new identity replaces the one in use only after UCL has accepted it and all checks have passed. If a renewal is
    interrupted, run it again to resume it. After a failure, a run waits before it tries again. --force tries now.
    """
    connection = open_by_name(home, name)
    if dry_run:
        show(_rehearse(Renewal.begin(connection, rehearsal=True, **options)), json_output=json_output)
        return
    with notifying_on_error(connection):
        outcome = renew(connection, only_if_due=not force, **options)
    finish(connection, outcome, json_output=json_output)


def _rehearse(renewal: Renewal) -> Outcome:
    if renewal.pending.read_state().sent:
        raise UsageError("A signing request is under way.", remedy="The next renewal goes on with it: ucl renew.")
    configuration, request = renewal.configuration(), renewal.request()
    renewal.close()
    if isinstance(configuration, NotNeeded) or isinstance(request, NotNeeded):
        raise UsageError("There is nothing to rehearse.")
    facts = {
        "due": f"{'yes' if renewal.due.due else 'no'}, {moment(renewal.due.at)} ({renewal.due.reason})",
        "subject": configuration.subject,
        "key": f"RSA, {request.bits} bits, kept for the next renewal",
        "not_done": "sign, decode, verify, activate",
    }
    return Outcome("rehearsed", renewal.connection.name, facts)


@click.command("hooks")
@click.option("--all", "everything", is_flag=True, help="Also run hooks that have succeeded for this generation.")
@connection_options
def hooks_command(name: str, home: Home, *, everything: bool, json_output: bool) -> None:
    """Run the hooks of connection NAME that are pending.

    \b
    Examples:
      ucl hooks prod
      ucl hooks prod --all --json

    Hooks are commands in settings.toml. A hook is pending if it has not succeeded for the generation in use, or if its
    command has changed since then. Every run of `ucl renew` runs pending hooks, also when no renewal is due.
    """
    results = run_hooks(home.connection(name), everything=everything)
    show_report(results, results.exit_code, json_output=json_output)
    if results.error and not json_output:
        print_error(results.error, results.exit_code, json_output=False)
    click.get_current_context().exit(results.exit_code)


@click.command("rollback")
@click.argument("name", shell_complete=connections)
@click.argument("generation", required=False)
@common_options
def rollback_command(name: str, generation: str | None, home: Home, *, json_output: bool) -> None:
    """Go back to an earlier GENERATION of connection NAME.

    \b
    Examples:
      ucl rollback prod
      ucl rollback prod 3

    GENERATION is its number. The default is the newest generation that can be used. ucl calls UCL with its certificate
    before it becomes current.
    """
    connection = open_by_name(home, name)
    finish(connection, rollback(connection, generation), json_output=json_output)


@click.command("revoke")
@click.option(
    "--all", "everything", is_flag=True, help="Revoke every identity that is still valid, the current one last."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options
def revoke_command(name: str, home: Home, *, everything: bool, yes: bool, json_output: bool) -> None:
    """Revoke the certificate of connection NAME, for good.

    \b
    Examples:
      ucl revoke prod
      ucl revoke prod --all --yes --json

    From then on, UCL refuses the certificate. A renewal does not revoke the previous certificate, and `ucl rollback`
    returns to it. After --all, you need a one-time token to establish the connection again. Other servers that trust
    the CA may still accept a revoked certificate until it expires, because UCL publishes no revocation list.

    If UCL already refuses a certificate, for example because its client was deleted, the result is "UCL does not accept
    it any more". An outage of UCL looks the same. If an outage is possible, the exit code is 3 the first time, and 0 if
    UCL refuses the certificate in the next run too.
    """
    connection = open_by_name(home, name)
    valid, doubtful = valid_identities(connection), doubtful_identities(connection)
    if not json_output:
        click.echo(str(valid), err=True)
        if doubtful:
            click.echo(str(doubtful), err=True)
    if valid or doubtful:
        which = "all of them" if everything else "the one in use"
        confirm(f"Revoke {which}? This cannot be undone", yes=yes)
    show(revoke(connection, everything=everything), json_output=json_output)


@click.command("forget")
@click.option("--even-if-valid", is_flag=True, help="Remove it even if UCL accepts, or may accept, its identity.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options
def forget_command(name: str, home: Home, *, even_if_valid: bool, yes: bool, json_output: bool) -> None:
    """Remove connection NAME and its keys from this disk.

    \b
    Examples:
      ucl forget old
      ucl forget practice --even-if-valid --yes

    This revokes nothing. If UCL still accepts the certificate, ucl removes the connection only with --even-if-valid.
    The same is true if UCL refuses the certificate and an outage can explain that, because UCL accepts it again after
    an outage.
    """
    connection = home.connection(name)
    confirm(f"Remove {connection.path} with all its keys?", yes=yes)
    show(forget(connection, even_if_valid=even_if_valid), json_output=json_output)
