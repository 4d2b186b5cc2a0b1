"""What the README and the docs tell a reader to type, typed."""

import os
import pty
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest
from contract_replay import Landscape
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ucl_helpers.cli.common import EXIT_CODES
from ucl_helpers.cli.main import group
from ucl_sandbox import Sandbox

ROOT = Path(__file__).parents[2]
KEPT = ".ipynb_checkpoints"  # JupyterLab makes this folder beside each page that it opens
DOCS = sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != KEPT)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
README = PAGES[0].read_text("utf-8")
EXIT_CODES_PAGE = ROOT / "docs" / "reference" / "exit-codes.md"
MOST_WORDS = 700
PROGRAMS = Path(sys.executable).parent


def blocks(text):
    """What stands inside fences for a shell, long lines joined."""
    found = re.findall(r"^```(?:bash|console|cron)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in found]


def fenced(text):
    """The lines inside fences, without prompts and comments."""
    for block in blocks(text):
        yield from (line.removeprefix("$ ").partition("  #")[0] for line in block.splitlines())


def commands(text, program):
    """Every call of a program, in fences and in code spans, as its arguments."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in [*fenced(text), *re.findall(r"`([^`\n]+)`", prose)]:
        for command in line.split("&&"):
            if command.strip().startswith(f"{program} "):
                yield shlex.split(command)[1:]


def wrong(arguments):
    """What the command line would say against a call, without running it."""
    try:
        name, command, rest = group.resolve_command(click.Context(group), arguments)
        while isinstance(command, click.Group) and rest:
            name, command, rest = command.resolve_command(click.Context(command), rest)
        if command is not None and name is not None:
            command.make_parser(click.Context(command)).parse_args(list(rest))
    except click.ClickException as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_call_of_ucl_is_one(page):
    text = page.read_text("utf-8")
    assert {" ".join(call): wrong(call) for call in commands(text, "ucl") if wrong(call)} == {}


@pytest.mark.parametrize(
    "call", ["ucl renwe prod", "ucl renew prod --forec", "ucl fleet renwe", "ucl fleet renew --forec"]
)
def test_a_call_that_is_none_is_found(call):
    assert [bool(wrong(words)) for words in commands(f"`{call}`", "ucl")] == [True]


def test_the_readme_is_short():
    assert len(README.split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_is_one(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[0] for words in commands(page.read_text("utf-8"), "make")} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_exit_codes_are_those_of_the_help():
    rows = re.findall(r"^\| (\d+) \|", EXIT_CODES_PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == re.findall(r"^ +(\d+)  ", EXIT_CODES, re.MULTILINE)


# -- the two ways in, as they stand there, against a UCL that is known by URL and files only ---------------------------


def recipe(title):
    """The first fenced block below a heading."""
    return re.search(rf"^### {title}$.*?^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def reader(tmp_path):
    """Runs a recipe in a shell; the one thing added is the CA of a server that the system does not trust."""
    with Sandbox() as ucl:

        def run(script, answer=None, **variables):
            script = re.sub(r"(?m)^(ucl (?:import|establish) \S+)", r'\1 --ca-file "$CA_FILE"', script)
            environment = {
                "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "UCL_HOME": str(tmp_path / "home"),
                "CA_FILE": str(ucl.ca_file),
                **variables,
            }
            command = ["bash", "-euo", "pipefail", "-c", script]
            if answer is None:
                return subprocess.run(
                    command,
                    cwd=tmp_path,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            terminal, keyboard = pty.openpty()
            with subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment,
                stdin=keyboard,
                stdout=subprocess.PIPE,
                stderr=keyboard,
                start_new_session=True,
            ) as process:
                os.close(keyboard)
                shown = b""
                with suppress(OSError):  # the terminal is closed: the command has ended
                    while more := os.read(terminal, 1000):
                        shown += more
                        if shown.endswith(b"token: "):
                            os.write(terminal, f"{answer}\n".encode())
                out, _ = process.communicate()
            os.close(terminal)
            return subprocess.CompletedProcess(command, process.returncode, out.decode(), shown.decode())

        yield ucl, run


def write_tutorial_files(ucl, folder):
    """Establish a client, and write its identity to the files that the tutorial names."""
    identity = Landscape(ucl, ucl.one_time_token).establish(folder).identity.read_text("ascii")
    key, begin, certificates = identity.partition("-----BEGIN CERTIFICATE-----")
    (folder / "ucl-app.key").write_text(key, "ascii")
    (folder / "ucl-app.crt").write_text(begin + certificates, "ascii")


def four_steps(text):
    """Return the block of Python on a page that calls the four steps."""
    (code,) = [
        code for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "wanted" in code
    ]
    return code


def test_i_have_a_key_and_a_certificate(reader, tmp_path):
    ucl, run = reader
    write_tutorial_files(ucl, tmp_path)
    url = ucl.certificate_secured_connector_url
    done = run(recipe("I have a key and a certificate"), CERTIFICATE_SECURED_CONNECTOR_URL=url)
    assert done.returncode == 0, done.stderr
    assert [word in done.stdout for word in ("prod: imported", "prod: renewed", "prod: not-due")] == [True] * 3
    assert Path(done.stdout.splitlines()[-1]).read_text("ascii").startswith("-----BEGIN PRIVATE KEY-----")


def test_the_four_steps_as_a_program(reader, tmp_path):
    """The page's program, in a folder of the tutorial's files, renews the certificate; another CA stops it."""
    ucl, run = reader
    write_tutorial_files(ucl, tmp_path)
    (tmp_path / "server-ca.pem").write_bytes(ucl.ca_file.read_bytes())
    program = four_steps((ROOT / "docs/how-to/use-from-python.md").read_text("utf-8"))
    (tmp_path / "renew.py").write_text(program.replace("bits=4096", "bits=2048"), "utf-8")
    readme = four_steps(README)
    assert [line.strip() for line in readme.splitlines()] == [
        line.strip() for line in program.splitlines() if line.startswith("    ") and line.strip() in readme
    ]
    script = f"{shlex.quote(sys.executable)} renew.py"
    url = ucl.certificate_secured_connector_url
    done = run(script, CERTIFICATE_SECURED_CONNECTOR_URL=url)
    assert done.returncode == 0, done.stderr
    new = load_pem_private_key((tmp_path / "new.key").read_bytes(), None)
    first = x509.load_pem_x509_certificates((tmp_path / "new.crt").read_bytes())[0]
    assert first.public_key() == new.public_key()
    assert (tmp_path / "new.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "server-ca.pem").write_bytes((tmp_path / "ucl-app.crt").read_bytes())
    assert "ServerNotTrusted" in run(script, CERTIFICATE_SECURED_CONNECTOR_URL=url).stderr


def test_i_have_a_one_time_token(reader):
    ucl, run = reader
    done = run(recipe("I have a one-time token"), ucl.one_time_token(), CONNECTOR_URL=ucl.connector_url)
    assert done.returncode == 0, done.stderr
    assert "prod: established" in done.stdout


def test_i_have_a_token_that_was_used(reader):
    ucl, run = reader
    token = ucl.one_time_token()
    Landscape(ucl, lambda: token).configure()
    done = run(recipe("I have a one-time token"), token, CONNECTOR_URL=ucl.connector_url)
    assert done.returncode == 4
    assert "was used before" in done.stderr
    assert token not in done.stdout + done.stderr


def test_i_have_access_to_the_director(reader):
    ucl, run = reader
    (line,) = [line for line in fenced(README) if "--director-url" in line]
    access = {"DIRECTOR_URL": ucl.director_url, "TENANT": ucl.tenant, "APPLICATION_ID": ucl.application_id}
    assert run(line, BEARER=ucl.director_token, **access).returncode == 0
    assert run(line.replace("prod", "other"), BEARER="no", **access).returncode == 4


def test_by_hand_at_a_sandbox(reader, tmp_path):
    ucl, run = reader
    (tmp_path / "ready.json").write_text(ucl.to_json())
    text = (ROOT / "docs/reference/sandbox.md").read_text("utf-8")
    establish, misbehave = [one for one in blocks(text) if "curl" in one]
    done = run(establish.replace('--ca-file "$(get caFile)"', "") + misbehave)
    assert (done.returncode, "prod: established" in done.stdout) == (0, True), done.stderr
    assert [one.kind for one in ucl.faults.plan] == ["reset-after-acting"]
