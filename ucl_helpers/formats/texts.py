"""Read text with byte order marks, UTF-16, quotes and line breaks, as programs save it and people copy it. Pure."""

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")  # what web pages and word processors put between letters
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019", "\u00ab": "\u00bb"}


def encoding_of(data: bytes) -> tuple[str, int]:
    """Return the encoding of a text file, and the length of its byte order mark in bytes. The default is UTF-8.

    In UTF-16 without a mark, a zero byte is beside the first letter.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name, len(mark)
    first, second = data[:1], data[1:2]
    if second == b"\0" and first.isascii() and first != b"\0":
        return "utf-16-le", 0
    if first == b"\0" and second.isascii() and second not in {b"", b"\0"}:
        return "utf-16-be", 0
    return "utf-8", 0


def text_of(data: bytes) -> str:
    """Decode a text file in UTF-8, UTF-16 or UTF-32, without its byte order mark.

    Raises:
        UnicodeDecodeError: it is not text.
    """
    encoding, mark = encoding_of(data)
    return data[mark:].decode(encoding)


def unwrapped(text: str) -> str:
    """Remove the characters that people copy along with a secret: blanks, quotes and invisible characters around it."""
    text = _INVISIBLE.sub("", text).strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def without_blanks(text: str) -> str:
    """Remove all blanks and line breaks, such as those of a terminal that wraps a long line."""
    return "".join(text.split())
