"""A disk that loses power: what of a program's file operations it may hold afterwards.

The law of this model, that of POSIX without what a particular file system adds to it: a file's content lasts once the
file was fsynced; a name (of something created, renamed or removed) lasts once the folder it lies in was fsynced. A
rename is all or nothing. Whatever no fsync covers may be there or not, name by name in any mixture; a file's content
may be what it was, whole, cut off, empty, or of the right length and zero.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

State = dict[str, bytes | str | None]  # by path: a file's content, a link's target, None for a folder


class Dice(Random):
    """Chance that falls the same way again, by its seed."""


@dataclass(frozen=True)
class Op:
    """One operation that succeeded, in the order in which they ended."""

    call: str
    path: str
    data: bytes = b""
    to: str = ""
    size: int = 0


@dataclass(eq=False)
class File:
    now: bytearray = field(default_factory=bytearray)
    lasting: bytes = b""

    def possible(self, dice: Dice) -> bytes:
        now, kept = bytes(self.now), self.lasting
        if now == kept:
            return now
        differ = (at for at, pair in enumerate(zip(now, kept, strict=False)) if pair[0] != pair[1])
        common = next(differ, min(len(now), len(kept)))
        cut = dice.randint(common, len(now))
        return dice.choice([kept, now[:common], now[:cut], now[:common] + bytes(len(now) - common), now])


@dataclass(eq=False)
class Link:
    target: str


@dataclass(eq=False)
class Folder:
    now: dict[str, "Node"] = field(default_factory=dict)
    lasting: dict[str, "Node"] = field(default_factory=dict)


Node = File | Link | Folder
Change = tuple[tuple[Folder, str, Node | None], ...]  # names that change together; the last says whose fsync counts


class Disk:
    """Files below ``root``, all of them lasting at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = _found(root)
        self._waiting: list[Change] = []

    def after(self, *ops: Op) -> Self:
        """The same disk after further operations."""
        disk = copy.deepcopy(self)
        for op in ops:
            disk.do(op)
        return disk

    def do(self, op: Op) -> None:
        """Carry out an operation."""
        if op.call != "send":
            getattr(self, f"_{op.call}")(op)

    def everything(self) -> State:
        """All that was done so far: what a kill leaves."""
        return dict(_walk(self.top, lambda folder: folder.now, lambda file: bytes(file.now)))

    def synced(self) -> State:
        """Only what an fsync covers."""
        return dict(_walk(self.top, lambda folder: folder.lasting, lambda file: file.lasting))

    def mixture(self, dice: Dice) -> State:
        """What fsyncs cover, and some of the rest."""
        names: dict[Folder, dict[str, Node]] = {}
        for change in self._waiting:
            if dice.random() < 0.5:
                for folder, name, node in change:
                    _put(names.setdefault(folder, dict(folder.lasting)), name, node)
        return dict(_walk(self.top, lambda folder: names.get(folder, folder.lasting), lambda file: file.possible(dice)))

    def _find(self, path: str) -> Node:
        node: Node = self.top
        for part in Path(path).parts:
            node = node.now[part]
        return node

    def _change(self, *names: tuple[str, Node | None]) -> None:
        change = tuple((self._find(str(Path(path).parent)), Path(path).name, node) for path, node in names)
        for folder, name, node in change:
            _put(folder.now, name, node)
        self._waiting.append(change)

    def _create(self, op: Op) -> None:
        if Path(op.path).name not in self._find(str(Path(op.path).parent)).now:
            self._change((op.path, File()))

    def _mkdir(self, op: Op) -> None:
        self._change((op.path, Folder()))

    def _symlink(self, op: Op) -> None:
        self._change((op.path, Link(op.to)))

    def _unlink(self, op: Op) -> None:
        self._change((op.path, None))

    def _rename(self, op: Op) -> None:
        self._change((op.path, None), (op.to, self._find(op.path)))

    def _write(self, op: Op) -> None:
        self._find(op.path).now.extend(op.data)

    def _pwrite(self, op: Op) -> None:
        self._find(op.path).now[op.size : op.size + len(op.data)] = op.data

    def _truncate(self, op: Op) -> None:
        content = self._find(op.path).now
        content[:] = content[: op.size].ljust(op.size, b"\0")

    def _fsync(self, op: Op) -> None:
        node = self._find(op.path)
        if isinstance(node, File):
            node.lasting = bytes(node.now)
            return
        for change in [one for one in self._waiting if one[-1][0] is node]:
            self._waiting.remove(change)
            for folder, name, child in change:
                _put(folder.lasting, name, child)


def lay(state: State, folder: Path) -> Path:
    """Put a state on a real disk, private as it was."""
    folder.mkdir(mode=0o700)
    for name, content in state.items():
        path = folder / name
        if content is None:
            path.mkdir(mode=0o700)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.touch(mode=0o600)
            path.write_bytes(content)
    return folder


def _put(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _found(path: Path) -> Folder:
    """What lies on the real disk now."""
    folder = Folder()
    for one in sorted(path.iterdir()):
        if one.is_symlink():
            node: Node = Link(str(one.readlink()))
        elif one.is_dir():
            node = _found(one)
        else:
            content = one.read_bytes()
            node = File(bytearray(content), content)
        folder.now[one.name] = folder.lasting[one.name] = node
    return folder


def _walk(folder, names, content, above="") -> Iterator[tuple[str, bytes | str | None]]:
    for name, node in names(folder).items():
        path = f"{above}{name}"
        if isinstance(node, Folder):
            yield path, None
            yield from _walk(node, names, content, f"{path}/")
        else:
            yield path, content(node) if isinstance(node, File) else node.target
