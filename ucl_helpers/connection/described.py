"""Every setting, described once: for the file that people edit, for ``ucl settings`` and for the reference. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ucl_helpers.connection.settings import Settings, toml


@dataclass(frozen=True)
class Entry:
    """One setting.

    Attributes:
        key: as errors name it: ``files.group`` is ``group`` in the table ``[files]``.
        kind: what may stand there, in words.
        default: as TOML; empty when it is not set by default.
        example: as TOML.
        meaning: a sentence.
    """

    key: str
    kind: str
    default: str
    example: str
    meaning: str


_REFERENCE = "reference: env:NAME or file:PATH"
_TABLES = {
    "files": "Who may read the files of a generation, besides its owner.",
    "exports": "Further files in every generation; made anew at once by: ucl export NAME",
    "hooks": "What is run after activation, one after another; no shell.",
    "notices": "Who is told of failure and recovery.",
}
ENTRIES = (
    Entry("key_length", "multiple of 8, 2048 to 8192", "4096", "4096", "RSA bits of the next key."),
    Entry(
        "renew_before",
        "duration",
        "",
        '"30d"',
        "Due this long before the end, at most half the lifetime; else at two thirds of the lifetime.",
    ),
    Entry("min_interval", "duration", '"1h"', '"1h"', "Not due again before, whatever the certificate says."),
    Entry("keep", "whole number, 2 to 1000", "5", "5", "Distinct identities kept on disk, the one in use included."),
    Entry("sandbox", "path", "", '"/path/to/ready.json"', "A sandbox whose URLs are followed: for practice only."),
    Entry(
        "key_passphrase",
        _REFERENCE,
        "",
        '"file:/run/secrets/ucl-key"',
        "The private key lies on disk encrypted with the passphrase that this leads to.",
    ),
    Entry("files.owner", "name of a user", "", '"app"', "Owner of the files; only root may give files away."),
    Entry("files.group", "name of a group", "", '"ssl-cert"', "Group of the files; we have to be in it, or root."),
    Entry("files.mode", "0600, 0640, 0400 or 0440", '"0600"', '"0640"', "Mode of the files."),
    Entry("exports.combined", "true or false", "false", "true", "combined.pem: chain, then key."),
    Entry(
        "exports.encrypted_key", _REFERENCE, "", '"env:UCL_PEM"', "encrypted-key.pem: PKCS #8, with this passphrase."
    ),
    Entry("exports.pkcs12", _REFERENCE, "", '"file:/run/secrets/p12"', "identity.p12: PKCS #12, with this passphrase."),
    Entry(
        "exports.kubernetes_secret",
        "NAMESPACE/NAME",
        "",
        '"default/ucl-prod"',
        "secret.yaml: a kubernetes.io/tls Secret, its key in plain; not with key_passphrase.",
    ),
    Entry("hooks.name", "name, at most 64 characters", "", '"reload"', "What the hook is called."),
    Entry("hooks.command", "list of texts", "", '["systemctl", "reload", "nginx"]', "Program and arguments."),
    Entry("hooks.timeout", "duration", '"60s"', '"60s"', "Then it is ended."),
    Entry("notices.urls", "list of references", "", '["env:UCL_NOTICE_URL"]', "Where to, as apprise writes URLs."),
    Entry("notices.after_failures", "whole number, 1 to 1000", "1", "3", "Told after so many failures in a row."),
)


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as they are written: durations and modes as texts, tables as dictionaries; for programs."""
    return {name: _plain(name, value) for name, value in vars(settings).items()}


def text_of(settings: Settings) -> str:
    """``settings.toml`` that means these settings: what differs from the default as it is, all else as a comment."""
    told, lines = plain(settings), list[str]()
    table = ""
    for entry in ENTRIES:
        above, _, name = entry.key.rpartition(".")
        if above != table:
            lines += ["", f"# {_TABLES[above]}", *_header(above, told)]
            table = above
        if above == "hooks" and told["hooks"]:
            continue
        values = told[above] if above and above != "hooks" else told
        lines += _lines(entry, values.get(name), commented=above == "hooks")
    return "\n".join(lines).lstrip("\n") + "\n"


def _header(table: str, told: dict[str, Any]) -> Iterator[str]:
    if table != "hooks":
        yield f"[{table}]"
    elif not told["hooks"]:
        yield "# [[hooks]]"
    for hook in told["hooks"] if table == "hooks" else ():
        yield from ("[[hooks]]", *(f"{key} = {toml(value)}" for key, value in hook.items()), "")


def _lines(entry: Entry, value: Any, *, commented: bool) -> Iterator[str]:
    name = entry.key.rpartition(".")[2]
    if value not in (None, []) and toml(value) != entry.default and not commented:
        yield from (f"# {entry.meaning}", f"{name} = {toml(value)}")
    elif entry.default:
        yield from (f"# {entry.meaning}", f"# {name} = {entry.default}")
    else:
        yield from (f"# {entry.meaning} Not set; for example:", f"# {name} = {entry.example}")


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, timedelta):
        return _duration(value)
    if name == "mode":
        return f"{value:04o}"
    if isinstance(value, tuple):
        return [_plain("", one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(key, one) for key, one in vars(value).items()}
    return value


def _duration(span: timedelta) -> str:
    seconds, parts = int(span.total_seconds()), ""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        parts += f"{count}{unit}" if count else ""
    return parts
