"""Read and write a connection's ``settings.toml``. Pure; errors name line and key.

::

    key_length = 4096               # RSA bits of the next key
    renew_before = "30d"            # due this long before the end, instead of after two thirds of the lifetime
    min_interval = "1h"             # not due again within this time
    keep = 5                        # distinct identities kept on disk, with the one in use
    key_passphrase = "file:/run/secrets/ucl"    # a reference: the key is stored encrypted

    [files]                         # users who may read a generation
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

import errno
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from ucl_helpers.connection import files
from ucl_helpers.connection import toml_tables as tables
from ucl_helpers.connection.access import Access
from ucl_helpers.connection.exports import EXPORTS, all_exports
from ucl_helpers.errors import InvalidSettings, UsageError
from ucl_helpers.formats.texts import text_of
from ucl_helpers.keys import DEFAULT_BITS, key_length
from ucl_helpers.policy import MIN_INTERVAL, parse_duration

MAX_CHARACTERS = 10_000
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class Hook:
    """A command that runs after activation, without a shell, and is ended after ``timeout``."""

    name: str
    command: tuple[str, ...]
    timeout: timedelta = timedelta(seconds=60)


@dataclass(frozen=True)
class Notices:
    """The receivers of notices: apprise URLs by reference. A notice is sent after ``after_failures`` in a row."""

    urls: tuple[str, ...] = ()
    after_failures: int = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A user's settings for a connection.

    Attributes:
        key_length: RSA bits of the next key, 2048 to 8192.
        renew_before: see :mod:`ucl_helpers.policy`; None for the rule by fractions.
        keep: how many distinct identities stay on disk, 2 to 1000.
        sandbox: path of a ready file whose URLs are followed; marks the connection as practice.
        min_interval: see :mod:`ucl_helpers.policy`.
        key_passphrase: a reference. The private key is stored encrypted with this passphrase.
        files: owner, group and mode of a generation's files.
        exports: further files of a generation.
        hooks: commands that run after activation.
        notices: receivers of notices about failure and recovery.
    """

    key_length: int = DEFAULT_BITS
    renew_before: timedelta | None = None
    keep: int = 5
    sandbox: str | None = None
    min_interval: timedelta = MIN_INTERVAL
    key_passphrase: str | None = None
    files: Access = field(default_factory=Access)
    exports: Mapping[str, bool | str | None] = field(default_factory=all_exports)
    hooks: tuple[Hook, ...] = ()
    notices: Notices = field(default_factory=Notices)


_NO_FILE = {
    errno.EISDIR: "is a folder",
    errno.ELOOP: "is a symlink that leads to itself",
    **dict.fromkeys((errno.EINVAL, errno.ENXIO, errno.ENODEV), "is a FIFO, a socket or a device"),
}
"""Kinds of ``settings.toml`` that are no regular file, by the error number of opening it."""


def _key_length(value: object) -> int:
    if not isinstance(value, int):
        raise UsageError(
            f"{tables.what_it_is(value)} is not a whole number.", remedy="Write it like 4096, without quotes."
        )
    return key_length(value)


def _duration(value: object) -> timedelta:
    """Read a text such as ``36h``."""
    with suppress(UsageError):
        return parse_duration(value if isinstance(value, str) else "")
    remedy = 'Write it like "30d", "36h" or "60s", and longer than zero.'
    raise UsageError(f"{tables.what_it_is(value)} is not a duration.", remedy=remedy)


def _mode(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[46][04]0", value):
        remedy = 'Use "0600", "0640", "0400" or "0440". Other users never get access, and only the owner may write.'
        raise UsageError("this mode is not allowed.", remedy=remedy)
    return int(value, 8)


def settings_content(path: Path) -> bytes | None:
    """Return the content of a ``settings.toml``, or None if it is missing and every setting has its default.

    Raises:
        InvalidSettings: it is no regular file, which must not count as missing.
        StorageFailed: it cannot be read.
    """
    with files.storage("read", path):
        try:
            return files.read_regular(path)
        except FileNotFoundError:
            if not path.is_symlink():
                return None
            what = "is a symlink to a file that is not there"
        except OSError as error:
            what = _NO_FILE.get(error.errno or 0, "")
            if not what:
                raise
    raise InvalidSettings(
        f"{path} {what}. Settings are read from a file.",
        remedy=f"Move it away: mv {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}. Without the file, every "
        "setting has its default.",
    )


def read_settings(data: bytes, *, where: str = "settings.toml") -> Settings:
    """Read a file of settings, also with a byte order mark or in UTF-16; raises as :func:`parse_settings` does."""
    try:
        text = text_of(data)
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"{where} is not UTF-8 at byte {error.start}.", remedy="Save it as UTF-8.") from None
    return parse_settings(text, where=where)


def parse_settings(text: str, *, where: str = "settings.toml") -> Settings:
    """Read ``settings.toml``. *Not* checked: whether references can be read, and whether owner and group exist.

    Raises:
        InvalidSettings: not TOML, an unknown key, or a value that is not allowed; names ``where``, line and key.
    """
    if len(text) > MAX_CHARACTERS:  # keys of many parts would take for ever
        raise InvalidSettings(
            f"{where} is longer than {MAX_CHARACTERS} characters.", remedy="Keep only settings in this file."
        )
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers too long and brackets too deep are none of tomllib's errors
        raise InvalidSettings(f"{where} is not TOML: {error}.", remedy="Correct that line.") from None
    try:
        settings = Settings(**tables.read_table(table, _READERS))
        _must_agree(settings)
    except tables.WrongValue as wrong:
        names = [part for part in wrong.path if isinstance(part, str)]
        key = ".".join("…" if re.search("[:/@]", name) else name for name in names)  # a URL may hold a token
        place = f"{where}, line {tables.line_of(text, wrong.path)}, {key}"
        raise InvalidSettings(f"{place}: {wrong.message}", remedy=wrong.remedy) from None
    return settings


def _must_agree(settings: Settings) -> None:
    """Check the settings that depend on each other."""
    names = [hook.name for hook in settings.hooks]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise tables.WrongValue(
                ("hooks", at, "name"), "there are two hooks of this name.", "Give each hook a name of its own."
            )
    if settings.files.mode & 0o040 and settings.files.group is None:
        raise tables.WrongValue(
            ("files", "mode"), "the mode lets a group read, but no group is named.", 'Add: group = "…".'
        )
    for name, export in EXPORTS.items():
        if settings.key_passphrase and export.in_plain and settings.exports[name]:
            message = f"{export.file} has the key in plain, but key_passphrase asks for encryption."
            raise tables.WrongValue(("exports", name), message, "Leave out one of the two.")


def dump_settings(values: Mapping[str, str | int]) -> str:
    """Return settings as TOML, one ``key = value`` a line."""
    return "".join(f"{key} = {toml(value)}\n" for key, value in values.items())


def toml(value: str | int | Sequence[str]) -> str:
    """Return a value as TOML."""
    if isinstance(value, int):
        return str(value).lower()
    if not isinstance(value, str):
        return f"[{', '.join(map(toml, value))}]"
    escaped = re.sub(r'[\x00-\x1f\x7f"\\]', lambda match: f"\\u{ord(match[0]):04x}", value)
    return f'"{escaped}"'


@dataclass(frozen=True)
class Entry:
    """One setting. Parsing, errors, ``ucl settings`` and the reference follow from it.

    Attributes:
        key: the name in errors. ``files.group`` is ``group`` in the table ``[files]``.
        kind: the allowed values, in words.
        example: an example as TOML.
        meaning: a sentence that explains it.
        read: checks the parsed TOML value and returns the value for :class:`Settings`.
    """

    key: str
    kind: str
    example: str
    meaning: str
    read: tables.Reader

    @property
    def default(self) -> str:
        """The default as TOML; empty if there is none."""
        table, _, name = self.key.rpartition(".")
        value = (_DEFAULTS[table] if table else _DEFAULTS)[name]
        return "" if value in (None, "", []) else toml(value)


_ACCOUNT = tables.text(_NAME, "the name of an account", "Write it by name, not by number.")
_TABLES = {
    "files": "Who may read the files of a generation besides its owner.",
    "exports": "Further files in every generation. To write them now, run: ucl export NAME",
    "hooks": "Commands that run after activation, one after another, without a shell.",
    "notices": "Receivers of messages about failure and recovery.",
}
ENTRIES = (
    Entry("key_length", "multiple of 8, 2048 to 8192", "4096", "RSA bits of the next key.", _key_length),
    Entry(
        "renew_before",
        "duration",
        '"30d"',
        "Due this long before the end, at most half of the lifetime; else after two thirds of the lifetime.",
        _duration,
    ),
    Entry("min_interval", "duration", '"1h"', "No renewal is due within this time after the last one.", _duration),
    Entry(
        "keep",
        "whole number, 2 to 1000",
        "5",
        "Distinct identities kept on disk, with the one in use. Those of the last day stay too.",
        tables.whole_number(2, 1000),
    ),
    Entry(
        "sandbox",
        "path",
        '"/path/to/ready.json"',
        "Use the URLs of this sandbox. For practice only.",
        tables.text(r"[^\0]+", "a path"),
    ),
    Entry(
        "key_passphrase",
        tables.REFERENCE_KIND,
        '"file:/run/secrets/ucl-key"',
        "Store the private key encrypted with this passphrase.",
        tables.reference,
    ),
    Entry("files.owner", "name of a user", '"app"', "Owner of the files. Only root can set another owner.", _ACCOUNT),
    Entry(
        "files.group",
        "name of a group",
        '"ssl-cert"',
        "Group of the files. You must be a member of it, or root.",
        _ACCOUNT,
    ),
    Entry("files.mode", "0600, 0640, 0400 or 0440", '"0640"', "Mode of the files.", _mode),
    *(
        Entry(f"exports.{name}", export.kind, export.example, export.meaning, export.read)
        for name, export in EXPORTS.items()
    ),
    Entry(
        "hooks.name",
        "name, at most 64 characters",
        '"reload"',
        "Name of the hook.",
        tables.text(_NAME, "a name for a hook", "Use letters, digits, dot, dash, underscore; at most 64."),
    ),
    Entry(
        "hooks.command",
        "list of texts",
        '["systemctl", "reload", "nginx"]',
        "Program and arguments.",
        tables.list_of(
            tables.text(r"[^\0]*", "a text"), most=100, how='Write it like ["systemctl", "reload", "nginx"].'
        ),
    ),
    Entry("hooks.timeout", "duration", '"60s"', "The hook is ended after this time.", _duration),
    Entry(
        "notices.urls",
        "list of references",
        '["env:UCL_NOTICE_URL"]',
        "Receivers, as URLs of apprise.",
        tables.list_of(tables.reference, most=20, how='Write it like ["env:NAME"].'),
    ),
    Entry(
        "notices.after_failures",
        "whole number, 1 to 1000",
        "3",
        "A notice is sent after this many failures in a row.",
        tables.whole_number(1, 1000),
    ),
)


def _readers_in(table: str) -> dict[str, tables.Reader]:
    rows = [(*entry.key.rpartition("."), entry.read) for entry in ENTRIES]
    return {name: read for above, _, name, read in rows if above == table}


_HOOK = tables.table_of(Hook, _readers_in("hooks"), "name", "command")
_READERS = {
    **_readers_in(""),
    "files": tables.table_of(Access, _readers_in("files")),
    "exports": tables.table_of(all_exports, _readers_in("exports")),
    "hooks": tables.list_of(_HOOK, most=20, how="Write [[hooks]], with two brackets, above each."),
    "notices": tables.table_of(Notices, _readers_in("notices")),
}


def plain(settings: Settings) -> dict[str, Any]:
    """Return settings for programs, with durations and modes as texts and tables as dictionaries."""
    return {name: _plain(name, value) for name, value in vars(settings).items()}


def as_toml(settings: Settings) -> str:
    """Return these settings as TOML: each value that differs from its default, all others as comments."""
    values, lines = plain(settings), list[str]()
    table = ""
    for entry in ENTRIES:
        above, _, name = entry.key.rpartition(".")
        if above != table:
            lines += ["", f"# {_TABLES[above]}", *_header(above, values["hooks"])]
            table = above
        if above != "hooks":
            lines += _lines(entry, (values[above] if above else values)[name])
        elif not values["hooks"]:
            lines += _lines(entry, None)
    return "\n".join(lines).lstrip("\n") + "\n"


def setting_line(settings: Settings, key: str) -> str:
    """Return one setting as TOML with its full key, as a comment if it has its default."""
    entry = next(entry for entry in ENTRIES if entry.key == key)
    above, _, name = key.rpartition(".")
    values = plain(settings)
    *_, line = _lines(entry, (values[above] if above else values)[name])
    return line.replace(name, key, 1)


def _header(table: str, hooks: list[dict[str, Any]]) -> list[str]:
    if table != "hooks":
        return [f"[{table}]"]
    blocks = (("[[hooks]]", *(f"{key} = {toml(value)}" for key, value in hook.items()), "") for hook in hooks)
    return list(chain.from_iterable(blocks)) or ["# [[hooks]]"]


def _lines(entry: Entry, value: Any) -> list[str]:
    name = entry.key.rpartition(".")[2]
    if value not in (None, []) and toml(value) != entry.default:
        return [f"# {entry.meaning}", f"{name} = {toml(value)}"]
    if entry.default:
        return [f"# {entry.meaning}", f"# {name} = {entry.default}"]
    return [f"# {entry.meaning} Not set. Example:", f"# {name} = {entry.example}"]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, timedelta):
        return _span(value)
    if name == "mode":
        return f"{value:04o}"
    if isinstance(value, tuple):
        return [_plain("", item) for item in value]
    if isinstance(value, Mapping) or hasattr(value, "__dataclass_fields__"):
        table = value if isinstance(value, Mapping) else vars(value)
        return {key: _plain(key, item) for key, item in table.items()}
    return value


def _span(span: timedelta) -> str:
    seconds, parts = int(span.total_seconds()), ""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        parts += f"{count}{unit}" if count else ""
    return parts


_DEFAULTS = {**plain(Settings()), "hooks": _plain("", Hook("", ()))}
