"""The kernel a headless notebook runs in: this very interpreter, reached over an encrypted connection.

A kernel listens on loopback ports, where every user of the machine can connect; what passes there is a notebook that
holds a connection in its hands. CurveZMQ (RFC 26 of ZeroMQ) encrypts it and authenticates the kernel to us. A kernel
specification that a user has installed under the same name is not looked at: it may start another interpreter.
"""

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

KERNEL_NAME = "python3"


class EncryptedKernelManager(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher``; a kernel that cannot encrypt is not started."""

    @default("transport_encryption")
    def _encryption_is_required(self) -> str:
        return "required"

    @default("kernel_spec_manager")
    def _own_interpreter_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])
