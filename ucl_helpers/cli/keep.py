"""Living with a connection: renew, status, path, revoke, rollback, forget."""

import json

import click

from ucl_helpers.cli.after import finish, notifying_on_error
from ucl_helpers.cli.common import as_json, confirm, open_by_name, say, show, with_home
from ucl_helpers.cli.completion import connections
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UsageError
from ucl_helpers.models import NotNeeded, Outcome
from ucl_helpers.procedures.generations import rollback
from ucl_helpers.procedures.renewal import Renewal, renew
from ucl_helpers.procedures.revocation import doubtful_identities, forget, revoke, valid_identities
from ucl_helpers.tables import moment, text_table

EXPORTS = {
    "combined": "combined.pem",
    "encrypted-key": "encrypted-key.pem",
    "p12": "identity.p12",
    "secret": "secret.yaml",
}
FILES = {
    "key": "key.pem",
    "certificate": "certificate.pem",
    "chain": "chain.pem",
    "identity": "identity.pem",
    **EXPORTS,
}


@click.command("renew")
@click.argument("name", shell_complete=connections)
@click.option("--force", is_flag=True, help="Also when it is not due.")
@click.option("--dry-run", is_flag=True, help="Everything but signing.")
@click.option("--accept-new-subject", is_flag=True, help="Consent to another subject than the one in use.")
@click.option("--accept-new-host", is_flag=True, help="Consent to another host of the certificate endpoint.")
@click.option("--key-length", type=int, help="RSA bits, 2048 to 8192 [default: the connection's setting, 4096].")
@with_home
@as_json
def renew_command(
    name: str,
    home: Home,
    key_length: int | None,
    *,
    force: bool,
    dry_run: bool,
    accept_new_subject: bool,
    accept_new_host: bool,
    json_output: bool,
) -> None:
    """Renew connection NAME when it is due.

    \b
    Examples:
      ucl renew prod
      ucl renew prod --force --json

    The identity in use stays until the new one has passed its checks and was accepted by UCL. Whatever goes wrong,
    running it again goes on from there; after a failure that is not before a pause is over, unless with --force.
    """
    connection = open_by_name(home, name)
    if dry_run:
        outcome = _rehearse(
            Renewal.begin(
                connection,
                key_length=key_length,
                accept_new_subject=accept_new_subject,
                accept_new_host=accept_new_host,
                rehearsal=True,
            )
        )
        show(outcome, json_output=json_output)
        return
    with notifying_on_error(connection):
        outcome = renew(
            connection,
            key_length=key_length,
            only_if_due=not force,
            accept_new_subject=accept_new_subject,
            accept_new_host=accept_new_host,
        )
    finish(connection, outcome, json_output=json_output)


def _rehearse(renewal: Renewal) -> Outcome:
    if renewal.pending.state.get("sent"):
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


@click.command("status")
@click.argument("name", required=False, shell_complete=connections)
@click.option(
    "--check", is_flag=True, help="For monitoring: one line, exit code 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."
)
@with_home
@as_json
def status_command(name: str | None, home: Home, *, check: bool, json_output: bool) -> None:
    """Show where connection NAME stands, or all connections.

    \b
    Examples:
      ucl status
      ucl status prod --json
      ucl status prod --check

    It reads the disk only; nobody is called. The exit code is 0 whatever the state, but for --check, which judges all
    connections but those for practice, or the one that is named.
    """
    if check:
        from ucl_helpers.operate.monitoring import check_home

        report = check_home(home, name)
        say(json.dumps(report.as_json(), indent=1) if json_output else str(report), report.exit_code)
        click.get_current_context().exit(report.exit_code)
    if name is not None:
        status = status_of(home.connection(name))
        click.echo(json.dumps(status.as_json(), indent=1) if json_output else str(status))
        return
    every = [status_of(connection) for connection in home.connections()]
    if json_output:
        click.echo(json.dumps([one.as_json() for one in every], indent=1))
    elif every:
        rows = [
            (
                one.name + (" (sandbox)" if one.sandbox else ""),
                one.state,
                moment(one.validity.not_after) if one.validity else "-",
                moment(one.due.at) if one.due else "-",
            )
            for one in every
        ]
        click.echo(text_table([("connection", "state", "valid to", "renewal due"), *rows]))
    else:
        click.echo(f"No connections in {home.path} yet. Begin with: ucl establish practice --sandbox")


@click.command("path")
@click.argument("name", shell_complete=connections)
@click.argument("what", type=click.Choice(list(FILES)))
@with_home
def path_command(name: str, what: str, home: Home) -> None:
    """Print the path of NAME's current key, certificate, chain, identity (key and chain in one file), or of an export.

    \b
    Examples:
      ucl path prod identity
      curl --cert "$(ucl path prod identity)" https://…

    The path goes through the link `current`, so it stays the same over renewals. A program that reads key and
    certificate apart must resolve that link once, or read `identity`, which is always of one piece.
    """
    connection = home.connection(name)
    there = connection.require_current().path / FILES[what]
    if what in EXPORTS and not there.exists():
        raise UsageError(
            f"{name} has no {FILES[what]}.",
            remedy=f"Ask for it in [exports], then make it: ucl settings {name} --edit && ucl export {name}",
        )
    click.echo(bytes(connection.path / "current" / FILES[what]))  # byte for byte, whatever the terminal can show


@click.command("revoke")
@click.argument("name", shell_complete=connections)
@click.option("--all", "everything", is_flag=True, help="Every identity that is still valid, the one in use last.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_home
@as_json
def revoke_command(name: str, home: Home, *, everything: bool, yes: bool, json_output: bool) -> None:
    """Revoke the certificate of connection NAME, for good.

    \b
    Examples:
      ucl revoke prod
      ucl revoke prod --all --yes --json

    UCL refuses a revoked certificate from then on. Each certificate is revoked by itself: renewing does not revoke
    the previous one, and `ucl rollback` goes back to it. After --all the connection can only be established again,
    with a one-time token. Cryptographically a revoked certificate stays valid until it expires; others that trust
    its CA are not told.

    For a certificate that UCL refuses already, for example because its client was deleted, the answer is "UCL does
    not accept it any more". An outage of UCL looks the same. So where nothing rules that out, the exit code is 3 the
    first time, and 0 when UCL refuses it in the next run as well.
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


@click.command("rollback")
@click.argument("name", shell_complete=connections)
@click.argument("generation", required=False)
@with_home
@as_json
def rollback_command(name: str, generation: str | None, home: Home, *, json_output: bool) -> None:
    """Go back to an earlier GENERATION of NAME (its number; by default the newest that can be used).

    \b
    Examples:
      ucl rollback prod
      ucl rollback prod 3

    It is tried by a call before it becomes current.
    """
    connection = open_by_name(home, name)
    finish(connection, rollback(connection, generation), json_output=json_output)


@click.command("forget")
@click.argument("name", shell_complete=connections)
@click.option("--even-if-valid", is_flag=True, help="Also when UCL accepts, or may accept, an identity of it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_home
@as_json
def forget_command(name: str, home: Home, *, even_if_valid: bool, yes: bool, json_output: bool) -> None:
    """Remove connection NAME and its keys from this disk.

    \b
    Examples:
      ucl forget old
      ucl forget practice --even-if-valid --yes

    Nothing is revoked by this, so what UCL still accepts is removed only if you insist. The same is true of what UCL
    refuses if an outage of UCL can explain that, because the keys are good again after an outage.
    """
    connection = home.connection(name)
    confirm(f"Remove {connection.path} with all its keys?", yes=yes)
    show(forget(connection, even_if_valid=even_if_valid), json_output=json_output)


COMMANDS = (renew_command, status_command, path_command, revoke_command, rollback_command, forget_command)
