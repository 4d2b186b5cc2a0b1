"""What is known of a connection's hooks: for which generation each has succeeded last, by which command.

::

    HOME/connections/NAME/hooks.json    {"hooks": {"reload": {"generation": "000007-…", "command": "5c1f…"}}}

A hook is pending while that is another generation than the current one, or another command than in the settings: both
ask for it to be run. A file that cannot be read knows nothing, so every hook is pending. Hooks run at least once for a
generation, then, and perhaps again: they have to stand that.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ucl_helpers import files
from ucl_helpers.exports import json_object
from ucl_helpers.generation import Generation
from ucl_helpers.settings import Hook
from ucl_helpers.store import Connection

_FILE = "hooks.json"


def pending_hooks(connection: Connection) -> tuple[Hook, ...]:
    """The hooks that the next run will run, in the order of the settings; none while nothing is established.

    Raises:
        InvalidSettings: the settings cannot be used.
        StorageFailed: the disk said no.
    """
    hooks = connection.settings.hooks
    current = connection.current if hooks else None
    return pending_for(connection, current, hooks) if current else ()


def pending_for(connection: Connection, generation: Generation, hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    """Those of the hooks that have not succeeded for this generation."""
    known = _known(connection)
    return tuple(one for one in hooks if known.get(one.name) != _success(generation, one))


def note_success(connection: Connection, generation: Generation, hook: Hook) -> None:
    """Keep that a hook has succeeded; the caller holds the lock of the hooks.

    Raises:
        StorageFailed: it could not be written; the hook will run again.
    """
    known = {**_known(connection), hook.name: _success(generation, hook)}
    files.write(connection.path / _FILE, json.dumps({"hooks": known}, indent=1).encode())


def forget_success(connection: Connection, hook: Hook) -> None:
    """Before a hook is run: until it succeeds again, it has succeeded for no generation, the earlier ones included.

    Raises:
        StorageFailed: it could not be written.
    """
    known = dict(_known(connection))
    if known.pop(hook.name, None):
        files.write(connection.path / _FILE, json.dumps({"hooks": known}, indent=1).encode())


def _success(generation: Generation, hook: Hook) -> dict[str, str]:
    command = hashlib.sha256(json.dumps(hook.command).encode()).hexdigest()
    return {"generation": generation.name, "command": command}


def _known(connection: Connection) -> Mapping[str, Any]:
    path = connection.path / _FILE
    with files.storage("read", path), suppress(FileNotFoundError):
        known = (json_object(path.read_bytes()) or {}).get("hooks")
        return known if isinstance(known, dict) else {}
    return {}
