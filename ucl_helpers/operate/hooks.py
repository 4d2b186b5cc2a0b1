"""Hooks: what has to be told of a new certificate is told, after it has become current.

The law of this file:

1.  Hooks run after activation and outside the connection's lock, so that a slow one holds no renewal up.
2.  Each runs at least once for every generation, and again with every run until it succeeds. It may run twice for one
    (we are killed before its success is on disk), so hooks have to be idempotent.
3.  No two processes run hooks of a connection at once: they hold ``hooks.lock``, which hooks do not inherit.
4.  A hook gets an environment that is built from nothing; what else the operator put into ours stays with us.
5.  All are tried, in their order; a failed one stops neither the others nor what they are run for.
"""

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from ucl_helpers.connection import files
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.hook_state import (
    LOCK,
    forget_success,
    note_failure,
    note_success,
    pending_for,
    pending_hooks,
)
from ucl_helpers.connection.settings import Hook
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import Busy, StorageFailed, UsageError
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.redaction.sources import WatchedSecrets
from ucl_helpers.operate import child
from ucl_helpers.operate.hook_results import HookResult, HookResults
from ucl_helpers.tables import moment, printable

__all__ = ["pending_hooks", "run_hooks"]

_HANDED_ON = re.compile(r"PATH|HOME|LANG|LC_[A-Z]+|TZ|USER|LOGNAME|TMPDIR")
_SOURCES = {"establish": "established", "renew": "renewed", "import": "imported"}
_LINES, _CHARACTERS, _OTHERS_WRITE = 5, 500, 0o022


def run_hooks(connection: Connection, *, everything: bool = False) -> HookResults:
    """Run the connection's pending hooks, or all of them. That one fails is told in the results, and not raised.

    Args:
        connection: established, or nothing is run.
        everything: also those that have succeeded for this generation.

    Raises:
        UsageError: this process holds the connection's lock.
        InvalidSettings: the settings cannot be used.
        StorageFailed: the disk said no, the generation in use is not whole, or others may write the settings.
    """
    if connection.lock.is_ours:
        raise UsageError(
            f"Hooks of {connection.name} cannot run while its lock is held.", remedy="Run them when it is released."
        )
    if not (connection.settings.hooks if everything else pending_hooks(connection)):
        return _results(connection, connection.current, {})
    _must_be_safe(connection.path / "settings.toml")
    ran, generation = dict[str, HookResult](), None
    lock = files.Lock(connection.path / LOCK, *connection.folders)
    while (current := connection.current) and current != generation:
        # Whoever brings the next generation meanwhile finds the lock held, and leaves its hooks to this loop.
        generation, busy = current, None
        try:
            with lock.held():
                hooks = connection.settings.hooks
                chosen = hooks if everything and not ran else pending_for(connection, generation, hooks)
                ran |= {hook.name: _run(connection, generation, hook) for hook in chosen}
        except Busy as error:
            busy = str(error.data["holder"])
    return _results(connection, generation, ran, busy)


def _must_be_safe(settings: Path) -> None:
    """Whoever may write there has us run what he likes."""
    with files.storage("look at", settings):
        told = settings.stat()
    if told.st_uid not in {os.geteuid(), 0} or told.st_mode & _OTHERS_WRITE:
        raise StorageFailed(
            f"{settings} can be changed by others, so no hook in it is run.",
            remedy=f"Look through it, then run: chmod go-w {shlex.quote(str(settings))}; it has to be yours or root's.",
        )


def _results(
    connection: Connection, generation: Generation | None, ran: Mapping[str, HookResult], busy: str | None = None
) -> HookResults:
    hooks = connection.settings.hooks if generation else ()
    if not hooks or generation is None:
        return HookResults(connection.name)
    left = {one.name for one in pending_for(connection, generation, hooks)} - set(ran)  # to whoever is at it now
    told = (ran.get(one.name, HookResult(one.name, "not needed")) for one in hooks if one.name not in left)
    logs, search = str(connection.path / "hooks"), printable(os.environ.get("PATH", os.defpath))
    return HookResults(connection.name, generation.name, tuple(told), busy, logs, search)


def _run(connection: Connection, generation: Generation, hook: Hook) -> HookResult:
    with suppress(StorageFailed):  # a disk that is full keeps no hook from being run
        forget_success(connection, hook)
    ended = child.run(hook.command, _environment(connection, generation), hook.timeout)
    said, problem = _without_secrets(connection, ended.said), printable(ended.problem)
    done = HookResult(hook.name, "done", exit_code=ended.code, took=timedelta(seconds=ended.seconds))
    facts = {"hook": hook.name, "generation": generation.name, "exit_code": ended.code, "seconds": done.seconds}
    try:
        _keep(connection, hook, said)
        if not problem:
            note_success(connection, generation, hook)
            connection.record("hook-succeeded", **facts)
            return done
        note_failure(connection, generation, hook, problem)
        connection.record("hook-failed", **facts, problem=problem)
    except StorageFailed as error:  # those that come after it are run all the same
        problem = f"{problem or 'done'}, and that could not be kept: {error.message}"
    return replace(done, status="failed", problem=problem, said=_last_lines(said))


def _without_secrets(connection: Connection, said: bytes) -> bytes:
    """What it printed, but no key and no token, nor what the settings refer to, in whatever form."""
    known = WatchedSecrets({"connection": connection.name, "home": str(connection.home.path)})
    text = Redactor(known).text(said.decode(errors="surrogateescape"), "")
    return text.encode(errors="surrogateescape")


def _keep(connection: Connection, hook: Hook, said: bytes) -> None:
    """What it printed, for people: of the last run alone."""
    folder = connection.path / "hooks"
    files.make_private_folder(connection.home.path, folder)
    files.write(folder / f"{hook.name}.log", said)


def _last_lines(said: bytes) -> str:
    lines = said.decode(errors="replace").rstrip().splitlines()[-_LINES:]
    return printable("\n".join(lines)[-_CHARACTERS:])


def _environment(connection: Connection, generation: Generation) -> dict[str, str]:
    """All that a hook gets to know. Paths lead into the very generation, so that files of one belong together."""
    kept = {name: value for name, value in os.environ.items() if _HANDED_ON.fullmatch(name)}
    event, previous = _event(connection, generation)
    return {
        "PATH": os.defpath,
        **kept,
        "UCL_CONNECTION": connection.name,
        "UCL_HOME": str(connection.home.path),
        "UCL_EVENT": event,
        "UCL_GENERATION": generation.name,
        "UCL_GENERATION_PATH": str(generation.path),
        "UCL_IDENTITY_FILE": str(generation.path / "identity.pem"),
        "UCL_KEY_FILE": str(generation.path / "key.pem"),
        "UCL_CERTIFICATE_FILE": str(generation.path / "certificate.pem"),
        "UCL_CHAIN_FILE": str(generation.path / "chain.pem"),
        "UCL_FINGERPRINT": generation.fingerprint,
        "UCL_PREVIOUS_FINGERPRINT": previous,
        "UCL_NOT_AFTER": moment(generation.validity.not_after),
    }


def _event(connection: Connection, generation: Generation) -> tuple[str, str]:
    """How this generation became current, and the fingerprint before it; else how it was made, by its own facts."""
    if activation := connection.activation_of(generation):
        return activation.event, activation.previous or ""
    source, previous = generation.facts.get("source"), generation.facts.get("previous")
    return _SOURCES.get(str(source), "unknown"), str(previous or "")
