"""Read the secrets that a run could show, again before each search, because a run makes new ones.

Known are what parameters and settings refer to (``env:NAME``, ``file:PATH``); files that a parameter such as
``key_file`` names; all private keys, pending tokens and the sandbox's bearer in the home folders that the run can reach
(parameter ``home``, ``--home``, ``UCL_HOME``, default); variables named like a secret, and passwords in ``*_PROXY``
variables.

Bounds: in each home the :data:`MOST_CONNECTIONS` that changed last, and the :data:`MOST_KEYS` newest of their keys. The
connection that the parameter ``connection`` names comes on top of both, with as many keys. An encrypted key that no
reference opens is known by its encrypted bytes. Only regular files are opened, so nothing blocks.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, product
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from platformdirs import user_data_path

from ucl_helpers.connection.files import read_regular
from ucl_helpers.errors import UsageError
from ucl_helpers.headless.redaction.readings import leaves
from ucl_helpers.headless.redaction.search import BEARER, TOKEN, KnownSecrets
from ucl_helpers.operations import read_token
from ucl_private_files import UnsafePath, is_private_folder, require_private_below

MOST_CONNECTIONS, MOST_KEYS = 100, 100

_PARTS = ("", "pending", "generations", "aside")  # the folder of a connection, and those in it that are read
_MOST_BYTES = 2**20  # a larger file is no secret
_LINE, _PASSWORD = 16, 8  # characters: shorter lines of longer secrets, and shorter passwords, are not looked for
_WRITTEN_REFERENCE = re.compile(r"""["']((?:env|file):[^"'\n]+)["']""")
_DIRECTOR = re.compile(r'"directorToken": *"([^"]+)"')
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|BEARER|KEYS?(_|$)|(^|_)(PASS|PAT)(_|$)", re.IGNORECASE)
# Names such as SSH_KEY_PATH, AWS_ACCESS_KEY_ID, PUBLIC_KEY and GPG_KEY (a fingerprint), whose values are no secrets.
_OTHER_NAME = re.compile(
    r"_(ID|PATH|FILE|DIR|NAME|TYPE|UR[LI]|HOST|PORT|SIZE|LENGTH|BITS|ALG[A-Z]*|FINGERPRINT)$|(^|_)(PUBLIC|GPG)_KEYS?$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:env|file):")
# Eight or more characters with digits and letters or with both cases, or 24 of any kind; not `true` or `us`.
_HARD_TO_GUESS = re.compile(r"(?=.{8})((?=.*\d)(?=.*[A-Za-z])|(?=.*[a-z])(?=.*[A-Z])).*|.{24,}", re.DOTALL)


class WatchedSecrets:
    """Calling it returns the secrets that a run could show by then.

    Args:
        parameters: of its notebook.
        home: a home folder that the run uses beside those that parameters and environment name.
    """

    def __init__(self, parameters: Mapping[str, Any], home: Path | None = None) -> None:
        self._secrets, self._stamps, self._passphrases = KnownSecrets(), dict[Path, object](), set[bytes]()
        self._files = [Path(str(value)) for name, value in parameters.items() if name.endswith("_file") and value]
        self._references = {text for text in leaves(parameters) if text.startswith(("env:", "file:"))}
        self._connection = str(parameters.get("connection") or "")
        homes = (parameters.get("home"), home, os.environ.get("UCL_HOME"), user_data_path("ucl-helpers"))
        self._homes = list(dict.fromkeys(Path(str(home)) for home in homes if home))
        for name, value in os.environ.items():
            for secret in _secrets_in_variable(name, value.strip()):
                self._learn(secret, f"secret of env:{name}")

    def __call__(self) -> KnownSecrets:
        """Return all secrets. A file is read again only if it has changed."""
        # Another user who could change a home folder could choose which files are read, so such a home is left out.
        homes = [home for home in self._homes if is_private_folder(home, "connections", "sandbox")]
        named = _newest(homes, f"connections/{glob.escape(self._connection or '?')}", most=len(homes))
        # A new generation changes the link in the folder of its connection, and so the date of that.
        others = (_newest([home], "connections/*", most=MOST_CONNECTIONS) for home in homes)
        connections = [path for path in sorted({*chain(named, *others)}) if _is_private(path)]
        for folder in connections:
            self._references.update(_WRITTEN_REFERENCE.findall(self._changed(folder / "settings.toml")))
            for token in self._changed(folder / "pending" / "token").split():
                self._secrets.add_text(token, TOKEN)
        for home in homes:
            for bearer in _DIRECTOR.findall(self._changed(home / "sandbox" / "ready.json")):
                self._secrets.add_text(bearer, BEARER)
        for reference in self._references:  # before the keys, because it may lead to the passphrase of one
            source, _, rest = reference.partition(":")
            secret = self._changed(Path(rest)) if source == "file" else os.environ.get(rest, "")
            if secret := secret.strip():  # a reference that leads nowhere is reported by the notebook itself
                self._passphrases.add(os.fsencode(secret))
                self._learn(secret, f"secret of {reference}")
        forms = ("pending/key.pem", "generations/*/key.pem", "aside/*/key.pem", "sandbox/*.pem")
        first = _newest({*connections} & {*named}, *forms, most=MOST_KEYS)
        for path in [*self._files, *first, *_newest([*connections, *homes], *forms, most=MOST_KEYS)]:
            if key := self._changed(path):
                self._secrets.add_key(os.fsencode(key), self._passphrases)
        return self._secrets

    def _changed(self, path: Path) -> str:
        """Return a file's content if the file or the number of passphrases has changed since the last call."""
        with suppress(OSError, RuntimeError, ValueError):  # it does not exist yet, or is no path
            status = (path := path.expanduser()).stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size, len(self._passphrases))
            if self._stamps.get(path) != stamp:
                data = read_regular(path, _MOST_BYTES)
                self._stamps[path] = stamp
                return os.fsdecode(data)  # which keeps bytes that are no text
        return ""

    def _learn(self, secret: str, kind: str) -> None:
        """Add a secret, whole and by its longer lines, or as a key if it is one, whose markers are no secret."""
        self._secrets.add_key(os.fsencode(secret))
        if "-----BEGIN" not in secret:
            for text in {secret, *(line for line in map(str.strip, secret.splitlines()) if len(line) >= _LINE)}:
                self._secrets.add_text(text, kind)
            with suppress(UsageError):
                self._secrets.add_text(read_token(secret).token, TOKEN)


def _is_private(connection: Path) -> bool:
    """Return whether no other user can change this folder of a connection, below a home folder that was checked."""
    with suppress(UnsafePath, OSError):
        require_private_below(*(connection / part for part in _PARTS))
        return True
    return False


def _secrets_in_variable(name: str, value: str) -> Iterator[str]:
    """Yield the secrets in an environment variable, judged by its name and its value."""
    if name.upper().endswith("_PROXY"):
        with suppress(ValueError):  # it is no URL
            secret = (url := urlsplit(value)).password or url.username or ""  # a user without a password may be a token
            yield from {text for text in (secret, unquote(secret)) if len(text) >= _PASSWORD}
    elif _SECRET_NAME.search(name) and not _OTHER_NAME.search(name) and not _REFERENCE.match(value):
        yield from [value] if _HARD_TO_GUESS.fullmatch(value) and not _is_path(value) else []


def _is_path(value: str) -> bool:
    """Return whether a file is there or, for a path from the root folder, at least its first folder.

    A ``/`` at the beginning proves nothing: one of 64 texts in base64 begins with it.
    """
    if value.startswith(("./", "../", "~/")):
        return True
    with suppress(OSError, ValueError):
        path = Path(value)
        return (Path(*path.parts[:2]) if path.is_absolute() else path).exists()
    return False


def _newest(folders: Iterable[Path], *forms: str, most: int) -> list[Path]:
    """Return the paths below the folders that changed last. Folders that cannot be read are left out."""
    dated = list[tuple[int, Path]]()
    for folder, form in product(folders, forms):
        with suppress(OSError, RuntimeError, ValueError, NotImplementedError):
            dated += [(path.stat().st_mtime_ns, path) for path in folder.expanduser().glob(form)]
    return [path for _, path in sorted(dated, reverse=True)[:most]]
