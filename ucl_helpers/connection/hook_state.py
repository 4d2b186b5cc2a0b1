"""What is known of a connection's hooks: for which generation each has run last, by which command, and how it ended.

::

    HOME/connections/NAME/hooks.json    {"hooks": {"reload": {"generation": "000007-…", "command": "5c1f…"}}}

A hook whose last run failed has a ``problem`` there as well. A hook is pending while its entry has a problem, another
generation than the current one, or another command than in the settings: each asks for it to be run. A file that cannot
be read knows nothing, so every hook is pending. Hooks run at least once for a generation, then, and perhaps again: they
have to stand that.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucl_helpers.connection import files
from ucl_helpers.connection.exports import json_object
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.settings import Hook

if TYPE_CHECKING:
    from ucl_helpers.connection.store import Connection

FILE, LOCK = "hooks.json", "hooks.lock"


def pending_hooks(connection: "Connection") -> tuple[Hook, ...]:
    """The hooks that the next run will run, in the order of the settings; none while nothing is established.

    Raises:
        InvalidSettings: the settings cannot be used.
        StorageFailed: the disk said no.
    """
    hooks = connection.settings.hooks
    current = connection.current if hooks else None
    return pending_for(connection, current, hooks) if current else ()


def pending_for(connection: "Connection", generation: Generation, hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    """Those of the hooks that have not succeeded for this generation."""
    known = _known(connection.path)
    return tuple(one for one in hooks if known.get(one.name) != _run_of(generation, one))


def failures(connection: "Connection", generation: Generation) -> dict[str, str]:
    """The hooks whose last run for this generation failed, and why. Raises StorageFailed."""
    mine = {name: one for name, one in _known(connection.path).items() if isinstance(one, dict)}
    mine = {name: one for name, one in mine.items() if one.get("generation") == generation.name}
    return {name: str(one["problem"]) for name, one in mine.items() if one.get("problem")}


def note_success(connection: "Connection", generation: Generation, hook: Hook) -> None:
    """Keep that a hook has succeeded; the caller holds the lock of the hooks.

    Raises:
        StorageFailed: it could not be written; the hook will run again.
    """
    _note(connection.path, {hook.name: _run_of(generation, hook)})


def note_failure(connection: "Connection", generation: Generation, hook: Hook, problem: str) -> None:
    """Keep that a hook has failed, and why; the caller holds the lock of the hooks. Raises StorageFailed."""
    _note(connection.path, {hook.name: {**_run_of(generation, hook), "problem": problem}})


def take_over(folder: Path, generation: str, failed: Mapping[str, str]) -> None:
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
    _write(folder, {**new, **_known(folder)})


def forget_success(connection: "Connection", hook: Hook) -> None:
    """Before a hook is run: until it succeeds again, it has succeeded for no generation, the earlier ones included.

    Raises:
        StorageFailed: it could not be written.
    """
    known = dict(_known(connection.path))
    if known.pop(hook.name, None):
        _write(connection.path, known)


def _run_of(generation: Generation, hook: Hook) -> dict[str, str]:
    command = hashlib.sha256(json.dumps(hook.command).encode()).hexdigest()
    return {"generation": generation.name, "command": command}


def _note(folder: Path, runs: Mapping[str, Any]) -> None:
    _write(folder, {**_known(folder), **runs})


def _write(folder: Path, known: Mapping[str, Any]) -> None:
    files.write(folder / FILE, json.dumps({"hooks": known}, indent=1).encode())


def _known(folder: Path) -> Mapping[str, Any]:
    path = folder / FILE
    with files.storage("read", path), suppress(FileNotFoundError):
        known = (json_object(path.read_bytes()) or {}).get("hooks")
        return known if isinstance(known, dict) else {}
    return {}
