"""The process that executes a notebook's cells: IPython's kernel, fit for a notebook that uses keys.

It is started as ``python -P -m ucl_helpers.headless.kernel_process NOTEBOOK_FOLDER -f CONNECTION_FILE`` and differs
from ``ipykernel_launcher`` in five points:

1. It imports installed modules only. The current folder is not on ``sys.path``. The notebook's own folder is the last
   entry, and only if no other user can write there.
2. Other processes cannot read its memory, and it leaves no core dump (see :mod:`ucl_helpers.core_dumps`).
3. It uses no IPython profile, so it runs no start-up files and writes no history.
4. It sends no more output than the notebook keeps, so that a cell that prints without end fills neither its own memory
   nor that of the process that saves the notebook.
5. ``exit`` and ``quit`` end a cell as ``sys.exit()`` does. Otherwise the kernel would end a moment after the cell, in
   the middle of the next one or not.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.jsonutil import json_clean, json_default
from jupyter_client.session import Session, json_packer
from traitlets import default
from traitlets.config import Config

from ucl_helpers.core_dumps import no_dumps_at_all
from ucl_helpers.headless.bounds import CELL, Bounds
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
                if self._bounds.may_replace(message["content"]):
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
    with _environment(IPYTHONDIR=str(profile)):  # else IPython makes a folder in HOME, which may not be there
        app.initialize([flag, connection_file, *options])
    # When its own folder is set, IPython removes the current folder, which may be there for a good reason: a checkout
    # that is installed as editable, or PYTHONPATH. Safe-path mode keeps it out otherwise.
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    app.shell._tee = _no_copy  # noqa: SLF001 - IPython would keep all that cells print in its history
    app.shell.ask_exit = sys.exit
    append_to_path(folder)
    app.start()
    # The control thread still answers the request to end, and flushes the streams for that. If ipykernel's clean-up
    # ends the thread that sends before, the flush waits for ten seconds.
    app.control_thread.stop()
    app.control_thread.join()


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables of the environment for a block only: programs that cells start do not inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _no_copy(channel: str) -> AbstractContextManager[None]:
    """Stand in for IPython's collector of what a cell prints."""
    del channel
    return nullcontext()


def append_to_path(folder: str) -> None:
    """Put a folder at the end of ``sys.path``, where it hides no installed module, unless others can write to it.

    Args:
        folder: absolute; empty for none.
    """
    if folder and is_private_folder(Path(folder)):
        sys.path.append(folder)


if __name__ == "__main__":
    main()
