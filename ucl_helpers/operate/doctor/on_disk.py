"""A connection as it is stored, and the commands that repair it."""

import shlex
from collections.abc import Callable
from contextlib import suppress
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

    In a command, a word in capitals after a ``$`` is for the user to fill in.

    Attributes:
        now: UCL's clock once it is known, else this machine's.
        settings: the defaults if the file cannot be used; ``settings_error`` says why.
        current: the generation in use, or None if there is none that can be read.
        identity: the same, or a generation without files.
        practice: it is for practice, in the sandbox.
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
        self.practice = self.settings.sandbox is not None
        self.sandbox_url = readable(lambda: connection.sandbox_url)
        self.current = readable(lambda: connection.current)
        self.identity = self.current or Generation(connection.location / "current")
        self.generations = readable(connection.generations) or []
        self.pending = Pending(connection.location / "pending", connection.passphrase)
        self._is_waiting = remembered(connection).next_try(now) is not None

    # -- commands ------------------------------------------------------------------------------------------------------

    def command(self, verb: str, *options: str | Path) -> str:
        """Return a command of ``ucl`` for this connection."""
        return ucl_command(self.connection.home, verb, self.name, *options)

    def renew_command(self, *options: str) -> str:
        """Return the command that renews it or resumes a renewal, also if a renewal has failed a short time ago."""
        is_forced = self._is_waiting and "--force" not in options
        return self.command("renew", *(["--force"] if is_forced else []), *options)

    def finish_command(self) -> str:
        """Return the command that resumes an interrupted establishment."""
        return self.command("establish", *(["--sandbox"] if self.practice else []))

    def establish_command(self, token_url: str | None = None) -> str:
        """Return the command that establishes it again, with a one-time token."""
        if self.practice:
            return self.finish_command()
        url = token_url or "$CONNECTOR_URL"
        return self.command("establish", "--token", "prompt", "--connector-url", url, *self._ca_option())

    def import_command(
        self, key: Path | None = None, certificate: Path | None = None, *, url: str = "", server_ca: str = ""
    ) -> str:
        """Return the command that imports the identity in use again.

        Other files, another URL or another CA of the server can be given.
        """
        if self.practice:
            return self.finish_command()
        current = self.connection.location / "current"
        key, certificate = key or current / "key.pem", certificate or current / "chain.pem"
        is_locked = is_sealed(readable(lambda: read_regular(key)) or b"")
        passphrase = ["--passphrase", self.settings.key_passphrase or "prompt"] if is_locked else []
        if not url:
            candidates = [self.identity, *reversed(self.generations)]
            url = next(filter(None, map(url_of, candidates)), "$CERTIFICATE_SECURED_CONNECTOR_URL")
        identity: list[str | Path] = ["--key", key, "--certificate", certificate, *passphrase]
        ca = ["--ca-file", server_ca] if server_ca else self._ca_option()
        return self.command("import", *identity, "--connector-url", url, *ca)

    def _ca_option(self) -> list[str | Path]:
        """Name the file that verifies the server, by a path that the next generation does not change."""
        file = self.connection.location / "current" / "server-ca.pem"
        if self.current is None:  # an establishment that was interrupted
            file = self.pending.path / "server-ca.pem"
        return ["--ca-file", file] if readable(file.exists) else []

    def recovery(self) -> str:
        """Return the command that repairs an identity with damaged files, or replaces it if too little is left."""
        if self.current is not None and not is_generation(self.current.path, self.connection):
            return self.replacement()
        if self.current and self.current.is_readable and url_of(self.current):
            return self.from_chain()  # only certificate.pem can be missing
        rescued = Generation(self.connection.path / "current").rescued
        if rescued is None or rescued.certificate.not_valid_after_utc <= self.now:
            return self.replacement()
        verdicts = readable(self.connection.verdicts) or Verdicts()
        if fingerprint(rescued.certificate) in verdicts.having("revoked", "refused", "doubtful"):
            return self.replacement()
        return self.import_command(rescued.key_file, rescued.certificate_file)

    def replacement(self) -> str:
        """Return the command that replaces a lost identity by an earlier one, or by a new one."""
        is_usable = readable(lambda: self.connection.usable(self.now))
        return self.command("rollback") if is_usable else self.establish_command()

    def from_chain(self) -> str:
        """Return the command that makes ``certificate.pem`` again."""
        folder = self.connection.path / "current"
        return shell("openssl", "x509", "-in", folder / "chain.pem", "-out", folder / "certificate.pem")


def readable(read: Callable[[], T]) -> T | None:
    """Return a part of a connection, or None if it cannot be read. Another probe reports that."""
    with suppress(UCLError, OSError):
        return read()
    return None


def url_of(generation: Generation) -> str | None:
    """Return the certificate endpoint of a generation, or None if that is damaged."""
    return readable(lambda: check_url(generation.facts.get("connectorUrl")))


def is_generation(folder: Path, connection: Connection) -> bool:
    """Return whether a folder is a generation of this connection."""
    return folder.is_dir() and folder.parent.resolve() == (connection.path / "generations").resolve()


def ucl_command(home: Home, *words: str | Path) -> str:
    """Return a command of ``ucl``, with ``--home`` unless the home folder is the default."""
    option = () if Home().path == home.path else ("--home", home.path)
    return shell("ucl", *words, *option)


def shell(*words: str | Path) -> str:
    """Join words to a command for a shell. A word in capitals after a ``$`` stays a variable."""
    return " ".join(f'"{word}"' if str(word).startswith("$") else shlex.quote(str(word)) for word in words)
