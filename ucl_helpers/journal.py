"""What happened to a connection, and when: one JSON object a line, appended durably.

Events are kept: the last thousand at least, every revocation, and every one that was asked for and not settled.
"""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucl_helpers import files
from ucl_helpers.exports import json_object

KEEP_EVENTS = 1000


class Journal:
    """The file ``journal.jsonl``. Who appends or prunes holds the connection's lock; readers need none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, event: str, **facts: str | float | None) -> None:
        """Append an event; facts are fingerprints, names and numbers, never a secret.

        Raises:
            StorageFailed: it could not be written.
        """
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        files.append_line(self._path, json.dumps(line))

    def events(self) -> list[dict[str, Any]]:
        """What happened, oldest first; a line cut off by a crash is left out.

        Raises:
            StorageFailed: it could not be read.
        """
        return [one for one in map(json_object, self._lines()) if one is not None]

    def revoked(self) -> dict[str, str]:
        """Fingerprints of identities known to be revoked → when. Of other events nothing is parsed."""
        found = [json_object(line) or {} for line in self._lines() if b'"revoked"' in line]
        return {str(one.get("fingerprint")): str(one.get("time")) for one in found if one.get("event") == "revoked"}

    def _lines(self) -> list[bytes]:
        with files.storage("read", self._path), suppress(FileNotFoundError):
            return self._path.read_bytes().split(b"\n")
        return []

    def prune(self) -> None:
        """Leave old events out, once there are twice as many as are kept."""
        most = 2 * KEEP_EVENTS
        if len(self._lines()) > most and len(events := self.events()) > most:
            last = {str(one.get("fingerprint")): one for one in events}
            asked = [one for one in last.values() if one.get("event") == "revoke-intended"]
            kept = [one for one in events[:-KEEP_EVENTS] if one.get("event") == "revoked" or one in asked]
            lines = [json.dumps(one) + "\n" for one in kept + events[-KEEP_EVENTS:]]
            files.write(self._path, "".join(lines).encode())
