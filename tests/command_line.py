"""The command ``ucl`` as a process of its own; and an identity made with `openssl` and `curl` alone."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from contract_replay import CONFIGURATION, SIGN, graphql
from quick_keys import QUICK_BITS

from ucl_sandbox import RunningSandbox

BIN = Path(sys.executable).parent
UCL = str(BIN / "ucl")
BITS = ("--key-length", str(QUICK_BITS))
BOUNDED = ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""What starts a program so that permissions hold for root too."""


def bounds_work() -> bool:
    """Whether a program that is started so reaches this checkout: not below another user's private folder (0700)."""
    if not BOUNDED or not shutil.which("setpriv"):
        return not BOUNDED
    reached = ("sh", "-c", 'test -r "$0" && test -x "$1"', __file__, sys.executable)
    return subprocess.run([*BOUNDED, *reached], check=False).returncode == 0


needs_bounds = pytest.mark.skipif(
    not bounds_work(), reason="root has no setpriv, or reaches this checkout only by overriding permissions"
)


def environment(home: Path | None = None, **more: str) -> dict[str, str]:
    """This process' environment without what would lead elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in {"UCL_HOME", "UCL_DEBUG"}}
    return {**kept, **({"UCL_HOME": str(home)} if home else {}), **more}


@dataclass
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON: it holds nothing else."""
        return json.loads(self.out)


@dataclass
class Shell:
    """Somebody at a shell, with a home folder for connections, in a folder."""

    home: Path
    folder: Path | None = None
    started_by: tuple[str, ...] = ()

    def ucl(self, *arguments: str | Path, given: str = "", **more: str) -> Said:
        done = subprocess.run(
            [*self.started_by, UCL, *map(str, arguments)],
            cwd=self.folder,
            env=environment(self.home, **more),
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def establish(self, name: str, ucl: RunningSandbox) -> dict[str, Any]:
        """Establish a connection with a one-time token."""
        where = ("--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file)
        said = self.ucl("establish", name, "--token", "env:T", *where, *BITS, "--json", T=ucl.one_time_token())
        assert said.code == 0, said
        return said.json

    def fingerprint(self, name: str) -> str:
        return self.ucl("status", name, "--json").json["fingerprint"]


def tool(folder: Path, *command: str | Path, given: str = "") -> str:
    """What a program that must not fail prints."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


def curl(folder: Path, url: str, data: str, *options: str | Path) -> Any:
    """The result of a GraphQL call by `curl`."""
    header = ("-H", "Content-Type: application/json", "--data-binary", "@-")
    return json.loads(tool(folder, "curl", "-sS", "--fail", *header, *options, url, given=data))["data"]["result"]


def made_by_hand(folder: Path, ucl: RunningSandbox) -> None:
    """In a folder: the tutorial's ``ucl-app.key`` and ``ucl-app.crt`` (the chain), and ``server-ca.pem``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server-ca.pem").write_bytes(ucl.ca_file.read_bytes())

    def call(token: str, data: str) -> Any:
        (folder / "token-header").write_text(f"connector-token: {token}")
        return curl(folder, ucl.connector_url, data, "-H", "@token-header", "--cacert", "server-ca.pem")

    told = call(ucl.one_time_token(), graphql(CONFIGURATION))
    subject = "/" + told["certificateSigningRequestInfo"]["subject"].replace(",", "/")
    tool(folder, "openssl", "genrsa", "-out", "ucl-app.key", str(QUICK_BITS))
    tool(folder, "openssl", "req", "-new", "-sha256", "-key", "ucl-app.key", "-out", "ucl-app.csr", "-subj", subject)
    csr = tool(folder, "openssl", "base64", "-A", "-in", "ucl-app.csr")
    signed = call(told["token"]["token"], graphql(SIGN, csr=csr))
    chain = tool(folder, "openssl", "base64", "-d", "-A", given=signed["certificateChain"])
    (folder / "ucl-app.crt").write_text(chain)
