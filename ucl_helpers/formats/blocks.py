"""Find keys and certificates in a user's files, and describe files that hold none. Pure.

The module reads PEM, DER, PKCS #12, PKCS #7, and base64 of each of them, alone or inside JSON, YAML or XML. It reads
PEM that tools or people have damaged: PEM on one line, blocks without a line break between them, line breaks written as
a backslash and an n, UTF-16, Windows line ends, quotes, indentation. So it can read a service key (JSON), a Kubernetes
Secret (YAML) and an answer of UCL as they are.

:mod:`ucl_helpers.formats.key_files` reads keys and certificates from the blocks that this module finds. The stricter
:mod:`ucl_helpers.crypto` reads UCL's answers and the files that this toolkit wrote.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from ucl_helpers.errors import UsageError
from ucl_helpers.formats.texts import text_of

MOST_BLOCKS = 2000
"""The most blocks that are read from a file. The largest bundles of public CAs have some hundreds."""
_DEEPEST = 3  # base64 in a Secret of base64 of PEM
UNUSABLE = (UnsupportedAlgorithm, InternalError)  # of a kind that `cryptography`, or OpenSSL, cannot use
UNREADABLE = (ValueError, TypeError, x509.InvalidVersion, UserWarning, *UNUSABLE)  # warnings may be errors

CERTIFICATE, PKCS7, PKCS12, KEY, SEALED_KEY = "certificate", "PKCS #7", "PKCS #12", "private key", "encrypted key"
REQUEST, OPENSSH, PUBLIC, OTHER, DAMAGED = "request", "OpenSSH key", "public key", "other", "damaged"

_MARKER = re.compile(r"-----(BEGIN|END) ([A-Z0-9# ]{1,40}?)-----")
_LABELS = {
    **dict.fromkeys(("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"), CERTIFICATE),
    **dict.fromkeys(("PKCS7", "PKCS #7 SIGNED DATA", "CMS"), PKCS7),
    "PKCS12": PKCS12,
    **dict.fromkeys(("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY"), KEY),
    "ENCRYPTED PRIVATE KEY": SEALED_KEY,
    "OPENSSH PRIVATE KEY": OPENSSH,
    **dict.fromkeys(("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"), REQUEST),
    **dict.fromkeys(("PUBLIC KEY", "RSA PUBLIC KEY"), PUBLIC),
    **dict.fromkeys(("EC PARAMETERS", "DH PARAMETERS"), ""),  # they precede a key and are not needed
}
_LEGACY = re.compile(r"\s*Proc-Type:\s*4,ENCRYPTED\s+DEK-Info:\s*([A-Za-z0-9-]+,[0-9A-Fa-f]+)\s+(.*)", re.DOTALL)
_NOT_BASE64 = re.compile(r"[\s\"'>,\\]+")  # is in the lines of a block that was quoted, indented or replied to
_BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")
_RUN = re.compile(r"[A-Za-z0-9+/]{20,}(?:\s+[A-Za-z0-9+/]{20,})*(?:\s+[A-Za-z0-9+/]+)?={0,2}")  # lines of base64
_OF_DER = re.compile(r"MI[A-Za-z0-9+/\s]{100,}={0,2}")
_WRITTEN_BREAK = re.compile(r"(?<!\\)\\+[rnt]")  # from the first backslash: else many of them take for ever
_WRITTEN_CHARACTER = re.compile(r"(?<!\\)\\+u00([0-9a-fA-F]{2})")

_HEADER, _INDEFINITE = 2, 0x80  # bytes of tag and length; the length of BER that ends with a mark (X.690, 8.1.3)
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")  # RFC 2315; RFC 7292 begins with a version and one of these
_BUNDLE = re.compile(rb"\x30.{1,5}\x02\x01\x03\x30.{1,5}\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07[\x01\x02]", re.DOTALL)
_MAGIC = (
    (b"\xfe\xed\xfe\xed", "a Java keystore (JKS)"),
    (b"\xce\xce\xce\xce", "a Java keystore (JCEKS)"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "a database"),
)
_TEXTS = (
    (re.compile(r"\s*(<\?xml[^>]*>\s*)?<(!doctype html|html)", re.IGNORECASE), "an HTML page"),
    (re.compile(r"PuTTY-User-Key-File"), "a PuTTY key"),
    (re.compile(r"\s*(ssh-(rsa|ed25519|dss)|ecdsa-sha2-\S+) "), "an OpenSSH public key"),
    (re.compile(r"-----BEGIN PGP"), "an OpenPGP file"),
    (re.compile(r"-----BEGIN SSH2|---- BEGIN SSH2"), "an SSH public key"),
    (re.compile(r"\s*[{\[]"), "JSON without a key or a certificate"),
    (re.compile(r"\s*<"), "XML without a key or a certificate"),
)
_BAD_MARKERS = "PEM whose lines -----BEGIN …----- are damaged"
_IN_WORDS = {
    CERTIFICATE: "a certificate",
    PKCS7: "PKCS #7 (certificates without a key)",
    PKCS12: "PKCS #12",
    KEY: "a private key",
    SEALED_KEY: "an encrypted private key",
    REQUEST: "a certificate signing request (CSR)",
    OPENSSH: "a private key in the format of OpenSSH",
    PUBLIC: "a public key",
}
_REMEDIES = {
    "a Java keystore (JKS)": "Convert it: keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 "
    "-deststoretype PKCS12",
    REQUEST: "Give the certificate that UCL signed for this request.",
    OPENSSH: "Convert a copy of it: cp FILE FILE.pem && ssh-keygen -p -m PEM -f FILE.pem",
    "a PuTTY key": "Convert it: puttygen FILE -O private-openssh -o FILE.key && ssh-keygen -p -m PEM -f FILE.key",
    "an HTML page": "It may be a login page that was saved in place of the file: download the file again.",
    "a ZIP archive": "Unpack it and give the file that is in it.",
    "a gzip archive": "Unpack it and give the file that is in it.",
}
_REMEDIES["a Java keystore (JCEKS)"] = _REMEDIES["a Java keystore (JKS)"]


@dataclass(frozen=True)
class Block:
    """One key, certificate or container as DER. ``pem`` is set for a key that PEM headers describe as encrypted."""

    kind: str
    der: bytes = field(repr=False)
    label: str = ""
    pem: bytes = field(default=b"", repr=False)


# -- blocks ------------------------------------------------------------------------------------------------------------


def blocks(data: bytes) -> tuple[Block, ...]:
    """Return the blocks in a file, in their order, each once, at most :data:`MOST_BLOCKS`."""
    parts: dict[Block, None] = {}
    for block in _blocks(data, 0):
        if block.kind:
            parts[block] = None
        if len(parts) >= MOST_BLOCKS:
            break
    return tuple(parts)


def _blocks(data: bytes, depth: int) -> Iterator[Block]:
    if _is_der(data):
        yield from map(_classified, elements(data))
        return
    text = _plain_text(data)
    has_blocks = False
    for block in _pem_blocks(text):
        has_blocks = True
        yield block
    if depth < _DEEPEST:
        if not has_blocks and (inner := _of_whole_text(text, depth)):
            yield from inner
            return
        for run in _RUN.finditer(text):
            decoded = _decoded(run[0])
            if not _is_der(decoded):  # a block's own body is DER, as is what _bare_blocks looks for
                for block in filter(_is_usable, _blocks(decoded, depth + 1)):
                    has_blocks = True
                    yield block
        if not has_blocks:
            yield from _bare_blocks(text)


def _of_whole_text(text: str, depth: int) -> list[Block]:
    """Return the blocks in a text that is base64 as a whole; none if it holds no key and no certificate."""
    whole = _NOT_BASE64.sub("", text).replace("-", "+").replace("_", "/")
    if not _BASE64.fullmatch(whole):
        return []
    decoded = list(islice(_blocks(_decoded(whole), depth + 1), MOST_BLOCKS))
    return decoded if any(map(_is_usable, decoded)) else []


def _is_usable(block: Block) -> bool:
    """Return whether a decoded block is of a known kind or has a label, and does not only look like DER by chance."""
    return bool(block.kind in _IN_WORDS or block.label)


def _bare_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks in base64 without a marker, such as a field of XML or JSON."""
    for match in _OF_DER.finditer(text):
        if _is_der(inner := _decoded(match[0])):
            yield from (block for block in map(_classified, elements(inner)) if block.kind != OTHER)


def _plain_text(data: bytes) -> str:
    """Decode a file, and undo how JSON, a shell or a URL writes line breaks and other characters."""
    try:
        text = text_of(data)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "-----BEGIN%20" in text:  # as nginx hands on a client certificate
        text = unquote(text)
    if "\\" in text:
        text = _WRITTEN_BREAK.sub("\n", text)
        text = _WRITTEN_CHARACTER.sub(lambda match: chr(int(match[1], 16)), text).replace("\\/", "/")
    return text


def _pem_blocks(text: str) -> Iterator[Block]:
    """Find blocks by their markers, anywhere in the text. One pass is enough, also for text with many BEGIN markers."""
    label, begun = "", 0
    for marker in _MARKER.finditer(text):
        if marker[1] == "BEGIN":
            if label and _LABELS.get(label, OTHER):
                yield Block(DAMAGED, b"", label)
            label, begun = marker[2], marker.end()
        elif label and marker[2] == label:
            yield _of_pem(label, text[begun : marker.start()])
            label = ""
    if label and _LABELS.get(label, OTHER):
        yield Block(DAMAGED, b"", label)


def _of_pem(label: str, body: str) -> Block:
    kind = _LABELS.get(label, OTHER)
    if legacy := _LEGACY.match(body):
        lines = wrapped(_NOT_BASE64.sub("", legacy[2]))
        headers = f"Proc-Type: 4,ENCRYPTED\nDEK-Info: {legacy[1]}\n\n"
        pem = f"-----BEGIN {label}-----\n{headers}{lines}\n-----END {label}-----\n".encode("ascii", "replace")
        return Block(SEALED_KEY, pem, label, pem)
    der = _decoded(_NOT_BASE64.sub("", body), strict=True)
    if not der and kind:
        return Block(DAMAGED, b"", label)
    if kind == CERTIFICATE:  # some CAs label PKCS #7 as a certificate
        kind = _container(der) or kind
    return Block(kind, der, label)


def wrapped(text: str) -> str:
    """Wrap base64 in lines of 64 characters, as in PEM (RFC 7468)."""
    return "\n".join(text[at : at + 64] for at in range(0, len(text), 64))


def _decoded(text: str, *, strict: bool = False) -> bytes:
    """Decode base64 whose padding may be missing. Unless ``strict``, one surplus character at the end is ignored."""
    text = "".join(text.split()).rstrip("=")
    if not strict:
        text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""


# -- DER ---------------------------------------------------------------------------------------------------------------


def _is_der(data: bytes) -> bool:
    """Return whether this is a SEQUENCE in DER or BER. Text that begins with the digit 0 is not."""
    is_long = data[1:2] in {b"\x80", b"\x81", b"\x82", b"\x83", b"\x84"}
    return data[:1] == b"\x30" and (is_long or (len(data) > 1 and len(data) == data[1] + _HEADER))


def elements(data: bytes) -> Iterator[bytes]:
    """Split consecutive DER elements. BER of indefinite length and a truncated element are returned whole."""
    at = 0
    while data[at : at + 1] == b"\x30" and len(data) > at + 1:
        end = end_of(data, at)
        if end is None or end > len(data):
            yield data[at:]
            return
        yield data[at:end]
        at = end


def end_of(data: bytes, at: int) -> int | None:
    """Return the end of the element at ``at``; None for an indefinite length."""
    length = data[at + 1]
    if length < _INDEFINITE:
        return at + _HEADER + length
    if length == _INDEFINITE:
        return None
    begin = at + _HEADER + length - _INDEFINITE
    return begin + int.from_bytes(data[at + _HEADER : begin])


def _container(der: bytes) -> str:
    if _BUNDLE.match(der):
        return PKCS12
    return PKCS7 if _SIGNED_DATA in der[:20] else ""


def _classified(der: bytes) -> Block:
    if container := _container(der):
        return Block(container, der)
    for load, kind in (
        (x509.load_der_x509_certificate, CERTIFICATE),
        (x509.load_der_x509_csr, REQUEST),
        (load_der_public_key, PUBLIC),
    ):
        try:
            load(der)
        except UNREADABLE:
            continue
        return Block(kind, der)
    return Block(_kind_of_key(der), der)


def _kind_of_key(der: bytes) -> str:
    try:
        load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return SEALED_KEY
    except UNUSABLE:
        return KEY
    except ValueError:
        return OTHER
    return KEY


# -- what a file is ----------------------------------------------------------------------------------------------------


def identify(data: bytes) -> str:
    """Describe a file in words, for example ``a certificate signing request (CSR)``."""
    return _identified(data)[0]


def _identified(data: bytes) -> tuple[str, str]:
    """Return a description of a file, and the key of its remedy."""
    parts = blocks(data)
    kinds = [kind for kind in dict.fromkeys(block.kind for block in parts) if kind in _IN_WORDS]
    if kinds:
        return " and ".join(_IN_WORDS[kind] for kind in kinds), kinds[0]
    for block in parts:
        if block.kind == DAMAGED:
            return f"PEM with a damaged or truncated block {block.label}", DAMAGED
        if block.label:
            return f"PEM of the kind {block.label}", ""
    words = _by_content(data)
    return words, DAMAGED if words == _BAD_MARKERS else words


def _by_content(data: bytes) -> str:
    if not data.strip():
        return "empty"
    kinds = [words for magic, words in _MAGIC if data.startswith(magic)]
    try:
        text = text_of(data)
    except UnicodeDecodeError:
        return [*kinds, "binary data of an unknown kind"][0]
    kinds += [words for pattern, words in _TEXTS if pattern.match(text)]
    if "\0" in text:
        return [*kinds, "binary data of an unknown kind"][0]
    if re.search(r"BEGIN [A-Z0-9 ]*(CERTIFICATE|KEY)", text):
        return _BAD_MARKERS
    return [*kinds, "text without a key or a certificate"][0]


def wrong_kind(data: bytes, where: str, wanted: str, remedy: str) -> UsageError:
    """Return the error for a file that is not ``wanted``. It says what the file is. ``remedy`` is the default."""
    words, key = _identified(data)
    better = _REMEDIES.get(key, "").replace("FILE", where)
    if key == REQUEST and "key" in wanted:
        better = "Give the private key that belongs to this request."
    if key == DAMAGED:
        better = "Copy the whole text again, from -----BEGIN to the END line, with five hyphens on each side."
    return UsageError(f"{where} is {words}, but {wanted} is needed.", remedy=better or remedy)
