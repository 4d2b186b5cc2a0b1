"""Make the files of a generation of an identity. Pure; the store writes and reads them.

To add an export format, add an entry to :data:`EXPORTS` and the function that makes its file. Its setting, the checks
of ``ucl export`` and the doctor, ``ucl path`` and the template of ``ucl settings`` follow from the entry.
``UCL_WRITE_TABLE=1 pytest tests/connection/test_settings_table.py`` writes its rows in ``docs/reference/settings.md``
and ``generation.md``.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.connection import toml_tables
from ucl_helpers.crypto import dump_certificates
from ucl_helpers.errors import UsageError
from ucl_helpers.keys import dump_bundle, dump_key, is_sealed, load_bundle, load_key

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # RFC 1123


@dataclass(frozen=True)
class Material:
    """The input of an export: the connection's name, and key and chain, each as stored PEM and parsed."""

    name: str
    key_pem: bytes
    chain_pem: bytes
    key: rsa.RSAPrivateKey | None = None
    chain: Sequence[x509.Certificate] = ()


@dataclass(frozen=True)
class Export:
    """An export format, which adds a file to a generation.

    Attributes:
        file: the name of the file.
        word: the name of the file for ``ucl path``.
        kind: the allowed values of its setting, in words.
        example: an example of the setting, as TOML.
        meaning: a sentence that explains the setting.
        read: reads the setting.
        make: makes the file of the material and the setting's value, or the passphrase that it refers to. If
            ``opens`` is None, it is also called to compare a file, and then without ``material.key``.
        opens: returns whether a passphrase opens a file; None if the setting is no reference to a passphrase. Such a
            file is current if making it again gives the same content.
        default: the default of the setting.
        holds_key: whether the file holds the private key, so that no other user may read it.
        in_plain: whether the file always holds the key unencrypted, so that ``key_passphrase`` excludes it.
    """

    file: str
    word: str
    kind: str
    example: str
    meaning: str
    read: toml_tables.Reader
    make: Callable[[Material, Any], bytes]
    opens: Callable[[bytes, bytes], bool] | None = None
    default: bool | None = None
    holds_key: bool = True
    in_plain: bool = False

    def is_current(self, data: bytes | None, material: Material, value: Any) -> bool:
        """Return whether a file is as in the setting. If the setting is off, there must be no file."""
        if not value or data is None:
            return not value and data is None
        return self.opens(data, value) if self.opens else data == self.make(material, value)


@dataclass(frozen=True)
class GenerationSpec:
    """The content of a generation as the settings want it. No representation shows a passphrase.

    Attributes:
        name: the connection's name, which is the friendly name in PKCS #12.
        key: the passphrase of the private key; None to store it unencrypted.
        exports: for each export, the value of its setting, or the passphrase that this refers to.
    """

    name: str = ""
    key: bytes | None = field(default=None, repr=False)
    exports: Mapping[str, Any] = field(default_factory=dict, repr=False)


_NO_EXPORTS = GenerationSpec()


def generation_files(
    key: rsa.RSAPrivateKey,
    chain: Sequence[x509.Certificate],
    client_ca: Sequence[x509.Certificate],
    server_ca: bytes | None,
    spec: GenerationSpec = _NO_EXPORTS,
) -> Mapping[str, bytes]:
    """Return the files of a generation by name.

    ``identity.pem`` (key, then chain, leaf first) is the atomic unit; ``key.pem`` and the certificates are the same
    split up. ``server-ca.pem`` is there only when something else than the system's trust verifies the server.
    """
    key_pem, chain_pem = dump_key(key, spec.key), dump_certificates(*chain)
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
    material = Material(spec.name, key_pem, chain_pem, key, chain)
    for name, value in spec.exports.items():
        if value:
            files[EXPORTS[name].file] = EXPORTS[name].make(material, value)
    return files


def differing(contents: Mapping[str, bytes], spec: GenerationSpec) -> list[str]:
    """Return the names of files of a whole generation that are not as specified: missing, surplus or not to be opened.

    Args:
        contents: the files by name.
        spec: what they should be.
    """
    material = Material(spec.name, contents["key.pem"], contents["chain.pem"])
    names = [] if is_protected(material.key_pem, spec.key) else ["key.pem"]
    exports = EXPORTS.items()
    return names + [
        export.file
        for name, export in exports
        if not export.is_current(contents.get(export.file), material, spec.exports.get(name))
    ]


def all_exports(**chosen: bool | str) -> Mapping[str, bool | str | None]:
    """Return the setting of every export: as chosen, or its default."""
    return {name: chosen.get(name, export.default) for name, export in EXPORTS.items()}


def is_protected(key_pem: bytes, passphrase: bytes | None) -> bool:
    """Return whether a key in PEM is encrypted with this passphrase, or in plain for None."""
    if passphrase is None or not is_sealed(key_pem):
        return is_sealed(key_pem) == (passphrase is not None)
    try:
        load_key(key_pem, passphrase, ours=True)
    except UsageError:
        return False
    return True


def _opens_pkcs12(data: bytes, passphrase: bytes) -> bool:
    try:
        load_bundle(data, passphrase, where="identity.p12")
    except UsageError:
        return False
    return True


def _kubernetes_secret(material: Material, place: str) -> bytes:
    """Make a ``kubernetes.io/tls`` Secret; its values are quoted as in JSON, which is YAML too."""
    namespace, name = map(json.dumps, place.split("/"))
    pems = (material.chain_pem, material.key_pem)
    certificate, key = (json.dumps(b64encode(pem).decode("ascii")) for pem in pems)
    return (
        "apiVersion: v1\nkind: Secret\nmetadata:\n"
        f"  name: {name}\n  namespace: {namespace}\ntype: kubernetes.io/tls\ndata:\n"
        f"  tls.crt: {certificate}\n  tls.key: {key}\n"
    ).encode()


def _key_of(material: Material) -> rsa.RSAPrivateKey:
    if material.key is None:
        raise ValueError("An encrypted export is made of the parsed key.")
    return material.key


EXPORTS: Mapping[str, Export] = {
    "combined": Export(
        file="combined.pem",
        word="combined",
        kind="true or false",
        example="true",
        meaning="combined.pem: chain, then key.",
        read=toml_tables.flag,
        make=lambda material, _: material.chain_pem + material.key_pem,
        default=False,
    ),
    "encrypted_key": Export(
        file="encrypted-key.pem",
        word="encrypted-key",
        kind=toml_tables.REFERENCE_KIND,
        example='"env:UCL_PEM"',
        meaning="encrypted-key.pem: PKCS #8, with this passphrase.",
        read=toml_tables.reference,
        make=lambda material, passphrase: dump_key(_key_of(material), passphrase),
        opens=is_protected,
    ),
    "pkcs12": Export(
        file="identity.p12",
        word="p12",
        kind=toml_tables.REFERENCE_KIND,
        example='"file:/run/secrets/p12"',
        meaning="identity.p12: PKCS #12, with this passphrase.",
        read=toml_tables.reference,
        make=lambda held, passphrase: dump_bundle(_key_of(held), held.chain, held.name, passphrase),
        opens=_opens_pkcs12,
    ),
    "kubernetes_secret": Export(
        file="secret.yaml",
        word="secret",
        kind="NAMESPACE/NAME",
        example='"default/ucl-prod"',
        meaning="secret.yaml: a kubernetes.io/tls Secret, its key in plain; not with key_passphrase.",
        read=toml_tables.text(
            rf"{_LABEL}/{_LABEL}(\.{_LABEL})*", "NAMESPACE/NAME", "Lower-case letters, digits, dash."
        ),
        make=_kubernetes_secret,
        in_plain=True,
    ),
}
