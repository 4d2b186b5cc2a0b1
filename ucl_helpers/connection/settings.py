"""A connection's ``settings.toml`` ↔ :class:`Settings`. Pure; errors name line and key.

::

    key_length = 4096               # RSA bits of the next key
    renew_before = "30d"            # due this long before the end, instead of two thirds of the lifetime
    min_interval = "1h"             # not due again before, whatever the certificate says
    keep = 5                        # distinct identities kept on disk, the current one included
    key_passphrase = "file:/run/secrets/ucl"    # a reference: the key lies on disk encrypted

    [files]                         # who may read a generation, besides its owner
    owner = "app"
    group = "ssl-cert"
    mode = "0640"

    [exports]                       # further files in every generation
    combined = true                 # combined.pem: chain, then key
    encrypted_key = "env:UCL_KEY_PASSPHRASE"    # encrypted-key.pem, PKCS #8
    pkcs12 = "file:/run/secrets/p12"            # identity.p12
    # kubernetes_secret = "default/ucl-prod"    # secret.yaml, kubernetes.io/tls; not with key_passphrase

    [[hooks]]                       # run after activation, in this order
    name = "reload"
    command = ["systemctl", "reload", "nginx"]
    timeout = "60s"

    [notices]                       # of failure and recovery, by apprise
    urls = ["env:UCL_NOTICE_URL"]
    after_failures = 1
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from ucl_helpers.connection import toml_tables as tables
from ucl_helpers.crypto import DEFAULT_BITS, key_length
from ucl_helpers.errors import InvalidSettings, UsageError
from ucl_helpers.formats.texts import text_of
from ucl_helpers.policy import MIN_INTERVAL

MAX_CHARACTERS = 10_000
DEFAULT_MODE = 0o600
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # RFC 1123


@dataclass(frozen=True)
class Access:
    """Who may read the files of a generation: owner and group by name, mode as bits; None leaves them as they are."""

    owner: str | None = None
    group: str | None = None
    mode: int = DEFAULT_MODE


@dataclass(frozen=True)
class Exports:
    """Further files of a generation; passphrases by reference. ``kubernetes_secret`` is ``NAMESPACE/NAME``."""

    combined: bool = False
    encrypted_key: str | None = None
    pkcs12: str | None = None
    kubernetes_secret: str | None = None


@dataclass(frozen=True)
class Hook:
    """A command that is run after activation; no shell. ``timeout``: then it is ended."""

    name: str
    command: tuple[str, ...]
    timeout: timedelta = timedelta(seconds=60)


@dataclass(frozen=True)
class Notices:
    """Where failure and recovery are told: apprise URLs by reference; failure after so many in a row."""

    urls: tuple[str, ...] = ()
    after_failures: int = 1


@dataclass(frozen=True)
class Settings:
    """What a user may choose for a connection.

    Attributes:
        key_length: RSA bits of the next key, 2048 to 8192.
        renew_before: see :mod:`ucl_helpers.policy`; None for the rule by fractions.
        keep: how many distinct identities stay on disk, 2 to 1000.
        sandbox: path of a ready file whose URLs are followed; marks the connection as practice.
        min_interval: see :mod:`ucl_helpers.policy`.
        key_passphrase: a reference; the private key lies on disk encrypted with it.
        files: who may read a generation.
        exports: further files of a generation.
        hooks: what is run after activation.
        notices: who is told of failure and recovery.
    """

    key_length: int = DEFAULT_BITS
    renew_before: timedelta | None = None
    keep: int = 5
    sandbox: str | None = None
    min_interval: timedelta = MIN_INTERVAL
    key_passphrase: str | None = None
    files: Access = field(default_factory=Access)
    exports: Exports = field(default_factory=Exports)
    hooks: tuple[Hook, ...] = ()
    notices: Notices = field(default_factory=Notices)


def _key_length(value: object) -> int:
    if not isinstance(value, int):
        raise UsageError(
            f"{tables.what_it_is(value)} is not a whole number.", remedy="Write it like 4096, without quotes."
        )
    return key_length(value)


def _mode(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[46][04]0", value):
        remedy = 'One of "0600", "0640", "0400", "0440": never for others, and nobody but the owner writes.'
        raise UsageError("it is not a mode that may be.", remedy=remedy)
    return int(value, 8)


_account = tables.text(_NAME, "the name of an account", "Write it by name, not by number.")
_HOOK = {
    "name": tables.text(_NAME, "a name for a hook", "Use letters, digits, dot, dash, underscore; at most 64."),
    "command": tables.list_of(
        tables.text(r"[^\0]*", "a text"), most=100, how='Write it like ["systemctl", "reload", "nginx"].'
    ),
    "timeout": tables.duration,
}
_EXPORTS = {
    "combined": tables.flag,
    "encrypted_key": tables.reference,
    "pkcs12": tables.reference,
    "kubernetes_secret": tables.text(
        rf"{_LABEL}/{_LABEL}(\.{_LABEL})*", "NAMESPACE/NAME", "Lower-case letters, digits, dash."
    ),
}
_NOTICES = {
    "urls": tables.list_of(tables.reference, most=20, how='Write it like ["env:NAME"].'),
    "after_failures": tables.whole_number(1, 1000),
}
_SETTINGS = {
    "key_length": _key_length,
    "renew_before": tables.duration,
    "keep": tables.whole_number(2, 1000),
    "sandbox": tables.text(r"[^\0]+", "a path"),
    "min_interval": tables.duration,
    "key_passphrase": tables.reference,
    "files": tables.table_of(Access, {"owner": _account, "group": _account, "mode": _mode}),
    "exports": tables.table_of(Exports, _EXPORTS),
    "hooks": tables.list_of(
        tables.table_of(Hook, _HOOK, "name", "command"), most=20, how="Write [[hooks]], with two brackets, above each."
    ),
    "notices": tables.table_of(Notices, _NOTICES),
}


def read_settings(data: bytes, *, where: str = "settings.toml") -> Settings:
    """Read a file of settings, also with a byte order mark or in UTF-16; raises as :func:`parse_settings` does."""
    try:
        text = text_of(data)
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"{where} is not UTF-8 at byte {error.start}.", remedy="Save it as UTF-8.") from None
    return parse_settings(text, where=where)


def parse_settings(text: str, *, where: str = "settings.toml") -> Settings:
    """Read ``settings.toml``. *Not* looked at: whether references lead anywhere, or owner and group exist.

    Raises:
        InvalidSettings: not TOML, an unknown key, or a value that is not allowed; names ``where``, line and key.
    """
    if len(text) > MAX_CHARACTERS:  # keys of many parts would take for ever
        raise InvalidSettings(f"{where} is longer than {MAX_CHARACTERS} characters.", remedy="Leave out what is none.")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers too long and brackets too deep are none of tomllib's errors
        raise InvalidSettings(f"{where} is not TOML: {error}.", remedy="Correct that line.") from None
    try:
        settings = Settings(**tables.read_table(table, _SETTINGS))
        _must_agree(settings)
    except tables.WrongValue as wrong:
        names = [part for part in wrong.path if isinstance(part, str)]
        key = ".".join("…" if re.search("[:/@]", name) else name for name in names)  # a URL may hold a token
        place = f"{where}, line {tables.line_of(text, wrong.path)}, {key}"
        raise InvalidSettings(f"{place}: {wrong.message}", remedy=wrong.remedy) from None
    return settings


def _must_agree(settings: Settings) -> None:
    """What only goes together, and what cannot."""
    names = [hook.name for hook in settings.hooks]
    twice = next((at for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise tables.WrongValue(("hooks", twice, "name"), "there are two hooks of this name.", "Name them apart.")
    if settings.files.mode & 0o040 and settings.files.group is None:
        raise tables.WrongValue(("files", "mode"), "a group may read, and none is named.", 'Name it: group = "…".')
    if settings.key_passphrase and settings.exports.kubernetes_secret:
        message = "a Secret holds the key in plain, and key_passphrase wants it encrypted."
        raise tables.WrongValue(("exports", "kubernetes_secret"), message, "Leave out one of the two.")


def dump_settings(values: Mapping[str, str | int]) -> str:
    """Settings as TOML, one ``key = value`` a line."""
    return "".join(f"{key} = {toml(value)}\n" for key, value in values.items())


def toml(value: str | int | Sequence[str]) -> str:
    """A value as TOML."""
    if isinstance(value, int):
        return str(value).lower()
    if not isinstance(value, str):
        return f"[{', '.join(map(toml, value))}]"
    escaped = re.sub(r'[\x00-\x1f\x7f"\\]', lambda found: f"\\u{ord(found[0]):04x}", value)
    return f'"{escaped}"'
