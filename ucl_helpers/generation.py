"""A generation: one complete, immutable state of a connection on disk, as its readers see it.

The files are those of :mod:`ucl_helpers.exports` and ``connection.json`` (URLs, where it came from, when).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509

from ucl_helpers.clock import moment_from
from ucl_helpers.crypto import load_key, public_key_of, read_certificates
from ucl_helpers.errors import BadAnswer, StorageFailed, UCLError
from ucl_helpers.exports import json_object
from ucl_helpers.models import Validity, fingerprint
from ucl_helpers.tls import Credentials

_PAIRS = (("identity.pem", "identity.pem"), ("key.pem", "chain.pem"), ("key.pem", "certificate.pem"))


@dataclass(frozen=True)
class Generation:
    """One complete, immutable state of a connection on disk."""

    path: Path

    @property
    def name(self) -> str:
        """Its folder's name: number and the start of the fingerprint."""
        return self.path.name

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """``connection.json``: URLs, where it came from, when."""
        if (facts := json_object(self._read("connection.json"))) is None:
            raise _damaged(self.path / "connection.json", ValueError("it is not a JSON object"))
        return facts

    @property
    def created(self) -> datetime | None:
        """When it was made (UTC), by our clock then; None when ``connection.json`` does not say, or is damaged."""
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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the client certificate, hex."""
        return fingerprint(self.certificate)

    @property
    def validity(self) -> Validity:
        """Of the client certificate."""
        return Validity.of(self.certificate)

    @property
    def client_ca(self) -> tuple[x509.Certificate, ...]:
        """The CA that came with it, or nothing for an import without chain."""
        return self._certificates("client-ca.pem") if (self.path / "client-ca.pem").exists() else ()

    @property
    def server_ca(self) -> Path | None:
        """What verifies the server, or None for the system's trust."""
        path = self.path / "server-ca.pem"
        return path if path.exists() else None

    def holds(self, chain: tuple[x509.Certificate, ...], url: str | None, server_ca: bytes | None) -> bool:
        """Whether it is whole, with this chain, calls this URL, and trusts this CA there (PEM; None: the system's)."""
        with suppress(StorageFailed):
            self.check_whole()
            trusted = self._read("server-ca.pem") if self.server_ca else None
            return (self.chain, self.facts.get("connectorUrl"), trusted) == (chain, url, server_ca)
        return False

    @property
    def credentials(self) -> Credentials:
        """What is shown to the server."""
        return Credentials(self.path / "chain.pem", self.path / "key.pem", self.certificate)

    @property
    def usable(self) -> Credentials | None:
        """What can be shown to the server though some file may be damaged; None when the key is lost."""
        return self.credentials if self.is_readable else self.rescued

    @property
    def rescued(self) -> Credentials | None:
        """Of what is left: the pair of files that still are a key and its certificate, with the longest chain."""
        chains = {pair: self._pair(*pair) for pair in _PAIRS}
        best = max(chains, key=lambda pair: len(chains[pair]))
        return Credentials(self.path / best[1], self.path / best[0], chains[best][0]) if chains[best] else None

    def _pair(self, key_file: str, certificate_file: str) -> tuple[x509.Certificate, ...]:
        with suppress(UCLError):
            key = load_key(self._read(key_file)).public_key()
            chain = read_certificates(self._read(certificate_file), name=certificate_file)
            return chain if public_key_of(chain[0]) == key else ()
        return ()

    def check_whole(self) -> None:
        """Key, certificate and chain are readable, belong together, and are what ``identity.pem`` holds.

        Raises:
            StorageFailed: they do not; names the file.
        """
        key_pem, chain_pem = self._read("key.pem"), self._read("chain.pem")
        try:
            key = load_key(key_pem)
        except UCLError as error:
            raise _damaged(self.path / "key.pem", error) from None
        if key.public_key() != public_key_of(self.certificate):
            raise _damaged(self.path, ValueError("key and certificate do not belong together"))
        if self._read("identity.pem") != key_pem + chain_pem:
            raise _damaged(self.path / "identity.pem", ValueError("it is not the key and the chain beside it"))

    @property
    def is_readable(self) -> bool:
        """True when :meth:`check_whole` passes."""
        with suppress(StorageFailed):
            self.check_whole()
            return True
        return False

    def _certificates(self, name: str) -> tuple[x509.Certificate, ...]:
        try:
            return read_certificates(self._read(name), name=name)
        except BadAnswer as error:
            raise _damaged(self.path / name, error) from None

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise _damaged(self.path / name, error) from None


def _damaged(path: Path, error: Exception) -> StorageFailed:
    reason = error.strerror if isinstance(error, OSError) else error
    return StorageFailed(
        f"{path} is not whole: {str(reason).rstrip('.')}.",
        remedy="Find out what mends it with: ucl doctor",
        path=str(path),
    )
