"""Secrets are taken out of a notebook before it is written: out of outputs of every kind, metadata and messages. Pure.

What is taken out is replaced by a mark such as ``[private key removed]`` and noted, by its kind and its place. A secret
may be spread over several pieces: what a cell printed on one stream, the lines of a traceback and the texts of a list
are searched as one. What is written is what is executed: sources of cells are never changed, but refused.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ucl_helpers.automation.known import KnownSecrets, is_large_number
from ucl_helpers.automation.looks import Span, by_looks, merged
from ucl_helpers.errors import SecretFound, SecretRedacted

_TOLD = 5  # finds that an error names


@dataclass(frozen=True)
class Find:
    """A secret that was taken out: its ``kind`` (``private key``) and its ``place`` (``cell 7, stdout``)."""

    kind: str
    place: str


class Redactor:
    """Takes secrets out of texts and of all that holds texts, and remembers what and where.

    Args:
        known: gives the secrets that are known by then, besides those that look like one; asked at each
            :meth:`refresh`.
    """

    def __init__(self, known: Callable[[], KnownSecrets] = KnownSecrets) -> None:
        self.finds: list[Find] = []
        self._ask, self._known, self._count = known, known(), 0
        self._clean = set[str]()

    def refresh(self) -> bool:
        """Ask again what is known, since keys may have been made meanwhile; whether more is."""
        self._known = self._ask()
        if self._known.count == self._count:
            return False
        self._count = self._known.count
        self._clean.clear()
        return True

    def spans(self, text: str) -> list[Span]:
        """Where secrets stand in a text."""
        return merged([*by_looks(text), *self._known.find(text)])

    def text(self, text: str, place: str) -> str:
        """A text without secrets."""
        return self.pieces([text], "", place)[0]

    def pieces(self, pieces: Sequence[str], between: str, place: str) -> list[str]:
        """Texts that belong together, ``between`` them what separates them, without secrets; as many as before."""
        whole = between.join(pieces)
        if whole in self._clean:
            return list(pieces)
        spans = self.spans(whole)
        if not spans:
            self._clean.add(whole)
            return list(pieces)
        for kind in dict.fromkeys(kind for *_, kind in spans):
            if (find := Find(kind, place)) not in self.finds:
                self.finds.append(find)
        starts, at = [], 0
        for piece in pieces:
            starts.append(at)
            at += len(piece) + len(between)
        return [_without(piece, start, spans) for piece, start in zip(pieces, starts, strict=True)]

    def value(self, value: Any, place: str) -> Any:
        """What JSON can hold, keys included, without secrets; containers are changed in place."""
        if isinstance(value, str):
            return self.text(value, place)
        if is_large_number(value):
            return value if self.text(text := str(value), place) == text else "[number removed]"
        if isinstance(value, MutableMapping):
            for key, (new, held) in {k: (self.text(k, place), self.value(v, place)) for k, v in value.items()}.items():
                if new != key:
                    del value[key]
                value[new] = held
        elif isinstance(value, MutableSequence):
            texts = [at for at, one in enumerate(value) if isinstance(one, str)]
            for at, text in zip(texts, self.pieces([value[at] for at in texts], "\n", place), strict=True):
                value[at] = text
            if len(texts) < len(value):
                value[:] = [one if isinstance(one, str) else self.value(one, place) for one in value]
                numbers = ",".join(str(one) for one in value if isinstance(one, int))
                if (left := self.text(numbers, place)) != numbers:  # bytes, each as a number
                    value[:] = [left]
        return value

    def notebook(self, notebook: MutableMapping[str, Any], numbers: Collection[int] | None = None) -> Collection[int]:
        """A notebook, changed in place: its metadata, and the metadata and outputs of its cells.

        Args:
            notebook: the notebook.
            numbers: of the cells to be searched, counted from 1; None for all. All are if more has become known.

        Returns:
            The numbers of those that were searched.
        """
        if self.refresh() or numbers is None:
            numbers = range(1, len(notebook["cells"]) + 1)
        self.value(notebook["metadata"], "metadata of the notebook")
        for number in numbers:
            cell = notebook["cells"][number - 1]
            self.value(cell["metadata"], f"cell {number}, metadata")
            self.value(cell.get("attachments"), f"cell {number}, attachments")
            self._outputs(cell.get("outputs", []), f"cell {number}")
        return numbers

    def _outputs(self, outputs: Iterable[MutableMapping[str, Any]], cell: str) -> None:
        streams: dict[str, list[MutableMapping[str, Any]]] = {}
        for output in outputs:
            kind = output["output_type"]
            if kind == "stream":
                streams.setdefault(output["name"], []).append(output)
            known = {"output_type", "name", "text"} if kind == "stream" else {"output_type"}
            for field in [one for one in output if one not in known]:
                output[field] = self.value(output[field], f"{cell}, {'error' if kind == 'error' else 'output'}")
        for name, parts in streams.items():
            texts = ["".join(part["text"]) for part in parts]
            for part, before, after in zip(parts, texts, self.pieces(texts, "", f"{cell}, {name}"), strict=True):
                if after != before:
                    part["text"] = after

    def refuse_sources(self, cells: Iterable[MutableMapping[str, Any]]) -> None:
        """Refuse a notebook in whose cells a secret is written: to take it out would be to run something else.

        Raises:
            SecretFound: names the cell, never the text.
        """
        for number, cell in enumerate(cells, 1):
            if spans := self.spans("".join(cell["source"])):
                raise SecretFound(
                    f"Cell {number} of the notebook holds a {spans[0][2]}, and would be written as it is.",
                    remedy="Let it refer to the secret: a parameter such as env:NAME or file:PATH.",
                )

    def error(self) -> SecretRedacted | None:
        """What was found, as an error; None if nothing was."""
        if not self.finds:
            return None
        named = [f"a {find.kind} in {find.place}" for find in self.finds[:_TOLD]]
        more = [f"{len(self.finds) - _TOLD} more"] if len(self.finds) > _TOLD else []
        return SecretRedacted(
            f"The notebook let secrets out, which were removed before it was written: {', '.join([*named, *more])}.",
            remedy="Mend the cell that prints them. Nothing of them was written.",
            redacted=[vars(find) for find in self.finds],
        )


def _without(piece: str, start: int, spans: Sequence[Span]) -> str:
    """One of several pieces without what of the spans lies in it; the mark stands where a secret begins."""
    return "".join(_kept(piece, start, spans))


def _kept(piece: str, start: int, spans: Sequence[Span]) -> Iterator[str]:
    at = 0
    for begin, end, kind in spans[bisect_right(spans, start, key=itemgetter(1)) :]:
        if begin >= start + len(piece):
            break
        first, last = max(begin - start, 0), min(end - start, len(piece))
        if first < last:
            yield piece[at:first]
            yield f"[{kind} removed]" if begin >= start else ""
            at = last
    yield piece[at:]
