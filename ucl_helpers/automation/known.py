r"""Secrets that are known, found again in whatever form they are written. Pure.

A text is *squeezed* first: what may stand between the characters of base64, hex or digits (line breaks, written as
``\n`` too, colons, blanks, quotes, tags, colours) is left out, base64url becomes base64. Of each form of a secret the
groups of 16 characters at every twentieth place are known; the squeezed text is looked up at every place. So each part
of 35 or more characters is found, in one pass over the text, however many secrets there are.

Of a private RSA key only what is secret is looked for: its modulus and public exponent stand in every certificate.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

from ucl_helpers.automation.looks import COLOURS, KEY, Excerpt, Span, merged

GROUP, KNOWN_EVERY = 16, 20
PART = GROUP + KNOWN_EVERY - 1
"""So many characters in a row of a form are found for sure."""

_WHOLE_WORD, _LEAST = 8, 4  # characters: a shorter secret is found as a word only; a still shorter one is not
_SQUEEZED_LEAST, _ENCODED_LEAST = 10, 7  # characters of a secret as it is, and in base64
_GAP = 8  # characters between two parts of one secret
_BETWEEN = re.compile(COLOURS.pattern + r"|\\{1,8}[nrt]|%0[AaDd]|</?[a-z][^<>]{0,80}>|&#?\w{2,8};")
_PRIVATE = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL)
_QUOTED = re.compile(r"%2[BbFf]")
_KEPT = re.compile(r"[A-Za-z0-9+/]+")
_URL_SAFE = {ord("-"): "+", ord("_"): "/"}


def squeezed(text: str) -> Excerpt:
    """A text without what its characters may be torn apart by."""
    blank = _BETWEEN.sub(lambda found: " " * len(found[0]), text)
    blank = _QUOTED.sub(lambda found: ("+" if found[0][-1] in "Bb" else "/") + "  ", blank)
    blank = blank.translate(_URL_SAFE)
    return Excerpt(text, [part.span() for part in _KEPT.finditer(blank)], blank)


class KnownSecrets:
    """Secrets and all their forms, to be found again in a text."""

    def __init__(self) -> None:
        self.count = 0  # of secrets that were added
        self._added = set[tuple[bytes, ...]]()
        self._groups: dict[str, tuple[str, int, str]] = {}
        self._exact: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._squeezed: dict[str, str] = {}

    def add_key(self, data: bytes, passphrases: Iterable[bytes] = ()) -> None:
        """The private keys in a file: PEM, DER or PKCS #12.

        Args:
            data: what is in the file.
            passphrases: one of which may open what is encrypted; what none does is known as the text that it is.
        """
        if (added := (data, *sorted(passphrases))) in self._added:
            return
        self._added.add(added)
        for key in [found[0] for found in _PRIVATE.finditer(data)] or [data]:
            self._add_key(key, passphrases)

    def _add_key(self, data: bytes, passphrases: Iterable[bytes]) -> None:
        key, is_pem, forms = _opened(data, passphrases), _PRIVATE.fullmatch(data), list[str]()
        if isinstance(key, rsa.RSAPrivateKey):
            forms += _forms_of_key(key)
        if is_pem and (b"ENCRYPTED" in data or not forms):
            body = b"".join(line for line in data.splitlines() if b"-----" not in line and b":" not in line)
            forms += [body.decode("ascii", "replace"), *_encodings(data)]
        for form in forms:
            self._know(form, KEY)
        self.count += bool(forms)

    def add_text(self, secret: str, kind: str) -> None:
        """A token, bearer or passphrase, as it is and encoded; one of fewer than four characters is not looked for."""
        if len(secret) < _LEAST:
            return
        self.count += 1
        written = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], escape(secret)}
        written |= {
            quote(secret, safe="", errors="replace"),
            quote(secret, errors="replace"),
            quote_plus(secret, errors="replace"),
            json.dumps(secret, ensure_ascii=False)[1:-1],
        }
        (self._words if len(secret) < _WHOLE_WORD else self._exact).update(dict.fromkeys(written, kind))
        if len(secret) >= _WHOLE_WORD:
            self._know(secret, kind)
            for form in _encodings(secret.encode("utf-8", "surrogatepass")):
                self._know(form, kind, _ENCODED_LEAST)

    def find(self, text: str) -> list[Span]:
        """Where known secrets, or long parts of them, stand in a text; in order, without overlaps."""
        spans = [*self._written(text)]
        if len(text) >= _ENCODED_LEAST and (self._groups or self._squeezed):
            bare = squeezed(text)
            spans += [bare.span(*found) for found in self._runs(bare.text)]
            for form, kind in self._squeezed.items():
                spans += [bare.span(at, at + len(form), kind) for at in _places(bare.text, form)]
        return merged(spans, _GAP)

    def _know(self, form: str, kind: str, least: int = _SQUEEZED_LEAST) -> None:
        form = form if _KEPT.fullmatch(form) else squeezed(form).text
        if len(form) < PART:
            if len(form) >= least:
                self._squeezed[form] = kind
            return
        for at in range(0, len(form) - GROUP + 1, KNOWN_EVERY):
            self._groups[form[at : at + GROUP]] = (form, at, kind)

    def _written(self, text: str) -> Iterator[Span]:
        for form, kind in self._exact.items():
            yield from ((at, at + len(form), kind) for at in _places(text, form))
        for form, kind in self._words.items():
            whole = re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", COLOURS.sub(lambda one: " " * len(one[0]), text))
            yield from ((*found.span(), kind) for found in whole)

    def _runs(self, text: str) -> Iterator[Span]:
        groups, last = self._groups, 0
        for at in [at for at in range(len(text) - GROUP + 1) if text[at : at + GROUP] in groups]:
            if at >= last:
                form, place, kind = groups[text[at : at + GROUP]]
                start, last = at, at + GROUP
                while start and place and text[start - 1] == form[place - 1]:
                    start, place = start - 1, place - 1
                place += last - start
                while last < len(text) and place < len(form) and text[last] == form[place]:
                    last, place = last + 1, place + 1
                yield start, last, kind


def _places(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def _opened(data: bytes, passphrases: Iterable[bytes]) -> object:
    """The private key in a PEM block, DER or PKCS #12; None if there is none, or nothing opens it."""
    load = load_pem_private_key if data.startswith(b"-----BEGIN") else load_der_private_key
    for passphrase in (None, *passphrases):
        with suppress(ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            return load(data, passphrase, unsafe_skip_rsa_key_validation=True)
        with suppress(ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            return load_key_and_certificates(data, passphrase)[0]
    return None


def _forms_of_key(key: rsa.RSAPrivateKey) -> Iterator[str]:
    """What is secret of an RSA key as base64 of its DER and of its PEM, hex, numbers, and Python's bytes."""
    numbers = key.private_numbers()
    private = (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    public = numbers.public_numbers.n.to_bytes(key.key_size // 8)
    for form in (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8):
        der, pem = (key.private_bytes(encoding, form, NoEncryption()) for encoding in (Encoding.DER, Encoding.PEM))
        secret = der[der.index(public) + len(public) :]
        lines = b"\n".join(pem.split(b"\n")[1:-2])
        covered = len(lines) * (len(der) - len(secret)) // len(der) + 4  # characters that hold the public part
        yield from _encodings(lines[covered:])
    yield from _encodings(secret)
    yield repr(secret)[2:-1]
    yield ",".join(map(str, secret))
    yield from (text for number in private for text in (str(number), f"{number:x}", f"{number:X}"))


def _encodings(data: bytes) -> Iterator[str]:
    """Bytes in base64, wherever in a larger whole they stand, and in hex."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).decode("ascii")
        whole = len(encoded) - 4 if (before + len(data)) % 3 else len(encoded)
        yield encoded[4 if before else 0 : whole]
    yield data.hex()
    yield data.hex().upper()


def is_large_number(value: Any) -> bool:
    """Whether it is a number that could be part of a key."""
    return isinstance(value, int) and abs(value) >= 10**PART
