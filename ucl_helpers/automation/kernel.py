"""The kernel that a headless notebook runs in: this interpreter, reached over encrypted sockets in a private folder.

On loopback ports every user of the machine could connect to a notebook that holds a connection in its hands, and two
runs at once could choose the same port. Unix sockets in a folder of mode 0700 rule out both; CurveZMQ (RFC 26 of
ZeroMQ) encrypts what passes and authenticates the kernel to us; its keys lie in that folder too. The folder goes away
with the kernel, or if the run was killed with the next one.
"""

import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session
from jupyter_core.utils import run_sync
from traitlets import default

from ucl_helpers.automation.leftovers import hold, sweep
from ucl_helpers.automation.no_news import what_waits_is_no_news
from ucl_helpers.automation.printed import Printed
from ucl_helpers.automation.redaction import Redactor

QUIET = "--log-level=CRITICAL"  # a kernel that is told to end logs that as an error; why one cannot start, it prints

_SILENT = logging.getLogger("ucl_helpers.kernel")  # what goes wrong is raised as well
_SILENT.setLevel(logging.CRITICAL + 1)
_DIGITS = 640  # any interpreter converts as many to a number
_POLL_SECONDS = 0.005  # between two looks at whether it has ended
_PREFIX = "ucl-kernel-"
_FOLDER = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")


class EncryptedKernelManager(AsyncKernelManager):
    """Starts :mod:`ucl_helpers.automation.kernel_process`; encryption is required."""

    notebook_folder: Path | None = None
    """The folder of the notebook, absolute: cells may import modules from there. None for a notebook from elsewhere."""

    without_secrets: Callable[[str], str] = staticmethod(partial(Redactor().text, place="what the kernel printed"))
    """How what the kernel's process printed is passed on."""

    _held: int | None = None
    _printed: Printed | None = None

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

    @property
    def kernel_spec(self) -> KernelSpec:
        """A specification of our own: an installed one may start another interpreter."""
        return KernelSpec(display_name="Python 3", language="python", metadata={"supported_encryption": "curve"})

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Return the command that starts this interpreter in safe-path mode."""
        command = [sys.executable, "-P", "-m", "ucl_helpers.automation.kernel_process"]
        return [*command, str(self.notebook_folder or ""), "-f", self.connection_file, *(extra_arguments or [])]

    def close(self) -> None:
        """The kernel is gone, if it was there."""
        if self.has_kernel:
            run_sync(self.shutdown_kernel)(now=True)

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        """What its process prints goes to a file without a name."""
        self._printed = printed = Printed()
        await super()._async_launch_kernel(kernel_cmd, **{**kw, "stdout": printed.file, "stderr": printed.file})

    async def _async_interrupt_kernel(self) -> None:
        """When it is to end: what a run that is stopped still waited for comes to nothing, and that is no news."""
        if self.shutting_down:
            what_waits_is_no_news()
            if self._printed is not None:
                self._printed.no_more()
        await super()._async_interrupt_kernel()

    async def _async_finish_shutdown(
        self, waittime: float | None = None, pollinterval: float = _POLL_SECONDS, restart: bool = False
    ) -> None:
        await super()._async_finish_shutdown(waittime, pollinterval, restart)

    @default("log")
    def _no_log(self) -> logging.Logger:
        return _SILENT

    @default("session")
    def _session(self) -> Session:
        session = Session(parent=self)
        session.unpack = _unpack
        return session

    @default("transport_encryption")
    def _encryption_is_required(self) -> str:
        return "required"

    @default("transport")
    def _unix_sockets(self) -> str:
        return "ipc"

    @default("ip")
    def _in_a_private_folder(self) -> str:
        sweep(Path(tempfile.gettempdir()), _FOLDER)
        folder, self._held = hold(lambda: Path(tempfile.mkdtemp(prefix=_PREFIX)))
        return str(folder / "kernel")

    @default("connection_file")
    def _beside_the_sockets(self) -> str:
        return f"{self.ip}.json"

    def cleanup_ipc_files(self) -> None:
        """Remove the sockets, and their folder with them; say what the kernel said."""
        super().cleanup_ipc_files()
        if self._printed is not None:
            self._printed.pass_on(self.without_secrets)
        shutil.rmtree(Path(self.ip).parent, ignore_errors=True)
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _unpack(text: bytes | str) -> Any:
    """Read a kernel's message; a number of very many digits stays text, since converting it can take too long.

    A byte that is not UTF-8, for example of a path that a cell printed, becomes a replacement character.
    """
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < _DIGITS else digits)
