"""Make new connections: ``ucl establish`` and ``ucl import``."""

from pathlib import Path

import click

from ucl_helpers.cli.common import FILE, REFERENCE, connection_options, finish
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UsageError
from ucl_helpers.extras import require
from ucl_helpers.procedures.establishment import access_from, establish
from ucl_helpers.procedures.importing import import_identity, read_identity, usable_ca


@click.command("establish")
@click.option("--token", metavar=REFERENCE, help="Reference to a one-time token, in any form of the Director.")
@click.option("--connector-url", metavar="URL", help="The token endpoint, if the token does not name it.")
@click.option("--director-url", metavar="URL", help="The Director, which issues a token instead of --token.")
@click.option("--tenant", help="With --director-url: the tenant's id.")
@click.option("--application-id", help="With --director-url: the application's id.")
@click.option("--bearer", metavar=REFERENCE, help="With --director-url: reference to the bearer token.")
@click.option("--sandbox", is_flag=True, help="Practise in the sandbox of the home folder.")
@click.option("--ca-file", type=FILE, help="PEM file of the CA of UCL's servers [default: the system's CAs].")
@click.option("--key-length", type=int, help="RSA bits, 2048 to 8192 [default: 4096].")
@connection_options
def establish_command(
    name: str,
    home: Home,
    ca_file: Path | None,
    key_length: int | None,
    *,
    sandbox: bool,
    json_output: bool,
    **given: str | None,
) -> None:
    """Establish connection NAME with a one-time token.

    \b
    Examples:
      ucl establish prod --token env:UCL_TOKEN --connector-url https://…/connector/graphql
      ucl establish prod --token file:token.txt        (rawEncoded: names its endpoint)
      ucl establish prod --director-url https://…/director/graphql --tenant T --application-id A --bearer env:BEARER
      ucl establish practice --sandbox

    The first request that carries a token uses it up. If a later request fails, ucl keeps key and CSR. Then run it
    again with a new token. Without a token, it finishes an interrupted run.
    """
    if empty := next((option for option, value in given.items() if value == ""), None):
        raise UsageError(f"--{empty.replace('_', '-')} is empty.", remedy="If it is a variable of the shell, set it.")
    if sandbox and (ca_file or any(given.values())):
        raise UsageError("--sandbox needs no other option.", remedy="Leave the other options out, or --sandbox.")
    ca_file = usable_ca(ca_file) if ca_file else None
    access = access_from(given, ca_file, Connection(home, name))
    if sandbox:
        require("sandbox")
        from ucl_helpers.practice import practise

        outcome = practise(home, name, key_length)
    elif access:
        _refuse_practice(home, name)
        with home.making(name) as connection:
            outcome = establish(connection, access, ca_file=ca_file, key_length=key_length)
    else:
        if not Connection(home, name).path.is_dir():
            raise UsageError(
                f"{name} does not exist yet, and no option says how to establish it.",
                remedy="Give --token, or --director-url …, or --sandbox.",
            )
        outcome = establish(home.connection(name), None, ca_file=ca_file, key_length=key_length)
    finish(home.connection(name), outcome, json_output=json_output)


def _refuse_practice(home: Home, name: str) -> None:
    """Refuse a practice connection, which belongs to its sandbox and cannot become a real one."""
    if Connection(home, name).is_sandbox:
        raise UsageError(
            f"{name} is a connection for practice.", remedy=f"Choose another name, or remove it: ucl forget {name}"
        )


@click.command("import")
@click.option(
    "--key",
    type=FILE,
    required=True,
    help="File of the private key: PEM, DER, PKCS #12 or a service key (JSON).",
)
@click.option("--certificate", type=FILE, help="File of the certificate: PEM, DER, PKCS #7 or base64 of PEM.")
@click.option("--chain", type=FILE, help="File of further certificates of the chain.")
@click.option("--passphrase", metavar=REFERENCE, help="Reference to the passphrase of an encrypted key or PKCS #12.")
@click.option("--connector-url", metavar="URL", required=True, help="The certificate endpoint.")
@click.option("--ca-file", type=FILE, help="PEM file of the CA of UCL's servers [default: the system's CAs].")
@connection_options
def import_command(
    name: str,
    home: Home,
    key: Path,
    certificate: Path | None,
    chain: Path | None,
    passphrase: str | None,
    connector_url: str,
    ca_file: Path | None,
    *,
    json_output: bool,
) -> None:
    """Import an existing key and certificate as connection NAME.

    \b
    Examples:
      ucl import prod --key ucl-app.key --certificate ucl-app.crt --connector-url https://…/connector/graphql
      ucl import prod --key ucl-app.p12 --passphrase prompt --connector-url https://…/connector/graphql

    It checks key and certificate, and calls UCL with them. It stores them only if UCL accepts the certificate.
    --connector-url is the certificateSecuredConnectorURL.
    """
    _refuse_practice(home, name)
    secret = _passphrase(passphrase) if passphrase else None
    identity = read_identity(key, certificate, chain, passphrase=secret)
    outcome = import_identity(home, name, identity, connector_url, ca_file=ca_file)
    finish(home.connection(name), outcome, json_output=json_output)


def _passphrase(reference: str) -> str:
    try:
        return resolve(reference, what="--passphrase")
    except UsageError as error:
        remedy = f"{error.remedy} If no file has a passphrase, leave --passphrase out."
        raise UsageError(error.message, remedy=remedy) from None
