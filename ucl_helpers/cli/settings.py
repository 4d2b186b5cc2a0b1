"""Show and change settings, and write the files that depend on them: ``ucl settings`` and ``ucl export``."""

import json
import os
import shlex
import subprocess
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from ucl_helpers.cli.common import REFERENCE, confirm, connection_options, finish
from ucl_helpers.connection import files
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.settings import (
    ENTRIES,
    Settings,
    as_toml,
    plain,
    read_settings,
    setting_line,
    settings_content,
)
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import InvalidSettings, UsageError
from ucl_helpers.formats.texts import text_of
from ucl_helpers.procedures.generations import export


@click.command("export")
@click.option("--force", is_flag=True, help="Write the files even if they match the settings.")
@click.option("--from", "former", metavar=REFERENCE, help="Reference to the previous passphrase of the keys.")
@connection_options
def export_command(name: str, home: Home, former: str | None, *, force: bool, json_output: bool) -> None:
    """Write the files of connection NAME again, by its settings.

    \b
    Examples:
      ucl export prod
      ucl export prod --from env:FORMER_PASSPHRASE      (if you changed or removed key_passphrase)

    The certificate does not change. The settings decide exports, passphrases, owner, group and mode. If you set,
    changed or removed key_passphrase, ucl stores all keys again: of every generation, and those that are pending or set
    aside. If there are new files, hooks run.
    """
    connection = home.connection(name)
    secret = resolve(former, what="--from").encode() if former else None
    finish(connection, export(connection, force=force, former=lambda: secret), json_output=json_output)


@click.command("settings")
@click.option("--edit", is_flag=True, help="Edit a copy with $VISUAL or $EDITOR, and use it if it is valid.")
@click.option(
    "--set",
    "given",
    type=click.Path(),
    metavar="PATH|KEY=VALUE",
    help="Use this file, or change one setting, if valid.",
)
@connection_options
def settings_command(name: str, home: Home, given: str | None, *, edit: bool, json_output: bool) -> None:
    """Show the settings of connection NAME, or change them.

    \b
    Examples:
      ucl settings prod
      ucl settings prod --edit
      ucl settings prod --set renew_before=30d
      ucl settings prod --set exports.combined=true
      ucl settings new --set settings.toml      (before you establish it, to encrypt its first key)

    It prints the settings in force as TOML. Settings that have their default are comments. --set KEY=VALUE prints the
    line that it changed. Without a value, KEY= brings the default back. --set makes NAME if NAME is new.

    A new passphrase, other exports or readers apply from the next renewal. To apply them now, run: ucl export NAME

    If an edited file cannot be used, it is kept as settings.edited.toml for the next --edit. To discard it, remove that
    file.
    """
    if edit and given:
        raise UsageError("--edit and --set exclude each other.", remedy="Leave out one of the two.")
    key, sign, value = (given or "").partition("=")
    is_one = bool(sign) and not Path(given or "").exists()
    if is_one:
        connection = _change(home, name, key.strip(), value.strip())
    else:
        connection = _put(home, name, Path(given)) if given else home.connection(name)
    if edit:
        _edit(connection)
    settings, path = connection.read_settings(), connection.path / "settings.toml"
    if json_output:
        click.echo(json.dumps({"name": name, "path": str(path), "settings": plain(settings)}, indent=1))
        return
    if is_one:
        click.echo(setting_line(settings, key.strip()))
        return
    there = "" if path.exists() else " (missing: every setting has its default)"
    click.echo(f"# {path}{there}\n\n{as_toml(settings)}", nl=False)


def _change(home: Home, name: str, key: str, value: str) -> Connection:
    """Change one setting in the file. It stays as it is if the new value is not valid."""
    path = Connection(home, name).path / "settings.toml"
    before = settings_content(path) or b""
    read_settings(before, where=str(path))
    data = _changed(text_of(before), key, value).encode()
    read_settings(data, where=f"--set {key}")
    connection = home.new(name)
    files.write(path, data)
    return connection


def _changed(text: str, key: str, value: str) -> str:
    """Return the text of a ``settings.toml`` with another value for one setting. Comments and the rest are kept.

    ``value`` is TOML. Other texts count as a string, so ``30d`` needs no quotes. An empty text removes the setting.
    """
    import tomlkit

    keys = [entry.key for entry in ENTRIES if not entry.key.startswith("hooks.")]
    if key not in keys:
        raise UsageError(f"{key!r} cannot be set like this.", remedy=f"Use one of {', '.join(keys)}; or use --edit.")
    above, _, name = key.rpartition(".")
    document = tomlkit.parse(text)
    table: Any = document.setdefault(above, tomlkit.table()) if above else document
    if value:
        table[name] = _toml_value(value)
    else:
        table.pop(name, None)
    return tomlkit.dumps(document)


def _toml_value(text: str) -> Any:
    with suppress(ValueError):
        return tomllib.loads(f"value = {text}")["value"]
    return text


def _put(home: Home, name: str, given: Path) -> Connection:
    Connection(home, name)  # checks the name before the file
    try:
        data = files.read_regular(given.expanduser())
    except OSError as error:
        raise UsageError(f"{given} cannot be read: {error.strerror}.", remedy="Check the path.") from None
    read_settings(data, where=str(given))
    connection = home.new(name)
    path = connection.path / "settings.toml"
    settings_content(path)  # fails if a folder has this name
    files.write(path, data)
    _remove(*_copies(connection))
    return connection


def _copies(connection: Connection) -> tuple[Path, Path]:
    """Return the paths of the copy that the user edits, and of the settings that it was copied from."""
    return connection.path / "settings.edited.toml", connection.path / "settings.edited.base"


def _remove(*paths: Path) -> None:
    for path in paths:
        with files.storage("remove", path):
            path.unlink(missing_ok=True)


def _edit(connection: Connection) -> None:
    """Edit a copy of the settings. A copy that is not valid is kept for the next ``--edit``."""
    files.require_private_folder(*connection.folders)
    path, (copy, base) = connection.path / "settings.toml", _copies(connection)
    before = settings_content(path)
    original = as_toml(Settings()).encode() if before is None else before
    changed = UsageError(
        f"{path} was changed meanwhile.", remedy=f"Your changes are in {copy}. Compare the two, then remove it."
    )
    if _content(copy) in {None, _content(base)}:
        _remove(copy)  # before its base changes
        files.write(base, original)
        files.write(copy, original)
    elif _content(base) != original:
        raise changed
    else:
        click.echo(f"Continuing with the edited file {copy}.", err=True)
    try:
        data = _edited(copy)
    except UsageError as error:
        if _content(copy) in {None, original}:  # the user has changed nothing
            _remove(copy, base)
            raise
        kept = f"The edited file is {copy}. To continue: ucl settings {connection.name} --edit"
        raise error.replaced(remedy=f"{error.remedy} {kept}".strip()) from None
    if _content(path) != before:
        raise changed
    if data != before:
        files.write(path, data)
    _remove(copy, base)


def _edited(copy: Path) -> bytes:
    """Return the edited settings once they are valid; raise InvalidSettings if the user stops before that."""
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
        raise UsageError(f"The editor {chosen!r} ended with {code}.", remedy="The settings are unchanged.")
