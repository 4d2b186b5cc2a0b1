"""The kernel a headless notebook runs in: this very interpreter, reached over encrypted sockets in a private folder.

On loopback ports every user of the machine could connect to a notebook that holds a connection in its hands, and two
runs at once could choose the same port. Unix sockets in a folder of mode 0700 rule out both; CurveZMQ (RFC 26 of
ZeroMQ) encrypts what passes and authenticates the kernel to us. A kernel specification that a user has installed under
the same name is not looked at: it may start another interpreter.
"""

import shutil
import tempfile
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

KERNEL_NAME = "python3"
QUIET = "--log-level=CRITICAL"  # a kernel that is told to end logs that as an error; why one cannot start, it prints


class EncryptedKernelManager(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher``; a kernel that cannot encrypt is not started."""

    @default("transport_encryption")
    def _encryption_is_required(self) -> str:
        return "required"

    @default("transport")
    def _unix_sockets(self) -> str:
        return "ipc"

    @default("ip")
    def _in_a_private_folder(self) -> str:
        return str(Path(tempfile.mkdtemp(prefix="ucl-")) / "kernel")

    def cleanup_ipc_files(self) -> None:
        """Remove the sockets, and their folder with them."""
        super().cleanup_ipc_files()
        shutil.rmtree(Path(self.ip).parent, ignore_errors=True)

    @default("kernel_spec_manager")
    def _own_interpreter_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])
