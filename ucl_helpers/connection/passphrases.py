"""Passphrases that settings refer to, and so what is wanted of a generation.

Each reference is followed when it is needed and forgotten again, so that a mended one counts at once.
"""

from ucl_helpers.connection.exports import Wanted
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.settings import Settings
from ucl_helpers.errors import InvalidSettings, UsageError

MOST_BYTES = 1024  # OpenSSL reads no longer one when it loads a key for a handshake


def follow(reference: str | None, setting: str, connection: str) -> bytes | None:
    """The passphrase that a setting of a connection refers to; None when it is not set.

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


def wanted_by(settings: Settings, connection: str) -> Wanted:
    """What the settings of a connection want of each generation.

    Raises:
        InvalidSettings: a reference leads nowhere; see :func:`follow`.
    """
    exports = settings.exports
    return Wanted(
        connection,
        follow(settings.key_passphrase, "key_passphrase", connection),
        exports.combined,
        follow(exports.encrypted_key, "exports.encrypted_key", connection),
        follow(exports.pkcs12, "exports.pkcs12", connection),
        exports.kubernetes_secret,
    )
