"""The settings of a connection, and the files that follow from them: ``ucl settings`` and ``ucl export``."""

import json
import os
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path

import click

from ucl_helpers.cli.common import FILE, REFERENCE, as_json, confirm, connections, finish, with_home
from ucl_helpers.connection import files
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.settings import Settings, as_toml, plain, read_settings, settings_content
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import InvalidSettings, UsageError
from ucl_helpers.procedures.generations import export


@click.command("export")
@click.argument("name", shell_complete=connections)
@click.option("--force", is_flag=True, help="Also when all is as the settings want it.")
@click.option("--from", "former", metavar=REFERENCE, help="The passphrase that keys were encrypted with until now.")
@with_home
@as_json
def export_command(name: str, home: Home, former: str | None, *, force: bool, json_output: bool) -> None:
    """Write the files of connection NAME again, by its settings.

    \b
    Examples:
      ucl export prod
      ucl export prod --from env:FORMER_PASSPHRASE      (key_passphrase was changed, or taken away)

    The certificate stays. Exports, passphrases, owner, group and mode are those of the settings. Where
    key_passphrase was set, changed or taken away, the keys of every generation are replaced, and so is what is
    pending or set aside. Hooks run when there are new files.
    """
    connection = home.connection(name)
    secret = resolve(former, what="--from").encode() if former else None
    finish(connection, export(connection, force=force, former=lambda: secret), json_output=json_output)


@click.command("settings")
@click.argument("name", shell_complete=connections)
@click.option("--edit", is_flag=True, help="With $VISUAL or $EDITOR, on a copy that is put in place if it can be read.")
@click.option("--set", "given", type=FILE, help="Put this file in place if it can be read; makes NAME if it is new.")
@with_home
@as_json
def settings_command(name: str, home: Home, given: Path | None, *, edit: bool, json_output: bool) -> None:
    """Show the settings of connection NAME, or change them.

    \b
    Examples:
      ucl settings prod
      ucl settings prod --edit
      ucl settings new --set settings.toml      (before it is established: so its first key lies there encrypted)

    It prints the settings in force, as TOML; what is not set is a comment. A new passphrase, other exports or
    readers count from the next renewal, or at once with: ucl export NAME

    What was edited and cannot be put in place stays as settings.edited.toml for the next --edit; to drop it, remove it.
    """
    if edit and given:
        raise UsageError("--edit and --set exclude each other.", remedy="Leave out one of the two.")
    connection = _put(home, name, given) if given else home.connection(name)
    if edit:
        _edit(connection)
    settings, path = connection.read_settings(), connection.path / "settings.toml"
    if json_output:
        told = {"name": name, "path": str(path), "settings": plain(settings)}
        click.echo(json.dumps(told, indent=1))
        return
    there = "" if path.exists() else " (not there: all as by default)"
    click.echo(f"# {path}{there}\n\n{as_toml(settings)}", nl=False)


def _put(home: Home, name: str, given: Path) -> Connection:
    Connection(home, name)  # a name that cannot be one comes first
    try:
        data = files.read_regular(given.expanduser())
    except OSError as error:
        raise UsageError(f"{given} cannot be read: {error.strerror}.", remedy="Check the path.") from None
    read_settings(data, where=str(given))
    connection = home.new(name)
    path = connection.path / "settings.toml"
    settings_content(path)  # a folder that is there cannot be replaced
    files.write(path, data)
    _remove(*_copies(connection))
    return connection


def _copies(connection: Connection) -> tuple[Path, Path]:
    """What is edited, and what it was copied from."""
    return connection.path / "settings.edited.toml", connection.path / "settings.edited.base"


def _remove(*paths: Path) -> None:
    for path in paths:
        with files.storage("remove", path):
            path.unlink(missing_ok=True)


def _edit(connection: Connection) -> None:
    """On a copy beside it, which stays for the next time when it cannot be read and is not mended now."""
    files.require_private_folder(*connection.folders)
    path, (copy, base) = connection.path / "settings.toml", _copies(connection)
    before = settings_content(path)
    original = as_toml(Settings()).encode() if before is None else before
    changed = UsageError(f"{path} was changed meanwhile.", remedy=f"Yours is {copy}: compare the two, then remove it.")
    if _content(copy) in {None, _content(base)}:
        _remove(copy)  # before its base is another
        files.write(base, original)
        files.write(copy, original)
    elif _content(base) != original:
        raise changed
    else:
        click.echo(f"Going on with what was left in {copy}.", err=True)
    try:
        data = _edited(copy)
    except UsageError as error:
        if _content(copy) in {None, original}:  # nothing is lost with it
            _remove(copy, base)
            raise
        kept = f"What it wrote is in {copy}; go on with: ucl settings {connection.name} --edit"
        raise type(error)(error.message, remedy=f"{error.remedy} {kept}".strip()) from None
    if _content(path) != before:
        raise changed
    if data != before:
        files.write(path, data)
    _remove(copy, base)


def _edited(copy: Path) -> bytes:
    """What it was edited to, once that can be read; raises InvalidSettings if it is left as it is."""
    while True:
        _open_editor(copy)
        data = _content(copy)
        if data is None:
            raise UsageError(f"{copy} is gone.", remedy="Save it under this very name.")
        try:
            read_settings(data, where=str(copy))
        except InvalidSettings as error:
            click.secho(str(error), err=True, fg="red")
            try:
                confirm("Edit it again?", yes=False)
            except UsageError:
                raise error from None
        else:
            return data


def _content(path: Path) -> bytes | None:
    with files.storage("read", path), suppress(FileNotFoundError):
        return files.read_regular(path)
    return None


def _open_editor(path: Path) -> None:
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(chosen), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        raise UsageError(f"The editor {chosen!r} cannot be started: {error}.", remedy="Set EDITOR.") from None
    if code:
        raise UsageError(f"The editor {chosen!r} ended with {code}.")
