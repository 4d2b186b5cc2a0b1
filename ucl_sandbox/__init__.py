"""A small, faithful UCL on loopback, for practice and for tests.

Run it in this process (`with Sandbox() as ucl:`), run it as a process of its own (`serve`), or share the sandbox of a
home folder (`join`, `shared`). It imports nothing from `ucl_helpers`, so it judges clients independently.
"""

from ucl_sandbox.faults.plans import Fault, Faults, FaultsError, read_plan
from ucl_sandbox.process import RemoteFaults, SharedSandbox, join, serve, shared
from ucl_sandbox.server import Access, RunningSandbox, Sandbox
from ucl_sandbox.state import SandboxError

__all__ = [
    "Access",
    "Fault",
    "Faults",
    "FaultsError",
    "RemoteFaults",
    "RunningSandbox",
    "Sandbox",
    "SandboxError",
    "SharedSandbox",
    "join",
    "read_plan",
    "serve",
    "shared",
]
