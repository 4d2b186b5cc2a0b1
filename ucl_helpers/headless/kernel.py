"""Start the kernel of a headless notebook: this interpreter, over encrypted sockets in a private folder.

On loopback ports every user of the machine could connect to a notebook that uses a connection, and two
runs at once could choose the same port. Unix sockets in a folder of mode 0700 rule out both; CurveZMQ (RFC 26 of
ZeroMQ) encrypts what passes and authenticates the kernel to us; its keys are in that folder too. The folder goes away
with the kernel, or, if the run was killed, with the next run.
"""

import asyncio
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import IO, Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session
from jupyter_core.utils import run_sync
from traitlets import default

from ucl_helpers.errors import StorageFailed
from ucl_helpers.headless.interruption import hold_locked, remove_abandoned
from ucl_helpers.headless.redaction import Redactor
from ucl_private_files import is_private_folder

QUIET = "--log-level=CRITICAL"  # a kernel that is told to end logs that as an error; why one cannot start, it prints

_SILENT = logging.getLogger("ucl_helpers.kernel")  # what goes wrong is raised as well
_SILENT.setLevel(logging.CRITICAL + 1)
_DIGITS = 640  # any interpreter converts as many to a number
_OUTPUT_SECONDS = 0.2  # within which an output arrives, unless the socket for outputs is not connected yet
_PREFIX = "ucl-kernel-"
_LONGEST_SOCKET = 103  # bytes of the path of a Unix socket on macOS; Linux takes 107
_ELSEWHERE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - mkdtemp makes a private folder in it
_TRIAL_BYTES = 16 * 1024
_MOST_PRINTED = 100_000  # bytes that are passed on
_FOLDER = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")


class KernelClient(AsyncKernelClient):
    """Jupyter's client, which is ready as soon as the kernel is."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - Jupyter's signature
        """Wait until the kernel answers and its outputs arrive.

        Jupyter's own method then waits until nothing has arrived for 0.2 seconds. Here the kernel's note that it is
        idle after this request shows that nothing of it is to come.

        Raises:
            RuntimeError: the kernel has died, or did not answer within so many seconds.
        """
        ends = monotonic() + (timeout or math.inf)
        while monotonic() < ends:
            request = self.kernel_info()
            with suppress(Empty):
                while not _answers(reply := await self.shell_channel.get_msg(timeout=1), request):
                    pass
                while not _answers(status := await self.iopub_channel.get_msg(timeout=_OUTPUT_SECONDS), request) or (
                    status["content"].get("execution_state") != "idle"
                ):
                    pass
                self._handle_kernel_info_reply(reply)
                return
            if not await self._async_is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
        raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")


def _answers(message: Mapping[str, Any], request: str) -> bool:
    return bool(message["parent_header"].get("msg_id") == request)


class EncryptedKernelManager(AsyncKernelManager):
    """Starts :mod:`ucl_helpers.headless.kernel_process`; encryption is required."""

    notebook_folder: Path | None = None
    """The folder of the notebook, absolute: cells may import modules from there. None for a notebook from elsewhere."""

    without_secrets: Callable[[str], str] = staticmethod(partial(Redactor().text, place="what the kernel printed"))
    """Applied to what the kernel's process printed by itself, before it is printed on standard error."""

    _held: int | None = None  # the descriptor that holds the lock on the folder of the sockets
    _printed: "IO[bytes] | None" = None  # for the standard output and error of the kernel's process
    _printed_last: int | None = None  # where in this file the process was told to end

    @classmethod
    def begun(cls, notebook_folder: Path | None) -> "EncryptedKernelManager":
        """Return a manager whose kernel loads while the caller loads papermill.

        Raises:
            OSError: the process cannot be started.
        """
        manager = cls()
        manager.notebook_folder = notebook_folder
        try:
            run_sync(manager.start_kernel)(extra_arguments=[QUIET])
        except BaseException:
            manager.cleanup_ipc_files()
            raise
        return manager

    def __init__(self, **options: Any) -> None:
        fixed = {"client_factory": KernelClient, "log": _SILENT, "transport": "ipc", "transport_encryption": "required"}
        super().__init__(**options, **fixed)

    @property
    def kernel_spec(self) -> KernelSpec:
        """A specification of our own: an installed one may start another interpreter."""
        return KernelSpec(display_name="Python 3", language="python", metadata={"supported_encryption": "curve"})

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Return the command that starts this interpreter in safe-path mode."""
        command = [sys.executable, "-P", "-m", "ucl_helpers.headless.kernel_process"]
        return [*command, str(self.notebook_folder or ""), "-f", self.connection_file, *(extra_arguments or [])]

    def close(self) -> None:
        """End the kernel, if it runs."""
        if self.has_kernel:
            run_sync(self.shutdown_kernel)(now=True)

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        """Let the process print into a file without a name, which no one can open when the run is killed."""
        folder = Path(self.ip).parent
        self._printed = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - cleanup_ipc_files closes it
        if _temporary_folder() is None:  # the kernel needs one for the name of each cell
            kw["env"] = {**(kw.get("env") or os.environ), "TMPDIR": str(folder)}
        await super()._async_launch_kernel(kernel_cmd, **{**kw, "stdout": self._printed, "stderr": self._printed})

    async def _async_interrupt_kernel(self) -> None:
        """Interrupt the kernel; if it is to end, let no task report that it was cancelled."""
        if self.shutting_down:
            silence_cancelled_tasks()
            if self._printed is not None:  # libraries that are torn down complain afterwards, and nothing is wrong
                self._printed_last = os.fstat(self._printed.fileno()).st_size
        await super()._async_interrupt_kernel()

    async def _async_finish_shutdown(
        self, waittime: float | None = None, pollinterval: float = 0.005, restart: bool = False
    ) -> None:
        """Look more often than Jupyter, by default, whether the process has ended."""
        await super()._async_finish_shutdown(waittime, pollinterval, restart)

    @default("session")
    def _session(self) -> Session:
        session = Session(parent=self)
        session.unpack = _unpack
        return session

    @default("ip")
    def _in_a_private_folder(self) -> str:
        folder, self._held = _folder_for_sockets()
        return str(folder / "kernel")

    @default("connection_file")
    def _beside_the_sockets(self) -> str:
        return f"{self.ip}.json"

    def cleanup_ipc_files(self) -> None:
        """Remove the sockets and their folder; print what the kernel's process printed by itself, such as a crash."""
        super().cleanup_ipc_files()
        if self._printed is not None:
            printed = os.pread(self._printed.fileno(), _MOST_PRINTED, 0)[: self._printed_last]
            sys.stderr.write(self.without_secrets(printed.decode(errors="replace")))
            self._printed.close()
            self._printed = None
        shutil.rmtree(Path(self.ip).parent, ignore_errors=True)
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _folder_for_sockets() -> tuple[Path, int]:
    """Make the private folder, and return it with the descriptor that holds it, see :func:`hold_locked`.

    It is in the user's folder for temporary files (``TMPDIR``). If a socket's path would be too long there, or files
    cannot be made there, it is in the first of some other folders where both work.

    Raises:
        StorageFailed: it can be made in none of them; says why for each.
    """
    problems = []
    for parent in dict.fromkeys(filter(None, (_temporary_folder(), _runtime_folder(), *_ELSEWHERE))):
        longest = len(os.fsencode(parent / f"{_PREFIX}xxxxxxxx" / "kernel-99"))
        if longest > _LONGEST_SOCKET:
            problems.append(f"{parent}: too long for a socket ({longest} bytes, {_LONGEST_SOCKET} at most)")
            continue
        try:
            remove_abandoned(parent, _FOLDER)
            folder, held = hold_locked(partial(_make_folder, parent))
            try:
                (folder / "trial").write_bytes(bytes(_TRIAL_BYTES))  # a full disk lets a folder be made, and no file
                (folder / "trial").unlink()
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)
                raise
        except OSError as error:
            problems.append(f"{parent}: {str(error.strerror or error).lower()}")
        else:
            return folder, held
    now = os.environ.get("TMPDIR")
    raise StorageFailed(
        "The notebook's kernel cannot start: no folder can hold its sockets. " + "; ".join(problems) + ".",
        remedy=f"Set TMPDIR{f' (now {now})' if now else ''} to a folder with a short path that you can write to.",
    )


def _make_folder(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))


def _temporary_folder() -> Path | None:
    """Return the user's folder for temporary files, or None if there is none that can be used."""
    try:
        return Path(tempfile.gettempdir()).absolute()
    except OSError:
        return None


def _runtime_folder() -> Path | None:
    """Return ``XDG_RUNTIME_DIR``, if it is a folder that no other user can change."""
    named = Path(os.environ.get("XDG_RUNTIME_DIR") or "")
    return named if named.is_absolute() and is_private_folder(named) else None


def _unpack(text: bytes | str) -> Any:
    """Read a kernel's message; a number of very many digits stays text, since converting it can take too long.

    A byte that is not UTF-8, for example of a path that a cell printed, becomes a replacement character.
    """
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < _DIGITS else digits)


def silence_cancelled_tasks() -> None:
    """Keep asyncio from reporting what becomes of the other tasks of this loop: their kernel is ended on purpose."""
    for waiting in asyncio.all_tasks() - {asyncio.current_task()}:
        waiting.add_done_callback(lambda task: task.cancelled() or task.exception())
