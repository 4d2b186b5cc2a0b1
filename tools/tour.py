"""Print two guided tours of the code: the modules that a renewal and an error pass through, in order.

    python -m tools.tour

The first tour is `renew()` against a sandbox: every module of which a function is called, in order of the first call.
The second is `ucl renew` against a sandbox that answers 503: every module in which the error is raised, caught or given
to a function, from the wire to the exit code. ``tests/project/test_tour.py`` holds how long the tours may be.
"""

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from ucl_helpers import Connection, Home, UCLError, establish, renew
from ucl_helpers.cli import main as ucl
from ucl_helpers.models import OneTimeToken
from ucl_sandbox import Fault, RunningSandbox, Sandbox

ROOT = Path(__file__).parents[1]
NAME, BITS = "prod", 2048
OUTAGE = Fault("http-503", at="certificate")


def module_of(frame: FrameType) -> str | None:
    """Return the module of ``ucl_helpers`` whose function a frame runs; None for others, and for an import."""
    path = Path(frame.f_code.co_filename)
    if frame.f_code.co_name == "<module>" or not path.is_relative_to(ROOT / "ucl_helpers"):
        return None
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@contextlib.contextmanager
def connection() -> Iterator[tuple[RunningSandbox, Connection]]:
    """Run a sandbox, and establish a connection to it in a temporary folder."""
    with TemporaryDirectory(prefix="ucl-tour-") as folder, Sandbox() as sandbox:
        established = Home(Path(folder) / "home").new(NAME)
        token = OneTimeToken(sandbox.one_time_token(), sandbox.connector_url)
        establish(established, token, ca_file=sandbox.ca_file, key_length=BITS)
        yield sandbox, established


def renewal() -> list[str]:
    """Return the modules that a renewal passes through, in order of the first call."""
    modules: dict[str, None] = {}

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (module := module_of(frame)):
            modules.setdefault(module)

    with connection() as (_, established), observed(count, sys.setprofile, threading.setprofile):
        renew(established, key_length=BITS)
    return [*modules]


def error(*faults: Fault) -> list[str]:
    """Return the modules that an error passes between the wire and the exit code, in order; without a fault, none."""
    modules: dict[str, None] = {}

    def follow(frame: FrameType, event: str, argument: Any) -> Any:
        module = module_of(frame)
        if module is None:
            return None
        raised = event == "exception" and isinstance(argument[1], UCLError)
        if raised or (event == "call" and any(isinstance(value, UCLError) for value in frame.f_locals.values())):
            modules.setdefault(module)
        return follow

    with connection() as (sandbox, established):
        sandbox.faults.set(faults)
        arguments = ["renew", NAME, "--force", "--home", str(established.home.path)]
        output, errors = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with output, errors, contextlib.suppress(SystemExit), observed(follow, sys.settrace, threading.settrace):
            ucl(arguments)
    return [*modules]


@contextlib.contextmanager
def observed(hook: Callable[..., Any], *switches: Callable[..., None]) -> Iterator[None]:
    """Have the interpreter call a hook, in this thread and in those that it starts."""
    for switch in switches:
        switch(hook)
    try:
        yield
    finally:
        for switch in switches:
            switch(None)


def main() -> None:
    """Print both tours."""
    for title, tour in (("One renewal", renewal()), ("One error, from the wire to the exit code", error(OUTAGE))):
        print(f"{title}: {len(tour)} modules")
        for number, module in enumerate(tour, 1):
            print(f"{number:4}. {module}")


if __name__ == "__main__":
    main()
