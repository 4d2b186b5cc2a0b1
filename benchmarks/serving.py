"""What the measurements talk to: a sandbox in a process of its own, and connections to it, as a program and as a shell.

The connections are not marked as practice: to the toolkit it is a UCL like any other, whose process it does not start.

The programs of :class:`Bench` are installed as operators install them, with the extra ``run`` alone: beside JupyterLab
papermill takes more than a second longer to import. Fleets are measured by ``UCL``, of this environment.
"""

import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from ucl_helpers import Connection, DirectorAccess, Home, establish
from ucl_sandbox.listeners import CONNECTOR_PATH
from ucl_sandbox.server import Access, fields_of

ROOT = Path(__file__).parent.parent
TUTORIAL, UCL = Path(__file__).with_name("tutorial.sh"), Path(sys.executable).with_name("ucl")
CONNECTION = "measured"


@dataclass(frozen=True)
class Bench:
    """A sandbox that runs, and a connection to it.

    Attributes:
        folder: has all that they write, and is removed at the end.
        programs: has ``ucl``, ``papermill`` and their ``python``.
        access: the sandbox's URLs.
        connection: established, with a key of 4096 bits.
    """

    folder: Path
    programs: Path
    access: Access
    connection: Connection

    @property
    def url(self) -> str:
        """The certificate endpoint."""
        return self.access.certificate_secured_connector_url

    def on_another_day(self) -> None:
        """What was renewed so far counts as older than a day; so the store keeps five generations, as in use."""
        for generation in (self.connection.path / "generations").iterdir():
            os.utime(generation, (0, 0))

    def ucl(self, *arguments: str) -> list[str | Path]:
        """A call of the command ``ucl`` on the home folder."""
        return [self.programs / "ucl", *arguments, "--home", str(self.folder / "home")]

    def tutorial(self, *key: Path) -> list[str | Path]:
        """A call of the shell script, in a folder of its own; with ``key``, none is made."""
        return ["bash", TUTORIAL, self.folder / "shell", self.url, *key]

    def plain_run(self, notebook: str) -> list[str | Path]:
        """A call of papermill, with its own engine, on a notebook of the checkout and the connection."""
        files = [ROOT / "notebooks" / f"{notebook}.ipynb", self.folder / "plain.ipynb"]
        parameters = {"connection": CONNECTION, "home": str(self.folder / "home")}
        options = [word for parameter in parameters.items() for word in ("-p", *parameter)]
        return [self.programs / "papermill", "--log-level", "ERROR", *files, *options]

    def empty_run(self) -> list[str | Path]:
        """A call of papermill on a notebook without cells."""
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {"cells": [], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / "empty.ipynb").write_text(json.dumps(notebook), "utf-8")
        notebooks = [self.folder / "empty.ipynb", self.folder / "executed.ipynb"]
        return [self.programs / "papermill", "--log-level", "ERROR", *notebooks]


@contextmanager
def bench() -> Iterator[Bench]:
    """A fresh sandbox, a fresh connection with a key of 4096 bits, and a copy of it for the shell."""
    with TemporaryDirectory(prefix="ucl-bench-") as name:
        folder = Path(name)
        programs = installed(folder / "environment")
        with sandbox(folder / "state") as ucl:
            connection = Home(folder / "home").new(CONNECTION)
            director = DirectorAccess(ucl.director_url, ucl.tenant, ucl.application_id, ucl.director_token, ucl.ca_file)
            establish(connection, director, ca_file=ucl.ca_file)
            (folder / "shell").mkdir()
            shutil.copy(connection.path / "current" / "identity.pem", folder / "shell" / "identity.pem")
            shutil.copy(ucl.ca_file, folder / "shell" / "server-ca.pem")
            yield Bench(folder, programs, ucl, connection)


def installed(environment: Path) -> Path:
    """Make a virtual environment with this checkout and its extra ``run``; returns the folder of its programs."""
    venv.create(environment, with_pip=True)
    pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    locked = [word for name in ("build", "run") for word in ("-r", ROOT / "requirements" / f"{name}.txt")]
    subprocess.run([*pip, "--require-hashes", *locked], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", ROOT], check=True)
    return environment / "bin"


@contextmanager
def sandbox(state: Path) -> Iterator[Access]:
    """A sandbox in a process of its own, for as long as the block runs."""
    ready = state / "to-measure.json"
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "ucl_sandbox", "--state", str(state), "--ready-file", str(ready)]
    with (
        os.fdopen(reading, "rb") as notified,
        subprocess.Popen([*command, "--notify", str(writing)], pass_fds=[writing], stderr=subprocess.DEVNULL) as served,
    ):
        os.close(writing)
        try:
            notified.read()  # until it is ready
            yield Access(**fields_of(ready.read_text("utf-8"), state))
        finally:
            served.terminate()


@contextmanager
def connected(on: Bench) -> Iterator[http.client.HTTPSConnection]:
    """A new TLS connection to the certificate endpoint by ``http.client``: the least that a Python program needs."""
    context = ssl.create_default_context(cafile=on.access.ca_file)
    context.load_cert_chain(on.folder / "shell" / "identity.pem")
    where = urlsplit(on.url)
    with closing(http.client.HTTPSConnection(where.hostname or "", where.port, context=context)) as connection:
        yield connection


def called(connection: http.client.HTTPSConnection, query: str, variables: Mapping[str, Any]) -> bytes:
    """Return the body of the answer to one operation."""
    body = json.dumps({"query": query, "variables": variables})
    connection.request("POST", CONNECTOR_PATH, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == http.client.OK
    return answer.read()
