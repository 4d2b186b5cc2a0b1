"""The kernel a headless notebook runs in: this very interpreter, reached over encrypted sockets in a private folder.

On loopback ports every user of the machine could connect to a notebook that holds a connection in its hands, and two
runs at once could choose the same port. Unix sockets in a folder of mode 0700 rule out both; CurveZMQ (RFC 26 of
ZeroMQ) encrypts what passes and authenticates the kernel to us; its keys lie in that folder too. The folder goes away
with the kernel, or if the run was killed with the next one. A kernel specification that a user has installed under the
same name is not looked at: it may start another interpreter.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from traitlets import default

from ucl_helpers.automation.leftovers import hold, sweep
from ucl_helpers.automation.no_news import what_waits_is_no_news
from ucl_helpers.automation.printed import Printed
from ucl_helpers.automation.redaction import Redactor

KERNEL_NAME = "python3"
NO_HISTORY = "--HistoryManager.hist_file=:memory:"  # as nbclient has it
QUIET = "--log-level=CRITICAL"  # a kernel that is told to end logs that as an error; why one cannot start, it prints

_POLL_SECONDS = 0.005  # between two looks at whether it has ended
_PREFIX = "ucl-kernel-"
_FOLDER = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")


class EncryptedKernelManager(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher``; a kernel that cannot encrypt is not started."""

    without_secrets: Callable[[str], str] = staticmethod(partial(Redactor().text, place="what the kernel printed"))
    """How what the kernel's process printed is passed on."""

    _held: int | None = None
    _printed: Printed | None = None

    @classmethod
    def begun(cls) -> "EncryptedKernelManager":
        """One whose kernel loads while its user loads papermill; without a kernel if none could be started."""
        manager = cls(kernel_name=KERNEL_NAME)
        with suppress(OSError, RuntimeError):  # whoever needs one tries again, and tells why not
            run_sync(manager.start_kernel)(extra_arguments=[QUIET, NO_HISTORY])
        return manager

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

    @default("kernel_spec_manager")
    def _own_interpreter_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])
