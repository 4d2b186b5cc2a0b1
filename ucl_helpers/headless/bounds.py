"""How much of what cells print and show is kept. Pure.

A megabyte a cell and ten a notebook; of what is above, a note says so. A text is cut off behind a word, so that no half
of a secret stays that would not be recognised. An outcome has room of its own: a run that printed too much still says
how it ended; so has an error, shortened.
"""

import re
from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from typing import Any

from ucl_helpers.models import OUTCOME_MIME

CELL, NOTEBOOK = 10**6, 10**7
"""Characters that are kept."""

_RESERVE, _OVERHEAD, _WORD = 50_000, 200, 20_000
_NOTE = "\n[the rest of what this cell printed was not kept: more than {} characters]\n"
_LAST_WORD = re.compile(r"[^\s]*\Z")


class Bounds:
    """Counts what is kept of each cell."""

    def __init__(self, cell: int = CELL, notebook: int = NOTEBOOK) -> None:
        self._cell, self._notebook = cell, notebook
        self._used = dict[Hashable, int]()
        self._full = set[Hashable]()
        self._cleared_by_next = set[Hashable]()

    def forget(self, cell: Hashable, *, wait: bool = False) -> None:
        """Note that a cell clears what it has shown: now, or (``wait``) as soon as it shows something else."""
        if wait:
            self._cleared_by_next.add(cell)
            return
        self._used.pop(cell, None)
        self._full.discard(cell)

    def is_full(self, cell: Hashable) -> bool:
        """Return whether nothing more is kept of what a cell prints."""
        return cell in self._full and cell not in self._cleared_by_next

    def may_replace(self, content: Mapping[str, Any]) -> bool:
        """Whether something that is shown may be replaced by this: it is small."""
        return _size(content) <= _RESERVE

    def within(self, cell: Hashable, message: MutableMapping[str, Any]) -> Iterator[MutableMapping[str, Any]]:
        """Yield the messages to send instead of this one: itself, a part of it and a note, or none."""
        if cell in self._cleared_by_next:
            self._cleared_by_next.remove(cell)
            self.forget(cell)
        content, kind = message["content"], message["msg_type"]
        size, room = _size(content), self._room(cell)
        if OUTCOME_MIME in content.get("data", {}) or kind == "error":
            room += _RESERVE
        if size <= room:
            self._used[cell] = self._used.get(cell, 0) + size
            yield message
        elif kind == "error":
            self._used[cell] = self._used.get(cell, 0) + _RESERVE
            yield {**message, "content": _short_error(content)}
        elif cell not in self._full:
            self._full.add(cell)
            self._used[cell] = self._used.get(cell, 0) + max(room, 0)
            name = content["name"] if kind == "stream" else "stderr"
            begun = cut(content["text"], max(room - _OVERHEAD, 0)) if kind == "stream" else ""
            text = begun + _NOTE.format(f"{min(self._cell, self._notebook):,}")
            header = {**message["header"], "msg_type": "stream"}
            yield {**message, "header": header, "msg_type": "stream", "content": {"name": name, "text": text}}

    def reply(self, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the kernel's answer to a cell: a long error is shortened, and IPython's pager texts are left out."""
        kept = {**content, "payload": []}
        if content.get("status") == "error" and _size(kept) > _RESERVE:
            kept |= _short_error(content)
        return kept

    def _room(self, cell: Hashable) -> int:
        return min(self._cell - self._used.get(cell, 0), self._notebook - sum(self._used.values()))


def _short_error(content: Mapping[str, Any]) -> dict[str, Any]:
    short = {name: cut(str(content[name]), 1000) for name in ("ename", "evalue")}
    return {**short, "traceback": ["[the traceback was too long to be kept]"]}


def cut(text: str, length: int) -> str:
    """At most so much of a text, without the word it would be cut off in."""
    if len(text) <= length:
        return text
    start = max(length - _WORD, 0)
    last = _LAST_WORD.search(text[start:length])
    return text[: start + last.start()] if last else ""


def _size(value: Any) -> int:
    """How many characters a message's content takes, roughly."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return _OVERHEAD + sum(_size(key) + _size(held) for key, held in value.items())
    if isinstance(value, list | tuple):
        return _OVERHEAD + sum(map(_size, value))
    return _OVERHEAD // 10
