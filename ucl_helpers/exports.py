"""An identity → the files of a generation, and JSON files → what they hold. Pure; the store writes and reads them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.crypto import dump_certificates, dump_key


def generation_files(
    key: rsa.RSAPrivateKey,
    chain: Sequence[x509.Certificate],
    client_ca: Sequence[x509.Certificate],
    server_ca: bytes | None,
) -> Mapping[str, bytes]:
    """The PEM files of a generation by name.

    ``identity.pem`` (key, then chain, leaf first) is the atomic unit; the others are the same split up.
    ``server-ca.pem`` is there only when something else than the system's trust verifies the server.
    """
    key_pem, chain_pem = dump_key(key), dump_certificates(*chain)
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
    return files


def json_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object that a file holds, or None: it holds something else, no JSON, or JSON nested too deep."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
