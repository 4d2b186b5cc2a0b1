"""State files: what decides what the toolkit does, each read and written in one place.

::

    HOME/connections/NAME/
        revoked.json      {"certificates": {FINGERPRINT: {"status": "revoked", "since": "2026-…", "how": "answered"}}}
        activation.json   {"generation": "000007-…", "event": "renewed", "previous": FINGERPRINT}
        hooks.json        {"hooks": {"reload": {"generation": "000007-…", "command": "5c1f…"}}}

A file is written whole (0600, fsynced, by one rename) under the connection's lock, and read without it. The third
state file is ``attempts.json``, see :mod:`ucl_helpers.connection.attempts`.

A hook is pending while its entry in ``hooks.json`` has a problem (its last run failed), another generation than the
current one, or another command than in the settings: each asks for it to be run. A file that cannot be read knows
nothing, so every hook is pending. So a hook runs at least once for a generation, and perhaps again: it has to be safe
to repeat.

``revoked.json`` is there from the first time that this version takes the lock: until then the journal of the previous
version counts, see :mod:`ucl_helpers.connection.journal`. If it is damaged, that is an error and never "nothing is
revoked".
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ucl_helpers.clock import moment_from
from ucl_helpers.connection import files
from ucl_helpers.connection.files import json_object
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


class Verdicts(dict[str, Verdict]):
    """What is known of certificates, by their SHA-256 fingerprints (hex). Every other certificate counts as valid."""

    def having(self, *statuses: Standing) -> dict[str, datetime]:
        """The certificates with one of these statuses, and since when."""
        return {mark: verdict.since for mark, verdict in self.items() if verdict.status in statuses}

    def changed(self, fingerprint: str, verdict: Verdict | None) -> "Verdicts":
        """The same with another verdict on one certificate; None: nothing is known of it any more."""
        others = {mark: known for mark, known in self.items() if mark != fingerprint}
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


# -- Hooks -------------------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    from ucl_helpers.connection.generation import Generation
    from ucl_helpers.connection.settings import Hook
    from ucl_helpers.connection.store import Connection

HOOKS_FILE, HOOKS_LOCK = "hooks.json", "hooks.lock"


def pending_hooks(connection: "Connection") -> tuple["Hook", ...]:
    """The hooks that the next run will run, in the order of the settings; none while nothing is established.

    Raises:
        InvalidSettings: the settings cannot be used.
        StorageFailed: it cannot be written.
    """
    hooks = connection.read_settings().hooks
    current = connection.current if hooks else None
    return pending_for(connection, current, hooks) if current else ()


def pending_for(connection: "Connection", generation: "Generation", hooks: Iterable["Hook"]) -> tuple["Hook", ...]:
    """Those of the hooks that have not succeeded for this generation."""
    known = _hook_runs(connection.path)
    return tuple(one for one in hooks if known.get(one.name) != _run_of(generation, one))


def failures(connection: "Connection", generation: "Generation") -> dict[str, str]:
    """The hooks whose last run for this generation failed, and why. Raises StorageFailed."""
    mine = {name: one for name, one in _hook_runs(connection.path).items() if isinstance(one, dict)}
    mine = {name: one for name, one in mine.items() if one.get("generation") == generation.name}
    return {name: str(one["problem"]) for name, one in mine.items() if one.get("problem")}


def note_success(connection: "Connection", generation: "Generation", hook: "Hook") -> None:
    """Keep that a hook has succeeded; the caller holds the lock of the hooks.

    Raises:
        StorageFailed: it could not be written; the hook will run again.
    """
    _note(connection.path, {hook.name: _run_of(generation, hook)})


def note_failure(connection: "Connection", generation: "Generation", hook: "Hook", problem: str) -> None:
    """Keep that a hook has failed, and why; the caller holds the lock of the hooks. Raises StorageFailed."""
    _note(connection.path, {hook.name: {**_run_of(generation, hook), "problem": problem}})


def take_over_hooks(folder: Path, generation: str, failed: Mapping[str, str]) -> None:
    """Keep the failures that the previous version told of in the journal alone; the caller holds the hooks' lock.

    What is known of a hook already stays: it is newer.

    Args:
        folder: the connection's.
        generation: the name of the one that the hooks ran for.
        failed: why each failed, by its name.

    Raises:
        StorageFailed: it could not be written.
    """
    new = {name: {"generation": generation, "problem": why} for name, why in failed.items()}
    _write_hooks(folder, {**new, **_hook_runs(folder)})


def forget_success(connection: "Connection", hook: "Hook") -> None:
    """Before a hook is run: until it succeeds again, it has succeeded for no generation, the earlier ones included.

    Raises:
        StorageFailed: it could not be written.
    """
    known = dict(_hook_runs(connection.path))
    if known.pop(hook.name, None):
        _write_hooks(connection.path, known)


def _run_of(generation: "Generation", hook: "Hook") -> dict[str, str]:
    command = hashlib.sha256(json.dumps(hook.command).encode()).hexdigest()
    return {"generation": generation.name, "command": command}


def _note(folder: Path, runs: Mapping[str, Any]) -> None:
    _write_hooks(folder, {**_hook_runs(folder), **runs})


def _write_hooks(folder: Path, known: Mapping[str, Any]) -> None:
    _write(folder / HOOKS_FILE, {"hooks": known})


def _hook_runs(folder: Path) -> Mapping[str, Any]:
    path = folder / HOOKS_FILE
    with files.storage("read", path), suppress(FileNotFoundError):
        known = (json_object(path.read_bytes()) or {}).get("hooks")
        return known if isinstance(known, dict) else {}
    return {}
