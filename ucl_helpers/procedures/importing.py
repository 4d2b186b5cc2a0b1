"""Import an identity that was made elsewhere: the tutorial's files, encrypted keys, PKCS #12.

Invariants that this file keeps:

1.  Nothing of a connection changes until UCL has answered a call with the imported identity and its checks have passed.
2.  An import that fails leaves the home folder as it was: a connection that was made for it is removed again.
3.  The connection's lock is held throughout, so that no other process can replace the identity meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.checks import Expected, check_identity, require
from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import answered
from ucl_helpers.connection.generation import fingerprint_or_none
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.crypto import public_key_of
from ucl_helpers.errors import AuthenticationFailed, StorageFailed, UsageError
from ucl_helpers.formats.blocks import CERTIFICATE, PKCS7, blocks, identify
from ucl_helpers.formats.key_files import ca_certificates, ca_pem, certificates_in, keys_in, needs_passphrase
from ucl_helpers.models import Identity, Outcome, fingerprint
from ucl_helpers.operations import configuration_from
from ucl_helpers.procedures.acceptance import ask_configuration, explain_by_director, require_not_accepted
from ucl_helpers.procedures.generations import generation_metadata, outcome_of
from ucl_helpers.urls import another_host, check_url
from ucl_helpers.wire.client import Answer
from ucl_helpers.wire.tls import tls_context


@dataclass(frozen=True)
class ImportedIdentity:
    """Key and certificates as read from files, the leaf first; the key is kept out of every representation."""

    key: rsa.RSAPrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]


def read_identity(
    key_file: Path,
    certificate_file: Path | None = None,
    chain_file: Path | None = None,
    *,
    passphrase: str | None = None,
    clock: Clock = utc_now,
) -> ImportedIdentity:
    """Read key and certificates.

    Of several certificates the valid one is taken, and of several valid ones that in ``certificate_file``, else the
    newest. Of several keys the one that fits it is taken. :mod:`ucl_helpers.formats.blocks` lists the forms.

    Args:
        key_file: the key, encrypted or not; or PKCS #12 or another file that holds the certificate as well.
        certificate_file: the certificate; may hold the chain and other certificates, in any order.
        chain_file: further certificates.
        passphrase: of the key or the PKCS #12; files that are not encrypted are still read.
        clock: our clock, aware, UTC. It only chooses among certificates; whether one is valid is UCL's to say.

    Raises:
        UsageError: a file is missing or unreadable, the key is not RSA or shorter than 2048 bits, or no certificate
            belongs to it; says what the file is.
    """
    secret, data, where = passphrase.encode() if passphrase else None, _read(key_file), str(key_file)
    is_swapped = certificate_file and any(block.kind in {CERTIFICATE, PKCS7} for block in blocks(data))
    remedy = "Did you swap --key and --certificate?" if is_swapped else "Give the file of the private key with --key."
    keys = keys_in(data, where=where, passphrase=secret, remedy=remedy)
    certificates = list(certificates_in(data, where=where, passphrase=secret, needed=False))
    if not certificates and certificate_file is None:
        raise UsageError(
            f"{key_file} is {identify(data)} without a certificate.",
            remedy="Give its certificate as well: --certificate FILE.",
        )
    others = [path for path in (certificate_file, chain_file) if path]
    for path in others:
        certificates += certificates_of(path, secret)
    preferred = certificates_of(certificate_file, secret) if certificate_file else ()
    if secret and not any(map(needs_passphrase, (data, *map(_read, others)))):
        also = ", and no other file has one" if others else ""
        problem = f"{key_file} is {identify(data)} without a passphrase{also}."
        raise UsageError(problem, remedy="Leave the passphrase out.")
    pairs = [(leaf, key) for leaf in certificates for key in keys if public_key_of(leaf) == key.public_key()]
    if not pairs:
        key_names = "the key" if len(keys) == 1 else f"any of the {len(keys)} keys"
        raise UsageError(
            f"No certificate in {certificate_file or key_file} belongs to {key_names} in {key_file}.",
            remedy="Give the certificate that was signed for this very key.",
        )
    now = clock()
    leaf, key = max(pairs, key=lambda pair: _fitness(pair[0], now, preferred=pair[0] in preferred))
    return ImportedIdentity(key, _ordered(leaf, certificates, now))


def _fitness(
    certificate: x509.Certificate, now: datetime, *, preferred: bool = False
) -> tuple[bool, bool, bool, datetime, datetime]:
    """Rank certificates, the best last: valid, in the file named as the certificate, signed by a CA, made last."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins <= now < ends, preferred, certificate.issuer != certificate.subject, begins, ends


def import_identity(
    home: Home,
    name: str,
    identity: ImportedIdentity,
    connector_url: str,
    *,
    ca_file: Path | None = None,
    clock: Clock = utc_now,
) -> Outcome:
    """Check an identity, try it at the certificate endpoint, and keep it as a connection.

    Args:
        home: the folder of all connections.
        name: of the connection; it must be new, its identity expired or revoked, or this very one, whose URL or CA
            has changed.
        identity: see :func:`read_identity`.
        connector_url: the *certificate* endpoint (``certificateSecuredConnectorURL``).
        ca_file: PEM of what verifies UCL's servers; None for the system's trust.
        clock: our clock, aware, UTC.

    Raises:
        UsageError: the CA file cannot be used.
        ChecksFailed: names every failed check.
        RetryLater, Refused, ServerNotTrusted, BadAnswer: the call failed. In each case nothing is kept.
        Busy: another process is using this connection.
    """
    url = check_url(connector_url, what="--connector-url")
    ca_file = usable_ca(ca_file) if ca_file else None
    server_ca = ca_pem(_read(ca_file), where=str(ca_file)) if ca_file else None
    imported = fingerprint(identity.chain[0])
    with home.making(name) as connection, connection.lock.held():
        connection.sweep()
        connection.generation_spec()  # raises before UCL is called if a setting refers to something that is missing
        previous = fingerprint_or_none(connection.current)
        if previous != imported:
            require_not_accepted(connection, clock)
        answer = _call(connection, identity, url, ca_file, accepted=previous == imported, clock=clock)
        if connection.current and previous != imported:
            require_not_accepted(connection, clock)  # UCL is up: it may accept now what it refused a moment ago
        configuration = configuration_from(answer.result)
        expected = Expected(identity.key.public_key(), subject=None, server_now=answer.date, local_now=clock())
        checks = check_identity(identity.chain, expected)
        require(checks, what="The imported certificate")
        facts = generation_metadata("import", configuration, url, imported, now=clock(), previous=previous)
        generation = connection.install(identity.key, identity.chain, identity.chain[1:], server_ca, facts)
        connection.accepted(imported)
        answered(connection)
        connection.record("imported", fingerprint=imported, previous=previous, generation=generation.name)
        warnings = [Identity(identity.chain, checks=checks).warnings]
        if host := another_host(configuration.certificate_secured_connector_url, url):
            warnings.append(f"UCL names the host {host} for the certificate endpoint; a renewal asks for your consent")
        text = "; ".join(filter(None, warnings)) or None
        return outcome_of(connection, "imported", clock(), previous=previous, warnings=text)


def _call(
    connection: Connection, identity: ImportedIdentity, url: str, ca_file: Path | None, *, accepted: bool, clock: Clock
) -> Answer:
    """Ask for a configuration with the imported identity. The caller holds the lock.

    The handshake needs files, so the identity is written under a temporary name; :meth:`Connection.sweep` removes it
    after a kill. A refusal is not remembered, because nothing of the connection depends on it.
    """
    files.require_links(connection.path, connection.path / "current")  # before anything is sent
    staged = Pending(files.temporary(connection.path / "generations" / "new"), connection.passphrase)
    try:
        files.make_directory(staged.path)
        staged.keep_key(identity.key)
        staged.keep_chain(identity.chain)
        _require_loadable(staged)
        credentials = replace(staged.credentials(), accepted=accepted)
        return ask_configuration(url, credentials, ca_file)
    except AuthenticationFailed as error:
        explained = explain_by_director(error, connection, credentials, ca_file, now=clock())
        remedy = f"Nothing was imported. Is the URL the certificate-secured Connector URL? {explained.remedy}"
        raise type(explained)(explained.message, remedy=remedy, **explained.data) from None
    finally:
        staged.discard()


def _require_loadable(staged: Pending) -> None:
    """Refuse what OpenSSL does not use for TLS, such as a certificate signed with SHA-1; the files are the user's."""
    try:
        tls_context(None, staged.credentials())
    except StorageFailed as error:
        _, refused, reason = error.message.rpartition("used: ")
        if not refused:  # the files could not be read, which is no fault of what is in them
            raise
        raise UsageError(
            f"Key and certificate cannot be used for TLS: {reason}",
            remedy="Establish a connection with a new key instead: ucl establish --help",
        ) from None


def _ordered(
    leaf: x509.Certificate, certificates: Sequence[x509.Certificate], now: datetime
) -> tuple[x509.Certificate, ...]:
    """Return the leaf, then each issuer that is there and has signed it; leave out what is not part of the path."""
    chain, others = [leaf], [other for other in dict.fromkeys(certificates) if other != leaf]
    while chain[-1].issuer != chain[-1].subject:
        issuers = [other for other in others if _signed_by(chain[-1], other)]
        if not issuers:
            break
        chain.append(max(issuers, key=lambda issuer: _fitness(issuer, now)))
        others.remove(chain[-1])
    return tuple(chain)


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether a certificate names this issuer and its signature verifies: CAs with new keys keep their names."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def certificates_of(path: Path, passphrase: bytes | None = None) -> tuple[x509.Certificate, ...]:
    """Return the certificates in a file of the user's; raises UsageError."""
    return certificates_in(_read(path), where=str(path), passphrase=passphrase)


def usable_ca(path: Path) -> Path:
    """Return the full path of a CA file of the user's that TLS can load; raises UsageError."""
    ca_certificates(_read(path), where=str(path))
    try:
        tls_context(path.expanduser(), None)
    except StorageFailed as error:  # it is a file of the user's
        raise UsageError(error.message, remedy=error.remedy) from None
    return path.expanduser()


def _read(path: Path) -> bytes:
    try:
        return files.read_regular(path.expanduser())
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such user"
        raise UsageError(f"{path} cannot be read: {reason}.", remedy="Check the path.") from None
