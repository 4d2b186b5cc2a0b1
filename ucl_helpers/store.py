"""Connections on disk: generations, the switch to a new one, the journal.

::

    HOME/connections/NAME/
        current -> generations/000007-3fa9c1…      the one thing that changes
        generations/000007-3fa9c1…/                identity.pem, key.pem, certificate.pem, chain.pem, connection.json …
        pending/                                   a renewal under way, see pending.py
        journal.jsonl  settings.toml  lock

A generation is written whole, fsynced, and made current by renaming one symlink. Whoever reads split files resolves
``current`` once and reads there. Readers never lock; whoever calls :meth:`Connection.install` or
:meth:`Connection.switch` holds :attr:`Connection.lock`.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from platformdirs import user_data_path

from ucl_helpers import files
from ucl_helpers.crypto import common_name
from ucl_helpers.dumps import no_core_dumps
from ucl_helpers.errors import InvalidSettings, StorageFailed, UnknownConnection, UsageError
from ucl_helpers.exports import generation_files, json_object
from ucl_helpers.generation import Generation
from ucl_helpers.models import Due, Validity, fingerprint
from ucl_helpers.policy import due
from ucl_helpers.session import Session
from ucl_helpers.settings import Settings, dump_settings, parse_settings
from ucl_helpers.tls import check_url

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GENERATION = re.compile(r"\d{6,}-[0-9a-f]{12}")
_KEEP_YOUNGER = timedelta(days=1)
_KEEP_EVENTS = 1000


class Home:
    """The folder of all connections: ``path``, else ``UCL_HOME``, else the user's data folder."""

    def __init__(self, path: str | Path | None = None) -> None:
        chosen = path or os.environ.get("UCL_HOME") or user_data_path("ucl-helpers")
        try:
            self.path = Path(chosen).expanduser().absolute()
        except RuntimeError:
            raise UsageError(f"The home folder {str(chosen)!r} names no user.", remedy="Give its full path.") from None

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    def connections(self) -> list["Connection"]:
        """All connections, by name."""
        folder = self.path / "connections"
        with files.storage("look into", folder):
            found = sorted(folder.iterdir()) if folder.is_dir() else []
            return [Connection(self, one.name) for one in found if _NAME.fullmatch(one.name) and one.is_dir()]

    def connection(self, name: str) -> "Connection":
        """An existing connection.

        Raises:
            UnknownConnection: there is none of this name; the text lists those there are.
            UsageError: this cannot be a name.
        """
        connection = Connection(self, name)
        with files.storage("look into", connection.path):
            there = connection.path.is_dir()
        if not there:
            known = ", ".join(one.name for one in self.connections()) or "none yet"
            raise UnknownConnection(
                f"There is no connection {name!r} in {self.path} (there: {known}).",
                remedy="Make one with: ucl establish, or ucl import.",
            )
        return connection

    def new(self, name: str) -> "Connection":
        """A connection of this name, its folder made if it is missing.

        Raises:
            UsageError: this cannot be a name.
            StorageFailed: the folder cannot be made.
        """
        connection = Connection(self, name)
        files.must_be_ours(*connection.folders)
        for folder in connection.folders[:4]:
            files.make_directory(folder)
        files.sweep(self.path / "connections", older_than=_KEEP_YOUNGER.total_seconds())
        return connection


class Connection:
    """An identity and the URLs it belongs to, under a name."""

    def __init__(self, home: Home, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name a connection.", remedy="Use letters, digits, dot, dash, underscore; at most 64."
            )
        no_core_dumps()
        self.home, self.name = home, name
        self.path = home.path / "connections" / name
        below = [self.path / one for one in ("generations", "pending", "aside")]
        self.folders = (home.path, self.path.parent, self.path, *below)
        self.lock = files.Lock(self.path / "lock", *self.folders)

    def __repr__(self) -> str:
        return f"Connection({self.name!r}, {str(self.home.path)!r})"

    @property
    def settings(self) -> Settings:
        """The user's choices, read anew each time; raises InvalidSettings, StorageFailed."""
        path = self.path / "settings.toml"
        try:
            with files.storage("read", path), suppress(FileNotFoundError):
                return parse_settings(path.read_bytes().decode(), where=str(path))
        except UnicodeDecodeError as error:
            raise InvalidSettings(f"{path} is not UTF-8 at byte {error.start}.", remedy="Save it as UTF-8.") from None
        return Settings()

    def write_settings(self, values: Mapping[str, str | int]) -> None:
        """Write the first ``settings.toml``; an existing one is the user's and stays."""
        path = self.path / "settings.toml"
        if values and not path.exists():
            files.write(path, dump_settings(values).encode())

    @property
    def current(self) -> Generation | None:
        """The generation in use, or None when the connection is not established; raises StorageFailed."""
        link = self.path / "current"
        with files.storage("follow", link), suppress(FileNotFoundError):
            if link.exists() and not link.is_symlink():
                raise StorageFailed(f"{link} is not a symlink.", remedy="Make it one, to the generation in use.")
            return Generation(self.path / link.readlink())
        return None

    def require_current(self) -> Generation:
        """The generation in use.

        Raises:
            UnknownConnection: the connection is not established.
        """
        if (current := self.current) is None:
            raise UnknownConnection(f"{self.name} is not established yet.", remedy=f"Finish with: {self.way_back}")
        return current

    def generations(self) -> list[Generation]:
        """All generations, oldest first."""
        folder = self.path / "generations"
        with files.storage("look into", folder), suppress(FileNotFoundError):
            found = [Generation(one) for one in folder.iterdir() if _GENERATION.fullmatch(one.name)]
            return sorted(found, key=lambda one: (int(one.name.split("-")[0]), one.name))
        return []

    @property
    def url(self) -> str:
        """The certificate endpoint: the generation's, or the sandbox's where this connection follows one."""
        known = self.sandbox_url or self.require_current().facts.get("connectorUrl")
        return check_url(known, what=f"The certificate endpoint of {self.name}")

    @property
    def sandbox_url(self) -> str | None:
        """The certificate endpoint of the sandbox that this connection follows, or None."""
        url = self._ready_file().get("certificateSecuredConnectorUrl")
        return url if isinstance(url, str) else None

    def session(self, *, ca_file: str | Path | None = None) -> Session:
        """A ``requests.Session`` that shows the identity in use, and the next one when it has been renewed.

        For https alone, from as many threads as you like; see :mod:`ucl_helpers.session`. Errors on the wire are those
        of ``requests``. Redirects are not followed: whoever trusts ``response.next`` sends it.

        Args:
            ca_file: PEM of what verifies the servers; None for what verifies UCL's, or else the system's CAs.

        Raises:
            UnknownConnection: the connection is not established (also when a request finds it forgotten).
            StorageFailed: the generation or the CA file cannot be used (by a request: nor is the one before valid).
        """
        return Session(self.require_current, ca_file)

    @property
    def is_sandbox(self) -> bool:
        """True for practice connections."""
        return self.settings.sandbox is not None

    @property
    def way_back(self) -> str:
        """The command that establishes it anew."""
        return f"ucl establish {self.name}{' --sandbox' if self.is_sandbox else ''}"

    def due(self, now: datetime) -> Due:
        """Whether the generation in use is due at ``now`` (UTC), by the connection's settings."""
        current = self.require_current()
        return self.due_of(current.certificate, now, activated=current.created)

    def due_of(self, certificate: x509.Certificate, now: datetime, *, activated: datetime | None = None) -> Due:
        """Whether ``certificate`` would be due at ``now`` (UTC) if this connection used it, since ``activated``."""
        chosen = self.settings
        return due(
            Validity.of(certificate),
            seed=f"{self.name}/{common_name(certificate.subject)}",
            now=now,
            renew_before=chosen.renew_before,
            activated=activated,
            min_interval=chosen.min_interval,
        )

    def _ready_file(self) -> Mapping[str, Any]:
        path = self.settings.sandbox
        with suppress(OSError, ValueError):  # no sandbox runs now: the URL last known will say so
            return (json_object(Path(path).read_bytes()) if path else None) or {}
        return {}

    def record(self, event: str, **facts: str | float | None) -> None:
        """Append to the journal; facts are fingerprints, names and numbers, never a secret."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        files.append_line(self.path / "journal.jsonl", json.dumps(line))

    def journal(self) -> list[dict[str, Any]]:
        """What happened when, oldest first; a line cut off by a crash is left out."""
        path = self.path / "journal.jsonl"
        with files.storage("read", path), suppress(FileNotFoundError):
            return [one for one in map(json_object, path.read_bytes().split(b"\n")) if one is not None]
        return []

    def revoked(self) -> dict[str, str]:
        """Fingerprints of identities known to be revoked → when."""
        return {
            str(one.get("fingerprint")): str(one.get("time")) for one in self.journal() if one.get("event") == "revoked"
        }

    def install(
        self,
        key: rsa.RSAPrivateKey,
        chain: tuple[x509.Certificate, ...],
        client_ca: tuple[x509.Certificate, ...],
        server_ca: bytes | None,
        facts: Mapping[str, Any],
    ) -> Generation:
        """Write a generation whole and make it current; the caller holds the lock and has verified the identity.

        Raises:
            StorageFailed: the generation before stays current.
        """
        new, url, found, before = fingerprint(chain[0]), facts.get("connectorUrl"), self.generations(), self.current
        same = [one for one in found if one.name.endswith(new[:12]) and one.holds(chain, url, server_ca)]
        generation = same[-1] if same else None
        if generation is None:  # else an earlier run was cut off just before the switch
            number = int(found[-1].name.split("-")[0]) + 1 if found else 1
            staged = files.temporary(self.path / "generations" / "new")
            files.make_directory(staged)
            for name, data in generation_files(key, chain, client_ca, server_ca).items():
                files.write(staged / name, data)
            files.write(staged / "connection.json", json.dumps(facts, indent=1).encode())
            generation = Generation(staged.with_name(f"{number:06d}-{new[:12]}"))
            with files.storage("name", generation.path):
                staged.rename(generation.path)
        self.switch(generation)
        self._prune(before)
        return generation

    def switch(self, generation: Generation) -> None:
        """Make a whole generation current: one rename. The caller holds the lock.

        Raises:
            StorageFailed: it is not whole, or the switch failed; the generation before stays current.
        """
        generation.check_whole()
        with files.storage("name", generation.path):
            files.sync_directory(generation.path.parent)
        files.point(self.path / "current", f"generations/{generation.name}")

    def _prune(self, before: Generation | None = None) -> None:
        """Keep the newest distinct identities, the current one, the one ``before`` it, and all younger than a day."""
        used, kept = (self.require_current(), before), set[str]()
        for one in reversed(self.generations()):
            kept.add(one.name.split("-")[1])
            with files.storage("look at", one.path):
                age = datetime.now(UTC).timestamp() - one.path.stat().st_mtime
            if len(kept) > self.settings.keep and one not in used and age > _KEEP_YOUNGER.total_seconds():
                files.remove_tree(one.path)
        self.sweep()

    def sweep(self) -> None:
        """Remove what killed runs left half written or half removed, and old events; the caller holds the lock."""
        for folder in (".", "generations", "pending", "aside"):
            files.sweep(self.path / folder)
        if len(events := self.journal()) > 2 * _KEEP_EVENTS:
            last = {str(one.get("fingerprint")): one for one in events}
            asked = [one for one in last.values() if one.get("event") == "revoke-intended"]
            kept = [one for one in events[:-_KEEP_EVENTS] if one.get("event") == "revoked" or one in asked]
            lines = [json.dumps(one) + "\n" for one in kept + events[-_KEEP_EVENTS:]]
            files.write(self.path / "journal.jsonl", "".join(lines).encode())
