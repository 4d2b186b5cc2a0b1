"""Find a secret in a text, known or not, in whatever notation. Pure.

A known secret is recognised in any bytes that the text stands for. Guarantee: 10 contiguous bytes of a secret number of
a private key are found, wherever they begin; so are 31 decimal digits of it, and 15 visible characters of its bytes
shown as text. A token or passphrase is found whole, one of 40 or more bytes also by any 31 of them. A text of 4 to 7
bytes is found only as a word of its own, and so is a text that may be a word of a language, such as ``changeit``: in
other notations prose would contain it. Only what is secret of a key is known, not its modulus, exponent or public
point, which every certificate contains.

A secret that is not known is recognised by what only a secret has:

- a private key in PEM (RFC 7468), by a marker and the base64 beside it; as `openssl` prints its numbers, as a JWK
  (RFC 7517) and as PuTTY stores it, by the name of a secret field and what follows it;
- a whole private key in binary, because a parser reads it as one: PKCS #8, encrypted or not, also within PKCS #12,
  PKCS #1, SEC 1, OpenSSH. Patterns only choose where the parser tries; a certificate never parses as a private key;
- a one-time token (86 characters of base64url and ``==``), and a bearer that is a JWT (RFC 7519), by their shapes.

Readings of a text are searched again for text in them, two layers deep. Not found: encrypted text, part of an unknown
key without its marker, unknown passphrases, base85, uuencode, and what noise interrupts often.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice, product, takewhile
from typing import Any, AnyStr

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

from ucl_helpers.headless.redaction.readings import (
    ALPHANUMERIC,
    ATTEMPT_EVERY,
    ATTEMPTS,
    COLOURS,
    TAGS,
    VISIBLE,
    base64_decoded,
    decoded,
    only,
    raw,
    undecoded,
)

KEY, TOKEN, BEARER = "private key", "one-time token", "bearer token"

_WINDOW = 8  # bytes: one machine word, so that a set of integers compares them without a loop in Python
_OFFSETS = (0, 3, 5, 6)  # in each word of a secret: no gap exceeds 3, and each remainder of 2 and of 4 occurs
_WORD_SIZES = "BHIQ"  # of 1, 2, 4 and 8 bytes: `od -x` and others swap the bytes within such words
_LEAST_DISTINCT = 5  # bytes that differ in a window; runs of zeros and the like occur everywhere
_NOTHING_MORE = {b"": KEY}  # to compare once a window of a key is found: an empty piece is in any data
_SHORTEST_WORD, _SHORTEST_REDUCED = 4, 10  # characters
_WHOLE, _PIECE, _EVERY = 40, 24, 8  # bytes: shorter texts are found whole, longer ones by pieces
_LIKE_A_WORD = re.compile(r"[A-Za-z]?(?:[a-z]{7,15}|[A-Z]{7,15})")
_HEADER = 128  # bytes that the parameters of an encrypted key take at most; what follows is random
_NUMBER_NAMES = ("d", "p", "q", "dmp1", "dmq1", "iqmp", "private_value", "x")  # of RSA, elliptic curves and DSA
_PRIVATE_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_LOADERS: tuple[Callable[[bytes, bytes | None], object], ...] = (
    lambda data, passphrase: load_pem_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True),
    lambda data, passphrase: load_der_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True),
    lambda data, passphrase: load_key_and_certificates(data, passphrase)[0],
)

_DEPTH = 2  # layers, as in base64 of gzip of a text that has escapes
_DERIVED, _DERIVED_LEAST = 4, 2**22  # bytes of readings that are searched again: so many per character, or these

_MARKER = re.compile(r"-----(BEGIN|END)[ +](?:[A-Z0-9]+[ +]){0,3}PRIVATE[ +]KEY(?:[ +]BLOCK)?-----")  # + in a form
_BESIDE, _BODY_LEAST = 300, 40  # characters beside a marker, and of base64 among them; headers (RFC 1421) may be there
_BODY_WORD = re.compile(r"(?=[A-Z+/]*[a-z0-9])(?=[a-z+/0-9]*[A-Z])(?=[A-Za-z]*[0-9+/])[A-Za-z0-9+/]{16,}")
_TOKEN = re.compile(r"(?<![\w+/-])[A-Za-z0-9_-]{86}==")
_JWT = re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")

_QUOTE = r"\\{0,3}[\"']"  # JSON, Python, or JSON within a text of either
_JWK_D = rf"{_QUOTE}d{_QUOTE}: ?{_QUOTE}[\w-]{{40,}}"
_FIELD = re.compile(
    r"\b(?:privateExponent|prime1|priv):\s+(?:[0-9a-f]{2}:\s*){15}|Private-Lines: \d+\s+[A-Za-z0-9+/]{40}"
    rf"|{_QUOTE}kty{_QUOTE}[^{{}}]{{0,3000}}{_JWK_D}|{_JWK_D}[^{{}}]{{0,3000}}{_QUOTE}kty{_QUOTE}"
)

_TEXT_WITHIN = re.compile(rb"[\t\n\r\0\x1b -~]{40,}")  # random bytes hold no such run; UTF-16 has a NUL at each letter
_DER = re.compile(
    rb"\x30([\x10-\x7f]|\x81.|\x82..)(?:"
    rb"\x02\x01[\x00\x01][\x02\x04\x30]"  # a version, then what follows it in PKCS #1, SEC 1 and PKCS #8
    rb"|\x30[\x0b-\x7f]\x06[\x09\x0a]\x2a\x86\x48\x86\xf7\x0d\x01[\x05\x0c])"  # an algorithm of PKCS #5 or #12
    rb"|openssh-key-v1\0\0\0\0[\x04-\x20]",  # and the length of the cipher's name
    re.DOTALL,
)


class KnownSecrets:
    """Private keys and texts to be recognised; ``added`` says which were added."""

    def __init__(self) -> None:
        self.added, self._words = set[tuple[bytes, ...]](), dict[str, str]()
        self._windows: dict[int, dict[bytes, str]] = {}  # each leads to the pieces of texts that begin with it

    def add_key(self, data: bytes, passphrases: Iterable[bytes] = ()) -> None:
        """Add the private keys in the content of a file, PEM, DER or PKCS #12; certificates beside them are ignored.

        A key that neither is plain nor is opened by one of the passphrases is known by its encrypted bytes.
        """
        if (added := (data, *sorted(passphrases))) in self.added:
            return
        self.added.add(added)
        for block in (blocks := [block[0] for block in _PRIVATE_PEM.finditer(data)]) or [data]:
            key, opened_by = _opened(block, passphrases)
            numbers = [number.to_bytes((number.bit_length() + 7) // 8) for number in _secret_numbers(key)]
            for number in numbers:
                self._add_windows(number, _OFFSETS, _WORD_SIZES)
                digits = str(int.from_bytes(number))  # two decimal digits look like one byte in hex
                self._add_windows(bytes.fromhex(digits[: len(digits) // 2 * 2]))
            self._add_windows(only(VISIBLE, b"".join(numbers)))
            if blocks and (opened_by or not key):
                body = b"".join(line for line in block.splitlines() if not {*b":-"} & {*line})
                self._add_windows(next(base64_decoded(body))[_HEADER:], _OFFSETS, _WORD_SIZES)

    def add_text(self, secret: str, kind: str) -> None:
        """Add a token, bearer or passphrase; fewer than four characters are ignored."""
        reduced = only(ALPHANUMERIC, data := raw(secret))
        if len(secret) < _SHORTEST_WORD or (added := (b"text", data)) in self.added:
            return
        self.added.add(added)
        if len(data) < _WINDOW or _LIKE_A_WORD.fullmatch(secret):
            self._words[secret] = kind
            return
        for form in (data, reduced) if len(reduced) >= _SHORTEST_REDUCED else (data,):
            starts = range(0, len(form) - _PIECE + 1, _EVERY) if len(form) >= _WHOLE else ()
            for piece in [form[at : at + _PIECE] for at in starts] or [form]:
                (window,) = array("Q", piece[:_WINDOW])
                self._windows.setdefault(window, {}).setdefault(piece, kind)

    def find(self, data: bytes) -> Iterator[str]:
        """Yield the kinds of the known secrets in the data."""
        for words in _aligned(data, range(_WINDOW if self._windows else 0)):
            # Nearly always nothing is shared; then no line of Python runs for any of the words.
            if not self._windows.keys().isdisjoint(words):
                for window in self._windows.keys() & set(words):
                    yield from (kind for piece, kind in self._windows[window].items() if piece in data)

    def find_words(self, text: str) -> dict[str, str]:
        """Return the known secrets that are found only as words, and are in the text, with their kinds."""
        return {word: kind for word, kind in self._words.items() if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)}

    def forget_words(self, load_text: Callable[[], str]) -> list[str]:
        """Look no longer for words that a public text contains, and return their kinds. It is read only if needed."""
        return [self._words.pop(word) for word in self.find_words(load_text() if self._words else "")]

    def _add_windows(self, secret: bytes, offsets: Iterable[int] = (0,), sizes: str = "B") -> None:
        for size in sizes:
            for words in _aligned(secret, offsets):
                swapped = array(size, words.tobytes())
                swapped.byteswap()
                for window in memoryview(swapped).cast("B").cast("Q"):
                    if len(set(window.to_bytes(_WINDOW))) >= _LEAST_DISTINCT:
                        self._windows.setdefault(window, _NOTHING_MORE)


def _aligned(data: bytes, offsets: Iterable[int]) -> Iterator[memoryview]:
    """Yield the words of eight bytes in the data from each offset on, as integers."""
    for offset in offsets:
        if length := max(len(data) - offset, 0) // _WINDOW * _WINDOW:
            yield memoryview(data)[offset : offset + length].cast("Q")


def _opened(data: bytes, passphrases: Iterable[bytes]) -> tuple[object, bytes | None]:
    """Return the private key in a PEM block, DER or PKCS #12, and the passphrase that opens it, or None."""
    for passphrase, load in product((None, *passphrases), _LOADERS):
        with suppress(ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            return load(data, passphrase), passphrase
    return None, None


def _secret_numbers(key: Any) -> list[int]:
    """Return the secret numbers of a key; for RSA in the order of PKCS #1 (RFC 8017, A.1.2)."""
    if hasattr(key, "private_bytes_raw"):  # Ed25519 and others
        return [int.from_bytes(key.private_bytes_raw())]
    private = key and key.private_numbers()
    return [getattr(private, name) for name in _NUMBER_NAMES if hasattr(private, name)]


def find_secret(text: str, secrets: KnownSecrets | None = None) -> str | None:
    """Return the kind of a secret in the text, such as ``private key``, or None.

    Args:
        text: what belongs together; a secret spread over several texts is found when they are joined.
        secrets: those that are recognised by comparison, in parts too.
    """
    room = max(_DERIVED * len(text), _DERIVED_LEAST)
    return next(_in_text(text, secrets or KnownSecrets(), [room], set(), _DEPTH), None)


def _in_text(text: str, secrets: KnownSecrets, room: list[int], searched: set[int], depth: int) -> Iterator[str]:
    """Yield the kinds of the secrets in a text, without the tags of HTML and with them."""
    uncoloured = COLOURS.sub("", text)
    for bare in _unsearched((TAGS.sub("", uncoloured), uncoloured), searched, depth):
        yield from (KEY for marker in _MARKER.finditer(bare) if _has_body(bare, marker))
        yield from (kind for shape, kind in ((_FIELD, KEY), (_TOKEN, TOKEN), (_JWT, BEARER)) if shape.search(bare))
        yield from secrets.find_words(bare).values()
        for data in undecoded(bare):
            yield from secrets.find(data)
        for data in _unsearched(decoded(bare, room) if depth else (), searched, depth):
            yield from _in_data(data, secrets, room, searched, depth - 1)


def _in_data(data: bytes, secrets: KnownSecrets, room: list[int], searched: set[int], depth: int) -> Iterator[str]:
    if len(data) < _WINDOW:
        return
    candidates = islice(_DER.finditer(data), ATTEMPTS + len(data) // ATTEMPT_EVERY)
    yield from (KEY for candidate in candidates if _is_private_key(data, candidate))
    yield from secrets.find(data)
    for run in takewhile(lambda _: room[0] > 0, _TEXT_WITHIN.finditer(data)):
        room[0] -= len(run[0])
        yield from _in_text(run[0].replace(b"\0", b"").decode("ascii"), secrets, room, searched, depth)


def _unsearched(readings: Iterable[AnyStr], searched: set[int], depth: int) -> Iterator[AnyStr]:
    """Yield each reading that was not searched at this depth before, because readings of one text often agree."""
    for reading in readings:
        if (mark := hash((reading, depth))) not in searched:  # not the reading itself, which may be large
            searched.add(mark)
            yield reading


def _has_body(text: str, marker: re.Match[str]) -> bool:
    """Return whether base64 is beside a marker, as words with digits and both cases, which prose does not have."""
    before, after = text[max(marker.start() - _BESIDE, 0) : marker.start()], text[marker.end() :][:_BESIDE]
    beside = after.split("-----", 1)[0] if marker[1] == "BEGIN" else before.rsplit("-----", 1)[-1]
    return sum(map(len, _BODY_WORD.findall(beside))) >= _BODY_LEAST


def _is_private_key(data: bytes, candidate: re.Match[bytes]) -> bool:
    """Return whether a whole private key begins at this place in the data."""
    if not (length := candidate[1]):
        return True  # the magic of OpenSSH
    # X.690, 8.1.3: the length is one byte, or the first byte says how many bytes of it follow.
    der = data[candidate.start() : candidate.end(1) + int.from_bytes(length[1:] or length)]
    with suppress(ValueError, UnsupportedAlgorithm, InternalError):
        with suppress(TypeError):  # it is encrypted
            load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
        return True
    return False
