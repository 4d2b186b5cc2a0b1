"""Plans of faults: where, how likely and how often each one strikes. A seed makes the strikes repeatable.

    with Sandbox(faults=Faults([Fault("reset-after-acting", at="certificate", operation="sign", times=1)])) as ucl:
        ...
        ucl.faults.set([Fault("http-503", probability=0.2, value=1)], seed=7)

The effects of each kind of fault are in `catalogue.py`.
"""

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ucl_private_files import read_regular
from ucl_sandbox.faults.catalogue import CATALOGUE, Family, Kind
from ucl_sandbox.state import SandboxError

ANY = "*"
LISTENERS = ("director", "token", "certificate")
OPERATIONS = ("configuration", "sign", "revoke", "token", "viewer")
WIRE: tuple[Family, ...] = ("transport", "http", "graphql")
CERTIFICATES: tuple[Family, ...] = ("certificate",)
URLS: tuple[Family, ...] = ("url",)
GRUMPY_PROBABILITY = 0.2
_OF_FAMILY: Mapping[Family, str] = {"certificate": "sign", "url": "configuration"}


class FaultsError(SandboxError, ValueError):
    """An invalid plan of faults. The message gives the problem and the values that are valid."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault, and the occasions on which it strikes.

    Attributes:
        kind: A name in the `CATALOGUE`.
        at: The listener: "director", "token", "certificate", or "*" for each.
        operation: "configuration", "sign", "revoke", "token" or "viewer" (the Director's), or "*" for each.
        probability: The probability of a strike on each occasion, above 0 and at most 1.
        times: The maximum number of strikes. None for no limit.
        value: A parameter whose meaning depends on the kind.
        after: The number of occasions that pass first. For example, `Fault("outage", after=2)` begins at the third call
            and lasts until it is cleared.

    Raises:
        FaultsError: A field is invalid.
    """

    kind: str
    at: str = ANY
    operation: str = ANY
    probability: float = 1.0
    times: int | None = None
    value: str | float | None = None
    after: int = 0

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, CATALOGUE)
        _one_of("at", self.at, (*LISTENERS, ANY))
        _one_of("operation", self.operation, (*OPERATIONS, ANY))
        if isinstance(self.probability, bool) or not isinstance(self.probability, int | float):
            raise FaultsError(f"probability is {self.probability!r}, and not a number")
        if not 0 < self.probability <= 1:
            raise FaultsError(f"probability is {self.probability}, and not above 0 and at most 1")
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise FaultsError(f"times is {self.times!r}, and not a whole number above 0")
        if type(self.after) is not int or self.after < 0:
            raise FaultsError(f"after is {self.after!r}, and not a whole number from 0")
        what = CATALOGUE[self.kind]
        if self.value is not None:
            _check_value(self.kind, what, self.value)
        if what.blind and self.operation != ANY:
            raise FaultsError(f"{self.kind} strikes before the operation is known: operation must be {ANY}")
        if self.operation not in {ANY, _OF_FAMILY.get(what.family, self.operation)}:
            raise FaultsError(f"{self.kind} strikes at {_OF_FAMILY[what.family]} only")
        if what.switch and (self.probability != 1 or self.times is not None or self.after):
            raise FaultsError(f"{self.kind} is on or off: it has no probability, no times and no after")

    def as_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as in the JSON of a plan."""
        unset = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != unset[name]}


class Faults:
    """A plan of faults and its counts of strikes. Any thread may use it. Without faults nothing strikes.

    Args:
        plan: The faults in their order. At most one fault strikes on an occasion, and earlier faults are tried first.
        seed: The strikes are the same for the same seed, if the same calls come in the same order.
    """

    def __init__(self, plan: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._begin(plan, seed)

    def __bool__(self) -> bool:
        return bool(self._plan)

    @property
    def plan(self) -> tuple[Fault, ...]:
        """The faults in their order."""
        return self._plan

    @property
    def seed(self) -> int:
        """The seed of the strikes."""
        return self._seed

    @property
    def struck(self) -> dict[str, int]:
        """The number of strikes of each kind since the plan was set, without kinds that have not struck."""
        with self._lock:
            counts: Counter[str] = Counter()
            for fault, count in zip(self._plan, self._counts, strict=True):
                counts[fault.kind] += count
            return dict(+counts)

    def set(self, plan: Iterable[Fault], *, seed: int = 0) -> None:
        """Replace the plan and reset the counts. The new plan is in force when this returns."""
        with self._lock:
            self._begin(plan, seed)
            watchers = list(self._watchers)
        for call in watchers:
            call()

    def clear(self) -> None:
        """Remove all faults."""
        self.set(())

    def draw(self, at: str, operation: str | None = None, families: Collection[Family] = WIRE) -> Fault | None:
        """Return the fault that strikes now, if any, and count it.

        Args:
            at: The listener.
            operation: The operation of the request. None before the request is read.
            families: The families of faults that may strike.
        """
        with self._lock:
            for place in self._ready(at, operation, families):
                fault = self._plan[place]
                limit = 1 if CATALOGUE[fault.kind].once else fault.times
                if (limit is None or self._counts[place] < limit) and self._chance() < fault.probability:
                    self._counts[place] += 1
                    return fault
        return None

    def _ready(self, at: str, operation: str | None, families: Collection[Family]) -> list[int]:
        """Return the positions of the faults that may strike now. Faults that begin later count this occasion."""
        ready = []
        for place, fault in enumerate(self._plan):
            kind = CATALOGUE[fault.kind]
            if kind.switch or kind.blind != (operation is None) or kind.family not in families:
                continue
            if fault.at not in {ANY, at} or fault.operation not in {ANY, operation}:
                continue
            if self._passed[place] < fault.after:
                self._passed[place] += 1
            else:
                ready.append(place)
        return ready

    def refuses(self, at: str) -> bool:
        """Return whether this listener refuses connections."""
        return any(fault.kind == "refused" and fault.at in {ANY, at} for fault in self._plan)

    def watch(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call a function after each change. Return a function that ends this."""
        with self._lock:
            self._watchers.append(call)
        return lambda: self._watchers.remove(call)

    def as_json(self) -> dict[str, Any]:
        """Return the plan, its seed and its counts."""
        return {"seed": self.seed, "faults": [fault.as_json() for fault in self.plan], "struck": self.struck}

    def _begin(self, plan: Iterable[Fault], seed: int) -> None:
        self._plan, self._seed = tuple(plan), seed
        self._counts, self._passed, self._draws = [0] * len(self._plan), [0] * len(self._plan), 0

    def _chance(self) -> float:
        """Return the next number from 0 to 1. It is the same on every machine and in every version of Python."""
        self._draws += 1
        digest = hashlib.sha256(f"{self._seed}:{self._draws}".encode()).digest()
        return int.from_bytes(digest[:6]) / (1 << 48)


# Faults that a client may treat as temporary and that end quickly. A black hole or a refusal is not one of them.
PASSING = (
    *("reset-in-handshake", "reset-before-reading", "reset-after-reading", "reset-after-acting"),
    *("reset-in-mid-answer", "http-429", "http-502", "http-503", "http-504", "html-502"),
    *("json-short", "empty-body", "empty-object", "data-null", "data-empty", "result-null"),
)


def grumpy(probability: float = GRUMPY_PROBABILITY) -> tuple[Fault, ...]:
    """Return the faults in `PASSING`, so that one strikes a call with this probability, each equally likely."""
    share = probability / len(PASSING)
    return tuple(Fault(kind, probability=share / (1 - place * share)) for place, kind in enumerate(PASSING))


NAMED: Mapping[str, Callable[[float], tuple[Fault, ...]]] = {
    "grumpy": grumpy,
    # The Connector's endpoints refuse connections; the Director goes on.
    "away": lambda chance: tuple(Fault("refused", at=at, probability=chance) for at in ("token", "certificate")),
    # The answer to the first signing at the certificate endpoint is lost.
    "lost-answer": lambda chance: (Fault("reset-after-acting", "certificate", "sign", probability=chance, times=1),),
    # An outage of the Director's database; the Director itself still answers.
    "database-down": lambda chance: (Fault("outage", probability=chance, value="database"),),
}
_USUAL = {"grumpy": GRUMPY_PROBABILITY}


def read_plan(name: str) -> Faults:
    """Read a plan from the value of `--faults`: a name that `parse_plan` accepts, or else a JSON file.

    Raises:
        FaultsError: The value is neither, or the plan is invalid.
    """
    if name.partition(":")[0] in {*NAMED, *CATALOGUE}:
        return parse_plan(name)
    try:
        text = read_regular(Path(name)).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise FaultsError(f"{name!r} is neither a file ({reason}) nor a name; {_known_names()}") from None
    return parse_plan(text)


def parse_plan(text: str) -> Faults:
    """Parse a plan: JSON, or the name of a plan or a kind with an optional probability, for example `grumpy:0.9`.

    An example of the JSON is `{"seed": 1, "faults": [{"kind": "http-503", "at": "certificate"}]}`. The seed is
    optional.

    Raises:
        FaultsError: The plan is invalid.
    """
    if not text.lstrip().startswith("{"):
        return Faults(_named(text.strip()))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FaultsError(f"a plan of faults is JSON, and this is not: {error}") from None
    _only("a plan", content, ("seed", "faults"))
    seed, listed = content.get("seed", 0), content.get("faults", [])
    if type(seed) is not int:
        raise FaultsError(f"seed is {seed!r}, and not a whole number")
    if not isinstance(listed, list):
        raise FaultsError("faults is not a list")
    return Faults([_fault(place, entry) for place, entry in enumerate(listed, 1)], seed=seed)


def _fault(place: int, entry: object) -> Fault:
    try:
        values = _only("it", entry, [field.name for field in fields(Fault)])
        return Fault(**{"kind": "", **values})
    except FaultsError as error:
        raise FaultsError(f"fault {place}: {error}") from None


def _named(text: str) -> tuple[Fault, ...]:
    name, colon, number = text.partition(":")
    if name not in {*NAMED, *CATALOGUE}:
        raise FaultsError(f"no fault and no plan is called {name!r}; {_known_names()}")
    try:
        probability = float(number) if colon else _USUAL.get(name, 1.0)
    except ValueError:
        raise FaultsError(f"probability is {number!r}, and not a number") from None
    if not 0 < probability <= 1:
        raise FaultsError(f"probability is {number}, and not above 0 and at most 1")
    return NAMED[name](probability) if name in NAMED else (Fault(name, probability=probability),)


def _only(what: str, content: object, names: Collection[str]) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise FaultsError(f"{what} is not a JSON object")
    unknown = sorted(set(content) - set(names))
    if unknown:
        raise FaultsError(f"{what} has {', '.join(map(repr, unknown))}; known are {', '.join(names)}")
    return content


def _check_value(name: str, kind: Kind, value: object) -> None:
    if not kind.value:
        raise FaultsError(f"{name} takes no value")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FaultsError(f"value is {value!r}, and neither a text nor a number")
    if kind.values and value not in kind.values:
        raise FaultsError(f"value is {value!r}; {name} knows {', '.join(map(str, kind.values))}")
    if kind.number and (isinstance(value, str) or not 0 < value < math.inf):
        raise FaultsError(f"value is {value!r}, and not a number above 0")


def _one_of(what: str, value: object, names: Collection[str]) -> None:
    if not isinstance(value, str) or value not in names:
        raise FaultsError(f"{what} is {value!r}; known are {', '.join(names)}")


def _known_names() -> str:
    return f"known are {', '.join([*NAMED, *CATALOGUE])}"
