"""State files: what decides what the toolkit does, each read and written in one place.

::

    HOME/connections/NAME/
        revoked.json      {"certificates": {FINGERPRINT: {"status": "revoked", "since": "2026-…", "how": "answered"}}}
        activation.json   {"generation": "000007-…", "event": "renewed", "previous": FINGERPRINT}

A file is written whole (0600, fsynced, by one rename) under the connection's lock, and read without it. The other two
state files are ``attempts.json`` (:mod:`ucl_helpers.connection.attempts`) and ``hooks.json``
(:mod:`ucl_helpers.connection.hook_state`).

``revoked.json`` is there from the first time that this version takes the lock: until then the journal of the previous
version counts, see :mod:`ucl_helpers.connection.takeover`. If it is damaged, that is an error and never "nothing is
revoked".
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from ucl_helpers.clock import moment_from
from ucl_helpers.connection import files
from ucl_helpers.connection.exports import json_object
from ucl_helpers.errors import StorageFailed

REVOKED_FILE, ACTIVATION_FILE = "revoked.json", "activation.json"
Standing = Literal["asked", "revoked", "doubtful", "refused"]
_STANDINGS: tuple[Standing, ...] = get_args(Standing)
BY_REFUSAL = "settled by the refusal of a repeated request"
IN_TWO_RUNS, WHILE_ACCEPTING = "refused in two runs", "refused while it accepted another certificate"
_WORDS: Mapping[Standing, str] = {
    "asked": "ucl sent its revocation and received no answer",
    "revoked": "revoked",
    "doubtful": "UCL does not accept it any more, or UCL has an outage",
    "refused": "UCL does not accept it any more",
}


@dataclass(frozen=True)
class Verdict:
    """What is known of a certificate that UCL does not accept, or may not accept.

    Attributes:
        status: ``asked``: a revocation was sent and its answer is not known. ``revoked``: by this toolkit.
            ``doubtful``: UCL refused it once, which an outage can explain as well. ``refused``: UCL does not accept it.
        since: when it became so (UTC).
        how: how it was settled, in words; may be empty.
    """

    status: Standing
    since: datetime
    how: str = ""

    def __str__(self) -> str:
        doubt = " (or has an outage)" if self.status == "refused" and self.is_unproven else ""
        return f"{_WORDS[self.status]}{doubt}"

    @property
    def is_unproven(self) -> bool:
        """Whether it rests on refusals that an outage of UCL explains: UCL accepted no other certificate meanwhile."""
        return self.status == "doubtful" or (self.status == "refused" and self.how != WHILE_ACCEPTING)

    @property
    def may_pass(self) -> bool:
        """Whether it rests on refusals alone, which an outage explains as well: then UCL is asked again."""
        return self.status in {"doubtful", "refused"} or (self.status == "revoked" and self.how == BY_REFUSAL)


@dataclass(frozen=True)
class Verdicts(Mapping[str, Verdict]):
    """What is known of certificates, by their SHA-256 fingerprints (hex). Every other certificate counts as valid."""

    certificates: Mapping[str, Verdict] = field(default_factory=dict)

    def __getitem__(self, fingerprint: str) -> Verdict:
        return self.certificates[fingerprint]

    def __iter__(self) -> Iterator[str]:
        return iter(self.certificates)

    def __len__(self) -> int:
        return len(self.certificates)

    def having(self, *statuses: Standing) -> dict[str, datetime]:
        """The certificates with one of these statuses, and since when."""
        return {mark: one.since for mark, one in self.certificates.items() if one.status in statuses}

    def changed(self, fingerprint: str, verdict: Verdict | None) -> "Verdicts":
        """The same with another verdict on one certificate; None: nothing is known of it any more."""
        others = {mark: one for mark, one in self.certificates.items() if mark != fingerprint}
        return Verdicts({**others, fingerprint: verdict} if verdict else others)


@dataclass(frozen=True)
class Activation:
    """How a generation came into use.

    Attributes:
        generation: its name.
        event: ``established``, ``renewed``, ``imported``, ``rolled-back`` or ``exported``.
        previous: fingerprint of the certificate in use before, or None.
    """

    generation: str
    event: str
    previous: str | None = None


def has_verdicts(folder: Path) -> bool:
    """Whether ``revoked.json`` is there, readable or not: then the journal does not count any more."""
    path = folder / REVOKED_FILE
    with files.storage("look at", path), suppress(FileNotFoundError):
        path.lstat()
        return True
    return False


def read_verdicts(folder: Path) -> Verdicts | None:
    """What is known of certificates, or None: this version has not taken the connection's lock yet.

    Raises:
        StorageFailed: the file cannot be read, or is damaged; names a command that replaces it.
    """
    path = folder / REVOKED_FILE
    with files.storage("read", path), suppress(FileNotFoundError):
        data = files.read_regular(path)
        if (verdicts := _verdicts_from(json_object(data))) is None:
            raise _damaged(path)
        return verdicts
    return None


def write_verdicts(folder: Path, verdicts: Verdicts) -> None:
    """Replace what is known of certificates; the caller holds the connection's lock. Raises StorageFailed."""
    told = {mark: asdict(one) for mark, one in verdicts.items()}
    _write(folder / REVOKED_FILE, {"certificates": told})


def read_activation(folder: Path) -> Activation | None:
    """How the generation in use came into use, or None: nothing is known, or the file is damaged. Raises StorageFailed.

    A damaged file is no error here: it holds nothing but a word for hooks, and ``ucl doctor`` finds it.
    """
    path = folder / ACTIVATION_FILE
    with files.storage("read", path), suppress(FileNotFoundError):
        told = json_object(files.read_regular(path)) or {}
        generation, event, previous = (told.get(name) for name in ("generation", "event", "previous"))
        if isinstance(generation, str) and isinstance(event, str):
            return Activation(generation, event, previous if isinstance(previous, str) else None)
    return None


def write_activation(folder: Path, activation: Activation) -> None:
    """Replace how the generation in use came into use; the caller holds the connection's lock. Raises StorageFailed."""
    _write(folder / ACTIVATION_FILE, asdict(activation))


def damaged_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """Those of the named state files that are there and hold no JSON object. Raises StorageFailed."""
    found = []
    for path in (folder / name for name in names):
        with files.storage("read", path), suppress(FileNotFoundError):
            if json_object(files.read_regular(path)) is None:
                found.append(path)
    return found


def _write(path: Path, value: Mapping[str, Any]) -> None:
    files.write(path, json.dumps(value, indent=1, default=datetime.isoformat).encode())


def _verdicts_from(told: dict[str, Any] | None) -> Verdicts | None:
    """All of it, or None: half of it could say of a revoked certificate that it is valid."""
    if told is None or not isinstance(certificates := told.get("certificates"), dict):
        return None
    found = {mark: _verdict_from(one) for mark, one in certificates.items()}
    known = {mark: one for mark, one in found.items() if one is not None}
    return Verdicts(known) if len(known) == len(found) else None


def _verdict_from(told: Any) -> Verdict | None:
    if not isinstance(told, dict) or told.get("status") not in _STANDINGS:
        return None
    since, how = moment_from(told.get("since")), told.get("how")
    return Verdict(told["status"], since.astimezone(UTC), how if isinstance(how, str) else "") if since else None


def _damaged(path: Path) -> StorageFailed:
    aside = path.with_name(f"{path.name}.damaged")
    return StorageFailed(
        f"{path} is damaged. It says which certificates of this connection were revoked.",
        remedy="Restore it from a backup. If you have none, move it away, and ucl reads the journal instead: "
        f"mv {shlex.quote(str(path))} {shlex.quote(str(aside))}",
        path=str(path),
    )
