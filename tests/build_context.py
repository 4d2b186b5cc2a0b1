"""What a build tool sends of a folder, by the rules of `.dockerignore`.

Source of the rules: https://docs.docker.com/build/concepts/context/#dockerignore-files. *Not* covered: brackets in
patterns, and escapes.
"""

import re
import subprocess
from pathlib import Path


def build_context(folder: Path) -> set[str]:
    """Return the paths of the files that a build may copy, relative to the folder."""
    rules = [_rule(line) for line in _lines(folder / ".dockerignore")]
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return {str(path) for path in paths if not _is_excluded(path, rules)}


def context_by_buildah(folder: Path, place: Path) -> set[str]:
    """Return the same as `buildah` sees it: it copies the whole context into an image, which becomes a folder."""
    (place / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    storage = ("--storage-driver", "vfs", "--root", place / "root", "--runroot", place / "run")
    build = ("bud", "--isolation", "chroot", "--output", f"type=local,dest={place / 'out'}")
    command = ["buildah", *storage, *build, "--file", place / "Dockerfile", folder]
    subprocess.run(command, check=True, capture_output=True)
    return {str(path.relative_to(place / "out")) for path in (place / "out").rglob("*") if not path.is_dir()}


def _lines(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _rule(line: str) -> tuple[re.Pattern[str], bool]:
    """The pattern of a line, and whether it excludes what matches."""
    excludes = not line.startswith("!")
    parts = re.split(r"(\*\*/?|\*|\?)", line.removeprefix("!").strip("/"))
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wildcards.get(part, re.escape(part)) for part in parts)), excludes


def _is_excluded(path: Path, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    """The last rule that matches a path, or a folder that it is in, decides."""
    excluded = False
    names = [str(path), *(str(parent) for parent in path.parents if parent.name)]
    for pattern, excludes in rules:
        if any(pattern.fullmatch(name) for name in names):
            excluded = excludes
    return excluded
