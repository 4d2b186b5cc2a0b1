"""The process that executes a notebook's cells: IPython's kernel, fit for a notebook that uses keys.

It is started as ``python -P -m ucl_helpers.headless.kernel_process NOTEBOOK_FOLDER -f CONNECTION_FILE`` and differs
from ``ipykernel_launcher`` in five points:

1. It imports installed modules only. The current folder is not on ``sys.path``. The notebook's own folder is the last
   entry, and only if no other user can write there.
2. Other processes cannot read its memory, and it leaves no core dump (see :mod:`ucl_helpers.core_dumps`).
3. It uses no IPython profile, so it runs no start-up files and writes no history.
4. It sends no more output than the notebook keeps, so that a cell that prints without end fills neither its own memory
   nor that of the process that saves the notebook.
5. ``exit`` and ``quit`` end a cell as ``sys.exit()`` does, with its status. Otherwise the kernel would end a moment
   after the cell, in the middle of the next one or not.
"""

import atexit
import gc
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.jsonutil import json_clean, json_default
from jupyter_client.session import Session, json_packer
from traitlets import default
from traitlets.config import Config

from ucl_helpers.core_dumps import no_dumps_at_all
from ucl_helpers.models import OUTCOME_MIME
from ucl_private_files import is_private_folder

_PIPE_BYTES = 1 << 16
_NOT_SHOWN = {"comm_open", "comm_msg", "comm_close"}  # widgets: a headless run has no page to show them


class BoundedSession(Session):
    """Sends the kernel's messages, outputs only as far as :class:`Bounds` has room for them.

    It is the one place that every output passes: what cells print, display and raise. What a cell prints in one piece
    still has to fit in the memory of this process.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pack = pack
        self._bounds = Bounds()

    def send(
        self, stream: Any, msg_or_type: Any, content: Any = None, parent: Any = None, *rest: Any, **options: Any
    ) -> Any:
        """Send a message, the part of it that is kept and a note, or nothing."""
        message = msg_or_type
        if not isinstance(message, Mapping):
            about = {name: options.pop(name, None) for name in ("header", "metadata")}
            message = self.msg(message, content=content, parent=parent, **about)
        for kept in self._kept(message):
            super().send(stream, kept, None, None, *rest, **options)
        return message

    def is_full(self, header: Mapping[str, Any]) -> bool:
        """Return whether nothing more is kept of what the cell prints that has this header."""
        return self._bounds.is_full(header.get("msg_id"))

    def _kept(self, message: Any) -> Iterator[Any]:
        kind, cell = message["msg_type"], message["parent_header"].get("msg_id")
        match kind:
            case "stream" | "display_data" | "execute_result" | "error":
                yield from self._bounds.within(cell, message)
            case "update_display_data":
                if _size(message["content"]) <= _RESERVE:  # it may replace something that is shown
                    yield message
            case "clear_output":
                self._bounds.forget(cell, wait=message["content"].get("wait", False))
                yield message
            case "execute_reply":
                yield {**message, "content": self._bounds.reply(message["content"])}
            case _ if kind not in _NOT_SHOWN:
                yield message


def pack(message: Any) -> bytes:
    """Return a message as JSON; half a surrogate pair, which UTF-8 cannot encode, becomes a question mark."""
    try:
        return bytes(json_packer(message))
    except UnicodeEncodeError:
        return json.dumps(json_clean(message), default=json_default, ensure_ascii=False).encode(errors="replace")


class CellStream(OutStream):
    """Standard output or error of cells and of the programs that they start.

    What is not kept is not collected either, and what was collected is sent before it becomes large.
    """

    _collected = 0

    def write(self, text: Any) -> Any:
        """Take a text, unless the cell has printed all that is kept of it."""
        stream: Any = super()
        if not isinstance(text, str):
            return stream.write(text)  # which raises the right error
        if not self.session.is_full(self.parent_header):
            stream.write(text[: 2 * CELL])
            self._collected += len(text)
        if self._collected > CELL:
            self._collected = 0
            stream.flush()
        return len(text)

    def _watch_pipe_fd(self) -> None:
        """Show what other programs print in the notebook only; ipykernel would also write it to the kernel's output."""
        descriptor: Any = self._fid
        with suppress(OSError):
            while (printed := os.read(descriptor, _PIPE_BYTES)) and self._should_watch:
                self.write(printed.decode(errors="replace"))


class CellKernelApp(IPKernelApp):
    """IPython's kernel with a :class:`BoundedSession`."""

    @default("session")
    def _bounded_session(self) -> Session:
        return BoundedSession(parent=self)


def main() -> None:
    """Run the kernel whose notebook folder and connection file the command line names."""
    no_dumps_at_all()
    folder, flag, connection_file, *options = sys.argv[1:]
    profile = Path(connection_file).with_name("ipython")  # in the folder that goes away with the kernel
    profile.mkdir(mode=0o700)
    app_options = {
        "ipython_dir": str(profile),
        "exec_PYTHONSTARTUP": False,
        "outstream_class": f"{CellStream.__module__}.{CellStream.__name__}",
    }
    config = Config({"HistoryManager": {"hist_file": ":memory:"}, "CellKernelApp": app_options})
    path = [*sys.path]
    app: Any = CellKernelApp.instance(config=config)
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = str(profile)  # else IPython makes a folder in HOME, which may not be there
    app.initialize([flag, connection_file, *options])
    del os.environ["IPYTHONDIR"]  # programs that cells start do not inherit it
    if before is not None:
        os.environ["IPYTHONDIR"] = before
    # When its own folder is set, IPython removes the current folder, which may be there for a good reason: a checkout
    # that is installed as editable, or PYTHONPATH. Safe-path mode keeps it out otherwise.
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    app.shell._tee = lambda **_: nullcontext()  # noqa: SLF001 - IPython would keep all that cells print in its history
    exiter: Any = type(app.shell.exiter)
    exiter.__call__ = lambda _, status=None: sys.exit(status)  # IPython's own ignores the status
    # A program that the magic %run runs, and a cell below %%capture, fail the cell too. IPython would only show it.
    for name in ("safe_execfile", "safe_execfile_ipy"):
        setattr(app.shell, name, partial(getattr(app.shell, name), raise_exceptions=True))
    app.shell.run_cell = partial(_run_within, app.shell.run_cell)
    if folder and is_private_folder(Path(folder)):
        sys.path.append(folder)  # last, where it hides no installed module
    atexit.register(_let_go, app)  # runs after what the cells register, and before what IPython registered
    app.start()
    # The control thread still answers the request to end, and flushes the streams for that. If ipykernel's clean-up
    # ends the thread that sends before, the flush waits for ten seconds.
    app.control_thread.stop()
    app.control_thread.join()


def _run_within(run_cell: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Take the place of the method by which a magic such as %%capture runs a cell within a cell: raise what it raised.

    The kernel itself calls this method for some cells, with options, and reads the result.
    """
    result = run_cell(*given, **options)
    if not options:
        result.raise_error()
    return result


def _let_go(app: Any) -> None:
    """Close what the cells left open. Then spare Python the search of all modules for garbage, a third of its exit."""
    app.shell.user_ns.clear()
    gc.collect()
    gc.freeze()


CELL, NOTEBOOK = 10**6, 10**7
"""Characters that are kept of each cell and of all cells. A note says where more was printed.

A text is cut off behind a word, so that no half of a secret remains, which would not be recognised. An outcome has room
of its own, so that a run that printed too much still says how it ended; so has an error, shortened.
"""

_RESERVE, _OVERHEAD, _WORD = 50_000, 200, 20_000
_NOTE = "\n[the rest of what this cell printed was not kept: more than {} characters]\n"
_LAST_WORD = re.compile(r"[^\s]*\Z")


class Bounds:
    """Decides how much is kept of what each cell prints and shows."""

    def __init__(self, cell: int = CELL, notebook: int = NOTEBOOK) -> None:
        self._cell, self._notebook = cell, notebook
        self._used = Counter[Hashable]()
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

    def within(self, cell: Hashable, message: MutableMapping[str, Any]) -> Iterator[MutableMapping[str, Any]]:
        """Yield the messages to send instead of this one: itself, a part of it and a note, or none."""
        if cell in self._cleared_by_next:
            self._cleared_by_next.remove(cell)
            self.forget(cell)
        content, kind = message["content"], message["msg_type"]
        size = _size(content)
        room = min(self._cell - self._used[cell], self._notebook - sum(self._used.values()))
        if OUTCOME_MIME in content.get("data", {}) or kind == "error":
            room += _RESERVE
        if size <= room:
            self._used[cell] += size
            yield message
        elif kind == "error":
            self._used[cell] += _RESERVE
            yield {**message, "content": _short_error(content)}
        elif cell not in self._full:
            self._full.add(cell)
            self._used[cell] += max(room, 0)
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


def _short_error(content: Mapping[str, Any]) -> dict[str, Any]:
    short = {name: cut(str(content[name]), 1000) for name in ("ename", "evalue")}
    return {**short, "traceback": ["[the traceback was too long to be kept]"]}


def cut(text: str, length: int) -> str:
    """Return at most so many characters of a text, without the word that would be cut in two."""
    if len(text) <= length:
        return text
    start = max(length - _WORD, 0)
    last = _LAST_WORD.search(text[start:length])
    return text[: start + last.start()] if last else ""


def _size(value: Any) -> int:
    """Return roughly how many characters the content of a message takes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return _OVERHEAD + sum(_size(key) + _size(held) for key, held in value.items())
    if isinstance(value, list | tuple):
        return _OVERHEAD + sum(map(_size, value))
    return _OVERHEAD // 10


if __name__ == "__main__":
    main()
