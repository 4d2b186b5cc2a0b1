"""Keep an interrupted procedure on disk, in the folder ``pending/``, for the next run to go on with.

::

    pending/    key.pem  csr.pem  answer.json  chain.pem  token  state.json  room (for the answer that is awaited)
    aside/…     the same, moved out of the way; pruned only after its certificate could have expired

The invariants of this folder: key and CSR are here before the signing request leaves, and so is ``sent`` in
``state.json``. A folder with ``sent``, or with a ``state.json`` that cannot be read, is never removed before it is
settled, only set aside. The caller holds the lock.

:meth:`Pending.resume` and :meth:`Pending.open` decide how the next run goes on:

| state of the folder | next step |
|---|---|
| same subject and key length, nothing signed yet | go on with the same key and CSR |
| an answer that waits for its verification, or a one-time token not used yet | go on, without asking again |
| the answer has expired or is due itself | have the same CSR signed again |
| its key or CSR is lost or damaged | set aside if it was sent, begin again |
| another subject, or a key length that was asked for, or it belongs to another generation | set aside, begin again |
"""

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.clock import MOST_SECONDS
from ucl_helpers.connection import files
from ucl_helpers.connection.files import json_object
from ucl_helpers.crypto import (
    decode_certificates,
    dump_certificates,
    parse_subject,
    public_key_of,
    read_certificates,
    same_subject,
)
from ucl_helpers.errors import BadAnswer, KeyLocked, UCLError, UsageError
from ucl_helpers.keys import Credentials, Passphrase, dump_key, is_sealed, no_passphrase, open_key
from ucl_helpers.models import Configuration, SignedCertificates

if TYPE_CHECKING:
    from ucl_helpers.connection.generation import Generation

_UNKNOWN_LIFETIME = timedelta(days=366)
_TOKEN_LIFETIME = timedelta(minutes=5)
_ROOM = 128 * 1024  # bytes; an answer takes some 20 KiB, and the generation that is made of it some 40
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class PendingState:
    """The content of ``state.json`` about a procedure under way. It is false if nothing is pending.

    Attributes:
        kind: ``renew``, ``establish``, or ``damaged`` if the file cannot be understood.
        id: identifies this procedure.
        created: when it began, or when UCL last answered its configuration (ISO 8601, UTC).
        base: stem of the generation that it will replace; None if there is none.
        bits: key length.
        configuration: UCL's answer without its one-time token; None if it cannot be used.
        sent: when the signing request was sent; None before.
        rejected: how many answers failed their checks.
        clock_difference: seconds by which UCL's clock is ahead.
        accepted_host: the host of the certificate endpoint that the user has agreed to.
        token_url: where the one-time token is shown.
        url: the certificate endpoint at which the new identity was ``verified`` (its fingerprint).
        aside: the reason why it was set aside.
        keep_until: the time until which it must be kept then (ISO 8601, UTC).
    """

    kind: str = ""
    id: str = ""
    created: str = _UNKNOWN
    base: str | None = None
    bits: int = 0
    configuration: Configuration | None = None
    sent: str | None = None
    rejected: int | None = None
    clock_difference: float | None = None
    accepted_host: str | None = None
    token_url: str | None = None
    url: str | None = None
    verified: str | None = None
    aside: str | None = None
    keep_until: str | None = None

    def __bool__(self) -> bool:
        return bool(self.kind)

    @classmethod
    def from_json(cls, data: bytes) -> "PendingState":
        """Read a ``state.json``. A damaged one means that the signing request may have been sent."""
        facts = json_object(data) or {}
        is_whole = all(isinstance(facts.get(name), types) for name, types in _TYPES.items())
        is_whole = is_whole and abs(facts.get("clock_difference") or 0.0) < MOST_SECONDS
        if not is_whole and "keep_until" not in facts:
            return _DAMAGED
        valid = {
            name: facts[name] for name, types in _TYPES.items() if name in facts and isinstance(facts[name], types)
        }
        return cls(**{**valid, "kind": valid.get("kind") or _DAMAGED.kind, "configuration": _configuration_in(facts)})

    def as_json(self) -> bytes:
        """Return the content of ``state.json``."""
        facts = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps({**facts, "configuration": facts.get("configuration", {})}, indent=1).encode()


_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("kind", "id", "created"), str),
    **dict.fromkeys(("base", "sent", "accepted_host", "token_url", "url", "verified"), str | None),
    **dict.fromkeys(("aside", "keep_until"), str | None),
    "bits": int,
    "rejected": int | None,
    "clock_difference": float | int | None,
    "configuration": dict,
}
_DAMAGED = PendingState(kind="damaged", sent=_UNKNOWN)
_NOTHING = PendingState()


def _configuration_in(facts: Mapping[str, Any]) -> Configuration | None:
    with suppress(KeyError, TypeError, BadAnswer):
        configuration = Configuration(**facts["configuration"])
        texts = vars(configuration).values()
        if all(isinstance(text, str | None) for text in texts) and parse_subject(configuration.subject):
            return configuration
    return None


class Pending:
    """The folder ``pending/`` of a connection. Its key is encrypted if ``passphrase`` returns a passphrase."""

    def __init__(self, path: Path, passphrase: Passphrase = no_passphrase) -> None:
        self.path, self.key_path, self.passphrase = path, path / "key.pem", passphrase
        self._state: PendingState | None = None

    def read_state(self) -> PendingState:
        """Return the content of ``state.json``. The file is read only once until :meth:`reload` is called.

        Raises:
            StorageFailed: it cannot be read.
        """
        if self._state is None:
            path, state = self.path / "state.json", _NOTHING
            with files.storage("read", path), suppress(FileNotFoundError, NotADirectoryError):
                state = PendingState.from_json(files.read_regular(path))
            self._state = state
        return self._state

    def __bool__(self) -> bool:
        """Return whether a procedure is under way. Raises the errors of :meth:`read_state`."""
        return bool(self.read_state())

    def reload(self) -> None:
        """Forget the state, so that it is read again. Another process may have changed it."""
        self._state = None

    def resume(
        self, kind: str, base: "Generation | None", bits: int, is_outdated: Callable[[x509.Certificate], bool]
    ) -> Configuration | None:
        """Return the configuration of an interrupted run whose answer or one-time token can still be used, or None.

        A procedure of another kind or for another generation is set aside.

        Args:
            kind: the kind of the procedure that resumes.
            base: the generation that it will replace.
            bits: the requested key length.
            is_outdated: returns whether a signed certificate is useless by now.
        """
        self.drop_unusable_request()
        state, configuration = self.read_state(), self.read_state().configuration
        if configuration is None:
            return None
        if state.kind != kind or not _fits(state, base, configuration):
            self.set_aside("the generation it was begun for is no longer current")
            return None
        if state.bits != bits:
            return None
        if self.answer() is None:
            return configuration if self.token() else None
        certificate = self.certificate()
        if certificate is None or is_outdated(certificate):
            self.drop_answer()
            return None
        return configuration

    def open(
        self, kind: str, base: "Generation | None", configuration: Configuration, *, bits: int, server_ca: bytes | None
    ) -> None:
        """Keep the pending key and CSR if they fit ``configuration``; otherwise begin again.

        An interrupted establishment keeps its CA file for the server, unless ``server_ca`` is given.
        """
        state, subject = self.read_state(), parse_subject(configuration.subject)
        earlier = state.configuration
        if earlier and state.bits == bits and same_subject(parse_subject(earlier.subject), subject):
            self.replace_server_ca(kind, server_ca)
            self.keep_token(configuration.token)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.update(configuration=replace(configuration, token=None), created=now)
            return
        if server_ca is None and kind == "establish" == state.kind:
            server_ca = self.server_ca_pem()
        reason = "another subject or key length is wanted"
        self.begin(kind, base.stem if base else None, configuration, bits=bits, server_ca=server_ca, instead=reason)

    def begin(
        self,
        kind: str,
        base: str | None,
        configuration: Configuration,
        *,
        bits: int,
        server_ca: bytes | None,
        instead: str = "something else was begun",
    ) -> None:
        """Begin a procedure with a configuration from UCL. Its one-time token is kept until it is used.

        A procedure under way is set aside. ``instead`` is the reason.
        """
        self.set_aside(instead)
        self.discard()
        files.make_directory(self.path)
        if server_ca is not None:
            self.keep_server_ca(server_ca)
        self.keep_token(configuration.token)
        self._write(
            PendingState(
                kind,
                secrets.token_hex(8),
                datetime.now(UTC).isoformat(timespec="seconds"),
                base,
                bits,
                replace(configuration, token=None),
            )
        )

    def keep_request(self, key: rsa.RSAPrivateKey, csr: bytes) -> None:
        """Write key and CSR to disk, the key first."""
        self.keep_key(key)
        files.write(self.path / "csr.pem", csr)

    def keep_key(self, key: rsa.RSAPrivateKey) -> None:
        """Write the key to disk, encrypted if there is a passphrase."""
        files.write(self.key_path, dump_key(key, self.passphrase()))

    @property
    def has_request(self) -> bool:
        """Whether the files of key and CSR exist."""
        return self.key_path.exists() and (self.path / "csr.pem").exists()

    @property
    def request_is_usable(self) -> bool:
        """Whether key and CSR can be used, or do not exist yet.

        It is false if key or CSR cannot be read, or do not belong together, or if one is missing although the request
        was sent.

        Raises:
            StorageFailed: they cannot be read now.
            KeyLocked: the key is encrypted, and no passphrase opens it now.
        """
        with files.storage("look into", self.path):
            if not self.has_request:
                return not self.read_state().sent
        try:
            return public_key_of(x509.load_pem_x509_csr(self.csr())) == self.key().public_key()
        except KeyLocked:  # the key is not lost
            raise
        except (UsageError, ValueError):
            return False

    def drop_unusable_request(self) -> None:
        """Set a key and CSR that cannot be used aside if the request was sent, and remove them otherwise."""
        if self.request_is_usable:
            return
        if self.read_state().sent:
            self.set_aside("its key or CSR is lost or damaged")
            return
        with files.storage("remove", self.path):
            for path in (self.key_path, self.path / "csr.pem"):
                path.unlink(missing_ok=True)

    @property
    def server_ca(self) -> Path | None:
        """The CA file that verifies the server, or None for the system's trust."""
        path = self.path / "server-ca.pem"
        return path if path.exists() else None

    def server_ca_pem(self) -> bytes | None:
        """Return the CA that verifies the server, PEM, or None for the system's trust."""
        with files.storage("read", self.path / "server-ca.pem"):
            return files.read_regular(self.server_ca) if self.server_ca else None

    def keep_server_ca(self, pem: bytes) -> None:
        """Write the CA that verifies the server."""
        files.write(self.path / "server-ca.pem", pem)

    def replace_server_ca(self, kind: str, pem: bytes | None) -> None:
        """Keep another CA for the server. For None, a renewal removes the kept CA, and an establishment keeps it."""
        if pem is not None:
            self.keep_server_ca(pem)
        elif kind == "renew" and self.server_ca:
            with files.storage("remove", self.server_ca):
                self.server_ca.unlink()

    def about_to_send(self, now: datetime) -> None:
        """Record that the signing request leaves now, and reserve room so that a full disk does not lose its answer."""
        files.write(self.path / "room", secrets.token_bytes(_ROOM))
        self.update(sent=now.isoformat(timespec="seconds"))

    def update(self, **facts: Any) -> None:
        """Change facts of the state."""
        self._write(replace(self.read_state(), **facts))

    def _write(self, state: PendingState) -> None:
        self.reload()  # if the write fails, the state on disk counts
        files.write(self.path / "state.json", state.as_json())
        self._state = state

    def key(self) -> rsa.RSAPrivateKey:
        """Return the private key. Raises UsageError if it is damaged, KeyLocked if no passphrase opens it."""
        with files.storage("read", self.key_path):
            return open_key(files.read_regular(self.key_path), self.passphrase, where=str(self.key_path))

    def _public_key(self) -> object:
        """Return the public key. It is read from the CSR if the key is encrypted, so that this takes no passphrase."""
        if is_sealed(files.read_regular(self.key_path)):
            return public_key_of(x509.load_pem_x509_csr(self.csr())) or self.key().public_key()
        return self.key().public_key()

    def csr(self) -> bytes:
        """Return the CSR, PEM."""
        with files.storage("read", self.path / "csr.pem"):
            return files.read_regular(self.path / "csr.pem")

    def keep_token(self, token: str | None) -> None:
        """Keep the one-time token of a configuration until it is used; None forgets it."""
        path = self.path / "token"
        if token:
            files.write(path, token.encode())
            return
        with files.storage("remove", path):
            path.unlink(missing_ok=True)
            files.sync_directory(self.path)

    def token(self) -> str | None:
        """Return the kept token if it can still be valid by the system's clock, which stamped it."""
        absent = (FileNotFoundError, NotADirectoryError)
        with files.storage("read", self.path), suppress(*absent, ValueError, TypeError):
            if datetime.now(UTC) - datetime.fromisoformat(self.read_state().created) < _TOKEN_LIFETIME:
                return files.read_regular(self.path / "token").decode()
        return None

    def keep_answer(self, signed: SignedCertificates) -> None:
        """Keep UCL's answer unchanged. First, keep its chain as PEM if it can be read."""
        with files.storage("make room in", self.path):
            (self.path / "room").unlink(missing_ok=True)
        with suppress(BadAnswer):
            self.keep_chain(decode_certificates(signed.certificate_chain, name="certificateChain"))
        answer = {name: value for name, value in asdict(signed).items() if name != "reused"}
        files.write(self.path / "answer.json", json.dumps(answer).encode())

    def answer(self) -> SignedCertificates | None:
        """Return the kept answer, or None. Raises StorageFailed if it cannot be read now: UCL signs only once."""
        with files.storage("read", self.path), suppress(FileNotFoundError, NotADirectoryError, TypeError):
            answer = json_object(files.read_regular(self.path / "answer.json")) or {}
            if all(isinstance(text, str) for text in answer.values()):
                return SignedCertificates(**answer, reused=True)
        return None

    def certificate(self) -> x509.Certificate | None:
        """Return the certificate of the kept answer, unchecked, or None."""
        chain = self._answered_chain()
        return chain[0] if chain else None

    def _answered_chain(self) -> tuple[x509.Certificate, ...] | None:
        answer = self.answer()
        with suppress(UCLError):
            return decode_certificates(answer.certificate_chain, name="certificateChain") if answer else None
        return None

    def keep_chain(self, chain: tuple[x509.Certificate, ...]) -> None:
        """Keep a chain as PEM, leaf first, for the handshake."""
        files.write(self.path / "chain.pem", dump_certificates(*chain))

    def credentials(self) -> Credentials:
        """Return key and chain for a handshake. A lost or damaged chain is restored from the answer."""
        path = self.path / "chain.pem"
        with files.storage("read", path):
            try:
                chain = read_certificates(files.read_regular(path), name=str(path))
            except (BadAnswer, FileNotFoundError) as error:
                if (again := self._answered_chain()) is None:
                    raise error from None
                self.keep_chain(chain := again)
        return Credentials(path, self.key_path, chain[0], self.passphrase)

    def signed(self) -> list[Credentials]:
        """Return the certificates signed for the kept key, from the answer and from rejected ones, unchecked."""
        credentials = []
        for path in sorted(self.path.glob("chain*.pem")):
            with suppress(UCLError, OSError, ValueError):
                leaf = read_certificates(files.read_regular(path), name=str(path))[0]
                if public_key_of(leaf) == self._public_key():
                    credentials.append(Credentials(path, self.key_path, leaf, self.passphrase))
        return credentials

    def drop_answer(self) -> None:
        """Set an answer that failed its checks aside within the folder. The same CSR may be signed again."""
        mark = secrets.token_hex(4)
        with files.storage("rename", self.path / "answer.json"):
            for name, ending in (("answer", "json"), ("chain", "pem")):
                with suppress(FileNotFoundError):  # an answer that could not be read has no chain
                    (self.path / f"{name}.{ending}").rename(self.path / f"{name}-failed-{mark}.{ending}")
            files.sync_directory(self.path)

    def set_aside(self, reason: str) -> None:
        """Move the folder to ``aside/``, or remove it if nothing was sent for signing, since no certificate exists."""
        if not self.read_state().sent:
            self.reload()  # before a key is thrown away: another object may have sent its request
        if not self.read_state():
            return
        if not self.read_state().sent:
            self.discard()
            return
        expiries = [credentials.certificate.not_valid_after_utc for credentials in self.signed()]
        if not expiries or not self.answer():  # another certificate may have been signed, and its answer lost
            expiries.append(datetime.now(UTC) + _UNKNOWN_LIFETIME)
        with suppress(OSError):
            (self.path / "token").unlink()
        self.update(aside=reason, keep_until=max(expiries).isoformat())
        files.make_directory(folder := self.path.with_name("aside"))
        with files.storage("set aside", self.path):
            self.path.rename(folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}")
            files.sync_directory(folder)
            files.sync_directory(self.path.parent)
        self.reload()

    def discard(self) -> None:
        """Remove the folder once its procedure is settled."""
        if self.path.exists():
            files.remove_tree(self.path)
        self.reload()


def set_aside(connection_path: Path, passphrase: Passphrase = no_passphrase) -> list[Pending]:
    """Return the procedures that were set aside, oldest first."""
    aside = connection_path / "aside"
    folders = sorted(aside.iterdir()) if aside.is_dir() else []
    return [Pending(folder, passphrase) for folder in folders if folder.name[0] != "."]


def prune_aside(connection_path: Path, now: datetime) -> None:
    """Remove the procedures that were set aside once their certificates, if any, have expired."""
    for pending in set_aside(connection_path):
        with suppress(ValueError, TypeError):  # if the date is damaged, keep the folder
            if datetime.fromisoformat(pending.read_state().keep_until or "") < now:
                pending.discard()


def _fits(state: PendingState, base: "Generation | None", configuration: Configuration) -> bool:
    """Return whether a procedure was begun for the generation ``base``, perhaps rebuilt since, or for its subject."""
    if base is None or state.base == base.stem:
        return True
    return base.is_readable and same_subject(base.certificate.subject, parse_subject(configuration.subject))
