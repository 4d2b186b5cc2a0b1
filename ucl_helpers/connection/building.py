"""Generations as they come and go: written whole, given to their readers, only then under their name; later pruned."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ucl_helpers.connection import access, exports, files
from ucl_helpers.connection.generation import Generation

KEEP_YOUNGER = timedelta(days=1)


def write(generation: Generation, contents: Mapping[str, bytes], readers: access.Readers) -> Generation:
    """Write the files of a generation that is not there yet; it is not current by that. The caller holds the lock.

    Raises:
        StorageFailed: nothing is there under its name.
    """
    staged = files.temporary(generation.path.with_name("new"))
    files.make_directory(staged)
    for name, data in contents.items():
        files.write(staged / name, data)
    access.give(readers, staged)
    with files.storage("name", generation.path):
        staged.rename(generation.path)
    return generation


def differing(generation: Generation, wanted: exports.Wanted, readers: access.Readers) -> list[str]:
    """Names of the files of a whole generation that are not as the settings want them; raises StorageFailed."""
    contents = generation.contents()
    found = exports.differing(contents, wanted)
    with files.storage("look at", generation.path):
        return sorted({*found, *access.differing(readers, [generation.path / name for name in contents])})


def holds_plain_key(folder: Path) -> bool:
    """Return whether the key in a folder is stored in plain; False if there is none."""
    with suppress(OSError):
        return b"ENCRYPTED" not in (folder / "key.pem").read_bytes()[:64]
    return False


def prune(generations: Sequence[Generation], used: Sequence[Generation | None], keep: int) -> None:
    """Keep the newest ``keep`` distinct identities, each in its last revision, those ``used``, and all of a day's age.

    Args:
        generations: the oldest first.
        used: are kept in any case.
        keep: how many distinct identities.
    """
    kept, seen, now = set[str](), set[str](), datetime.now(UTC).timestamp()
    for one in reversed(generations):
        kept.add(one.stem.split("-")[1])
        superfluous = one.stem in seen or len(kept) > keep
        seen.add(one.stem)
        with files.storage("look at", one.path):
            age = now - one.path.stat().st_mtime
        if superfluous and one not in used and age > KEEP_YOUNGER.total_seconds():
            files.remove_tree(one.path)
