"""The shell commands of notebooks 01 to 03 run as they are written, in the folder of ``ucl sandbox --by-hand``."""

import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from cryptography import x509

from ucl_helpers.models import fingerprint
from ucl_helpers.practice.by_hand import write_files
from ucl_sandbox import Sandbox

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = ("01_establish_connection", "02_maintain_connection", "03_revoke_connection")
REFUSED = "400"


def blocks(name, language="sh"):
    """Return the blocks of a notebook's prose that are in a language."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return [text for found, text in BLOCK.findall(prose) if found == language]


@pytest.fixture
def folder(tmp_path):
    with Sandbox(tmp_path / "state") as ucl:
        write_files(tmp_path / "by-hand", ucl)
        yield tmp_path / "by-hand"


def paste(folder, *commands, shell="sh"):
    """Run commands in a shell in the folder, and stop at the first that fails."""
    text = "\n".join(["set -e", ". ./variables.sh", *commands])
    return subprocess.run([shell, "-c", text], cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def in_use(folder):
    return fingerprint(x509.load_pem_x509_certificates((folder / "ucl-app.crt").read_bytes())[0])


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_commands_of_the_notebooks_run_as_they_are_written(folder, shell):
    identities = [in_use(folder)]
    for name in NAMES[:2]:
        done = paste(folder, *blocks(name), shell=shell)
        assert done.returncode == 0, done.stderr
        assert '"subject"' in done.stdout  # the new certificate has called UCL
        identities.append(in_use(folder))
    assert len(set(identities)) == len(identities)
    revoked = paste(folder, *blocks(NAMES[2]), shell=shell)
    assert revoked.returncode == 0, revoked.stderr
    assert revoked.stdout.splitlines()[-1] == REFUSED
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}


def test_a_command_that_is_wrong_is_noticed(folder):
    first, *others = blocks(NAMES[1])
    done = paste(folder, first, *(text.replace("-A -in", "-in") for text in others))
    assert done.returncode != 0


def test_every_block_with_curl_or_openssl_is_among_those_that_run():
    for path in NOTEBOOKS.glob("*.ipynb"):
        others = [text for language in ("", "bash", "console") for text in blocks(path.stem, language)]
        assert not [text for text in others if re.search(r"^(curl|openssl) ", text, re.MULTILINE)]
    assert [len(blocks(name)) for name in NAMES] == [7, 6, 2]


def test_an_identity_that_is_accepted_is_kept(tmp_path):
    with Sandbox(tmp_path / "state") as ucl:
        assert write_files(tmp_path / "by-hand", ucl) is False
        before = in_use(tmp_path / "by-hand")
    with Sandbox(tmp_path / "state") as ucl:
        assert write_files(tmp_path / "by-hand", ucl) is False
        assert f"CONNECTOR_URL={ucl.connector_url}" in (tmp_path / "by-hand" / "variables.sh").read_text()
    assert in_use(tmp_path / "by-hand") == before


def test_an_identity_that_is_not_accepted_is_renamed_and_replaced(folder, tmp_path):
    before = (folder / "ucl-app.crt").read_bytes()
    with Sandbox(tmp_path / "other") as ucl:
        assert write_files(folder, ucl) is True
        assert (folder / "ucl-app.crt.old").read_bytes() == before != (folder / "ucl-app.crt").read_bytes()
        (folder / "ucl-app.crt").write_bytes(b"")
        assert write_files(folder, ucl) is True
        assert write_files(folder, ucl) is False


def test_a_failed_step_does_not_replace_the_identity(folder):
    """A reader pastes all blocks of notebook 02 without looking, after the certificate was revoked."""
    paste(folder, *blocks(NAMES[2]))
    before = [(folder / name).read_bytes() for name in ("ucl-app.key", "ucl-app.crt")]
    text = "\n".join([". ./variables.sh", *blocks(NAMES[1])])
    done = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert "error: 400" in done.stderr
    assert [(folder / name).read_bytes() for name in ("ucl-app.key", "ucl-app.crt")] == before


def test_no_token_is_among_the_arguments_of_a_command():
    """A shell builtin such as ``printf`` has no arguments that others can read."""
    for text in [text for name in NAMES for text in blocks(name)]:
        assert not re.search(r"--header ['\"](connector-token|Authorization)", text)
