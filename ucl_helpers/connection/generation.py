"""Read and write a generation: one complete, immutable state of a connection on disk.

The files are those of :mod:`ucl_helpers.connection.exports` and ``connection.json`` (URLs, source, time). Its folder's
name consists of number and fingerprint, for example ``000007-3fa9c1…``. A generation that is rebuilt (other exports or
another passphrase, the same identity) keeps both and gets a revision, ``000007-3fa9c1….1``. So the order never changes.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.clock import moment_from
from ucl_helpers.connection import access, files
from ucl_helpers.connection.files import json_object
from ucl_helpers.crypto import public_key_of, read_certificates
from ucl_helpers.errors import BadAnswer, StorageFailed, UCLError, UsageError
from ucl_helpers.keys import Credentials, Passphrase, is_sealed, load_key, no_passphrase, open_key
from ucl_helpers.models import Validity, fingerprint
from ucl_helpers.urls import check_url

MARK_LENGTH = 12  # digits of the fingerprint in a generation's name
NAME = re.compile(r"(?P<number>\d{6,})-(?P<mark>[0-9a-f]{12})(\.(?P<revision>[1-9]\d{0,8}))?")
_PAIRS = (("identity.pem", "identity.pem"), ("key.pem", "chain.pem"), ("key.pem", "certificate.pem"))


@dataclass(frozen=True)
class Generation:
    """One complete, immutable state of a connection on disk. ``passphrase`` is called if its key is encrypted."""

    path: Path
    passphrase: Passphrase = field(default=no_passphrase, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name of its folder: number, the start of the fingerprint, and the revision if there is one."""
        return self.path.name

    @property
    def stem(self) -> str:
        """Its name without the revision. It identifies the identity and the renewal that made it."""
        return self.name.partition(".")[0]

    @property
    def mark(self) -> str:
        """The start of the fingerprint. It is from the folder's name, so damage to the files does not change it."""
        return self.stem.partition("-")[2]

    @property
    def order(self) -> tuple[int, int, str]:
        """A sort key by number, revision and name. Later generations come after earlier ones."""
        match = NAME.fullmatch(self.name)
        return (int(match["number"]), int(match["revision"] or 0), self.name) if match else (0, 0, self.name)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """The content of ``connection.json``: URLs, source, time."""
        if (facts := json_object(self._read("connection.json"))) is None:
            raise _damaged(self.path / "connection.json", ValueError("it is not a JSON object"))
        return facts

    @property
    def created(self) -> datetime | None:
        """The time when it was made (UTC, by our clock); None if ``connection.json`` lacks it or is damaged."""
        with suppress(StorageFailed):
            return moment_from(self.facts.get("created"))
        return None

    @cached_property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificates, leaf first."""
        return self._certificates("chain.pem")

    @property
    def certificate(self) -> x509.Certificate:
        """The client certificate."""
        return self.chain[0]

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the client certificate, hex."""
        return fingerprint(self.certificate)

    @property
    def validity(self) -> Validity:
        """The validity of the client certificate."""
        return Validity.of(self.certificate)

    @property
    def client_ca(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates that came with it; empty for an import without a chain.

        If their file is damaged, this is the chain without the leaf, which has the same content. A renewal must not
        fail because of a damaged file that is not needed.
        """
        if not (self.path / "client-ca.pem").exists():
            return ()
        with suppress(StorageFailed):
            return self._certificates("client-ca.pem")
        return self.chain[1:]

    def damage_of(self, name: str) -> StorageFailed | None:
        """Return the error for a damaged file of certificates; None if the file is whole or missing."""
        try:
            if (self.path / name).exists():
                self._certificates(name)
        except StorageFailed as error:
            return error
        return None

    @property
    def server_ca(self) -> Path | None:
        """The CA file that verifies the server, or None for the system's trust."""
        path = self.path / "server-ca.pem"
        return path if path.exists() else None

    def holds(self, chain: tuple[x509.Certificate, ...], url: str | None, server_ca: bytes | None) -> bool:
        """Return whether it is whole and has this chain, this URL and this CA (PEM; None for the system's trust)."""
        with suppress(StorageFailed):
            self.check_whole()
            trusted = self._read("server-ca.pem") if self.server_ca else None
            return (self.chain, self.facts.get("connectorUrl"), trusted) == (chain, url, server_ca)
        return False

    @property
    def credentials(self) -> Credentials:
        """Key and chain for a handshake. UCL has accepted them, because only then did they become a generation."""
        chain, key = self.path / "chain.pem", self.path / "key.pem"
        return Credentials(chain, key, self.certificate, self.passphrase, accepted=True)

    @property
    def usable(self) -> Credentials | None:
        """Key and chain for a handshake, even if some file is damaged; None if the key is lost."""
        return self.credentials if self.is_readable else self.rescued

    @property
    def rescued(self) -> Credentials | None:
        """A pair of undamaged files with a key and its certificate, with the longest chain; None if there is none.

        *Not* checked: whether an encrypted key belongs to the certificate beside it.
        """
        chains = {pair: self._pair(*pair) for pair in _PAIRS}
        best = max(chains, key=lambda pair: len(chains[pair]))
        if not chains[best]:
            return None
        chain, key = self.path / best[1], self.path / best[0]
        return Credentials(chain, key, chains[best][0], self.passphrase, accepted=True)

    def _pair(self, key_file: str, certificate_file: str) -> tuple[x509.Certificate, ...]:
        with suppress(UCLError):
            pem = self._read(key_file)
            chain = read_certificates(self._read(certificate_file), name=certificate_file)
            return chain if is_sealed(pem) or public_key_of(chain[0]) == load_key(pem, ours=True).public_key() else ()
        return ()

    def key(self) -> rsa.RSAPrivateKey:
        """Return the private key.

        Raises:
            StorageFailed: its file is damaged.
            KeyLocked: it is encrypted, and no passphrase opens it now.
        """
        return self._key_in(self._read("key.pem"))

    def _key_in(self, pem: bytes) -> rsa.RSAPrivateKey:
        path = self.path / "key.pem"
        if is_sealed(pem):
            return open_key(pem, self.passphrase, where=str(path))
        try:
            return load_key(pem, ours=True)
        except UCLError as error:
            raise _damaged(path, error) from None

    @property
    def is_sealed(self) -> bool:
        """Whether its key is stored encrypted."""
        return is_sealed(self._read("key.pem"))

    def check_whole(self, *, by_key: bool = True) -> None:
        """Check that key, certificate and chain can be read, belong together, and make up ``identity.pem``.

        Args:
            by_key: False uses no passphrase. Then it is *not* checked whether an encrypted key belongs to the
                certificate.

        Raises:
            StorageFailed: a check failed. The error names the file.
            KeyLocked: see :meth:`key`. It is raised only if no file is damaged.
        """
        key_pem, chain_pem = self._read("key.pem"), self._read("chain.pem")
        if not (sealed := is_sealed(key_pem)):
            self._require_match(key_pem)
        if self._read("identity.pem") != key_pem + chain_pem:
            raise _damaged(self.path / "identity.pem", ValueError("it is not the key and the chain beside it"))
        if self.chain and sealed and by_key:  # the chain is read in any case
            self._require_match(key_pem)
        try:
            check_url(self.facts.get("connectorUrl"))
        except UsageError as error:
            raise _damaged(self.path / "connection.json", ValueError(error.message)) from None

    def _require_match(self, key_pem: bytes) -> None:
        if self._key_in(key_pem).public_key() != public_key_of(self.certificate):
            raise _damaged(self.path, ValueError("key and certificate do not belong together"))

    @property
    def is_readable(self) -> bool:
        """Whether :meth:`check_whole` passes without a passphrase."""
        with suppress(StorageFailed):
            self.check_whole(by_key=False)
            return True
        return False

    def contents(self) -> Mapping[str, bytes]:
        """Return the content of every file by name; raises StorageFailed."""
        try:
            return {path.name: files.read_regular(path) for path in sorted(self.path.iterdir())}
        except OSError as error:
            raise _damaged(self.path, error) from None

    def _certificates(self, name: str) -> tuple[x509.Certificate, ...]:
        try:
            return read_certificates(self._read(name), name=name)
        except BadAnswer as error:
            raise _damaged(self.path / name, error) from None

    def _read(self, name: str) -> bytes:
        try:
            return files.read_regular(self.path / name)
        except OSError as error:
            raise _damaged(self.path / name, error) from None


def _damaged(path: Path, error: Exception) -> StorageFailed:
    reason = error.strerror if isinstance(error, OSError) else error
    return StorageFailed(
        f"{path} is not whole: {str(reason).rstrip('.')}.",
        remedy="To see what repairs it, run: ucl doctor",
        path=str(path),
    )


KEEP_YOUNGER = timedelta(days=1)


def write_generation(generation: Generation, contents: Mapping[str, bytes], readers: access.Readers) -> Generation:
    """Write the files of a new generation, without making it current. The caller holds the lock.

    Raises:
        StorageFailed: the files could not be written. No folder has the generation's name.
    """
    staged = files.temporary(generation.path.with_name("new"))
    files.make_directory(staged)
    for name, data in contents.items():
        files.write(staged / name, data)
    access.set_ownership(readers, staged)
    with files.storage("name", generation.path):
        staged.rename(generation.path)
    return generation


def holds_plain_key(folder: Path) -> bool:
    """Return whether the key in a folder is stored unencrypted; False if there is no key."""
    with suppress(OSError):
        return b"ENCRYPTED" not in files.read_regular(folder / "key.pem")[:64]
    return False


def prune_generations(generations: Sequence[Generation], used: Sequence[Generation | None], keep: int) -> None:
    """Remove all generations except the newest identities, those in use, and those younger than a day.

    Of each identity the last revision is kept.

    Args:
        generations: the oldest first.
        used: generations that are kept in any case.
        keep: how many distinct identities to keep.
    """
    kept, seen, now = set[str](), set[str](), datetime.now(UTC).timestamp()
    for generation in reversed(generations):
        kept.add(generation.mark)
        superfluous = generation.stem in seen or len(kept) > keep
        seen.add(generation.stem)
        with files.storage("look at", generation.path):
            age = now - generation.path.stat().st_mtime
        if superfluous and generation not in used and age > KEEP_YOUNGER.total_seconds():
            files.remove_tree(generation.path)


def fingerprint_or_none(generation: Generation | None) -> str | None:
    """Return the fingerprint of a generation, or None if there is no generation or it is damaged."""
    with suppress(StorageFailed):
        return generation.fingerprint if generation else None
    return None
