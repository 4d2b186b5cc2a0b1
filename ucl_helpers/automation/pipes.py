"""As much of a kernel's manager and client as nbclient asks for, for a process that is reached over two pipes.

The process is :mod:`ucl_helpers.automation.cells`, run by this interpreter. There is no socket that anybody could
connect to, and nothing to encrypt: the pipes have no name. It can be started before it is needed, so that it loads
IPython while its user loads papermill.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from functools import partial
from queue import Empty
from typing import Any

from ucl_helpers.automation.no_news import what_waits_is_no_news
from ucl_helpers.automation.printed import Printed
from ucl_helpers.automation.redaction import Redactor

_COMMAND = (sys.executable, "-P", "-m", "ucl_helpers.automation.cells")
_READ = 1 << 16  # bytes at once
_END_SECONDS = 5.0  # that it may take to end by itself
_DIGITS = 640  # what any interpreter makes a number of
_SHELL = {"execute_reply", "kernel_info_reply"}  # messages that answer; all others tell what a cell shows


class CellsProcess:
    """The process: started at once; nbclient takes it for a kernel's manager.

    Args:
        key_bits: of a key that it begins to make while it loads, for the cell that will ask for one; or None.
    """

    has_kernel = True
    without_secrets: Callable[[str], str] = staticmethod(partial(Redactor().text, place="what the kernel printed"))
    """How what the process printed by itself is passed on."""

    def __init__(self, key_bits: int | None = None) -> None:
        with ExitStack() as ours, ExitStack() as others:
            self._printed = ours.enter_context(closing(Printed()))
            requests, to_ask = _pipe(others, ours)
            to_read, messages = _pipe(ours, others)
            self._process = subprocess.Popen(
                [*_COMMAND, str(requests), str(messages), *([str(key_bits)] if key_bits else [])],
                pass_fds=(requests, messages),
                stdin=subprocess.DEVNULL,
                stdout=self._printed.file,
                stderr=self._printed.file,
                start_new_session=True,
            )
            ours.pop_all()  # they stay open
        self._client = PipeClient(self, to_ask, to_read)
        self._open = True

    def client(self) -> "PipeClient":
        """What speaks with it."""
        return self._client

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def interrupt_kernel(self) -> None:
        """SIGINT, also to what its cell has started."""
        self._signal(signal.SIGINT)

    async def shutdown_kernel(self, *, now: bool = False) -> None:
        """Let it end by itself, since nobody asks any more; kill it if it does not, or ``now``."""
        what_waits_is_no_news()
        self._printed.no_more()
        self._client.ask_no_more()
        if now:
            self.close()
            return
        ends = asyncio.ensure_future(asyncio.to_thread(self._process.wait))  # with a timeout it would poll
        await asyncio.wait({ends}, timeout=_END_SECONDS)
        self.close()
        await ends

    def cleanup_resources(self) -> None:
        """As :meth:`close`."""
        self.close()

    def close(self) -> None:
        """The process is gone, its pipes closed, its last words passed on."""
        if self._open:
            self._open = False
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._client.close()
            self._printed.pass_on(self.without_secrets)

    def _signal(self, number: int) -> None:
        if self.is_alive():
            with suppress(ProcessLookupError, PermissionError):  # it has just ended
                os.killpg(self._process.pid, number)


def _pipe(reads: ExitStack, writes: ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed with what they are given to."""
    reading, writing = os.pipe()
    reads.callback(os.close, reading)
    writes.callback(os.close, writing)
    return reading, writing


class PipeClient:
    """Writes requests and reads messages; nbclient takes it for a kernel's client."""

    allow_stdin = False

    def __init__(self, process: CellsProcess, requests: int, messages: int) -> None:
        self._process, self._requests, self._messages = process, requests, messages
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = list[bytes]()  # of a message that is not whole yet
        self._asks = True
        self.shell_channel, self.iopub_channel = Channel(), Channel()

    def start_channels(self) -> None:
        """Read from now on."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._messages, self._read)

    def stop_channels(self) -> None:
        """The manager does that."""

    async def wait_for_ready(self, timeout: float) -> None:
        """Until it answers.

        Raises:
            RuntimeError: it died, or did not answer in so many seconds.
        """
        ends = asyncio.get_running_loop().time() + timeout
        self.kernel_info()
        while True:
            with suppress(Empty):
                await self.shell_channel.get_msg(timeout=0.5)
                return
            if not self._process.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if asyncio.get_running_loop().time() > ends:
                raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.is_alive()

    def execute(self, code: str, **_: Any) -> str:
        """Ask for a cell to be executed; what the answers name as their parent."""
        return self._ask("execute_request", {"code": code})

    def kernel_info(self) -> str:
        """Ask for the language."""
        return self._ask("kernel_info_request", {})

    def ask_no_more(self) -> None:
        """Close the pipe of the requests."""
        if self._asks:
            self._asks = False
            os.close(self._requests)

    def close(self) -> None:
        """Close both pipes."""
        self.ask_no_more()
        if self._loop is not None:
            self._loop.remove_reader(self._messages)
        os.close(self._messages)

    def _ask(self, kind: str, content: dict[str, str]) -> str:
        number = uuid.uuid4().hex
        line = memoryview(json.dumps({"msg_id": number, "msg_type": kind, "content": content}).encode() + b"\n")
        with suppress(BrokenPipeError):  # it has died, which is seen when the answer fails to come
            while line:
                line = line[os.write(self._requests, line) :]
        return number

    def _read(self) -> None:
        read = os.read(self._messages, _READ)
        *ended, begun = read.split(b"\n")
        for piece in ended:
            line = b"".join([*self._begun, piece])
            self._begun.clear()
            self._take(line)
        self._begun.append(begun)
        if not read and self._loop is not None:  # it has ended
            self._loop.remove_reader(self._messages)

    def _take(self, line: bytes) -> None:
        message = json.loads(line.decode(errors="replace"), parse_int=_number)
        message["header"]["date"] = datetime.fromisoformat(message["header"]["date"])
        (self.shell_channel if message["msg_type"] in _SHELL else self.iopub_channel).put(message)


def _number(digits: str) -> int | str:
    """As a text, if there are too many to make a number of (CVE-2020-10735)."""
    return int(digits) if len(digits) < _DIGITS else digits


class Channel:
    """Messages of one kind."""

    def __init__(self) -> None:
        self._messages = asyncio.Queue[dict[str, Any]]()
        self.put = self._messages.put_nowait

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message.

        Raises:
            queue.Empty: none came in so many seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._messages.get()
        except TimeoutError:
            raise Empty from None
