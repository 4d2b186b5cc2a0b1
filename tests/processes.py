"""The sandbox as a process of its own, and what any process holds: open files and memory, as the kernel counts them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from threading import Event
from time import monotonic

from contract_replay import JSON_TYPE, graphql, send, trusting

from ucl_sandbox import Access, shared
from ucl_sandbox.state import owner_of

DEADLINE = 60
TOKEN = "mutation ($id: ID!) { result: requestOneTimeTokenForApplication(id: $id) { token } }"


@dataclass(frozen=True)
class Held:
    """What a process holds: open file descriptors, and MiB of memory now and at most since :func:`forget_peak`."""

    descriptors: int
    memory: float
    peak: float


def held(pid: int | str = "self") -> Held:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    memory, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return Held(len(list(Path(f"/proc/{pid}/fd").iterdir())), memory, peak)


def forget_peak(pid: int | str) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_until(true: Callable[[], bool]) -> None:
    """Waits for what is bound to come; fails when it does not."""
    began, pause = monotonic(), Event()
    while not true():
        assert monotonic() - began < DEADLINE, "it never came"
        pause.wait(0.02)


@dataclass(frozen=True, repr=False)
class OwnProcess(Access):
    """A sandbox that runs as a process of its own."""

    def one_time_token(self) -> str:
        headers = {**JSON_TYPE, "Authorization": f"Bearer {self.director_token}", "Tenant": self.tenant}
        asked = graphql(TOKEN, id=self.application_id)
        return str(send(self.director_url, trusting(self.ca_file), asked, headers).result["token"])


@contextmanager
def own_process(home: Path) -> Iterator[OwnProcess]:
    with shared(home, linger=timedelta(seconds=1)) as ucl:
        try:
            yield OwnProcess(**{one.name: getattr(ucl, one.name) for one in fields(Access)})
        finally:
            os.kill(ucl.pid, signal.SIGTERM)
    wait_until(lambda: owner_of(home / "sandbox") is None)


def not_delivered(status):
    """Whether a signal is pending: a second one of the same number would be merged with it."""
    try:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    except OSError:  # it has ended
        return False
    return int(fields["ShdPnd"], 16) != 0
