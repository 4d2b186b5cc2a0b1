"""Keep connections on disk: their generations, the switch to a new one, their state.

::

    HOME/connections/NAME/
        current -> generations/000007-3fa9c1…      the only file that changes
        generations/000007-3fa9c1…/                identity.pem, key.pem, certificate.pem, chain.pem, connection.json …
        generations/000007-3fa9c1….1/              the same identity, rebuilt by changed settings
        pending/                                   a renewal under way, see pending.py
        revoked.json  activation.json  attempts.json  hooks.json      state files, see state.py
        journal.jsonl                              a record for people
        settings.toml  lock

A generation is written whole, fsynced, and made current by renaming one symlink. A reader of split files resolves
``current`` once and reads there. Readers never lock. The caller of :meth:`Connection.install` or
:meth:`Connection.switch` holds :attr:`Connection.lock`.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from platformdirs import user_data_path

from ucl_helpers.connection import access, files, state
from ucl_helpers.connection.exports import GenerationSpec, differing, generation_files
from ucl_helpers.connection.generation import (
    KEEP_YOUNGER,
    MARK_LENGTH,
    NAME,
    Generation,
    holds_plain_key,
    prune_generations,
    write_generation,
)
from ucl_helpers.connection.journal import Journal, activation_in, hook_failures_in, old_events, take_over, verdicts_in
from ucl_helpers.connection.pending import Pending, set_aside
from ucl_helpers.connection.references import follow, generation_spec
from ucl_helpers.connection.settings import Settings, dump_settings, read_settings, settings_content
from ucl_helpers.connection.state import Activation, Verdict, Verdicts
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import StorageFailed, UCLError, UnknownConnection, UsageError
from ucl_helpers.models import Due, Validity, fingerprint
from ucl_helpers.policy import due
from ucl_helpers.urls import check_url

if TYPE_CHECKING:
    from ucl_helpers.wire.following import FollowingContext
    from ucl_helpers.wire.session import Session

CONNECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EMPTY = {"generations", "lock", "attempts.json", "revoked.json", "journal.jsonl"}
_SOURCES = {"establish": "established", "renew": "renewed", "import": "imported"}


class Home:
    """The folder of all connections: ``path``, else ``UCL_HOME``, else the user's data folder."""

    def __init__(self, path: str | Path | None = None) -> None:
        chosen = path or os.environ.get("UCL_HOME")
        try:
            self.path = Path(chosen or user_data_path("ucl-helpers")).expanduser().absolute()
        except RuntimeError:
            message = f"The home folder {str(chosen or '~')!r} names no user."
            raise UsageError(message, remedy="Give its full path, with --home or UCL_HOME.") from None
        self._checked, self._exists = set[Path](), False

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    def folder(self, name: str) -> Path:
        """Return the path of a folder in the home folder, which may be missing, for reading and writing.

        It and every folder above it are checked on first use. A lock checks them again each time it is taken. Raises
        StorageFailed if another user could change or replace one of them; names it and a command that solves it.
        """
        path = self.path / name
        if path not in self._checked and self.require_private(path):
            self._checked.add(path)
        return path

    def require_private(self, *folders: Path) -> bool:
        """Check folders below the home folder, each by one ``lstat``; raises as :meth:`folder` does.

        Returns:
            Whether the home folder exists. If so, only this user can make what is missing in it, and the answer holds.
        """
        if self._exists:
            files.require_private_below(self.path, *folders)
        else:
            self._exists = files.require_private_folder(self.path, *folders)
        return self._exists

    def names(self) -> list[str]:
        """Return the names of all connections, in order; raises StorageFailed."""
        folder = self.folder("connections")
        with files.storage("look into", folder), suppress(FileNotFoundError):
            return sorted(
                path.name for path in folder.iterdir() if CONNECTION_NAME.fullmatch(path.name) and path.is_dir()
            )
        return []

    def connections(self) -> list["Connection"]:
        """Return all connections, ordered by name."""
        return [Connection(self, name) for name in self.names()]

    def connection(self, name: str) -> "Connection":
        """Return an existing connection; raises UnknownConnection (lists the existing) or UsageError (no name)."""
        connection = Connection(self, name)
        with files.storage("look into", connection.path):
            there = connection.path.is_dir()
        if not there:
            existing = ", ".join(self.names()) or "none yet"
            raise UnknownConnection(
                f"There is no connection {name!r} in {self.path} (there: {existing}).",
                remedy="Make one with: ucl establish, or ucl import (in notebook 02: key_file, certificate_file and "
                "connector_url).",
            )
        return connection

    def new(self, name: str) -> "Connection":
        """Return a connection, and make its folder if it is missing; raises UsageError (no name) or StorageFailed."""
        connection = Connection(self, name)
        files.require_private_folder(*connection.folders)
        files.make_private_folder(*connection.folders[:4])
        files.sweep(self.path / "connections", older_than=KEEP_YOUNGER.total_seconds())
        return connection

    @contextmanager
    def making(self, name: str) -> Iterator["Connection"]:
        """Yield a connection, new or not; remove its folder afterwards if it holds nothing that another run needs."""
        connection = self.new(name)
        try:
            yield connection
        finally:
            with suppress(UCLError), connection.lock.held():
                names = {path.name for path in connection.path.iterdir()}
                if names <= _EMPTY and not any((connection.path / "generations").iterdir()):
                    files.remove_tree(connection.path)


class Connection:
    """An identity and the URLs it belongs to, under a name."""

    def __init__(self, home: Home, name: str) -> None:
        if not CONNECTION_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name a connection.", remedy="Use letters, digits, dot, dash, underscore; at most 64."
            )
        self.home, self.name = home, name
        self.location = home.path / "connections" / name
        below = [self.location / folder for folder in ("generations", "pending", "aside")]
        self.folders = (home.path, self.location.parent, self.location, *below)
        self.lock = files.Lock(self.location / "lock", *self.folders, first=self._take_over)
        self._is_checked = False
        self._cache: dict[str, Any] = {}  # see reading_once()
        self._reading_once = 0

    def __repr__(self) -> str:
        return f"Connection({self.name!r}, {str(self.home.path)!r})"

    @property
    def path(self) -> Path:
        """The connection's folder, for reading and writing. ``location`` is the same path, unchecked.

        It is checked on first use. Raises the errors of :meth:`Home.folder`.
        """
        if not self._is_checked:
            self.home.folder("connections")
            self._is_checked = self.home.require_private(*self.folders[2:])
        return self.location

    @property
    def _journal(self) -> Journal:
        return Journal(self.path / "journal.jsonl")

    @contextmanager
    def reading_once(self) -> Iterator[None]:
        """Read settings and the generation in use only once within the block.

        The same holds while this thread holds ``lock``: a step decides everything by one state.
        """
        if not (self._reading_once or self.lock.is_held_by_this_thread):
            self._cache.clear()  # another process may have changed what was read under the lock
        self._reading_once += 1
        try:
            yield
        finally:
            self._reading_once -= 1

    def _cached(self, name: str, read: Callable[[], Any]) -> Any:
        if not (self._reading_once or self.lock.is_held_by_this_thread):
            return read()
        if name not in self._cache:
            self._cache[name] = read()
        return self._cache[name]

    def read_settings(self) -> Settings:
        """Return the user's choices; raises InvalidSettings, StorageFailed. See :meth:`reading_once`."""
        settings: Settings = self._cached("settings", self._read_settings)
        return settings

    def _read_settings(self) -> Settings:
        content = settings_content(path := self.path / "settings.toml")
        return Settings() if content is None else read_settings(content, where=str(path))

    def write_settings(self, values: Mapping[str, str | int]) -> None:
        """Write the first ``settings.toml``. An existing file belongs to the user and is not changed."""
        path = self.path / "settings.toml"
        if values and not path.exists():
            files.write(path, dump_settings(values).encode())
            self._cache.clear()

    @property
    def current(self) -> Generation | None:
        """The generation in use, or None when the connection is not established; raises StorageFailed."""
        generation: Generation | None = self._cached("current", self._follow_current)
        return generation

    def _follow_current(self) -> Generation | None:
        link = self.path / "current"
        with files.storage("follow", link), suppress(FileNotFoundError):
            if link.exists() and not link.is_symlink():
                raise StorageFailed(f"{link} is not a symlink.", remedy="Make it one, to the generation in use.")
            generation = self.path / link.readlink()
            files.require_private_below(self.home.path, generation)
            return Generation(generation, self.passphrase)
        return None

    def require_current(self) -> Generation:
        """Return the generation in use; raises UnknownConnection, or StorageFailed if the link ``current`` is gone."""
        if (current := self.current) is None:
            if self.generations() and not self.pending.read_state():
                raise StorageFailed(f"{self.path / 'current'} is gone.", remedy=f"Run: ucl rollback {self.name}")
            raise UnknownConnection(
                f"{self.name} is not established yet.", remedy=f"Finish with: {self.establish_command()}"
            )
        return current

    def generations(self) -> list[Generation]:
        """Return all generations, oldest first."""
        folder = self.path / "generations"
        with files.storage("look into", folder), suppress(FileNotFoundError):
            generations = [Generation(path, self.passphrase) for path in folder.iterdir() if NAME.fullmatch(path.name)]
            return sorted(generations, key=lambda generation: generation.order)
        return []

    @property
    def pending(self) -> Pending:
        """The procedure under way."""
        return Pending(self.path / "pending", self.passphrase)

    def aside(self) -> list[Pending]:
        """Return the procedures that were set aside, oldest first."""
        return set_aside(self.path, self.passphrase)

    def has_plain_keys(self) -> bool:
        """Return whether a key is stored in plain, though the settings want it encrypted."""
        if not self.read_settings().key_passphrase:
            return False
        folders = [each.path for each in self.generations()] + [each.path for each in (*self.aside(), self.pending)]
        return any(map(holds_plain_key, folders))

    def passphrase(self) -> bytes | None:
        """Return the passphrase of the key, or None; raises InvalidSettings if its reference leads nowhere."""
        return follow(self.read_settings().key_passphrase, "key_passphrase", self.name)

    def generation_spec(self) -> tuple[GenerationSpec, access.Readers]:
        """Return what the settings want of a generation, and its readers; opens the way to them.

        Raises:
            InvalidSettings: a reference leads nowhere, this machine has no such owner or group, or we may not give
                them files; names the setting.
        """
        settings = self.read_settings()
        spec, readers = generation_spec(settings, self.name), access.readers_of(settings.files, self.name)
        access.grant_traversal(readers, self.home.path, self.path, self.name)
        return spec, readers

    @property
    def url(self) -> str:
        """The certificate endpoint: the generation's, or the sandbox's where this connection follows one."""
        url = self.sandbox_url or self.require_current().facts.get("connectorUrl")
        return check_url(url, what=f"The certificate endpoint of {self.name}")

    @property
    def director_url(self) -> str | None:
        """The Director that UCL named, or None; a sandbox's own where this connection follows one that has moved."""
        with suppress(UCLError):
            current, ready = self.current, self._ready_file()
            named = current.facts.get("directorUrl") if current else None
            if ready and urlsplit(named or "").netloc != urlsplit(self.sandbox_url or "").netloc:
                named = ready.get("directorUrl")
            return check_url(named) if named else None
        return None

    @property
    def sandbox_url(self) -> str | None:
        """The certificate endpoint of the sandbox that this connection follows, or None."""
        url = self._ready_file().get("certificateSecuredConnectorUrl")
        return url if isinstance(url, str) else None

    def session(self, *, ca_file: str | Path | None = None) -> "Session":
        """Return a ``requests.Session`` that shows the identity in use, and the next one when it has been renewed.

        See :class:`ucl_helpers.wire.session.Session` for ``ca_file``, the errors raised, and what it does not do.
        """
        from ucl_helpers.wire.session import Session

        return Session(self.require_current, ca_file)

    def ssl_context(self, *, ca_file: str | Path | None = None) -> "FollowingContext":
        """Return an ``ssl.SSLContext`` of which each new TLS connection shows the identity in use.

        See :class:`ucl_helpers.wire.following.FollowingContext` for ``ca_file``, and the errors raised.
        """
        from ucl_helpers.wire.following import FollowingContext

        return FollowingContext(self.require_current, ca_file)

    @property
    def is_sandbox(self) -> bool:
        """Whether this is a practice connection."""
        return self.read_settings().sandbox is not None

    def establish_command(self, *, again: bool = False) -> str:
        """Return the command that continues an establishment, or begins ``again`` with a new one-time token."""
        option = " --sandbox" if self.is_sandbox else " --token prompt" if again else ""
        return f"ucl establish {self.name}{option}"

    def come_back(self, now: datetime) -> str:
        """Return the command that brings a lost identity back at ``now`` (UTC): a rollback where one works."""
        if usable := self.usable(now):
            return f"ucl rollback {self.name} (generation {usable[0].name})"
        return self.establish_command(again=True)

    def due(self, now: datetime) -> Due:
        """Return whether the generation in use is due at ``now`` (UTC), by the connection's settings."""
        current = self.require_current()
        return self.due_of(current.certificate, now, activated=current.created)

    def due_of(self, certificate: x509.Certificate, now: datetime, *, activated: datetime | None = None) -> Due:
        """Return whether ``certificate`` would be due at ``now`` (UTC) if it was in use here since ``activated``."""
        settings = self.read_settings()
        return due(
            Validity.of(certificate),
            seed=f"{self.name}/{common_name(certificate.subject)}",
            now=now,
            renew_before=settings.renew_before,
            activated=activated,
            min_interval=settings.min_interval,
        )

    def _ready_file(self) -> Mapping[str, Any]:
        path = self.read_settings().sandbox
        with suppress(OSError, ValueError):  # no sandbox runs now: the URL last known will say so
            return (files.json_object(files.read_regular(self.path / path)) if path else None) or {}
        return {}

    def record(self, event: str, **facts: str | float | None) -> None:
        """Append to the journal; facts are fingerprints, names and numbers, never a secret."""
        self._journal.record(event, **facts)

    def journal(self) -> list[dict[str, Any]]:
        """Return the events of the journal, oldest first, without unreadable lines; nothing may be decided by them."""
        return self._journal.events()

    def lost_events(self) -> str | None:
        """Describe the lines that the journal has lost; None if no line was lost. Raises StorageFailed."""
        return self._journal.lost()

    def verdicts(self) -> Verdicts:
        """Return the verdicts on certificates that UCL does not accept, or may not accept. Raises StorageFailed."""
        verdicts = state.read_verdicts(self.path)
        return verdicts_in(old_events(self.path)) if verdicts is None else verdicts

    def judge(self, fingerprint: str, verdict: Verdict | None) -> None:
        """Write the verdict on a certificate, None to remove it. The caller holds the lock. Raises StorageFailed."""
        verdicts = self.verdicts()
        if verdicts.get(fingerprint) != verdict:
            state.write_verdicts(self.path, verdicts.changed(fingerprint, verdict))

    def accepted(self, fingerprint: str) -> None:
        """Forget that UCL refused a certificate in an outage. The caller holds the lock. Raises StorageFailed."""
        if (verdict := self.verdicts().get(fingerprint)) and verdict.may_pass:
            self.judge(fingerprint, None)

    def revoked(self) -> dict[str, datetime]:
        """Return fingerprints of the identities that this toolkit has revoked → when (UTC). Raises StorageFailed."""
        return self.verdicts().having("revoked")

    def activation_of(self, generation: Generation) -> Activation | None:
        """Return how a generation came into use, or None if another one did later. Raises StorageFailed."""
        activation = state.read_activation(self.path)
        if activation is None and not state.has_verdicts(self.path):
            activation = activation_in(old_events(self.path), generation.name)
        return activation if activation and activation.generation == generation.name else None

    def hook_failures(self, generation: Generation) -> dict[str, str]:
        """Return the hooks whose last run for a generation failed, and why. Raises StorageFailed."""
        events = [] if state.has_verdicts(self.path) else old_events(self.path)
        return {**hook_failures_in(events, generation.name), **state.failures(self, generation)}

    def usable(self, now: datetime) -> list[Generation]:
        """Return the generations that `rollback` can go back to, newest first: whole, not expired, not refused by UCL.

        ``now`` is aware, UTC. Raises StorageFailed if what is known of their certificates is damaged.
        """
        current, refused = None, self.verdicts().having("revoked", "refused", "doubtful")
        with suppress(StorageFailed):
            current = self.current
        others = [each for each in self.generations() if current is None or each.stem != current.stem]
        whole = [each for each in reversed(others) if each.is_readable]
        return [each for each in whole if now < each.validity.not_after and each.fingerprint not in refused]

    def _take_over(self) -> None:
        """Move the decisions in the journal of an earlier version into state files, once the lock is taken."""
        self._cache.clear()  # another process may have changed it before
        if not state.has_verdicts(self.location):
            link = self.location / "current"
            take_over(self.location, link.readlink().name if link.is_symlink() else None)

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
            StorageFailed: the previous generation is still current.
        """
        wanted, readers = self.generation_spec()
        mark, url = fingerprint(chain[0])[:MARK_LENGTH], facts.get("connectorUrl")
        generations, before = self.generations(), self.current
        same = [each for each in generations if each.mark == mark and each.holds(chain, url, server_ca)]
        same = [each for each in same if not self.differing_files(each, wanted, readers)]
        if same:  # an earlier run was cut off just before the switch
            generation = same[-1]
        else:
            number = generations[-1].order[0] + 1 if generations else 1
            contents = generation_files(key, chain, client_ca, server_ca, wanted)
            contents = {**contents, "connection.json": json.dumps(facts, indent=1).encode()}
            path = self.path / "generations" / f"{number:06d}-{mark}"
            generation = write_generation(Generation(path, self.passphrase), contents, readers)
        previous = facts.get("previous")
        event = _SOURCES.get(str(facts.get("source")))
        self.switch(generation, event, previous if isinstance(previous, str) else None)
        self.prune(before)
        return generation

    def switch(self, generation: Generation, event: str | None = None, previous: str | None = None) -> None:
        """Make a whole generation current: one rename. The caller holds the lock.

        Args:
            generation: the one to use from now on.
            event: how it comes into use, for hooks, see :class:`ucl_helpers.connection.state.Activation`; None leaves
                that open.
            previous: fingerprint of the certificate in use before.

        Raises:
            StorageFailed: it is not whole, or the switch failed. The previous generation is still current.
        """
        generation.check_whole()  # an encrypted key is opened for it
        with files.storage("name", generation.path):
            files.sync_directory(generation.path.parent)
        if event:  # it names its generation, so it says nothing until that is current
            state.write_activation(self.path, Activation(generation.name, event, previous))
        files.swap_symlink(self.path / "current", f"generations/{generation.name}")
        self._cache.pop("current", None)

    def differing_files(self, generation: Generation, wanted: GenerationSpec, readers: access.Readers) -> list[str]:
        """Return the names of files of a whole generation that the settings want otherwise; raises StorageFailed."""
        contents = generation.contents()
        with files.storage("look at", generation.path):
            paths = [generation.path / name for name in contents]
            return sorted({*differing(contents, wanted), *access.differing(readers, paths)})

    def prune(self, before: Generation | None = None) -> None:
        """Remove leftovers and generations that are no longer kept."""
        prune_generations(self.generations(), (self.require_current(), before), self.read_settings().keep)
        self.sweep()

    def sweep(self) -> None:
        """Remove files that a killed run has half written or removed, and old events; the caller holds the lock."""
        for folder in (".", "generations", "pending", "aside"):
            files.sweep(self.path / folder)
        self._journal.prune()
