"""Read and write the state files of a connection, which decide what the toolkit does.

::

    HOME/connections/NAME/
        revoked.json      {"certificates": {FINGERPRINT: {"status": "revoked", "since": "2026-…", "how": "answered"}}}
        activation.json   {"generation": "000007-…", "event": "renewed", "previous": FINGERPRINT}
        hooks.json        {"hooks": {"reload": {"generation": "000007-…", "command": "5c1f…"}}}

A file is written whole (0600, fsynced, by one rename) under the connection's lock, and read without it. The third
state file is ``attempts.json``, see :mod:`ucl_helpers.connection.attempts`.

A hook is pending while its entry in ``hooks.json`` has a problem (its last run failed), another generation than the
current one, or another command than in the settings. A damaged file counts as empty, so every hook is pending. So a
hook runs at least once for a generation, and perhaps again. It has to be safe to repeat.

``revoked.json`` exists from the first time that this version takes the lock. Until then the journal of the previous
version counts, see :mod:`ucl_helpers.connection.journal`. A damaged ``revoked.json`` is an error and never means
"nothing is revoked".
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ucl_helpers.clock import moment_from
from ucl_helpers.connection import files
from ucl_helpers.connection.files import json_object
from ucl_helpers.errors import StorageFailed

REVOKED_FILE, ACTIVATION_FILE = "revoked.json", "activation.json"
Standing = Literal["asked", "revoked", "doubtful", "refused"]
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
    """The reason why UCL does not accept a certificate, or may not accept it.

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
        """Whether an outage of UCL explains the refusals: UCL accepted no other certificate meanwhile."""
        return self.status == "doubtful" or (self.status == "refused" and self.how != WHILE_ACCEPTING)

    @property
    def may_pass(self) -> bool:
        """Whether refusals are all that is known, which an outage explains as well. Then UCL is asked again."""
        return self.status in {"doubtful", "refused"} or (self.status == "revoked" and self.how == BY_REFUSAL)


class Verdicts(dict[str, Verdict]):
    """Verdicts on certificates, by their SHA-256 fingerprints (hex). Every other certificate counts as valid."""

    def having(self, *statuses: Standing) -> dict[str, datetime]:
        """Return the certificates with one of these statuses, and since when."""
        return {mark: verdict.since for mark, verdict in self.items() if verdict.status in statuses}

    def changed(self, fingerprint: str, verdict: Verdict | None) -> "Verdicts":
        """Return a copy with another verdict on one certificate, or without one if ``verdict`` is None."""
        others = {mark: other for mark, other in self.items() if mark != fingerprint}
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
    """Return whether ``revoked.json`` exists, readable or not: then the journal does not count any more."""
    path = folder / REVOKED_FILE
    with files.storage("look at", path), suppress(FileNotFoundError):
        path.lstat()
        return True
    return False


def read_verdicts(folder: Path) -> Verdicts | None:
    """Read the verdicts on certificates, or None if this version has not taken the connection's lock yet.

    Raises:
        StorageFailed: the file cannot be read, or is damaged; names a command that replaces it.
    """
    path = folder / REVOKED_FILE
    if (content := _content(path)) is None:
        return None
    try:  # all or nothing: without one entry, a revoked certificate would count as valid
        certificates = (json_object(content) or {})["certificates"]
        return Verdicts({mark: _verdict_from(facts) for mark, facts in certificates.items()})
    except (AttributeError, KeyError, TypeError, ValueError):
        aside = path.with_name(f"{path.name}.damaged")
        raise StorageFailed(
            f"{path} is damaged. It says which certificates of this connection were revoked.",
            remedy="Restore it from a backup. If you have none, move it away. Then ucl knows only "
            f"the revocations in journal.jsonl: mv {shlex.quote(str(path))} {shlex.quote(str(aside))}",
            path=str(path),
        ) from None


def write_verdicts(folder: Path, verdicts: Verdicts) -> None:
    """Replace the verdicts on certificates; the caller holds the connection's lock. Raises StorageFailed."""
    _write(folder / REVOKED_FILE, {"certificates": {mark: asdict(verdict) for mark, verdict in verdicts.items()}})


def read_activation(folder: Path) -> Activation | None:
    """Read how the generation in use came into use, or None if that is missing or damaged. Raises StorageFailed.

    A damaged file is no error here. It holds nothing but a word for hooks, and ``ucl doctor`` finds it.
    """
    facts = json_object(_content(folder / ACTIVATION_FILE) or b"") or {}
    generation, event, previous = (facts.get(name) for name in ("generation", "event", "previous"))
    if isinstance(generation, str) and isinstance(event, str):
        return Activation(generation, event, previous if isinstance(previous, str) else None)
    return None


def write_activation(folder: Path, activation: Activation) -> None:
    """Write how the generation in use came into use; the caller holds the connection's lock. Raises StorageFailed."""
    _write(folder / ACTIVATION_FILE, asdict(activation))


def damaged_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return those of the named state files that exist and hold no JSON object. Raises StorageFailed."""
    contents = {folder / name: _content(folder / name) for name in names}
    return [path for path, content in contents.items() if content is not None and json_object(content) is None]


def _content(path: Path) -> bytes | None:
    with files.storage("read", path), suppress(FileNotFoundError):
        return files.read_regular(path)
    return None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    files.write(path, json.dumps(value, indent=1, default=datetime.isoformat).encode())


def _verdict_from(facts: Mapping[str, Any]) -> Verdict:
    since, how = moment_from(facts["since"]), facts.get("how")
    if facts["status"] not in _WORDS or since is None:
        raise ValueError
    return Verdict(facts["status"], since, how if isinstance(how, str) else "")


# -- Hooks -------------------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    from ucl_helpers.connection.generation import Generation
    from ucl_helpers.connection.settings import Hook
    from ucl_helpers.connection.store import Connection

HOOKS_FILE, HOOKS_LOCK = "hooks.json", "hooks.lock"


def pending_hooks(connection: "Connection") -> tuple["Hook", ...]:
    """Return the hooks that the next run will run, in the order of the settings; none while nothing is established.

    Raises:
        InvalidSettings: the settings cannot be used.
        StorageFailed: a file cannot be read.
    """
    hooks = connection.read_settings().hooks
    current = connection.current if hooks else None
    return pending_for(connection, current, hooks) if current else ()


def pending_for(connection: "Connection", generation: "Generation", hooks: Iterable["Hook"]) -> tuple["Hook", ...]:
    """Return those of the hooks that have not succeeded for this generation."""
    runs = _hook_runs(connection.path)
    return tuple(hook for hook in hooks if runs.get(hook.name) != _run_of(generation, hook))


def failures(connection: "Connection", generation: "Generation") -> dict[str, str]:
    """Return the hooks whose last run for this generation failed, and why. Raises StorageFailed."""
    runs = {name: run for name, run in _hook_runs(connection.path).items() if isinstance(run, dict)}
    return {
        name: str(run["problem"])
        for name, run in runs.items()
        if run.get("generation") == generation.name and run.get("problem")
    }


def note_success(connection: "Connection", generation: "Generation", hook: "Hook") -> None:
    """Record that a hook has succeeded; the caller holds the lock of the hooks.

    Raises:
        StorageFailed: it could not be written; the hook will run again.
    """
    _write_hooks(connection.path, {**_hook_runs(connection.path), hook.name: _run_of(generation, hook)})


def note_failure(connection: "Connection", generation: "Generation", hook: "Hook", problem: str) -> None:
    """Record that a hook has failed, and why; the caller holds the lock of the hooks. Raises StorageFailed."""
    run = {**_run_of(generation, hook), "problem": problem}
    _write_hooks(connection.path, {**_hook_runs(connection.path), hook.name: run})


def take_over_hooks(folder: Path, generation: str, failed: Mapping[str, str]) -> None:
    """Write the failures that the previous version recorded in the journal alone; the caller holds the hooks' lock.

    Entries that exist stay, since they are newer.

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
    """Forget that a hook has succeeded, for every generation; called before each run of it.

    Raises:
        StorageFailed: it could not be written.
    """
    runs = dict(_hook_runs(connection.path))
    if runs.pop(hook.name, None):
        _write_hooks(connection.path, runs)


def _run_of(generation: "Generation", hook: "Hook") -> dict[str, str]:
    command = hashlib.sha256(json.dumps(hook.command).encode()).hexdigest()
    return {"generation": generation.name, "command": command}


def _write_hooks(folder: Path, runs: Mapping[str, Any]) -> None:
    _write(folder / HOOKS_FILE, {"hooks": runs})


def _hook_runs(folder: Path) -> Mapping[str, Any]:
    runs = (json_object(_content(folder / HOOKS_FILE) or b"") or {}).get("hooks")
    return runs if isinstance(runs, dict) else {}
