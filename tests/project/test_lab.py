"""``make lab``: a real JupyterLab, asked over HTTP as a browser would; and a kernel in it that runs a cell."""

import asyncio
import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path
from urllib.error import HTTPError

import pytest
from command_line import BIN
from jupyter_servers import ROOT, running
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

NOTEBOOK = "my-notebooks/00_start_here.ipynb"
LINK = re.compile(r"\]\((\.\./[^)#]+)")
PAGE_CONFIG = re.compile(r'<script id="jupyter-config-data" type="application/json">(.*?)</script>', re.DOTALL)
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def start_kernel(server, name="python3"):
    asked = {"path": NOTEBOOK, "name": "", "type": "notebook", "kernel": {"name": name}}
    with server.ask("/api/sessions", **asked) as answer:
        return json.load(answer)["kernel"]["id"]


def run(server, kernel, code):
    """What a cell prints."""
    url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"
    return asyncio.run(_run(HTTPRequest(url, headers=server.headers), code))


async def _run(kernel, code):
    channel = await websocket_connect(kernel)
    header = {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "1", "version": "5.3"}
    asked = {"header": header, "parent_header": {}, "metadata": {}, "content": {"code": code, "silent": False}}
    await channel.write_message(json.dumps({"channel": "shell", **asked}))
    while (told := await channel.read_message()) is not None:
        message = json.loads(told)
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            channel.close()
            while await channel.read_message() is not None:
                pass  # until the server has closed it too, and no socket stays open
            return message["content"]["text"]
    raise AssertionError("the channel was closed")


def lab(folder, *flags, make=(), **variables):
    """``make lab`` with the programs of this environment, without a browser, until the block ends."""
    settings = [f"BIN={os.path.relpath(BIN, ROOT)}", f"LAB_FLAGS=--no-browser {' '.join(flags)}", *make]
    return running(folder, ["make", "--old-file=.venv/.lab", "lab", *settings], **variables)


def test_it_opens_on_the_first_notebook_and_its_kernels_are_encrypted(tmp_path):
    with lab(tmp_path, "--ServerApp.port=0") as server:
        assert server.page == f"/lab/tree/{NOTEBOOK}"
        with server.ask("/") as answer:
            assert answer.url.endswith(server.page)
        with server.ask(f"/api/contents/{NOTEBOOK}") as answer:
            shown = json.load(answer)["content"]["cells"]
        lies_there = json.loads((ROOT / NOTEBOOK).read_text())["cells"]
        assert [cell["id"] for cell in shown] == [cell["id"] for cell in lies_there]
        kernel = start_kernel(server)
        printed = run(server, kernel, "import os; print(os.getcwd(), os.environ['UCL_HOME'])")
        assert printed == f"{ROOT / 'my-notebooks'} {ROOT / '.ucl'}\n"
        assert run(server, kernel, "import sys; print(sys.flags.safe_path, '' in sys.path)") == "True False\n"
        kept = server.runtime / f"kernel-{kernel}.json"
        assert kept.stat().st_mode & 0o077 == 0
        assert json.loads(kept.read_text())["curve_publickey"]


def test_it_opens_copies_and_keeps_what_was_changed_in_them(tmp_path):
    name = "07_going_to_production.ipynb"
    tracked, copy = (ROOT / folder / name for folder in ("notebooks", "my-notebooks"))
    kept = copy.read_bytes() if copy.exists() else None
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    try:
        copy.unlink(missing_ok=True)
        with lab(first, "--ServerApp.port=0"):
            assert copy.read_bytes() == tracked.read_bytes()
        copy.write_bytes(b"changed")
        with lab(second, "--ServerApp.port=0"):
            assert copy.read_bytes() == b"changed"
    finally:
        copy.unlink(missing_ok=True)
        if kept is not None:
            copy.write_bytes(kept)


def linked():
    """The files of the checkout that links of notebooks lead to, as JupyterLab asks for them."""
    texts = [path.read_text("utf-8") for path in (ROOT / "notebooks").glob("*.ipynb")]
    return sorted({os.path.normpath(f"notebooks/{path}") for text in texts for path in LINK.findall(text)})


def test_links_from_notebooks_to_the_docs_lead_somewhere_and_nothing_hidden_is_served(tmp_path):
    assert "docs/reference/glossary.md" in linked()
    with lab(tmp_path, "--ServerApp.port=0") as server:
        for path in linked():
            with server.ask(f"/api/contents/{path}?content=0") as answer:
                assert json.load(answer)["path"] == path
        for path in ("docs/no-such-page.md", ".git/config"):
            with pytest.raises(HTTPError) as refused:
                server.ask(f"/api/contents/{path}?content=0")
            with refused.value as answer:
                assert answer.status == 404


def test_the_question_about_news_is_not_asked(tmp_path):
    with lab(tmp_path, "--ServerApp.port=0") as server, server.ask("/lab") as answer:
        config = json.loads(PAGE_CONFIG.search(answer.read().decode())[1])
    assert "@jupyterlab/apputils-extension:announcements" in config["disabledExtensions"]


def test_a_kernel_that_cannot_encrypt_is_not_started(tmp_path):
    (there,) = Path(sys.prefix).glob("share/jupyter/kernels/python3/kernel.json")
    told = json.loads(there.read_text())
    del told["metadata"]["supported_encryption"]
    plain = tmp_path / "data" / "kernels" / "plain" / "kernel.json"
    plain.parent.mkdir(parents=True)
    plain.write_text(json.dumps(told))
    with lab(tmp_path, "--ServerApp.port=0") as server:
        with pytest.raises(HTTPError) as refused:
            start_kernel(server, "plain")
        with refused.value as answer:
            assert "transport_encryption='required'" in answer.read().decode()
        assert list(server.runtime.glob("kernel-*.json")) == []


def test_where_the_port_is_taken_it_takes_another(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with lab(tmp_path, f"--ServerApp.port={port}") as server, server.ask("/api/status") as answer:
            assert server.port != port
            assert json.load(answer)["kernels"] == 0
    assert f"Connections are kept in {ROOT / '.ucl'}.\n" in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_connections_are_kept_in_another_home_folder_that_is_named(tmp_path, by):
    home = str(tmp_path / "my connections")
    arguments, variables = ([f"UCL_HOME={home}"], {}) if by == "argument" else ([], {"UCL_HOME": home})
    with lab(tmp_path, "--ServerApp.port=0", make=arguments, **variables) as server:
        assert run(server, start_kernel(server), "import os; print(os.environ['UCL_HOME'])") == f"{home}\n"
    assert f"Connections are kept in {home}.\n" in (tmp_path / "server.log").read_text()
