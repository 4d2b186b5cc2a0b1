"""Remove secrets from a notebook before it is written. Pure.

A hit condemns its surroundings: the outputs of a cell are searched as one, and a secret in any of them replaces them
all by a note that says what was found and where. Only an outcome for programs, if it is clean, and the name of an error
stay, because the run is judged by them. Sources of cells are executed, so a secret in them is refused instead.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ucl_helpers.errors import SecretFound, SecretRedacted
from ucl_helpers.headless.redaction.readings import leaves, raw
from ucl_helpers.headless.redaction.search import KnownSecrets, find_secret
from ucl_helpers.models import OUTCOME_MIME

_MOST_NAMED = 5  # finds that an error names
_STATUSES = {"", *map(str, range(256))}  # the texts of SystemExit


@dataclass(frozen=True)
class Find:
    """A secret that was found: its ``kind`` (``private key``) and its ``place`` (``cell 7, stdout``)."""

    kind: str
    place: str


class Redactor:
    """Removes what holds a secret; ``finds`` says what was found, ``condemned`` in which cells, counted from 1.

    Args:
        load_secrets: returns the secrets that exist by then; called before each :meth:`notebook`.
    """

    def __init__(self, load_secrets: Callable[[], KnownSecrets] = KnownSecrets) -> None:
        self.finds, self.condemned = list[Find](), set[int]()
        self._load_secrets, self.secrets = load_secrets, load_secrets()
        self._clean = set[tuple[int, bytes]]()  # counts and digests: only a change makes another search necessary

    def find(self, text: str, place: str = "") -> str | None:
        """Return the kind of a secret in the text, or None; add it to the finds if a place is given."""
        state = (len(self.secrets.added), blake2b(raw(text), digest_size=16).digest())
        kind = None if state in self._clean else find_secret(text, self.secrets)
        if kind is None:
            self._clean.add(state)
        elif place and (find := Find(kind, place)) not in self.finds:
            self.finds.append(find)
        return kind

    def text(self, text: str, place: str) -> str:
        """Return the text, or a note instead if it holds a secret."""
        return f"[{kind} removed]" if (kind := self.find(text, place)) else text

    def value(self, value: Any, place: str) -> Any:
        """Return what JSON can hold without texts, keys and numbers that hold a secret; mappings change in place."""
        texts = [*leaves(value)]
        if kind := self.find("\n".join(texts), place):
            condemned = {text for text in {*texts} if self.find(text)}
            if self.find("\n".join(text for text in texts if text not in condemned)):  # it is spread over several
                condemned = {*texts}
            value = _replaced(value, condemned, f"[{kind} removed]")
        return value

    def notebook(self, notebook: MutableMapping[str, Any]) -> None:
        """Remove secrets, in place, from the metadata of a notebook and from what its cells have besides sources."""
        self.secrets = self._load_secrets()  # the run may have made keys
        self.value(notebook["metadata"], "metadata of the notebook")
        for number, cell in enumerate(notebook["cells"], 1):
            for part in ("metadata", "attachments"):
                self.value(cell.get(part), f"cell {number}, {part}")
            if secrets := ", ".join(self._search_outputs(outputs := cell.get("outputs") or [], f"cell {number}")):
                self.condemned.add(number)
                note = {"output_type": "stream", "name": "stderr", "text": f"[outputs removed: {secrets}]\n"}
                outputs[:] = [type(outputs[0])(note), *self._kept(outputs)]

    def _search_outputs(self, outputs: Sequence[Any], cell: str) -> list[str]:
        """Search each stream and kind of output, then all as they were shown, since a key may be spread over them."""
        texts, in_order = dict[str, str](), ""
        for output in outputs:
            kind = output["output_type"]
            place, end = (output["name"], "") if kind == "stream" else ("error" if kind == "error" else "output", "\n")
            held = [value for field, value in output.items() if field not in {"output_type", "name"}]
            text = "".join(leaf + end for leaf in leaves(held))
            texts[place], in_order = texts.get(place, "") + text, in_order + text
        for places in (texts, {"outputs": in_order}):
            finds = [(self.find(text, f"{cell}, {place}"), place) for place, text in places.items()]
            if secrets := [f"{kind} in {cell}, {place}" for kind, place in finds if kind]:
                return secrets
        return []

    def _kept(self, outputs: Sequence[Any]) -> Iterator[Any]:
        """Yield the outcome and the errors of removed outputs, if they hold no secret themselves."""
        for output in outputs:
            outcome = {mime: data for mime, data in output.get("data", {}).items() if mime == OUTCOME_MIME}
            if outcome and not self.find("\n".join(leaves(outcome))):
                yield type(output)({"output_type": "display_data", "data": outcome, "metadata": {}})
            if output["output_type"] == "error":
                name = "Error" if self.find(output["ename"]) else output["ename"]
                text = output["evalue"] if output["evalue"] in _STATUSES else "[removed]"
                yield type(output)({"output_type": "error", "ename": name, "evalue": text, "traceback": []})

    def refuse_sources(self, cells: Iterable[Mapping[str, Any]]) -> None:
        """Raise SecretFound, which names the cell, if the source of one holds a secret: it would be run as it is."""
        for number, cell in enumerate(cells, 1):
            if kind := self.find("".join(cell["source"])):
                raise SecretFound(
                    f"Cell {number} of the notebook holds a {kind}, and the executed notebook would contain it.",
                    remedy="Refer to the secret instead: by a parameter such as env:NAME or file:PATH.",
                )

    def error(self) -> SecretRedacted | None:
        """Return what was found as an error; None if nothing was."""
        if not self.finds:
            return None
        named = ", ".join(f"a {find.kind} in {find.place}" for find in self.finds[:_MOST_NAMED])
        more = f", {len(self.finds) - _MOST_NAMED} more" if len(self.finds) > _MOST_NAMED else ""
        return SecretRedacted(
            f"The run showed secrets. The outputs that held them were removed: {named}{more}.",
            remedy="Change the cell that shows it. If others could see it, renew and revoke the old certificate.",
            redacted=[vars(find) for find in self.finds],
        )


def _replaced(value: Any, condemned: Collection[str], note: str) -> Any:
    """Replace each condemned text, key and integer by the note; mappings change in place."""
    if isinstance(value, MutableMapping):
        for key in list(value):  # each key is taken out and put back, which keeps the order
            held = _replaced(value.pop(key), condemned, note)
            value[note if str(key) in condemned else key] = held
    elif isinstance(value, list | tuple):
        return [_replaced(held, condemned, note) for held in value]
    return note if isinstance(value, str | int) and not isinstance(value, bool) and str(value) in condemned else value
