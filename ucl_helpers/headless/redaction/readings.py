"""Decode a text in every known notation: one reading of the whole text for each. Pure.

Each reading drops all characters that its notation does not use, such as line breaks, gutters, quotes and commas. It
then decodes the rest at every alignment, because noise that is left shifts what follows. So one reading covers many
forms of display: "hex" covers ``xxd``, ``od -x``, ``openssl -text``, C arrays, hex with colons, and more.
"""

import re
import zlib
from array import array
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html import unescape
from itertools import chain, islice
from math import gcd
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits, hexdigits
from typing import Any
from urllib.parse import unquote_to_bytes

COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # control sequences of a terminal (ECMA-48)
ATTEMPTS, ATTEMPT_EVERY = 64, 2**12  # to decompress or parse in each reading: these, and one more for so many bytes
TAGS = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")

ALPHANUMERIC = (ascii_letters + digits).encode()  # what wrapping, quoting and punctuation leave as it is
VISIBLE = bytes({*range(0x21, 0x7F)} - {*b"."})  # what bytes shown as text keep whatever becomes of the others

# The escapes of C, Python, JSON and JavaScript, as Python reads them; and of HTML.
_BACKSLASH = re.compile(r"""\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[0-3]?[0-7]{1,2}|[abfnrtv\\"'\n])""")
_ENTITY = re.compile(r"&[#\w]{2,8};")
# `cat -v` shows a control character as `^A`, and a byte above 127 as `M-` before what it shows for the byte less 128.
_CARET = re.compile(r"(M-)?(?:\^([?-_])|(?<=M-)([ -~]))")

# Words that stand for one byte each. The columns of `od -c` and `od -b` are octal, or the character itself.
_OD = {f"{byte:03o}": byte for byte in range(256)} | {chr(byte): byte for byte in range(0x21, 0x7F)}
_OD |= zip([rf"\{letter}" for letter in "0abfnrtv"], b"\0\a\b\f\n\r\t\v", strict=True)
# The middle column of `xxd`, `hexdump -C` and `asn1parse -dump`, without the offset and the text beside it.
_DUMP = re.compile(
    r"^[ \t]*[0-9A-Fa-f]+:?(?: -)?[ \t]+((?:(?:[0-9A-Fa-f]{2}){1,8}(?:  (?=\w\w )|[ -]|$))+)", re.MULTILINE
)
_NUMBERS = {  # by base; for base 0, the prefix of the number gives the base
    10: re.compile(r"-?\b\d{1,20}\b"),
    0: re.compile(r"\b0(?:[xX][0-9A-Fa-f]{1,16}|[oO][0-7]{1,22}|[bB][01]{1,64})\b"),
    8: re.compile(r"\b(?:[01][0-7]{5}|[0-3][0-7]{10}|[01][0-7]{21})\b"),  # 2, 4 or 8 bytes, as `od` writes them
    2: re.compile(r"[01]{8}"),
}
_BASE32 = (ascii_uppercase + "234567").encode()
# Long words, and in lower case also groups, by the digits in most of them. Prose has neither, so this reading costs
# nothing. All upper-case letters are a reading of their own, for groups of any length.
_BASE32_WORD = re.compile(r"\b(?:[A-Z2-7]{16,}|[a-z2-7]{16,}|(?=[a-z]*[2-7])[a-z2-7]{4,})")
_TO_BASE32 = bytes.maketrans(_BASE32, f"{digits}{ascii_lowercase[:22]}".encode())  # what int(…, 32) reads
_MAGIC = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")  # of gzip and zlib


def leaves(value: Any) -> Iterator[str]:
    """Yield every text, key and integer of a JSON value, as texts."""
    if isinstance(value, Mapping):
        value = [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        yield from chain.from_iterable(map(leaves, value))
    elif isinstance(value, str | int):
        yield str(value)


def raw(text: str) -> bytes:
    """Return the text in UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def only(kept: bytes, data: bytes) -> bytes:
    """Return the data with these characters only."""
    return data.translate(None, bytes(range(256)).translate(None, kept))


def base64_decoded(data: bytes) -> Iterator[bytes]:
    """Decode the characters of base64 or base64url in the data, at each of the four alignments."""
    characters = only(ALPHANUMERIC + b"+/-_", data).translate(bytes.maketrans(b"-_", b"+/"))
    for phase in range(4):
        aligned = characters[phase:]
        yield a2b_base64(aligned + b"A" * (-len(aligned) % 4))


def _digits_decoded(characters: bytes, bits: int) -> Iterator[bytes]:
    """Decode digits of so many bits each, at each alignment of digits and bytes."""
    number = int(b"0" + characters, 2**bits)
    for shift in range(0, 8, gcd(8, bits)):
        yield (number << shift).to_bytes(len(characters) * bits // 8 + 2)


def undecoded(text: str) -> Iterator[bytes]:
    """Yield the text as bytes: as UTF-8, as Latin-1, and reduced to the characters that any display keeps."""
    yield from (*_encoded(text), only(VISIBLE, raw(text)), only(ALPHANUMERIC, raw(text)))


def _encoded(text: str) -> dict[bytes, None]:
    return dict.fromkeys((raw(text), text.encode("latin-1", "replace")))


def decoded(text: str, room: list[int]) -> Iterator[bytes]:
    """Yield the bytes of the text in each notation, and their decompressed content while there is room."""
    for data in _readings(text):
        yield data
        for magic in islice(_MAGIC.finditer(data), ATTEMPTS + len(data) // ATTEMPT_EVERY):
            with suppress(zlib.error):
                rest, expander = memoryview(data)[magic.start() :], zlib.decompressobj(zlib.MAX_WBITS | 32)
                content = expander.decompress(rest, max(room[0], 1))
                room[0] -= len(content)
                yield content


def _readings(text: str) -> Iterator[bytes]:
    # Decode each kind of escape separately. In the bytes of a repr, `%41` is three characters, not one.
    backslashes = _BACKSLASH.sub(lambda escape: raw(escape[0]).decode("unicode_escape"), text)
    entities = _ENTITY.sub(lambda entity: unescape(entity[0]), text)
    carets = _CARET.sub(lambda seen: chr(128 * bool(seen[1]) | (ord(seen[2]) ^ 64 if seen[2] else ord(seen[3]))), text)
    unescaped = chain(*map(_encoded, (backslashes, entities, carets)), (unquote_to_bytes(raw(text)), a2b_qp(raw(text))))
    yield from (data for data in dict.fromkeys(unescaped) if data not in _encoded(text))
    yield from base64_decoded(raw(text))
    for hexadecimal in (raw(text).replace(b"0x", b""), raw("".join(_DUMP.findall(text)))):
        yield from _digits_decoded(only(hexdigits.encode(), hexadecimal), 4)
    for base32 in (raw("".join(_BASE32_WORD.findall(text)).upper()), only(_BASE32, raw(text))):
        yield from _digits_decoded(base32.translate(_TO_BASE32), 5)
    yield from _digits_decoded(only(b"01", raw(text).replace(b"0b", b"")), 1)
    yield bytes([_OD[word] for word in text.split() if word in _OD])
    for base, pattern in _NUMBERS.items():
        numbers = [int(number, base) for number in pattern.findall(text)]
        for size, bits in zip("BHIQ", (8, 16, 32, 64), strict=True):
            # Words, with a sign or without. Numbers far below their size are offsets and counts, and would interrupt.
            fit = [number % 2**bits for number in numbers if -(2**bits) // 2 <= number < 2**bits]
            yield array(size, [word for word in fit if word >= 2**bits >> 17]).tobytes()
