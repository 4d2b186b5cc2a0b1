"""Which secrets a run could let out, read from where they lie: again and again, since a run makes keys and gets tokens.

Known are what the parameters and the connection's settings refer to (``env:NAME``, ``file:PATH``), the key files that
parameters name, and the keys and the kept one-time token of the connection; of all practice connections, where the
parameters name none. Keys that lie there encrypted are known in plain where something that is referred to opens them.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ucl_helpers.automation.known import KnownSecrets
from ucl_helpers.automation.looks import TOKEN
from ucl_helpers.errors import UCLError
from ucl_helpers.operations import read_token
from ucl_helpers.references import resolve
from ucl_helpers.store import Connection, Home

_REFERENCE = re.compile(r"(?:env|file):.+")
_WRITTEN_REFERENCE = re.compile(r"""["']((?:env|file):[^"'\n]+)["']""")
_LINE = 16  # characters; a shorter line of a longer secret is not looked for by itself
_LARGEST = 2**20  # bytes; what is larger is no secret
_FOR_PRACTICE = ("practice*", "fleet-*")  # what the notebooks name theirs
_KEYS = ("pending/key.pem", "aside/*/key.pem", "generations/*/key.pem")


class WatchedSecrets:
    """Calling it gives the secrets that are known by then.

    Args:
        parameters: of the notebook, by name; ``connection`` and ``home`` say where keys lie.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._known, self._seen = KnownSecrets(), dict[Path, tuple[int, ...]]()
        self._passphrases = set[bytes]()  # what is referred to may open a key
        self._files = [Path(value) for name, value in _texts(parameters) if name.endswith("_file") and value]
        self._references = {value: "" for _, value in _texts(parameters) if _REFERENCE.fullmatch(value)}
        self._parameters = parameters

    def __call__(self) -> KnownSecrets:
        """All that are known; what lies on disk is read if it is new or has changed."""
        folders = self._connections()
        for folder in folders:
            self._read(folder / "settings.toml")
        for reference in self._references:
            self._refer(reference)
        for path in self._files:
            self._read(path)
        for folder in folders:
            with suppress(OSError, ValueError):
                for path in (one for form in _KEYS for one in folder.glob(form)):
                    self._read(path)
            self._read(folder / "pending" / "token")
        return self._known

    def _connections(self) -> list[Path]:
        """The folders of the connections that the run may have in hand, those it has made by now among them."""
        with suppress(UCLError, OSError, ValueError):  # else what the parameters name cannot be there
            home, name = Home(str(self._parameters.get("home") or "")), self._parameters.get("connection")
            if name:
                return [Connection(home, str(name)).path]
            return [path for pattern in _FOR_PRACTICE for path in (home.path / "connections").glob(pattern)]
        return []

    def _read(self, path: Path) -> None:
        with suppress(OSError, RuntimeError, ValueError):  # it is not there, or not yet, or is no path
            found = path.expanduser().stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size, len(self._passphrases))
            if self._seen.get(path) == stamp or found.st_size > _LARGEST:
                return
            data = path.expanduser().read_bytes()
            if path.name == "settings.toml":
                for reference in _WRITTEN_REFERENCE.findall(data.decode("utf-8", "replace")):
                    self._references.setdefault(reference, "")
            elif path.name == "token":
                self._known.add_text(data.decode("ascii", "replace"), TOKEN)
            else:
                self._known.add_key(data, self._passphrases)
            self._seen[path] = stamp

    def _refer(self, reference: str) -> None:
        """What a reference leads to, whole and by its lines; nothing if it leads nowhere, which the notebook tells."""
        with suppress(UCLError):
            secret = resolve(reference, what="")
            if len(secret) > _LARGEST or secret == self._references[reference]:
                return
            self._references[reference] = secret
            self._known.add_key(secret.encode("utf-8", "replace"))
            self._passphrases.add(secret.encode("utf-8", "replace"))
            lines = {line.strip() for line in secret.splitlines() if len(line.strip()) >= _LINE}
            if is_pem := "-----BEGIN" in secret:  # its markers are no secret
                lines = {line for line in lines if not line.startswith("-----")}
            for text in lines if is_pem else lines | {secret}:
                self._known.add_text(text, f"secret of {reference}")
            if (token := read_token(secret).token) != secret:
                self._known.add_text(token, TOKEN)


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in the parameters, with the name it stands under."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, held in value.items():
            yield from _texts(held, str(key))
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _texts(held, name)
