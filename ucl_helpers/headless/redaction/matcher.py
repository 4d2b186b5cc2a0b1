"""Known secrets, recognised in any bytes that a text stands for. Pure.

Guarantee: 10 contiguous bytes of a secret number of a private key are found, wherever they begin; so are 31 decimal
digits of it, and 15 visible characters of its bytes shown as text. A token or passphrase is found whole, one of 40 or
more bytes also by any 31 of them. A text of 4 to 7 bytes is found only as a word of its own.

Only what is secret of a key is known, not its modulus, exponent or public point, which every certificate contains.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import product
from typing import Any

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

from ucl_helpers.headless.redaction.forms import ALPHANUMERIC, VISIBLE, base64_decoded, only, raw

KEY, TOKEN, BEARER = "private key", "one-time token", "bearer token"

_WINDOW = 8  # bytes: one machine word, so that a set of integers compares them without a loop in Python
_OFFSETS = (0, 3, 5, 6)  # in each word of a secret: no gap exceeds 3, and each remainder of 2 and of 4 occurs
_WORD_SIZES = "BHIQ"  # of 1, 2, 4 and 8 bytes: `od -x` and others swap the bytes within such words
_LEAST_DISTINCT = 5  # bytes that differ in a window; runs of zeros and the like occur everywhere
_NOTHING_MORE = {b"": KEY}  # to compare once a window of a key is found: an empty piece is in any data
_SHORTEST_WORD, _SHORTEST_REDUCED = 4, 10  # characters
_WHOLE, _PIECE, _EVERY = 40, 24, 8  # bytes: shorter texts are found whole, longer ones by pieces
_HEADER = 128  # bytes that the parameters of an encrypted key take at most; what follows is random
_NUMBER_NAMES = ("d", "p", "q", "dmp1", "dmq1", "iqmp", "private_value", "x")  # of RSA, elliptic curves and DSA
_PRIVATE_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_LOADERS: tuple[Callable[[bytes, bytes | None], object], ...] = (
    lambda data, passphrase: load_pem_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True),
    lambda data, passphrase: load_der_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True),
    lambda data, passphrase: load_key_and_certificates(data, passphrase)[0],
)


class KnownSecrets:
    """Private keys and texts to be recognised; ``count`` says how many were added."""

    def __init__(self) -> None:
        self.count, self._added = 0, set[tuple[bytes, ...]]()
        self._windows: dict[int, dict[bytes, str]] = {}  # each leads to the pieces of texts that begin with it
        self._words: dict[str, str] = {}

    def add_key(self, data: bytes, passphrases: Iterable[bytes] = ()) -> None:
        """Add the private keys in the content of a file, PEM, DER or PKCS #12; certificates beside them are ignored.

        A key that neither is plain nor is opened by one of the passphrases is known by its encrypted bytes.
        """
        if (added := (data, *sorted(passphrases))) in self._added:
            return
        self._added.add(added)
        blocks = [block[0] for block in _PRIVATE_PEM.finditer(data)]
        for block in blocks or [data]:
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
            self.count += bool(blocks or numbers)

    def add_text(self, secret: str, kind: str) -> None:
        """Add a token, bearer or passphrase; fewer than four characters are ignored."""
        reduced = only(ALPHANUMERIC, data := raw(secret))
        if len(secret) < _SHORTEST_WORD or (added := (b"text", data)) in self._added:
            return
        self._added.add(added)
        self.count += 1
        if len(data) < _WINDOW:
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

    def find_words(self, text: str) -> Iterator[str]:
        """Yield the kinds of the known secrets of fewer than eight bytes in the text."""
        return (kind for word, kind in self._words.items() if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text))

    def _add_windows(self, secret: bytes, offsets: Iterable[int] = (0,), sizes: str = "B") -> None:
        for size in sizes:
            for words in _aligned(secret, offsets):
                swapped = array(size, words.tobytes())
                swapped.byteswap()
                for window in memoryview(swapped).cast("B").cast("Q"):
                    if len(set(window.to_bytes(_WINDOW))) >= _LEAST_DISTINCT:
                        self._windows.setdefault(window, _NOTHING_MORE)


def _aligned(data: bytes, offsets: Iterable[int]) -> Iterator[memoryview]:
    """The words of eight bytes in the data from each offset on, as integers."""
    for offset in offsets:
        if length := max(len(data) - offset, 0) // _WINDOW * _WINDOW:
            yield memoryview(data)[offset : offset + length].cast("Q")


def _opened(data: bytes, passphrases: Iterable[bytes]) -> tuple[object, bytes | None]:
    """The private key in a PEM block, DER or PKCS #12, and the passphrase that opens it; None where there is none."""
    for passphrase, load in product((None, *passphrases), _LOADERS):
        with suppress(ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            return load(data, passphrase), passphrase
    return None, None


def _secret_numbers(key: Any) -> list[int]:
    """The numbers that only the owner of a key knows; of RSA in the order of PKCS #1 (RFC 8017, A.1.2)."""
    if hasattr(key, "private_bytes_raw"):  # Ed25519 and others
        return [int.from_bytes(key.private_bytes_raw())]
    private = key and key.private_numbers()
    return [getattr(private, name) for name in _NUMBER_NAMES if hasattr(private, name)]
