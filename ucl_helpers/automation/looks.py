r"""What a secret looks like, whoever made it. Pure.

Found are, in plain text and within base64, wrapped or not, up to two layers deep:

- private keys in PEM, with any label, cut off at either end too (RFC 7468; ``-----BEGIN … PRIVATE KEY-----``);
- private keys in DER: PKCS #8, encrypted or not, PKCS #1, SEC 1 and OpenSSH, by the first bytes of their ASN.1;
- one-time tokens: 86 characters of base64url and ``==``;
- bearer tokens that are JWTs (RFC 7519): parts in base64url, the first of which begin with ``eyJ``.

Line breaks may be written as ``\n`` or ``%0A``, the characters of base64 as ``%2B`` or ``\/``. Not found: what bears no
mark of its own, such as a passphrase, an opaque bearer, or the midst of a key; :mod:`~ucl_helpers.automation.known`
finds those that are known.
"""

import base64
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

KEY, TOKEN, BEARER = "private key", "one-time token", "bearer token"
Span = tuple[int, int, str]
"""Where a secret begins, where it ends, and of what kind it is."""

COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Control sequences of a terminal (ECMA-48), as they stand in a traceback."""

_DEPTH, _SHORT, _LONG, _KEY_TEXT = 2, 16, 40, 40_000  # layers; characters
_BREAK = r"(?:\\{1,8}[nrt]|%0[AaDd]|[\s\"',]|\sb['\"]|<br ?/?>|&nbsp;)"
_UNIT = r"(?:[A-Za-z0-9+/_-]|%2[BbFf]|\\{1,8}/)"
_WORD = rf"{_UNIT}{{{_SHORT},}}"
_PADDING = r"(?:=|%3[Dd]){0,2}"
_BLANK = r"(?: |%20|\+|&nbsp;)"
_LABEL = rf"-----(?:{{}}){_BLANK}(?:[A-Z0-9]+{_BLANK}){{{{0,3}}}}PRIVATE{_BLANK}KEY(?:{_BLANK}BLOCK)?-----"
_BEGIN, _END = re.compile(_LABEL.format("BEGIN")), re.compile(_LABEL.format("END"))
_HEADER = rf"{_BREAK}+[A-Z][A-Za-z-]+: (?:[^\n\\\"'%]|%(?!0[AaDd])){{1,80}}+"
_HEADERS = rf"(?:{_HEADER})*+"  # of RFC 1421, in keys that old programs encrypted; there is one way to read them
_BODY = re.compile(rf"{_HEADERS}{_BREAK}*{_WORD}(?:{_BREAK}+{_WORD})*(?:{_BREAK}+{_UNIT}{{1,{_SHORT}}})?{_PADDING}")
_WORDS = re.compile(_WORD)
_KAERB = r"(?:[\s\"',]|[nrt]\\{1,8}|[AaDd]0%|['\"]b\s|>/? ?rb<|;psbn&)"  # a break, read backwards
_BACKWARDS = re.compile(rf"{_KAERB}*(?:=|[Dd]3%){{0,2}}{_UNIT}{{1,80}}(?:{_KAERB}+{_WORD})*")
_RUN = re.compile(
    rf"(?<![A-Za-z0-9+/_-]){_UNIT}{{20,}}(?:{_BREAK}+{_UNIT}{{20,}})*(?:{_BREAK}+{_UNIT}{{1,19}})?{_PADDING}"
)
_ALONE = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
_TOKEN = re.compile(_ALONE + r"[A-Za-z0-9_-]{86}(?:==|%3[Dd]%3[Dd]|\\u003[Dd]\\u003[Dd])")
_JWT = re.compile(_ALONE + r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")
_NOT_BASE64 = re.compile(rf"{_BREAK}|=|%3[Dd]")
_MAY_HOLD = re.compile(rb"-----|eyJ|[A-Za-z0-9+/_-]{40}")  # a secret that is text
_DER = re.compile(
    rb"\x02\x01[\x00\x01]\x30[\x05-\x7f]\x06[\x03-\x0b]"  # PKCS #8: version, then an AlgorithmIdentifier
    rb"|\x30\x82..\x02\x01\x00\x02(?:[\x40-\x7f]|\x81.|\x82..)\x00[\x80-\xff]"  # PKCS #1: version, then a modulus
    rb"|\x30(?:[\x30-\x7f]|\x81.)\x02\x01\x01\x04[\x1c-\x42]"  # SEC 1: version, then an octet string
    rb"|\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"  # PBES2: an encrypted key, or a PKCS #12
    rb"|openssh-key-v1\x00",
    re.DOTALL,
)


class Excerpt:
    """Parts of a text put together, and where each character stood.

    Args:
        text: the text.
        parts: where each part begins and ends, in order.
        instead: the text to take them from, if it is not the text itself; as long as that.
    """

    def __init__(self, text: str, parts: Sequence[tuple[int, int]], instead: str | None = None) -> None:
        source = text if instead is None else instead
        self.text = "".join(source[start:end] for start, end in parts)
        self._there, self._here, length = [start for start, _ in parts], list[int](), 0
        for start, end in parts:
            self._here.append(length)
            length += end - start

    def span(self, start: int, end: int, kind: str) -> Span:
        """A stretch of the excerpt, not empty, as one of the text as it was."""
        return self._origin(start), self._origin(end - 1) + 1, kind

    def _origin(self, place: int) -> int:
        part = bisect_right(self._here, place) - 1
        return self._there[part] + place - self._here[part]


def by_looks(text: str, depth: int = _DEPTH) -> list[Span]:
    """Where secrets stand in a text, in order, without overlaps.

    Args:
        text: what is to be searched; secrets that are spread over several texts are found when these are joined.
        depth: how many layers of base64 are looked into.
    """
    if colours := [found.span() for found in COLOURS.finditer(text)]:
        starts, ends = [0, *(end for _, end in colours)], [*(start for start, _ in colours), len(text)]
        bare = Excerpt(text, [part for part in zip(starts, ends, strict=True) if part[0] < part[1]])
        return merged([bare.span(*found) for found in by_looks(bare.text, depth)])
    return merged([*_keys(text), *_matches(text), *_encoded(text, depth)])


def merged(spans: list[Span], gap: int = 0) -> list[Span]:
    """The spans in order; those that overlap, or are at most ``gap`` characters apart, as one, of the first's kind."""
    found: list[Span] = []
    for start, end, kind in sorted(spans):
        if found and start <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]), found[-1][2])
        else:
            found.append((start, end, kind))
    return found


def _matches(text: str) -> Iterator[Span]:
    for form, kind in ((_TOKEN, TOKEN), (_JWT, BEARER)):
        yield from ((*match.span(), kind) for match in form.finditer(text))


def _keys(text: str) -> Iterator[Span]:
    """PEM: from marker to marker; where one is missing, as far as there is base64. A marker alone is no key."""
    covered = 0
    for begin in _BEGIN.finditer(text):
        after = _BEGIN.search(text, begin.end())
        limit = min(begin.end() + _KEY_TEXT, after.start() if after else len(text))
        body, end = _BODY.match(text, begin.end(), limit), _END.search(text, begin.end(), limit)
        if end and _WORDS.search(text, begin.end(), end.start()):
            covered = end.end()
        elif body:
            covered = body.end()
        else:
            continue
        yield begin.start(), covered, KEY
    for end in _END.finditer(text, covered):
        before = text[max(covered, end.start() - _KEY_TEXT) : end.start()]
        tail = _BACKWARDS.match(before[::-1])
        if tail and len(_NOT_BASE64.sub("", before[len(before) - tail.end() :])) >= _SHORT:
            yield end.start() - tail.end(), end.end(), KEY
        covered = end.end()


def _encoded(text: str, depth: int) -> Iterator[Span]:
    for run in _RUN.finditer(text) if depth else ():
        bare = _NOT_BASE64.sub("", run[0])
        if len(bare) >= _LONG and (kind := _kind_within(bare, depth)):
            yield (*run.span(), kind)


def _kind_within(bare: str, depth: int) -> str | None:
    """What is in base64, wherever in it that begins."""
    plain = re.sub(r"%2[Bb]", "+", re.sub(r"%2[Ff]|\\{1,8}/", "/", bare)).translate({ord("-"): "+", ord("_"): "/"})
    for phase in range(4):  # what was joined to its front, or cut off from it, shifts it
        aligned = plain[phase:]
        aligned = aligned[: len(aligned) - (len(aligned) % 4 == 1)]
        data = base64.b64decode(aligned + "=" * (-len(aligned) % 4))
        if _DER.search(data):
            return KEY
        if _MAY_HOLD.search(data) and (within := by_looks(data.decode("latin-1"), depth - 1)):
            return within[0][2]
    return None
