"""A connection with a long history: generations and events as the store writes them, all made of one renewal."""

import json
import os
import secrets
from datetime import timedelta
from pathlib import Path

from benchmarks.copying import copies
from ucl_helpers import Connection
from ucl_helpers.clock import utc_now


def with_history(connection: Connection, folder: Path, renewals: int) -> Connection:
    """A copy of a connection that was renewed so often, with every generation and every event still there.

    The generations before the one in use are named like those of other identities; their files are links to its files.
    A store keeps fewer: five generations by default, and of events the last thousand or two.
    """
    aged = copies(connection, folder, 1).connections()[0]
    current = aged.require_current()
    mark = current.fingerprint
    newest = current.path.rename(current.path.with_name(f"{renewals:06d}-{current.name.partition('-')[2]}"))
    files = sorted(newest.iterdir())
    lines, now = [], utc_now()
    for number in range(1, renewals + 1):
        generation = newest if number == renewals else newest.with_name(f"{number:06d}-{secrets.token_hex(6)}")
        if generation != newest:
            generation.mkdir(mode=0o700)
            for one in files:
                os.link(one, generation / one.name)
        fingerprint = mark if generation == newest else generation.name[7:] + secrets.token_hex(26)
        time = (now - timedelta(days=renewals - number)).isoformat(timespec="milliseconds")
        facts = {"fingerprint": fingerprint, "previous": None, "generation": generation.name, "warnings": None}
        lines.append(json.dumps({"time": time, "event": "renewed", **facts}) + "\n")
    link = aged.path / "current"
    link.unlink()
    link.symlink_to(f"generations/{newest.name}")
    (aged.path / "journal.jsonl").write_text("".join(lines), "utf-8")
    return aged
