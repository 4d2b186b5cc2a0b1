"""Records with ``strace`` what a program does to the files below a folder, and when it sends what."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from disk import Op
from tracing import KEEP_DUMPABLE

KINDS = {
    "openat": "create",
    "write": "write",
    "pwrite64": "pwrite",
    "ftruncate": "truncate",
    "fsync": "fsync",
    "fdatasync": "fsync",
    "mkdir": "mkdir",
    "mkdirat": "mkdir",
    "rename": "rename",
    "renameat": "rename",
    "renameat2": "rename",
    "symlink": "symlink",
    "symlinkat": "symlink",
    "unlink": "unlink",
    "unlinkat": "unlink",
    "rmdir": "unlink",
}
BY_DESCRIPTOR = {"write", "pwrite64", "fsync", "fdatasync", "ftruncate"}
NOT_UNDERSTOOD = "creat,truncate,link,linkat,writev,pwritev,pwritev2,sendfile,copy_file_range,fallocate"
_FLAGS = {"O_CREAT": "create", "O_TRUNC": "truncate"}
_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += (\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PLACE = re.compile(r"(\d+|AT_FDCWD)<([^>]*)>")
_APPLICATION_DATA = b"\x17\x03\x03"


def record(
    root: Path, *command: str | Path, environment: Mapping[str, str], trace: Path
) -> tuple[subprocess.CompletedProcess[str], list[Op]]:
    """Run a program; what it said, and what it did below ``root``, network requests as ``send`` among it."""
    options = ["-f", "-y", "-xx", "-qq", "-s", "1000000", "-e", "signal=none", *KEEP_DUMPABLE]
    watch = ["-e", f"trace=prctl,{','.join(KINDS)},{NOT_UNDERSTOOD}", "-o", str(trace)]
    program = [str(part) for part in command]
    done = subprocess.run(
        ["strace", *options, *watch, *program], env=environment, capture_output=True, text=True, check=False
    )
    ops = [op for line in _whole_lines(trace) for op in _ops(line, root)]
    return done, list(_requests(ops))


def _whole_lines(trace: Path) -> Iterator[str]:
    """One line a call, where it ended: strace writes two of a call during which another thread made one."""
    begun = {}
    for line in trace.read_text().splitlines():
        process = line.split(maxsplit=1)[0]
        if line.endswith(" <unfinished ...>"):
            begun[process] = line.removesuffix(" <unfinished ...>")
        elif "<... " in line:
            yield begun.pop(process) + line.split(" resumed>", 1)[1]
        else:
            yield line


def _ops(line: str, root: Path) -> Iterator[Op]:
    if (call := _CALL.match(line)) is None:
        return  # it failed
    name, arguments, result = call.groups()
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    places = [_bytes(place).decode() for _, place in _PLACE.findall(arguments)]
    if name == "write" and places[0].startswith("socket:"):
        yield Op("send", places[0], texts[0])
        return
    paths = [Path(place) for place in places] if name in BY_DESCRIPTOR else _paths(name, places, texts)
    inside = [str(path.relative_to(root)) for path in paths if path.is_relative_to(root)]
    if not inside:
        return
    assert name in KINDS, line
    assert len(inside) == len(paths), line
    if name == "openat":
        yield from (Op(kind, inside[0]) for flag, kind in _FLAGS.items() if flag in arguments)
        return
    yield Op(
        kind := KINDS[name],
        inside[0],
        data=texts[0][: int(result)] if kind in {"write", "pwrite"} else b"",
        to=texts[0].decode() if kind == "symlink" else inside[-1] if kind == "rename" else "",
        size=int(arguments.rsplit(", ", 1)[1]) if kind in {"pwrite", "truncate"} else 0,
    )


def _paths(name: str, places: list[str], texts: list[bytes]) -> list[Path]:
    """Each path given, with the folder that it is relative to; a link's target is none."""
    names = [text.decode() for text in (texts[1:] if name.startswith("symlink") else texts)]
    folders = (places if name.endswith(("at", "at2")) else []) or ["/"]
    return [Path(folder, name) for folder, name in zip(folders * len(names), names, strict=False)]


def _requests(ops: list[Op]) -> Iterator[Op]:
    """Of what goes out by TLS only the requests: head and body are one record each; the head counts as the moment."""
    heads = [number for number, op in enumerate(ops) if op.call == "send" and op.data.startswith(_APPLICATION_DATA)]
    bodies = {head: ops[body].data for head, body in zip(heads[::2], heads[1::2], strict=True)}
    for number, op in enumerate(ops):
        if op.call != "send":
            yield op
        elif number in bodies:
            yield Op("send", op.path, size=len(bodies[number]))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()
