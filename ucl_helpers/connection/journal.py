"""The journal of a connection: a record of events for people, one JSON object a line, appended durably.

The toolkit decides nothing by it, but by state files, see :mod:`ucl_helpers.connection.state`. So it may be rotated,
truncated or removed. Lost lines show as far as possible: each line has its number, ``n``, and a line that is not an
event is counted. The first line of a journal that begins again has the number 2.

Events are kept: the last thousand at least, every revocation, and every one that was asked for and not settled.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucl_helpers.clock import moment_from
from ucl_helpers.connection import files, state
from ucl_helpers.connection.files import json_object
from ucl_helpers.connection.state import Activation, Verdict, Verdicts
from ucl_helpers.errors import Busy
from ucl_helpers.tables import timestamp
from ucl_private_files import open_private

KEEP_EVENTS = 1000
_MOST_BYTES = 2**30  # of a journal that other programs have written to
NUMBER = "n"
_TAIL_BYTES = 65536


class Journal:
    """The file ``journal.jsonl``. To append or prune, hold the connection's lock. Readers need no lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, event: str, **facts: str | float | None) -> None:
        """Append an event; facts are fingerprints, names and numbers, never a secret.

        Raises:
            StorageFailed: it could not be written.
        """
        number = self._last_number() + 1
        if number == 1 and self._has_past(but=facts.get("generation")):
            number = 2
        line = {"time": timestamp(datetime.now(UTC)), "event": event, **facts, NUMBER: number}
        files.append_line(self._path, json.dumps(line))

    def events(self) -> list[dict[str, Any]]:
        """Return the events, oldest first, without lines that are no event, such as one that a crash cut off.

        Raises:
            StorageFailed: it could not be read.
        """
        return [event for event in map(_event_of, self._lines()) if event is not None]

    def lost(self) -> str | None:
        """Describe the lines that were lost, as far as that shows; None if no line was lost.

        Raises:
            StorageFailed: it could not be read.
        """
        lines = self._lines()
        if not lines:
            return f"{self._path} is empty or gone" if self._has_past() else None
        unreadable, missing, position = 0, 0, 0
        for line in lines:
            position += 1
            if (event := _event_of(line)) is None:
                unreadable += 1
            elif (number := _number_of(event)) is not None:
                missing += max(number - position, 0)
                position = number
        counts = {"or more are missing": missing, "cannot be read": unreadable}
        return ", ".join(f"{count} {problem}" for problem, count in counts.items() if count) or None

    def prune(self) -> None:
        """Remove old events, once there are twice as many as are kept."""
        most = 2 * KEEP_EVENTS
        if len(self._lines()) > most and len(events := self.events()) > most:
            last = {str(event.get("fingerprint")): event for event in events}
            asked = [event for event in last.values() if event.get("event") == "revoke-intended"]
            kept = [event for event in events[:-KEEP_EVENTS] if event.get("event") == "revoked" or event in asked]
            files.write(self._path, b"".join(_numbered(kept + events[-KEEP_EVENTS:])))

    def _lines(self) -> list[bytes]:
        with files.storage("read", self._path), suppress(FileNotFoundError):
            return [line for line in files.read_regular(self._path, _MOST_BYTES).split(b"\n") if line.strip()]
        return []

    def _has_past(self, *, but: object = None) -> bool:
        """Return whether an event was recorded already: a generation other than ``but`` says how it was made."""
        with suppress(OSError):
            folders = self._path.with_name("generations").iterdir()
            return any(_is_recorded(folder) for folder in folders if folder.name != but)
        return False

    def _last_number(self) -> int:
        """Return the number of the last line, or the number of lines if they have none, as in an earlier version.

        Only the end of a long journal is read.
        """
        with files.storage("read", self._path), suppress(FileNotFoundError):
            descriptor = open_private(self._path, os.O_RDONLY, create=False)
            with os.fdopen(descriptor, "rb") as file:
                file.seek(max(os.fstat(descriptor).st_size - _TAIL_BYTES, 0))
                end = file.read()
            for line in reversed(end.split(b"\n")):
                if (event := _event_of(line)) and (number := _number_of(event)):
                    return number
        return len(self._lines())


def _numbered(events: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for number, event in enumerate(events, 1):
        yield json.dumps({**event, NUMBER: number}).encode() + b"\n"


def _event_of(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line, or None: an editor, a crash or another program has left something else there."""
    event = json_object(line)
    return event if event is not None and ("event" in event or "time" in event) else None


def _is_recorded(generation: Path) -> bool:
    with suppress(OSError):
        facts = json_object(files.read_regular(generation / "connection.json")) or {}
        return isinstance(facts.get("source"), str)
    return False


def _number_of(event: dict[str, Any]) -> int | None:
    number = event.get(NUMBER)
    return number if isinstance(number, int) and 0 < number < 1 << 53 else None


# -- A home folder of the previous version -----------------------------------------------------------------------------

_EVENTS = ("established", "renewed", "imported", "rolled-back", "exported")
Events = Sequence[dict[str, Any]]


def take_over(folder: Path, generation: str | None) -> None:
    """Move the decisions in the journal of a connection into its state files, which have none yet.

    Args:
        folder: the connection's; the caller holds its lock.
        generation: the name of the one in use, or None.

    Raises:
        StorageFailed: the journal cannot be read, or a file cannot be written; the next run does it.
    """
    events = old_events(folder)
    if generation and (activation := activation_in(events, generation)):
        state.write_activation(folder, activation)
    if generation and (failures := hook_failures_in(events, generation)):
        try:
            with files.Lock(folder / state.HOOKS_LOCK).held():
                state.take_over_hooks(folder, generation, failures)
        except Busy:  # another process runs these hooks now, and notes what becomes of them
            pass
    state.write_verdicts(folder, verdicts_in(events))


def old_events(folder: Path) -> Events:
    """Return all events, oldest first: of files that logrotate or the like has put beside the journal, and of it."""
    journal = folder / "journal.jsonl"
    with files.storage("look into", folder):
        rotated = [path for path in folder.glob(f"{journal.name}[.-]*") if path.is_file() and not path.is_symlink()]
        rotated.sort(key=lambda path: path.stat().st_mtime)
    return [event for path in (*rotated, journal) for event in Journal(path).events()]


def verdicts_in(events: Events) -> Verdicts:
    """Return the verdicts in these events: which certificates were revoked, or were asked to be without an answer."""
    verdicts = Verdicts()
    for event in events:
        mark, what = event.get("fingerprint"), event.get("event")
        when = moment_from(event.get("time")) or datetime.now(UTC)
        if not isinstance(mark, str) or ((earlier := verdicts.get(mark)) and earlier.status == "revoked"):
            continue
        if what == "revoked":
            verdicts[mark] = Verdict("revoked", when, str(event.get("how") or ""))
        elif what == "revoke-intended":
            verdicts[mark] = Verdict("asked", when)
        else:  # any later event settles the request: it was not sent, or refused
            verdicts.pop(mark, None)
    return verdicts


def activation_in(events: Events, generation: str) -> Activation | None:
    """Return how a generation came into use last, by these events, or None if they do not say."""
    for event in reversed(events):
        if event.get("event") in _EVENTS and event.get("generation") == generation:
            return Activation(generation, str(event["event"]), str(event.get("previous") or "") or None)
    return None


def hook_failures_in(events: Events, generation: str) -> dict[str, str]:
    """Return the hooks whose last run for this generation failed, by these events, and why."""
    last = {str(event["hook"]): event for event in events if "hook" in event and event.get("generation") == generation}
    return {name: str(event.get("problem")) for name, event in last.items() if event.get("event") == "hook-failed"}
