"""Stand-ins for data in notebooks that changes with every run.

Times, fingerprints, identifiers, ports and the bytes of certificates become others of the same form and length. Equal
data gets equal stand-ins, and different data gets different ones. A stand-in is replaced by itself, so normalising
twice changes nothing. Each kind is numbered in the order of its first appearance.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import count
from uuid import UUID

from ucl_helpers.policy import JITTER, SHARE

START = datetime(2026, 1, 15, 9, 0, tzinfo=UTC)
"""The start of every normalised run."""

FIRST_PORT = 4431
FIXED = {
    "process": "4711",
    "seconds": "0.5",
    "clock": "0",
    "side": "ahead",
    "jitter": "2 d 6 h",
    "pad": "  ",
    "mark": "5c1fa20e",
    "bench": "…/ucl-fault-lab",  # a temporary folder
}
# The jitter of a due date depends on the client's id. Notebooks show the middle of its range.
LIFETIME = timedelta(days=90)
DUE_FROM, DUE, DUE_UNTIL = (LIFETIME * (SHARE[0] - JITTER * part) for part in (1, 0.5, 0))
DUE_SHARES = [f"{share:.0f}" for share in (100 * (1 - DUE / LIFETIME), 100 * (DUE / LIFETIME))]
DIGEST_LENGTHS = (32, 40, 64)
MOMENTS = {
    "iso": "%Y-%m-%dT%H:%M:%S",
    "plain": "%Y-%m-%d %H:%M:%S",
    "http": "%a, %d %b %Y %H:%M:%S",
    "openssl": "%b %d %H:%M:%S %Y",
}
TOKENS = re.compile(
    r"""
    (?P<bench>   (?:/[\w.-]+)+/ucl-fault-lab-\w{8} )
  | (?P<iso>     \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?=Z|\+00:00) )
  | (?P<plain>   \d{4}-\d\d-\d\d[ ]\d\d:\d\d:\d\d )
  | (?P<date>    (?<=\bvalid[ ])\d{4}-\d\d-\d\d(?=[ ]to[ ]) | (?<=-\d\d[ ]to[ ])\d{4}-\d\d-\d\d\b(?!T) )
  | (?P<http>    [A-Z][a-z]{2},[ ]\d\d[ ][A-Z][a-z]{2}[ ]\d{4}[ ]\d\d:\d\d:\d\d(?=[ ]GMT) )
  | (?P<openssl> [A-Z][a-z]{2}[ ]+\d{1,2}[ ]\d\d:\d\d:\d\d[ ]\d{4}(?=[ ]GMT) )
  | (?P<pem>     (?<=-----BEGIN[ ]CERTIFICATE-----)[A-Za-z0-9+/=\s\\]+(?=-----END)
               | (?<=-----BEGIN[ ]CERTIFICATE[ ]REQUEST-----)[A-Za-z0-9+/=\s\\]+(?=-----END) )
  | (?P<uuid>    \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b )
  | (?P<colons>  \b[0-9A-F]{2}(?::[0-9A-F]{2}){19,31}\b )
  | (?P<mark>    (?<=-failed-)[0-9a-f]{8}\b )
  | (?P<digest>  (?<![A-Za-z0-9+/])[0-9a-f]{6,64}(?![A-Za-z0-9+/=]) )
  | (?P<base64>  (?<![A-Za-z0-9+/])(?<!;base64,)[A-Za-z0-9+/]{60,}={0,2} )  # but not an image of a page
  | (?P<port>    (?<=localhost:)\d{2,5} | (?<=127\.0\.0\.1:)\d{2,5} | (?<=\[::1\]:)\d{2,5} )
  | (?P<process> (?<=\bpid[ ])\d+ | (?<=\bprocess[ ])\d+ )
  | (?P<seconds> (?<!Try[ ]\d[ ]in[ ])\b\d+\.\d+(?=[ ]m?s\b) )
  | (?P<clock>   (?<![\w.-])-?\d(?=[ ]s\b) )
  | (?P<side>    (?<=\d[ ]s[ ])(?:ahead|behind)\b )
  | (?P<jitter>  (?<=less[ ])\d+[ ]\w+(?:[ ]\d+[ ]\w+)?(?=[ ]of[ ]jitter) )
  | (?P<share>   (?<=flex:)(?:6[0-7]|3[3-9]|40)(?=[ ]0[ ]0) )
  | (?P<days>    \b\d+[ ]d[ ]23[ ]h(?=[ ]left) )
  | (?P<pad>     (?<=\d[ ]d[ ]left\))[ ]{7}(?=\S) )  # in a row of a whole lifetime, beside rows with " 23 h"
    """,
    re.VERBOSE,
)
BEGINNING = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{18}|[\s\\n]*MII|")  # "-----BEGIN …" in base64; a DER sequence
GENERATION = re.compile(r"(?<=\b\d{6}-)[0-9a-f]{6,31}\b")


class StandIns:
    """The stand-ins in one notebook.

    Args:
        began: the start of the run. Its times are moved so that it began at ``START``, and rounded to the minute. None
            leaves times unchanged.
        literal: texts of the machine, for example folders, and their replacements.
    """

    def __init__(self, began: datetime | None, literal: Mapping[str, str]) -> None:
        self.began = began
        self.literal = dict(sorted(literal.items(), key=lambda pair: -len(pair[0])))
        self.numbers: dict[str, dict[str, int]] = {}

    def learn(self, text: str) -> str:
        """Number the digests of a text, so that ``write`` recognises their short forms. Return the text unchanged."""
        digests = [match.group() for match in TOKENS.finditer(text) if match.lastgroup == "digest"]
        numbers = self.numbers.setdefault("digest", {})
        for digest in [digest for digest in digests if len(digest) in DIGEST_LENGTHS] + GENERATION.findall(text):
            if short := next((prefix for prefix in numbers if digest.startswith(prefix)), ""):
                numbers[digest] = numbers.pop(short)  # a generation's name had its beginning before
            elif not self._long_form(digest):
                self._number("digest", digest)
        return text

    def write(self, text: str) -> str:
        """Return the text with stand-ins."""
        for original, shown in self.literal.items():
            text = text.replace(original, shown)
        return TOKENS.sub(lambda match: self._stand_in(str(match.lastgroup), match.group()), text)

    def _stand_in(self, kind: str, original: str) -> str:
        if kind == "date":
            return (
                original
                if self.began is None
                else str(START.date() + (date.fromisoformat(original) - self.began.date()))
            )
        if kind in MOMENTS:
            return self._moment(original, MOMENTS[kind])
        match kind:
            case "pem" | "base64":
                shown = self._bytes(original)
            case "uuid":
                shown = _uuid(self._number("uuid", original))
            case "colons":
                digest = self._digest(original.replace(":", "").lower()).upper()
                shown = ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
            case "digest":
                shown = self._digest(original)
            case "port":
                shown = str(FIRST_PORT + self._number("port", original))
            case "share":  # the parts of a lifetime before and after its due date
                shown = DUE_SHARES[original[0] == "6"]
            case "days":  # all but a moment of the lifetime, or all of it
                shown = f"{int(original.split(maxsplit=1)[0]) + 1} d"
            case _:
                shown = FIXED[kind]
        return shown

    def _number(self, kind: str, original: str) -> int:
        numbers = self.numbers.setdefault(kind, {})
        return numbers.setdefault(original, len(numbers))

    def _moment(self, original: str, form: str) -> str:
        if self.began is None:
            return original
        passed = datetime.strptime(original.partition(".")[0], form).replace(tzinfo=UTC) - self.began
        if DUE_FROM < passed < DUE_UNTIL:
            passed = DUE
        return (START + timedelta(minutes=round(passed / timedelta(minutes=1)))).strftime(form)

    def _long_form(self, digest: str) -> str:
        """Return the numbered digest that begins with this one, or an empty text."""
        return next((whole for whole in self.numbers.get("digest", {}) if whole.startswith(digest)), "")

    def _digest(self, original: str) -> str:
        whole = self._long_form(original) or (original if len(original) in DIGEST_LENGTHS else "")
        return _digits("digest", self._number("digest", whole))[: len(original)] if whole else original

    def _bytes(self, original: str) -> str:
        """Return base64 of the same length and line breaks. Keep its beginning, which shows its format."""
        kept = BEGINNING.match(original)
        head = kept.group() if kept else ""
        stream = _base64(self._number("bytes", original))
        return head + re.sub(r"(?<!\\)[A-Za-z0-9+/]", lambda _: next(stream), original[len(head) :])


def _digits(kind: str, number: int) -> str:
    """Return 64 hex digits, always the same for a number of a kind."""
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def _uuid(number: int) -> str:
    """Return a UUID of version 4, always the same for a number."""
    return str(UUID(_digits("uuid", number)[:32], version=4))


def _base64(number: int) -> Iterator[str]:
    """Yield base64 digits without end, always the same for a number."""
    for block in count():
        yield from base64.b64encode(hashlib.sha384(f"{number} {block}".encode()).digest()).decode()
