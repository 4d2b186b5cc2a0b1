"""Reads what a client sends as its CSR: base64, then PEM, by the rules of Go's standard library.

Go is in places more lenient and in others stricter than Python: line ends anywhere in base64 are fine, blanks and
missing padding are not; text around a PEM block and any label are fine. The rules are those of `encoding/base64`
(`StdEncoding`, RFC 4648 section 4) and `encoding/pem`; the parts of a document that this sandbox never receives
(more than the first block) are not modelled.
"""

import base64
import re

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_BEGIN, _END, _DASHES = b"-----BEGIN ", b"\n-----END ", b"-----"


def decode_base64(data: bytes) -> bytes | None:
    """Decodes standard base64 as Go's `base64.StdEncoding` does; None if it would refuse it."""
    joined = data.replace(b"\r", b"").replace(b"\n", b"")
    return base64.b64decode(joined) if _BASE64.fullmatch(joined) else None


def first_pem_block(data: bytes) -> bytes | None:
    """Returns the content of the first well-formed PEM block as Go's `pem.Decode` does; None without one."""
    while (end := data.find(_END)) >= 0:
        begin = data.rfind(_BEGIN, 0, end)
        if begin >= 0 and (begin == 0 or data[begin - 1 : begin] == b"\n"):
            content = _block(data[begin + len(_BEGIN) :])
            if content is not None:
                return content
        data = data[end + len(_END) :]
    return None


def _block(data: bytes) -> bytes | None:
    """Decodes one block that starts after its `-----BEGIN `; None if it is not well-formed."""
    label_line, rest = _line(data)
    if not label_line.endswith(_DASHES):
        return None
    headers, rest = _without_headers(rest)
    # An empty block may end right after its first line, whose line end is gone by now; a header's may not.
    if rest.startswith(_END[1:]) and not headers:
        body, trailer = b"", rest[len(_END) - 1 :]
    else:
        body, found, trailer = rest.partition(_END)
        if not found:
            return None
    last_line, _ = _line(trailer)
    if last_line != label_line:
        return None
    return decode_base64(body.replace(b" ", b"").replace(b"\t", b""))


def _without_headers(rest: bytes) -> tuple[bool, bytes]:
    """Skips `Key: value` lines (RFC 1421); says whether there were any."""
    headers = False
    while rest:
        line, following = _line(rest)
        if b":" not in line:
            break
        headers, rest = True, following
    return headers, rest


def _line(data: bytes) -> tuple[bytes, bytes]:
    """Splits after the first line, without its trailing blanks and line end."""
    line, _, rest = data.partition(b"\n")
    return line.rstrip(b" \t\r"), rest
