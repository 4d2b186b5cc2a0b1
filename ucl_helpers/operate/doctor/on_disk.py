"""A connection as it is stored, and the commands that repair it."""

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from ucl_helpers.connection.attempts import remembered
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.settings import Settings
from ucl_helpers.connection.state import Verdicts
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UCLError
from ucl_helpers.keys import is_sealed
from ucl_helpers.models import fingerprint
from ucl_helpers.urls import check_url
from ucl_private_files import read_regular

T = TypeVar("T")


class OnDisk:
    """A connection as it is stored, read once, and the commands that repair it.

    Attributes:
        now: UCL's clock once it is known, else this machine's.
        settings: the defaults if the file cannot be used; ``settings_error`` says why.
        current: the generation in use, or None if there is none that can be read.
        identity: the same, or a generation without files.
        sandbox_url: the certificate endpoint of the sandbox that a practice connection follows, if one runs.
        accepted: whether UCL has accepted the certificate in use just now.
    """

    def __init__(self, connection: Connection, now: datetime) -> None:
        self.connection, self.name, self.now, self.accepted = connection, connection.name, now, False
        self.settings, self.settings_error = Settings(), None
        try:
            self.settings = connection.read_settings()
        except UCLError as error:
            self.settings_error = error
        self.current: Generation | None = readable(lambda: connection.current)
        self.identity = self.current or Generation(connection.location / "current")
        self.generations = readable(connection.generations) or []
        self.pending = Pending(connection.location / "pending", connection.passphrase)
        self.practice = self.settings.sandbox is not None
        self.sandbox_url: str | None = readable(lambda: connection.sandbox_url)
        self.commands = Commands(
            connection,
            practice=self.practice,
            url=next(filter(None, map(_url_of, [self.identity, *reversed(self.generations)])), None),
            server_ca=readable(self._server_ca),
            waiting=remembered(connection).next_try(now) is not None,
            passphrase=self.settings.key_passphrase,
        )

    def _server_ca(self) -> Path | None:
        """Return the file that verifies the server, by a path that the next generation does not change."""
        if self.current is None:  # an establishment that was interrupted
            return self.pending.server_ca
        return self.connection.path / "current" / "server-ca.pem" if self.current.server_ca else None

    def recovery(self) -> str:
        """Return the command that repairs an identity with damaged files, or replaces it if too little is left."""
        if self.current is not None and not is_generation(self.current.path, self.connection):
            return self.replacement()
        if self.current and self.current.is_readable and _url_of(self.current):
            return self.from_chain()  # only certificate.pem can be missing
        rescued = Generation(self.connection.path / "current").rescued
        if rescued is None or rescued.certificate.not_valid_after_utc <= self.now:
            return self.replacement()
        verdicts = readable(self.connection.verdicts) or Verdicts()
        if fingerprint(rescued.certificate) in verdicts.having("revoked", "refused", "doubtful"):
            return self.replacement()
        return self.commands.again(rescued.key_file, rescued.certificate_file)

    def replacement(self) -> str:
        """Return the command that replaces a lost identity by an earlier one, or by a new one."""
        if readable(lambda: self.connection.usable(self.now)):
            return self.commands.ucl("rollback", self.name)
        return self.commands.establish()

    def from_chain(self) -> str:
        """Return the command that makes ``certificate.pem`` again."""
        folder = self.connection.path / "current"
        return shell("openssl", "x509", "-in", folder / "chain.pem", "-out", folder / "certificate.pem")


def readable(read: Callable[[], T]) -> T | None:
    """Return a part of a connection, or None if it cannot be read. Another probe reports that."""
    with suppress(UCLError, OSError):
        return read()
    return None


def _url_of(generation: Generation) -> str | None:
    return readable(lambda: check_url(generation.facts.get("connectorUrl")))


def is_generation(folder: Path, connection: Connection) -> bool:
    """Return whether a folder is a generation of this connection."""
    return folder.is_dir() and folder.parent.resolve() == (connection.path / "generations").resolve()


@dataclass(frozen=True)
class Commands:
    """The commands that repair a connection. A word in capitals after a ``$`` is for the user to fill in.

    Attributes:
        connection: the one to repair.
        practice: it is for practice, in the sandbox.
        url: its certificate endpoint, if that is known.
        server_ca: the file that verifies the server; None for the system's CAs.
        waiting: a renewal has just failed, and only ``--force`` tries it again now.
        passphrase: a reference to what opens encrypted keys.
    """

    connection: Connection
    practice: bool = False
    url: str | None = None
    server_ca: Path | None = None
    waiting: bool = False
    passphrase: str | None = None

    @property
    def name(self) -> str:
        """Return the connection's name."""
        return self.connection.name

    def ucl(self, *words: str | Path) -> str:
        """Return a command of ``ucl``, with ``--home`` unless the home folder is the default."""
        home = self.connection.home.path
        option = () if Home().path == home else ("--home", home)
        return shell("ucl", *words, *option)

    def renew(self, *options: str) -> str:
        """Return the command that renews it or resumes a renewal."""
        insisting = ("--force",) if self.waiting and "--force" not in options else ()
        return self.ucl("renew", self.name, *insisting, *options)

    def finish(self) -> str:
        """Return the command that resumes an interrupted establishment."""
        return self.ucl("establish", self.name, *(["--sandbox"] if self.practice else []))

    def establish(self, token_url: str | None = None) -> str:
        """Return the command that establishes it again, with a one-time token."""
        if self.practice:
            return self.finish()
        where = ["--token", "prompt", "--connector-url", token_url or "$CONNECTOR_URL"]
        return self.ucl("establish", self.name, *where, *self._ca())

    def again(self, key: Path | None = None, certificate: Path | None = None, **changed: str) -> str:
        """Return the command that imports the identity in use again.

        Other files, another ``url`` or another ``ca`` of the server can be given.
        """
        if self.practice:
            return self.finish()
        current = self.connection.location / "current"
        key, certificate = key or current / "key.pem", certificate or current / "chain.pem"
        identity: list[str | Path] = ["--key", key, "--certificate", certificate]
        with suppress(OSError):
            if is_sealed(read_regular(key)):
                identity += ["--passphrase", self.passphrase or "prompt"]
        url = changed.get("url") or self.url or "$CERTIFICATE_SECURED_CONNECTOR_URL"
        ca: list[str | Path] = ["--ca-file", changed["ca"]] if "ca" in changed else self._ca()
        return self.ucl("import", self.name, *identity, "--connector-url", url, *ca)

    def _ca(self) -> list[str | Path]:
        return ["--ca-file", self.server_ca] if self.server_ca else []


def shell(*words: str | Path) -> str:
    """Join words to a command for a shell. A word in capitals after a ``$`` stays a variable."""
    return " ".join(f'"{word}"' if str(word).startswith("$") else shlex.quote(str(word)) for word in words)
