"""``make lab``: a real JupyterLab, asked over HTTP as a browser would; and a kernel in it that runs a cell."""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from command_line import BIN
from processes import wait_until
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

ROOT = Path(__file__).parent.parent
NOTEBOOK = "00_start_here.ipynb"
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)(/\S*)\?token=")
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@dataclass
class Lab:
    """A server that answers: its port, the page it opens, and where it keeps its kernels' files."""

    port: int
    page: str
    runtime: Path
    token: str

    @property
    def headers(self):
        return {"Authorization": f"token {self.token}", "Content-Type": "application/json"}

    def ask(self, path, /, **data):
        body = json.dumps(data).encode() if data else None
        return urlopen(Request(f"http://127.0.0.1:{self.port}{path}", body, self.headers))

    def listens(self):
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def start_kernel(self, name="python3"):
        asked = {"path": NOTEBOOK, "name": "", "type": "notebook", "kernel": {"name": name}}
        with self.ask("/api/sessions", **asked) as answer:
            return json.load(answer)["kernel"]["id"]

    def connection_file(self, kernel):
        return self.runtime / f"kernel-{kernel}.json"

    def run(self, kernel, code):
        """What a cell prints."""
        return asyncio.run(self._run(f"ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels", code))

    async def _run(self, url, code):
        channel = await websocket_connect(HTTPRequest(url, headers=self.headers))
        header = {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "1", "version": "5.3"}
        asked = {"header": header, "parent_header": {}, "metadata": {}, "content": {"code": code, "silent": False}}
        await channel.write_message(json.dumps({"channel": "shell", **asked}))
        while (told := await channel.read_message()) is not None:
            message = json.loads(told)
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                channel.close()
                return message["content"]["text"]
        raise AssertionError("the channel was closed")


@contextmanager
def lab(folder, *flags):
    """``make lab`` with the programs of this environment, without a browser, until the block ends."""
    token = secrets.token_hex(16)
    own = {f"JUPYTER_{name.upper()}_DIR": str(folder / name) for name in ("config", "data", "runtime")}
    kept = {name: value for name, value in os.environ.items() if not re.match(r"MAKE|MFLAGS|UCL_|JUPYTER_", name)}
    command = ["make", "--old-file=.venv/.lab", "lab", f"BIN={BIN}", f"LAB_FLAGS=--no-browser {' '.join(flags)}"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**kept, **own, "IPYTHONDIR": str(folder / "ipython"), "JUPYTER_TOKEN": token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = next(filter(None, map(ADDRESS.search, process.stderr)))
            running = Lab(int(said[1]), said[2], folder / "runtime", token)
            wait_until(running.listens)  # it says where before it does
            yield running
            running.ask("/api/shutdown", now=True).close()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            process.communicate()
    assert process.returncode == 0


def test_it_opens_on_the_first_notebook_and_its_kernels_are_encrypted(tmp_path):
    with lab(tmp_path, "--ServerApp.port=0") as running:
        assert running.page == f"/lab/tree/{NOTEBOOK}"
        with running.ask("/") as answer:
            assert answer.url.endswith(running.page)
        with running.ask(f"/api/contents/{NOTEBOOK}") as answer:
            shown = json.load(answer)["content"]["cells"]
        lies_there = json.loads((ROOT / "notebooks" / NOTEBOOK).read_text())["cells"]
        assert [cell["id"] for cell in shown] == [cell["id"] for cell in lies_there]
        kernel = running.start_kernel()
        printed = running.run(kernel, "import os; print(os.getcwd(), os.environ['UCL_HOME'])")
        assert printed == f"{ROOT / 'notebooks'} {ROOT / '.ucl'}\n"
        kept = running.connection_file(kernel)
        assert kept.stat().st_mode & 0o077 == 0
        assert json.loads(kept.read_text())["curve_publickey"]


def test_a_kernel_that_cannot_encrypt_is_not_started(tmp_path):
    (there,) = Path(sys.prefix).glob("share/jupyter/kernels/python3/kernel.json")
    told = json.loads(there.read_text())
    del told["metadata"]["supported_encryption"]
    plain = tmp_path / "data" / "kernels" / "plain" / "kernel.json"
    plain.parent.mkdir(parents=True)
    plain.write_text(json.dumps(told))
    with lab(tmp_path, "--ServerApp.port=0") as running:
        with pytest.raises(HTTPError) as refused:
            running.start_kernel("plain")
        assert "transport_encryption='required'" in refused.value.read().decode()
        assert list(running.runtime.glob("kernel-*.json")) == []


def test_where_the_port_is_taken_it_takes_another(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with lab(tmp_path, f"--ServerApp.port={port}") as running, running.ask("/api/status") as answer:
            assert running.port != port
            assert json.load(answer)["kernels"] == 0
