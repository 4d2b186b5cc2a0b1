"""Find a secret in a text, known or not, in whatever notation. Pure.

A secret that is not known is recognised by what only a secret has:

- a private key in PEM (RFC 7468), by a marker and the base64 beside it; as `openssl` prints its numbers, as a JWK
  (RFC 7517) and as PuTTY stores it, by the name of a secret field and what follows it;
- a whole private key in binary, because a parser reads it as one: PKCS #8, encrypted or not, also within PKCS #12,
  PKCS #1, SEC 1, OpenSSH. Patterns only choose where the parser tries; a certificate never parses as a private key;
- a one-time token (86 characters of base64url and ``==``), and a bearer that is a JWT (RFC 7519), by their shapes.

Readings of a text are searched again for text in them, two layers deep. Not found: encrypted text, part of an unknown
key without its marker, unknown passphrases, base85, uuencode, `cat -v` of binary data, and what noise interrupts often.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, takewhile
from typing import AnyStr

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from ucl_helpers.headless.redaction.forms import ATTEMPT_EVERY, ATTEMPTS, COLOURS, TAGS, decoded, undecoded
from ucl_helpers.headless.redaction.matcher import BEARER, KEY, TOKEN, KnownSecrets

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


def find_secret(text: str, known: KnownSecrets | None = None) -> str | None:
    """Return the kind of a secret in the text, such as ``private key``, or None.

    Args:
        text: what belongs together; a secret spread over several texts is found when they are joined.
        known: secrets that are recognised by comparison, in parts too.
    """
    room = [max(_DERIVED * len(text), _DERIVED_LEAST)]
    return next(_in_text(text, known or KnownSecrets(), room, set(), _DEPTH), None)


def _in_text(text: str, known: KnownSecrets, room: list[int], searched: set[int], depth: int) -> Iterator[str]:
    """The kinds of the secrets in a text, without the tags of HTML and with them."""
    uncoloured = COLOURS.sub("", text)
    for bare in _unsearched((TAGS.sub("", uncoloured), uncoloured), searched, depth):
        yield from (KEY for marker in _MARKER.finditer(bare) if _has_body(bare, marker))
        yield from (kind for shape, kind in ((_FIELD, KEY), (_TOKEN, TOKEN), (_JWT, BEARER)) if shape.search(bare))
        yield from known.find_words(bare)
        for data in undecoded(bare):
            yield from known.find(data)
        for data in _unsearched(decoded(bare, room) if depth else (), searched, depth):
            yield from _in_data(data, known, room, searched, depth - 1)


def _in_data(data: bytes, known: KnownSecrets, room: list[int], searched: set[int], depth: int) -> Iterator[str]:
    candidates = islice(_DER.finditer(data), ATTEMPTS + len(data) // ATTEMPT_EVERY)
    yield from (KEY for candidate in candidates if _is_private_key(data, candidate))
    yield from known.find(data)
    for run in takewhile(lambda _: room[0] > 0, _TEXT_WITHIN.finditer(data)):
        room[0] -= len(run[0])
        yield from _in_text(run[0].replace(b"\0", b"").decode("ascii"), known, room, searched, depth)


def _unsearched(readings: Iterable[AnyStr], searched: set[int], depth: int) -> Iterator[AnyStr]:
    """Yield each reading that was not searched at this depth before, because readings of one text often agree."""
    for reading in readings:
        if (mark := hash((reading, depth))) not in searched:  # not the reading itself, which may be large
            searched.add(mark)
            yield reading


def _has_body(text: str, marker: re.Match[str]) -> bool:
    """Whether base64 is beside a marker: words with digits and both cases, unlike the prose that explains markers."""
    before, after = text[max(marker.start() - _BESIDE, 0) : marker.start()], text[marker.end() :][:_BESIDE]
    beside = after.split("-----", 1)[0] if marker[1] == "BEGIN" else before.rsplit("-----", 1)[-1]
    return sum(map(len, _BODY_WORD.findall(beside))) >= _BODY_LEAST


def _is_private_key(data: bytes, candidate: re.Match[bytes]) -> bool:
    """Whether a private key begins there in the data, and all of it is there."""
    if not (length := candidate[1]):
        return True  # the magic of OpenSSH
    # X.690, 8.1.3: the length is one byte, or the first byte says how many bytes of it follow.
    der = data[candidate.start() : candidate.end(1) + int.from_bytes(length[1:] or length)]
    with suppress(ValueError, UnsupportedAlgorithm, InternalError):
        with suppress(TypeError):  # it is encrypted
            load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
        return True
    return False
