"""What has to be true of a connection whatever its program was cut off at, and what after the next run.

It judges by itself what lies on disk, with `cryptography` and not with the store; each complaint names one damage.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from secrets_watch import CANARY

from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import AuthenticationFailed, UCLError
from ucl_helpers.models import fingerprint
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.wire.client import Client

OTHERS = 0o077
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
load_key = partial(load_pem_private_key, password=None, unsafe_skip_rsa_key_validation=True)


def opened(pem: bytes) -> PrivateKeyTypes:
    """A private key in plain, or encrypted with the tests' passphrase."""
    return load_key(pem, password=CANARY.encode() if b"ENCRYPTED" in pem else None)


def damages(connection: Connection, issued: Iterable[x509.Certificate] = ()) -> Iterator[str]:
    """At any moment: what is there is whole and private, and no key is lost of what may have been signed."""
    home = connection.home.path
    for path in [home, *home.rglob("*")] if home.exists() else ():
        if not path.is_symlink() and path.stat().st_mode & OTHERS:
            yield f"{path.relative_to(home.parent)} is open to others: {path.stat().st_mode:o}"
    if not connection.path.exists():
        kept = set()
    else:
        try:
            status_of(connection)
            connection.journal()
            current = connection.current
        except UCLError as error:
            yield f"the connection does not open: {error}"
            return
        kept = set(_public_keys(connection.path))
        if current is not None:
            yield from mixtures(current.path)
        for one in connection.generations():
            if one != current:
                yield from mixtures(one.path)
    for certificate in issued:
        if certificate.public_key().public_numbers() not in kept:
            yield f"the key of {fingerprint(certificate)[:12]}, which was signed, is lost"


def mixtures(folder: Path) -> Iterator[str]:
    """Key, certificate and chain of a generation belong together."""
    try:
        key, leaf, chain = (folder.joinpath(f"{one}.pem").read_bytes() for one in ("key", "certificate", "chain"))
        identity = (folder / "identity.pem").read_bytes()
        yield from unlike(key, chain)
    except (OSError, ValueError) as error:
        yield f"{folder.name} is not whole: {error}"
        return
    if identity != key + chain:
        yield f"{folder.name}: identity.pem is not its key and its chain"
    if x509.load_pem_x509_certificate(leaf) != x509.load_pem_x509_certificates(chain)[0]:
        yield f"{folder.name}: certificate.pem is not the first of the chain"


def unlike(key: bytes, chain: bytes) -> Iterator[str]:
    """A key and a chain (PEM) that do not belong together, or a chain that is none."""
    leaf, *above = certificates = x509.load_pem_x509_certificates(chain)
    if opened(key).public_key() != leaf.public_key():
        yield "key and certificate do not belong together"
    for one, issuer in zip(certificates, above, strict=False):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, InvalidSignature):
            yield "the chain is not one"


def remains(connection: Connection, *, aside: bool = False) -> Iterator[str]:
    """After the next run: nothing of the one that was cut off lies about.

    But for a new connection that came to nothing, cut off while its empty folder was removed: under no lock any more,
    it is swept away a day later.
    """
    home = connection.home.path
    for path in home.rglob("*"):
        emptied = path.parent == home / "connections" and {one.name for one in path.iterdir()} <= {
            "generations",
            "lock",
            "attempts.json",
            "revoked.json",
        }
        if TEMPORARY.fullmatch(path.name) and not emptied:
            yield f"{path.relative_to(home)} was left"
    if (folder := connection.path / "pending").exists():
        yield f"{folder.name} was left: {sorted(one.name for one in folder.iterdir())}"
    if not aside and (folder := connection.path / "aside").exists() and any(folder.iterdir()):
        yield "something was set aside for nothing"


def is_accepted(connection: Connection, generation: Generation) -> bool:
    """Whether the sandbox answers to this identity over a new handshake."""
    ca, credentials = generation.server_ca, generation.credentials
    try:
        with Client(connection.url, "certificate", ca_file=ca, credentials=credentials) as client:
            client.call(CONFIGURATION)
    except AuthenticationFailed:
        return False
    return True


def unsaid(connection: Connection) -> Iterator[str]:
    """What the server and the state file say of revocation, where they differ in a way that loses something."""
    for one in connection.generations():
        verdict, accepted = connection.verdicts().get(one.fingerprint), is_accepted(connection, one)
        if not accepted and not (verdict and verdict.status in {"asked", "revoked"}):
            yield f"{one.name} is refused, and revoked.json does not say why"
        if accepted and verdict and verdict.status == "revoked":
            yield f"{one.name} is said to be revoked, and is accepted"


def _public_keys(folder: Path) -> Iterator[object]:
    for path in folder.rglob("key.pem"):
        yield opened(path.read_bytes()).public_key().public_numbers()
