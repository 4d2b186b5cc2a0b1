"""An identity → the files of a generation, and JSON files → what they hold. Pure; the store writes and reads them."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.crypto import dump_bundle, dump_certificates, dump_key, is_sealed, load_bundle, load_key
from ucl_helpers.errors import UsageError

EXPORTS = {
    "combined": "combined.pem",
    "encrypted_key": "encrypted-key.pem",
    "pkcs12": "identity.p12",
    "kubernetes_secret": "secret.yaml",
}  # the setting, and the file that it asks for


@dataclass(frozen=True)
class Wanted:
    """What a generation is to hold besides the plain PEM files, every passphrase at hand and out of the representation.

    Attributes:
        name: the connection's: the friendly name in PKCS #12.
        key: the private key lies there encrypted with it; None for in plain.
        combined: ``combined.pem``: chain, then key.
        encrypted_key: passphrase of ``encrypted-key.pem``.
        pkcs12: passphrase of ``identity.p12``.
        kubernetes_secret: ``NAMESPACE/NAME`` of ``secret.yaml``.
    """

    name: str = ""
    key: bytes | None = field(default=None, repr=False)
    combined: bool = False
    encrypted_key: bytes | None = field(default=None, repr=False)
    pkcs12: bytes | None = field(default=None, repr=False)
    kubernetes_secret: str | None = None


_NOTHING = Wanted()


def generation_files(
    key: rsa.RSAPrivateKey,
    chain: Sequence[x509.Certificate],
    client_ca: Sequence[x509.Certificate],
    server_ca: bytes | None,
    wanted: Wanted = _NOTHING,
) -> Mapping[str, bytes]:
    """The files of a generation by name.

    ``identity.pem`` (key, then chain, leaf first) is the atomic unit; ``key.pem`` and the certificates are the same
    split up. ``server-ca.pem`` is there only when something else than the system's trust verifies the server.
    """
    key_pem, chain_pem = dump_key(key, wanted.key), dump_certificates(*chain)
    files = {
        "identity.pem": key_pem + chain_pem,
        "key.pem": key_pem,
        "certificate.pem": dump_certificates(chain[0]),
        "chain.pem": chain_pem,
    }
    if client_ca:
        files["client-ca.pem"] = dump_certificates(*client_ca)
    if server_ca is not None:
        files["server-ca.pem"] = server_ca
    if wanted.combined:
        files["combined.pem"] = chain_pem + key_pem
    if wanted.encrypted_key:
        files["encrypted-key.pem"] = dump_key(key, wanted.encrypted_key)
    if wanted.pkcs12:
        files["identity.p12"] = dump_bundle(key, chain, wanted.name, wanted.pkcs12)
    if wanted.kubernetes_secret:
        files["secret.yaml"] = _secret(wanted.kubernetes_secret, key_pem, chain_pem)
    return files


def differing(found: Mapping[str, bytes], wanted: Wanted) -> list[str]:
    """Names of the files of a whole generation that are not as wanted: lacking, too many, or not to be opened so."""
    key_pem, chain_pem = found["key.pem"], found["chain.pem"]
    right = {
        "key.pem": is_protected(key_pem, wanted.key),
        "combined.pem": found.get("combined.pem") == (chain_pem + key_pem if wanted.combined else None),
        "encrypted-key.pem": _is_right("encrypted-key.pem", found, wanted.encrypted_key),
        "identity.p12": _is_right("identity.p12", found, wanted.pkcs12),
        "secret.yaml": found.get("secret.yaml")
        == (_secret(wanted.kubernetes_secret, key_pem, chain_pem) if wanted.kubernetes_secret else None),
    }
    return [name for name, is_right in right.items() if not is_right]


def is_protected(key_pem: bytes, passphrase: bytes | None) -> bool:
    """Whether a key in PEM lies there as it is to: encrypted with this passphrase, or in plain for None."""
    if passphrase is None or not is_sealed(key_pem):
        return is_sealed(key_pem) == (passphrase is not None)
    try:
        load_key(key_pem, passphrase, ours=True)
    except UsageError:
        return False
    return True


def _is_right(name: str, found: Mapping[str, bytes], passphrase: bytes | None) -> bool:
    """Whether a file that has a passphrase of its own can be opened with it, or is not there and need not be."""
    if passphrase is None or name not in found:
        return passphrase is None and name not in found
    if name != "identity.p12":
        return is_protected(found[name], passphrase)
    try:
        load_bundle(found[name], passphrase, where=name)
    except UsageError:
        return False
    return True


def _secret(place: str, key_pem: bytes, chain_pem: bytes) -> bytes:
    """A ``kubernetes.io/tls`` Secret; its values are quoted as JSON is, which is YAML as well."""
    namespace, name = map(json.dumps, place.split("/"))
    certificate, key = (json.dumps(b64encode(one).decode("ascii")) for one in (chain_pem, key_pem))
    return (
        "apiVersion: v1\nkind: Secret\nmetadata:\n"
        f"  name: {name}\n  namespace: {namespace}\ntype: kubernetes.io/tls\ndata:\n"
        f"  tls.crt: {certificate}\n  tls.key: {key}\n"
    ).encode()


def json_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object that a file holds, or None: it holds something else, no JSON, or JSON nested too deep."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
