"""As much DER (X.690) as it takes to read and write a distinguished name the way Go's `crypto/x509` does.

`cryptography` is stricter here and warns there. Only attribute types below 2.5.4 (X.520) are kept, by their last
number, and only values that are text: what else a name has, Go's `pkix.Name` drops as well.
"""

import enum
import re
from collections.abc import Iterable

SEQUENCE, BIT_STRING = 0x30, 0x03
_SET, _OID = 0x31, 0x06
_UTF8, _NUMERIC, _PRINTABLE, _T61, _IA5, _BMP = 0x0C, 0x12, 0x13, 0x14, 0x16, 0x1E
_HEAD, _LONG_FORM = 2, 0x80
_PRINTABLE_TO_WRITE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
# Codec and allowed text, by tag.
_READABLE = {
    _UTF8: ("utf-8", re.compile(r".*", re.DOTALL)),
    _NUMERIC: ("ascii", re.compile(r"[0-9 ]*")),
    _PRINTABLE: ("ascii", re.compile(r"[A-Za-z0-9 '()+,./:=?*&-]*")),
    _T61: ("latin-1", re.compile(r".*", re.DOTALL)),
    _IA5: ("ascii", re.compile(r".*", re.DOTALL)),
    _BMP: ("utf-16-be", re.compile(r".*", re.DOTALL)),
}


class Attribute(enum.IntEnum):
    """The attribute types that count, in the order in which a name is written."""

    COUNTRY = 6
    PROVINCE = 8
    LOCALITY = 7
    STREET = 9
    POSTAL_CODE = 17
    ORGANIZATION = 10
    ORGANIZATIONAL_UNIT = 11
    COMMON_NAME = 3
    SERIAL_NUMBER = 5


def _object_identifier(type_: Attribute) -> bytes:
    """The content of the OID 2.5.4.x."""
    return bytes([0x55, 0x04, type_])


_TYPES = {_object_identifier(type_): type_ for type_ in Attribute}


def element(tag: int, content: bytes) -> bytes:
    """Writes one element."""
    size = len(content)
    if size < _LONG_FORM:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG_FORM | len(length)]) + length + content


def elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Reads the elements that lie side by side: of each its tag, its content, and the whole of it.

    Raises:
        ValueError: The data end too early.
    """
    found, at = [], 0
    while at < len(data):
        start, size = at + _HEAD, int.from_bytes(data[at + 1 : at + _HEAD])
        if size & _LONG_FORM:
            start += size ^ _LONG_FORM
            size = int.from_bytes(data[at + _HEAD : start])
        end = start + size
        if end > len(data):
            raise ValueError("syntax error: data truncated")
        found.append((data[at], data[start:end], data[at:end]))
        at = end
    return found


def read_name(name: bytes) -> list[tuple[Attribute, str]]:
    """Reads the content of a Name: its attributes in their order.

    Raises:
        ValueError: It is not a Name, or a text is not of its type.
    """
    pairs = []
    for _, rdn, _ in elements(name):
        for _, attribute, _ in elements(rdn):
            parts = elements(attribute)
            (_, type_, _), (tag, value, _) = parts  # ValueError if they are not two
            text, known = _read_text(tag, value), _TYPES.get(type_)
            if text is not None and known is not None:
                pairs.append((known, text))
    return pairs


def _read_text(tag: int, value: bytes) -> str | None:
    if tag not in _READABLE:
        return None
    codec, allowed = _READABLE[tag]
    text = value.decode(codec)
    if not allowed.fullmatch(text):
        raise ValueError("syntax error: a string contains an invalid character")
    return text


def write_name(pairs: Iterable[tuple[Attribute, str]]) -> bytes:
    """Writes a Name: a fixed order, all values of one type in one RDN; of CN and serialNumber the last value."""
    given = list(pairs)
    rdns = b""
    for type_ in Attribute:
        values = [value for found, value in given if found is type_]
        if type_ in {Attribute.COMMON_NAME, Attribute.SERIAL_NUMBER}:
            values = [value for value in values[-1:] if value]
        if values:
            rdns += element(_SET, b"".join(sorted(_attribute(type_, value) for value in values)))
    return element(SEQUENCE, rdns)


def _attribute(type_: Attribute, value: str) -> bytes:
    """PrintableString if its alphabet suffices, else UTF8String."""
    tag = _PRINTABLE if _PRINTABLE_TO_WRITE.fullmatch(value) else _UTF8
    return element(SEQUENCE, element(_OID, _object_identifier(type_)) + element(tag, value.encode()))
