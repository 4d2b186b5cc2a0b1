"""What becomes of a pending procedure when the next run finds it. The caller holds the lock.

| found | then |
|---|---|
| its certificate is current already | it was cut off just after the switch: tidy up |
| same subject and key length, nothing signed yet | go on with the same key and CSR |
| an answer that waits for its verification, or a one-time token not used yet | go on, without asking again |
| the answer has expired or is due itself | have the same CSR signed again |
| its key or CSR is lost or damaged | set aside if it was sent, begin anew |
| subject or key length changed, or it belongs to another generation | set aside, begin anew |
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from ucl_helpers.connection import files
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.store import Connection
from ucl_helpers.crypto import parse_subject, same_subject
from ucl_helpers.errors import SettledElsewhere, UsageError
from ucl_helpers.formats.key_files import ca_pem
from ucl_helpers.models import Configuration, fingerprint
from ucl_helpers.procedures.generations import encrypt_keys, fingerprint_or_none
from ucl_helpers.wire.tls import unusable_ca


def tidy(connection: Connection, pending: Pending) -> None:
    """Remove what runs left behind that were cut off: in the midst of writing, or just after their switch.

    Then whatever the settings refer to is at hand, before anything is signed, and no key lies in plain that should not.

    Raises:
        InvalidSettings: see :meth:`ucl_helpers.connection.store.Connection.generation_spec`.
    """
    connection.sweep()
    certificate, current = pending.certificate(), connection.current
    if certificate and current and fingerprint_or_none(current) == fingerprint(certificate):
        connection.record("settled", fingerprint=current.fingerprint, generation=current.name)
        pending.discard()
    connection.generation_spec()
    encrypt_keys(connection)


def require_same_pending(connection: Connection, pending: Pending, base: Generation | None, known: str | None) -> None:
    """A procedure goes on only with what it has begun itself, for the generation it began with.

    Raises:
        SettledElsewhere: another process has finished it, or set it aside.
    """
    current, what = connection.current, ""
    if current != base:
        what = f"{connection.name} got another generation meanwhile: {current.name if current else 'none'}."
    elif known is not None and pending.read_state().id != known:
        what = f"What was begun for {connection.name} was settled or set aside."
    if what:
        raise SettledElsewhere(what, remedy="Nothing is lost; begin anew to go on from there.")


def resume(
    pending: Pending, kind: str, base: Generation | None, bits: int, is_due: Callable[[x509.Certificate], bool]
) -> Configuration | None:
    """The configuration of an interrupted run whose answer or one-time token still counts, or None: then ask anew.

    What belongs to another kind of procedure or another identity is set aside.
    """
    pending.mend_request()
    configuration = pending.read_state().configuration
    if configuration is None:
        return None
    if pending.read_state().kind != kind or not _fits(pending, base, configuration):
        pending.set_aside("the generation it was begun for is no longer current")
        return None
    if pending.read_state().bits != bits:
        return None
    if pending.answer() is None:
        return configuration if pending.token() else None
    certificate = pending.certificate()
    if certificate is None or is_due(certificate):
        pending.drop_answer()
        return None
    return configuration


def open_pending(
    pending: Pending,
    configuration: Configuration,
    *,
    kind: str,
    base: Generation | None,
    bits: int,
    server_ca: Path | None,
) -> None:
    """Go on with the key and CSR that are pending if they fit ``configuration``; else begin anew.

    What verified the server for an establishment that was cut off still does, unless ``server_ca`` is given.
    """
    earlier = pending.read_state().configuration
    if earlier and pending.read_state().bits == bits and _same(earlier, configuration):
        trust(pending, kind, server_ca)
        pending.keep_token(configuration.token)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        pending.update(configuration=replace(configuration, token=None), created=now)
        return
    ca = pending.server_ca_pem() if kind == "establish" == pending.read_state().kind else None
    if server_ca:
        ca = _readable_ca(server_ca)
    why = "another subject or key length is wanted"
    pending.begin(kind, base.stem if base else None, configuration, bits=bits, server_ca=ca, instead=why)


def trust(pending: Pending, kind: str, server_ca: Path | None) -> None:
    """What verifies the server may be another by now. None is the system's trust for a renewal, else as before."""
    if server_ca:
        pending.keep_server_ca(_readable_ca(server_ca))
    elif kind == "renew" and pending.server_ca:
        with files.storage("remove", pending.server_ca):
            pending.server_ca.unlink()


def _readable_ca(path: Path) -> bytes:
    """Read what verifies the server as plain PEM; raises StorageFailed when it cannot be used."""
    try:
        with files.storage("read", path):
            return ca_pem(files.read_regular(path), where=str(path))
    except UsageError as error:
        raise unusable_ca(path, error) from None


def _fits(pending: Pending, base: Generation | None, configuration: Configuration) -> bool:
    if base is None or pending.read_state().base == base.stem:  # though it may have been rebuilt
        return True
    return base.is_readable and same_subject(base.certificate.subject, parse_subject(configuration.subject))


def _same(one: Configuration, other: Configuration) -> bool:
    return same_subject(parse_subject(one.subject), parse_subject(other.subject))
