"""Follow references to secrets: ``env:NAME``, ``file:PATH``, ``prompt``. A reference may be shown, a secret may not."""

import errno
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ucl_helpers.connection.exports import EXPORTS, GenerationSpec
from ucl_helpers.connection.files import read_regular
from ucl_helpers.errors import InvalidSettings, UsageError
from ucl_helpers.formats.texts import text_of

if TYPE_CHECKING:
    from ucl_helpers.connection.settings import Settings

HOW = "Write it as env:NAME, file:PATH or prompt."
MEND = "Set it, or write another reference: env:NAME or file:PATH."


def resolve(reference: str, *, what: str) -> str:
    """Return the secret of a reference, without blanks around it.

    Args:
        reference: ``env:NAME`` (an environment variable), ``file:PATH`` (a file's content), ``prompt`` (asked for).
        what: names the secret in questions and errors.

    Raises:
        UsageError: it is no reference (its text is not repeated: it may be the secret itself), or it leads nowhere.
    """
    kind, _, rest = reference.partition(":")
    if kind == "env" and rest:
        secret = os.environ.get(rest, "").strip()
        where = f"the environment variable {rest}"
    elif kind == "file" and rest:
        secret = _file(rest, what)
        where = f"the file {rest}"
    elif reference == "prompt":
        secret = _prompt(what)
        where = "what was typed"
    else:
        raise UsageError(f"{what} must be a reference, not the secret itself.", remedy=HOW)
    if not secret:
        problem = "is empty or not set" if kind == "env" else "is empty"
        raise UsageError(f"{what}: {where} {problem}.", remedy=MEND)
    return secret


def _file(path: str, what: str) -> str:
    try:
        return text_of(read_regular(Path(path).expanduser())).strip()
    except (OSError, ValueError, RuntimeError) as error:
        reasons = {UnicodeDecodeError: "it is not text", RuntimeError: "there is no such user"}
        reason = error.strerror if isinstance(error, OSError) else reasons.get(type(error), "that is no path")
        is_special = isinstance(error, OSError) and error.errno == errno.EINVAL
        remedy = "Pipes and devices are not read: write the secret to a file (0600), or use env:NAME or prompt."
        raise UsageError(
            f"{what}: the file {path} cannot be read: {reason}.", remedy=remedy if is_special else MEND
        ) from None


def _prompt(what: str) -> str:
    # In a notebook getpass asks through the page. A headless run has no user to ask.
    if not sys.stdin.isatty() and "ipykernel" not in sys.modules:
        raise UsageError(f"{what}: there is no terminal to ask at.", remedy="Use env:NAME or file:PATH.")
    try:
        return getpass.getpass(f"{what}: ").strip()
    except EOFError:
        return ""


# -- Passphrases that settings refer to; each reference is followed when it is needed and forgotten again --------------

MOST_BYTES = 1024  # OpenSSL reads no longer passphrase when it loads a key for a handshake


def follow(reference: str | None, setting: str, connection: str) -> bytes | None:
    """Return the passphrase that a setting of a connection refers to; None when it is not set.

    Raises:
        InvalidSettings: it leads nowhere, or the passphrase is too long; names setting and connection.
    """
    if reference is None:
        return None
    what = f"{setting} of {connection}"
    try:
        passphrase = resolve(reference, what=what).encode()
    except UsageError as error:
        remedy = f"Let the reference lead to the passphrase, or change it: ucl settings {connection} --edit"
        raise InvalidSettings(error.message, remedy=remedy) from None
    if len(passphrase) > MOST_BYTES:
        raise InvalidSettings(f"{what} is longer than {MOST_BYTES} bytes.", remedy="OpenSSL would not take it.")
    return passphrase


def generation_spec(settings: "Settings", connection: str) -> GenerationSpec:
    """Return the content of a generation that the settings of a connection ask for.

    Raises:
        InvalidSettings: a reference leads nowhere; see :func:`follow`.
    """
    exports = {
        name: follow(str(value), f"exports.{name}", connection) if value and EXPORTS[name].opens else value
        for name, value in settings.exports.items()
    }
    return GenerationSpec(connection, follow(settings.key_passphrase, "key_passphrase", connection), exports)
