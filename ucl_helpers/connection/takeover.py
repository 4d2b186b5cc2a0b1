"""A home folder of the previous version: what its journal decided moves into the state files, once, under the lock.

That version asked ``journal.jsonl`` which certificates were revoked, whether a revocation was under way, how the
generation in use came into use, and which hook had failed. Whoever takes a connection's lock first moves all of that.
``revoked.json`` is written last: it says that the journal does not count any more. A run that is killed before that
leaves files that the next run writes again with the same contents.

Until then readers, which take no lock, ask the journal as the previous version did.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucl_helpers.clock import moment_from
from ucl_helpers.connection import files, hook_state, state
from ucl_helpers.connection.journal import Journal
from ucl_helpers.connection.state import Activation, Verdict, Verdicts
from ucl_helpers.errors import Busy

_EVENTS = ("established", "renewed", "imported", "rolled-back", "exported")
Events = Sequence[dict[str, Any]]


def take_over(folder: Path, generation: str | None) -> None:
    """Move what the journal of a connection decided into its state files, unless that was done before.

    Args:
        folder: the connection's; the caller holds its lock.
        generation: the name of the one in use, or None.

    Raises:
        StorageFailed: the journal cannot be read, or a file cannot be written; the next run does it.
    """
    if state.has_verdicts(folder):
        return
    events = old_events(folder)
    if generation and (activation := activation_in(events, generation)):
        state.write_activation(folder, activation)
    if generation and (failures := hook_failures_in(events, generation)):
        try:
            with files.Lock(folder / hook_state.LOCK).held():
                hook_state.take_over(folder, generation, failures)
        except Busy:  # another process runs these hooks now, and notes what becomes of them
            pass
    state.write_verdicts(folder, verdicts_in(events))


def old_events(folder: Path) -> Events:
    """The events of the journal, after those that a program such as logrotate has put beside it; the oldest first."""
    journal = folder / "journal.jsonl"
    with files.storage("look into", folder):
        rotated = [one for one in folder.glob(f"{journal.name}[.-]*") if one.is_file() and not one.is_symlink()]
        rotated.sort(key=lambda one: one.stat().st_mtime)
    return [event for path in (*rotated, journal) for event in Journal(path).events()]


def verdicts_in(events: Events) -> Verdicts:
    """What these events say of certificates: which were revoked, and for which a revocation was sent, unanswered."""
    found = dict[str, Verdict]()
    for one in events:
        mark, event = one.get("fingerprint"), one.get("event")
        when = moment_from(one.get("time")) or datetime.now(UTC)
        if not isinstance(mark, str) or ((known := found.get(mark)) and known.status == "revoked"):
            continue
        if event == "revoked":
            found[mark] = Verdict("revoked", when, str(one.get("how") or ""))
        elif event == "revoke-intended":
            found[mark] = Verdict("asked", when)
        else:  # any later event settles what was asked for: it was not sent, or refused
            found.pop(mark, None)
    return Verdicts(found)


def activation_in(events: Events, generation: str) -> Activation | None:
    """How a generation came into use last, by these events; None: they do not say."""
    for one in reversed(events):
        if one.get("event") in _EVENTS and one.get("generation") == generation:
            return Activation(generation, str(one["event"]), str(one.get("previous") or "") or None)
    return None


def hook_failures_in(events: Events, generation: str) -> dict[str, str]:
    """The hooks whose last run for this generation failed, by these events, and why."""
    last = {str(one["hook"]): one for one in events if "hook" in one and one.get("generation") == generation}
    return {name: str(one.get("problem")) for name, one in last.items() if one.get("event") == "hook-failed"}
