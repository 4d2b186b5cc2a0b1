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
    start = 0
    while (end := data.find(_END, start)) >= 0:
        begin = data.rfind(_BEGIN, start, end)
        if begin >= 0 and (begin == start or data[begin - 1 : begin] == b"\n"):
            line_end = data.find(b"\n", end + len(_END))
            content = _block(data[begin + len(_BEGIN) : line_end if line_end >= 0 else len(data)])
            if content is not None:
                return content
        start = end + len(_END)
    return None


def _block(data: bytes) -> bytes | None:
    """Decodes one block, from after its `-----BEGIN ` to the end of its END line; None if it is not well-formed."""
    label, *lines = (line.rstrip(b" \t\r") for line in data.split(b"\n"))
    headers = next((at for at, line in enumerate(lines) if b":" not in line), len(lines))  # Key: value (RFC 1421)
    *body, last = lines[headers:] or [b""]
    # An empty block may end right after its first line, but not right after a header.
    if not label.endswith(_DASHES) or last != _END[1:] + label or (headers and not body):
        return None
    return decode_base64(b"".join(body).replace(b" ", b"").replace(b"\t", b""))
