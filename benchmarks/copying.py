"""Many connections: copies of one, as far as a fleet can see, made in a moment.

Each has files of its own, the same identity, and a name of its own. They are read like others, and renewed: a UCL does
not mind one client that comes often.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ucl_helpers import Connection, Home


def copies(connection: Connection, folder: Path, count: int) -> Home:
    """A home folder with that many copies of a connection, made anew if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
    home = Home(folder)
    home.new("copied-00000")  # makes the folders above, as they have to be
    contents = _contents(connection.path)
    for number in range(count):
        _write(home.path / "connections" / f"copied-{number:05d}", contents)
    return home


def _contents(folder: Path) -> Mapping[str, bytes | str | None]:
    """By path below the folder, parents first: what stands in a file, where a link leads, None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


def _write(folder: Path, contents: Mapping[str, bytes | str | None]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in contents.items():
        path = folder / name
        if content is None:
            path.mkdir(mode=0o700, exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o600)
