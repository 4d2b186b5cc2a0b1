"""Servers of the Jupyter family as processes of their own, asked over HTTP: JupyterLab, Notebook, Voilà."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from processes import wait_until

ROOT = Path(__file__).parent.parent
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)(/[^\s?]*)(\?token=\S*)?\n")


@dataclass(frozen=True)
class Server:
    """A server that answers: its port, the page it opens, where it keeps its kernels' files, and what lets in."""

    port: int
    page: str
    runtime: Path
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}", "Content-Type": "application/json"}

    def address(self, path: str) -> str:
        """The address of a page for a browser that was not there before."""
        return f"http://127.0.0.1:{self.port}{path}?token={self.token}"

    def ask(self, path: str, /, **data: Any) -> Any:
        body = json.dumps(data).encode() if data else None
        return urlopen(Request(f"http://127.0.0.1:{self.port}{path}", body, self.headers))

    def listens(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False


@contextmanager
def running(
    folder: Path, command: Sequence[str | Path], *, ends_when_asked: bool = True, **more: str
) -> Iterator[Server]:
    """A server until the block ends, and its kernels with it.

    Args:
        folder: gets its settings, its kernels' files, IPython's folder and `server.log`.
        command: starts it, without a browser and on 127.0.0.1.
        ends_when_asked: over HTTP; Voilà does not, and gets SIGTERM.
        more: for its environment, which has nothing else that leads elsewhere.
    """
    token, log = secrets.token_hex(16), folder / "server.log"
    own = {f"JUPYTER_{name.upper()}_DIR": str(folder / name) for name in ("config", "data", "runtime")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_TOKEN": token}
    kept = {name: value for name, value in os.environ.items() if not re.match(r"MAKE|MFLAGS|UCL_|JUPYTER_", name)}
    with log.open("w") as written:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**kept, **own, **more}, stdout=written, stderr=written, start_new_session=True
        )
    try:
        wait_until(lambda: bool(ADDRESS.search(log.read_text())) or process.poll() is not None)
        said = ADDRESS.search(log.read_text())
        assert said, log.read_text()
        server = Server(int(said[1]), said[2], folder / "runtime", token)
        wait_until(server.listens)  # it says where before it does
        yield server
        if ends_when_asked:
            server.ask("/api/shutdown", now=True).close()
        else:
            process.terminate()
    except BaseException:
        with suppress(ProcessLookupError):  # it has ended, and its log says why
            os.killpg(process.pid, signal.SIGTERM)
        raise
    finally:
        process.wait()
    assert process.returncode == 0
