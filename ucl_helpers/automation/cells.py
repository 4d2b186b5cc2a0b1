"""The process that executes a notebook's cells without a kernel: IPython's own shell, reached over two pipes.

The shell is the one a kernel has, so cells show the same; its messages, those of Jupyter's protocol, go into a pipe as
lines of JSON instead of into sockets. Whoever started this process reads them, and writes requests into the other pipe.
When that one closes, nobody is there any more: the process ends, also in the midst of a cell.

As in a kernel, SIGINT interrupts the cell that is running, and is let pass between cells; nobody is asked for input;
what a cell's own child processes print is shown with what the cell prints. Unlike in a kernel, start-up files of an
IPython profile are not run, and no history is written.
"""

import asyncio
import builtins
import faulthandler
import gc
import getpass
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from ipykernel.compiler import XCachingCompiler
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.error import StdinNotImplementedError
from jupyter_client.jsonutil import json_clean, json_default
from jupyter_client.session import Session, json_packer
from traitlets.config import Config

from ucl_helpers.automation.streams import Descriptor, Stream
from ucl_helpers.keymaker import AHEAD, begin

LANGUAGE = {
    "name": "python",
    "version": sys.version.split()[0],
    "mimetype": "text/x-python",
    "codemirror_mode": {"name": "ipython", "version": sys.version_info[0]},
    "pygments_lexer": f"ipython{sys.version_info[0]}",
    "nbconvert_exporter": "python",
    "file_extension": ".py",
}
"""What a notebook says of its language once it was executed; as ipykernel tells it."""

_INSTALLED = {"site-packages", "dist-packages"}


class Interrupts:
    """SIGINT raises ``KeyboardInterrupt`` in the cell that runs, but never in the midst of a message."""

    def __init__(self) -> None:
        self._busy, self._waits = 0, False

    @contextmanager
    def cell(self) -> Iterator[None]:
        """A cell runs."""
        signal.signal(signal.SIGINT, self._came)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._waits = False

    @contextmanager
    def later(self) -> Iterator[None]:
        """What may not be torn apart; an interrupt is raised behind it. Other threads get none anyway."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if self._waits and not self._busy:
                self._waits = False
                raise KeyboardInterrupt

    def _came(self, *_: object) -> None:
        if self._busy:
            self._waits = True
        else:
            raise KeyboardInterrupt


class PipeSession(Session):
    """Sends the shell's messages into a pipe, whatever socket they are meant for."""

    def __init__(self, pipe: int, interrupts: Interrupts) -> None:
        super().__init__(key=b"none is needed: nobody else can write here")
        self._pipe, self._interrupts, self._turn = pipe, interrupts, threading.Lock()
        self.request = ""  # the message that is being answered

    def send(self, stream: Any, msg_or_type: Any, content: Any = None, *_: Any, **__: Any) -> Any:
        """Write a message, whole."""
        del stream
        message = dict(msg_or_type) if isinstance(msg_or_type, Mapping) else self.msg(msg_or_type, content)
        message["parent_header"] = {"msg_id": self.request}
        line = memoryview(_packed(message) + b"\n")
        with self._interrupts.later(), self._turn:
            while line:
                line = line[os.write(self._pipe, line) :]
        return message


def _packed(message: Mapping[str, Any]) -> bytes:
    try:
        return bytes(json_packer(message))
    except UnicodeEncodeError:  # half a surrogate, which UTF-8 cannot hold
        return json.dumps(json_clean(message), default=json_default, ensure_ascii=False).encode(errors="replace")


class Cells:
    """Executes what is asked for, one request after the other."""

    def __init__(self, requests: int, messages: int) -> None:
        self._interrupts = Interrupts()
        self._session = PipeSession(messages, self._interrupts)
        self._requests, self._waiting = requests, asyncio.Queue[MutableMapping[str, Any] | None]()
        self._streams = [Stream(one, self._session.send, self._interrupts.later) for one in ("stdout", "stderr")]
        self._descriptors = [Descriptor(number, one) for number, one in enumerate(self._streams, 1)]
        self._running = False
        self._shell = self._started()

    def _started(self) -> Any:
        sys.stdout, sys.stderr = self._streams
        faulthandler.enable()
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        builtins.input = _nobody_answers("raw_input")
        getpass.getpass = _nobody_answers("getpass")
        config = Config({"HistoryManager": {"hist_file": ":memory:"}})
        shell: Any = ZMQInteractiveShell.instance(
            config=config, kernel=SimpleNamespace(eventloop=None), compiler_class=XCachingCompiler
        )
        for sends in (shell.displayhook, shell.display_pub):
            sends.session = self._session
        sys.argv = [""]
        installed = (place for place, path in enumerate(sys.path) if Path(path).name in _INSTALLED)
        sys.path.insert(next(installed, len(sys.path)), "")  # modules beside the notebook, hiding none of Python's
        return shell

    async def serve(self) -> None:
        """Until nobody asks any more."""
        threading.Thread(target=self._read, args=(asyncio.get_running_loop(),), daemon=True).start()
        while (request := await self._waiting.get()) is not None:
            self._session.request = request["msg_id"]
            if request["msg_type"] == "execute_request":
                await self._execute(request["content"]["code"])
            else:
                self._session.send(None, "kernel_info_reply", {"status": "ok", "language_info": LANGUAGE})
            if self._shell.exit_now:
                break

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        with os.fdopen(self._requests, "rb") as lines:
            for line in lines:
                loop.call_soon_threadsafe(self._waiting.put_nowait, json.loads(line))
        if self._running:  # whoever asked is gone, and would have killed us
            os._exit(1)
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(self._waiting.put_nowait, None)

    async def _execute(self, code: str) -> None:
        self._running = True
        self._session.send(None, "status", {"execution_state": "busy"})
        count = self._shell.execution_count
        self._session.send(None, "execute_input", {"code": code, "execution_count": count})
        result = await self._run(code)
        for stream, descriptor in zip(self._streams, self._descriptors, strict=True):
            descriptor.drain()
            stream.flush()
        self._session.send(None, "execute_reply", self._reply(result))
        self._session.send(None, "status", {"execution_state": "idle"})
        self._running = False

    async def _run(self, code: str) -> Any:
        """As a kernel does: in the loop that runs, if the cell waits for something."""
        shell, transformed = self._shell, None
        with suppress(Exception):  # whatever a magic raises; run_cell meets it too, and shows it
            transformed = shell.transform_cell(code)
        if transformed is None or not shell.should_run_async(code, transformed_cell=transformed):
            with self._interrupts.cell():
                return shell.run_cell(code, store_history=True)
        cell = asyncio.ensure_future(shell.run_cell_async(code, store_history=True, transformed_cell=transformed))
        loop, result = asyncio.get_running_loop(), None
        loop.add_signal_handler(signal.SIGINT, cell.cancel)
        try:
            result = await cell
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            shell.events.trigger("post_execute")
            shell.events.trigger("post_run_cell", result)
        return result

    def _reply(self, result: Any) -> Mapping[str, Any]:
        reply = {"execution_count": self._shell.execution_count - 1, "user_expressions": {}, "payload": []}
        if result.success and not getattr(self._shell, "_last_traceback_during_displayhook", False):
            return {"status": "ok", **reply}
        error = result.error_before_exec or result.error_in_exec
        traceback = getattr(self._shell, "_last_traceback", None) or []
        told = {"ename": type(error).__name__, "evalue": str(error), "traceback": traceback}
        return {"status": "error", **told, **reply}


def _nobody_answers(name: str) -> Any:
    def ask(*_: object, **__: object) -> NoReturn:
        raise StdinNotImplementedError(f"{name} was called, but this frontend does not support input requests.")

    return ask


def main() -> None:
    """Serve the pipes whose numbers stand on the command line, requests and messages; a third one is bits of a key."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, messages, *bits = map(int, sys.argv[1:])
    for wanted in bits:
        AHEAD[wanted] = begin(wanted)
    for pipe in (requests, messages):
        os.set_inheritable(pipe, False)
    asyncio.run(Cells(requests, messages).serve())
    gc.freeze()  # Python, as it ends, would look through all that was loaded for garbage


if __name__ == "__main__":
    main()
