"""A Dask cluster as an operator would start it: scheduler and workers as processes, with mutual TLS."""

import json
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from command_line import environment
from processes import wait_until

TESTS = Path(__file__).parent
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "20",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "PYTHONPATH": str(TESTS),
}
HOW_TO = TESTS.parent / "docs" / "how-to" / "fleet-dask.md"
DASK = (sys.executable, "-m", "dask")
"""The program; ``dask`` stands beside Python too, but not in every environment."""


@dataclass(frozen=True)
class Tls:
    """PEM files: a CA, and a certificate of it with its key."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def options(self):
        """As both ``dask`` and ``ucl fleet renew`` take them."""
        return ("--tls-ca-file", str(self.ca), "--tls-cert", str(self.certificate), "--tls-key", str(self.key))


def make_tls(folder):
    """By the commands that the how-to tells."""
    (block,) = [one for one in re.findall(r"```bash\n(.*?)```", HOW_TO.read_text(), re.DOTALL) if "ca-key.pem" in one]
    subprocess.run(["sh", "-ec", block], cwd=folder, check=True, capture_output=True)
    return Tls(*(folder / f"{one}.pem" for one in ("ca", "cert", "key")))


class Cluster:
    """A scheduler and workers; a worker that ends is followed by another one, as an operator's service manager does.

    Args:
        folder: for certificates and what the programs say.
        workers: so many, with one thread each.
        more: of the workers' environment.
    """

    def __init__(self, folder, workers=2, *options, **more):
        self.tls, self._folder, self._more = make_tls(folder), folder, more
        self._options, self._count = options, workers
        self._running, self._ending = {}, threading.Event()

    def __enter__(self):
        told = self._folder / "scheduler.json"
        self._scheduler("--port", "0", "--scheduler-file", str(told))
        wait_until(lambda: told.is_file() and told.stat().st_size)
        self.address = json.loads(told.read_text())["address"]
        self._keepers = [threading.Thread(target=self._keep, args=(f"worker-{one}",)) for one in range(self._count)]
        for one in self._keepers:
            one.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        while any(one.is_alive() for one in self._keepers):
            for process in list(self._running.values()):
                process.kill()
            self._keepers[0].join(0.1)
        self._running["scheduler"].kill()
        self._running["scheduler"].wait()

    @property
    def options(self):
        """What ``ucl fleet renew`` has to be told."""
        return ("--scheduler", self.address, *self.tls.options)

    def lose_scheduler(self):
        """It is killed, and another one started in its place."""
        self._running["scheduler"].kill()
        self._running["scheduler"].wait()
        self._scheduler("--port", self.address.rpartition(":")[2])

    def _scheduler(self, *where):
        self._start("scheduler", "--host", "127.0.0.1", "--dashboard-address", ":0", "--no-dashboard", *where)

    def _keep(self, name):
        files = ("--local-directory", str(self._folder), "--no-dashboard")
        while not self._ending.is_set():
            worker = self._start(name, self.address, "--no-nanny", "--nthreads", "1", *files, *self._options)
            worker.wait()

    def _start(self, name, *arguments):
        kind = name.partition("-")[0]
        env = environment(None, **SETTINGS, DASK_TEMPORARY_DIRECTORY=str(self._folder), **self._more)
        command = [*DASK, kind, "--protocol", "tls", *self.tls.options, *arguments]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(command, cwd=self._folder, env=env, stdout=log, stderr=log)
        return self._running[name]
