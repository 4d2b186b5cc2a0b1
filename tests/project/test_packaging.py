"""The wheel, the sdist and the build context of the image: what is in them, and that the wheel works by itself."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from build_context import build_context, context_by_buildah

ROOT = Path(__file__).parents[2]
WANTED = [
    "ucl_private_files.py",
    "ucl_helpers/_docs/reference/errors.md",
    "ucl_helpers/py.typed",
    "ucl_sandbox/schema.graphql",
    "ucl_sandbox/director.graphql",
]
SHIPPED = ("ucl_helpers/", "ucl_helpers-", "ucl_sandbox/", "ucl_private_files.py")


def wheel_faults(names, notebooks):
    """What a wheel lacks, and what does not belong into it."""
    wanted = WANTED + [f"ucl_helpers/_notebooks/{name}" for name in notebooks]
    found = [f"{name} is missing" for name in wanted if name not in names]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("the licence is missing")
    strange = [name for name in names if not name.startswith(SHIPPED) or "/." in name or "__pycache__" in name]
    return found + [f"{name} does not belong there" for name in strange]


def build_wheel(source, folder):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of an environment that holds the locked dependencies of the extra ``run``, and the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    programs = folder / "bin"
    pip = [programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements/run.txt"], check=True)
    subprocess.run([*pip, wheel], check=True)
    return programs


@pytest.fixture
def ucl(installed, tmp_path):
    """Runs the installed ``ucl`` far from the checkout, with a home folder of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "UCL_"))}

    def run(*arguments):
        command = [installed / "ucl", "--home", tmp_path / "home", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_wheel_holds_what_it_should_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    notebooks = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert notebooks
    assert wheel_faults(names, notebooks) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda names: names.remove("ucl_helpers/py.typed"), "ucl_helpers/py.typed is missing"),
        (lambda names: names.remove("ucl_helpers/_notebooks/a.ipynb"), "ucl_helpers/_notebooks/a.ipynb is missing"),
        (lambda names: names.remove("ucl_helpers-1.dist-info/licenses/LICENSE"), "the licence is missing"),
        (lambda names: names.append("tests/test_a.py"), "tests/test_a.py does not belong there"),
        (lambda names: names.append("ucl_helpers/.ucl/key.pem"), "ucl_helpers/.ucl/key.pem does not belong there"),
    ],
)
def test_a_wheel_that_lacks_something_or_holds_too_much_is_found(change, fault):
    names = [*WANTED, "ucl_helpers/_notebooks/a.ipynb", "ucl_helpers-1.dist-info/licenses/LICENSE"]
    assert wheel_faults(names, ["a.ipynb"]) == []
    change(names)
    assert wheel_faults(names, ["a.ipynb"]) == [fault]


# -- secrets in the checkout ------------------------------------------------------------------------------------------

MADE = shutil.ignore_patterns(".git", ".venv", ".ucl", "build", "dist", ".*_cache", ".hypothesis", "__pycache__")
SECRET = b"a private key that is in the checkout"
PLANTED = [
    ".ucl/connections/prod/current/identity.pem",
    ".ucl/sandbox/ca.key",
    "notebooks/.ucl/key.pem",
    "notebooks/.ipynb_checkpoints/00_start_here-checkpoint.ipynb",
    "notebooks/02_maintain_connection-Copy1.ipynb",
    "notebooks/prod",
    "ucl_helpers/.ucl/key.pem",
    "ucl_sandbox/state/ca.json",
    "ucl_helpers/my identity.p12",
    "docs/reference/prod.pem",
    "docs/tutorial/ucl-app.key",
    "tests/data/bearer",
    "tests/connection/key.pem",
    "deploy/kubernetes/secret.yaml",
    "requirements/token.txt",
    "build/identity.pem",
    "dist/old.key",
    "dist/ucl_helpers.pem",
    "home/connections/prod/current/identity.pem",
    ".env",
    "id_rsa",
    "ucl-app.key",
]
IMAGE = {"dist/ucl_helpers-0-py3-none-any.whl", "requirements/run.txt"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout in which secrets were left."""
    folder = tmp_path_factory.mktemp("checkout") / "ucl-helpers"
    shutil.copytree(ROOT, folder, ignore=MADE)
    for name in PLANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(SECRET)
        (folder / name).chmod(0o600)
    (folder / "dist" / "ucl_helpers-0-py3-none-any.whl").touch()
    return folder


def members(folder):
    """The files of a wheel and an sdist that are built from a checkout: (archive, name) → content."""
    out = Path(tempfile.mkdtemp(dir=folder.parent))
    command = [sys.executable, "-m", "build", "--sdist", "--wheel", "--no-isolation", "--outdir", out, folder]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        found = {("wheel", name): archive.read(name) for name in archive.namelist()}
    with tarfile.open(sdist) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        found |= {("sdist", member.name.partition("/")[2]): archive.extractfile(member).read() for member in files}
    return found


def secrets_in(found):
    return {name for name, content in found.items() if SECRET in content}


def test_no_secret_of_the_checkout_gets_into_the_wheel_or_the_sdist(checkout, wheel):
    found = members(checkout)
    assert secrets_in(found) == set()
    with zipfile.ZipFile(wheel) as archive:
        assert {name for kind, name in found if kind == "wheel"} == set(archive.namelist())


def test_the_sdist_holds_what_builds_the_wheel_and_nothing_else(checkout, wheel, tmp_path):
    found = {name: content for (kind, name), content in members(checkout).items() if kind == "sdist"}
    for name, content in found.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(content)
    again = build_wheel(tmp_path / "source", tmp_path / "dist")
    assert again.read_bytes() == wheel.read_bytes()
    folders = {name.partition("/")[0] for name in found if "/" in name}
    assert folders == {"ucl_helpers", "ucl_sandbox", "notebooks", "docs"}


def test_with_a_list_of_what_is_left_out_secrets_would_get_in(checkout, tmp_path):
    folder = tmp_path / "ucl-helpers"
    shutil.copytree(checkout, folder)
    text = (folder / "pyproject.toml").read_text()
    start = text.index("[tool.hatch.build]\ninclude = [")
    end = text.index("]\n", start + len("[tool.hatch.build]\n"))
    (folder / "pyproject.toml").write_text(f'{text[:start]}[tool.hatch.build]\nexclude = [".ucl", ".venv"{text[end:]}')
    found = secrets_in(members(folder))
    assert {("sdist", "ucl-app.key"), ("sdist", "notebooks/prod"), ("sdist", "tests/data/bearer")} <= found


def test_the_build_context_holds_the_wheel_and_the_locked_requirements(checkout):
    assert build_context(checkout) == IMAGE


@pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed (Debian: apt install buildah)")
def test_so_a_build_tool_sees_it(checkout, tmp_path):
    assert context_by_buildah(checkout, tmp_path) == IMAGE


@pytest.mark.parametrize("rules", ["", ".venv\n.ucl\n", "*\n!dist\n!requirements\n", "*.key\n*.pem\n"])
def test_a_build_context_with_a_secret_would_be_found(checkout, rules, tmp_path):
    folder = tmp_path / "ucl-helpers"
    shutil.copytree(checkout, folder)
    (folder / ".dockerignore").write_text(rules)
    assert build_context(folder) > IMAGE


def test_the_image_copies_nothing_else():
    lines = (ROOT / "deploy/kubernetes/Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith(("COPY", "ADD"))]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied == [sorted(allowed, reverse=True)]


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_git_ignores_the_home_folder_of_make_run_and_make_lab(checkout, tmp_path):
    shutil.copy(checkout / ".gitignore", tmp_path)
    (tmp_path / ".ucl").mkdir()
    (tmp_path / ".ucl" / "key.pem").write_bytes(SECRET)
    (tmp_path / "other.pem").touch()
    status = ["git", "-c", "safe.directory=*", "status", "--porcelain", "--untracked-files=all"]
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    done = subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["?? .gitignore", "?? other.pem"]


# -- installed ---------------------------------------------------------------------------------------------------------


def test_the_installed_program_knows_its_version(ucl, wheel):
    version = wheel.name.split("-")[1]
    assert ucl("--version").stdout.split()[-1] == version


def dead_links(folder):
    """The links from notebooks and pages in a folder to notebooks and pages that are not there."""
    texts = {path: path.read_text("utf-8") for kind in ("ipynb", "md") for path in folder.rglob(f"*.{kind}")}
    links = {
        (path, link) for path, text in texts.items() for link in re.findall(r"\]\(([\w./-]+\.(?:ipynb|md))[)#]", text)
    }
    return {link for path, link in links if not (path.parent / link).is_file()}


def test_the_installed_notebooks_are_copied_out_with_the_pages_that_they_link_to(ucl, tmp_path):
    assert ucl("notebooks", "mine").returncode == 0
    names = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"docs", *names}
    assert dead_links(tmp_path / "mine") == {"../../SECURITY.md"}  # which is in the checkout alone
    shutil.rmtree(tmp_path / "mine/docs/how-to")
    assert "docs/how-to/cron.md" in dead_links(tmp_path / "mine")


def test_what_the_installed_program_lacks_is_advised_by_packages(ucl, installed):
    """The wheel was installed from a file, so the advice names neither a checkout nor this project."""
    done = ucl("metrics")
    advice = f"Install it with: {shlex.quote(str(installed / 'python'))} -m pip install 'prometheus-client>=0.21'\n"
    assert (done.returncode, advice in done.stderr) == (2, True), done.stderr


def test_the_installed_catalogue_is_that_of_the_docs(ucl):
    entry = ucl("explain", "Unavailable").stdout.strip()
    assert entry
    assert f"## {entry}\n".replace("a kind of RetryLater", "a kind of [RetryLater](#retrylater)") in (
        ROOT / "docs" / "reference" / "errors.md"
    ).read_text("utf-8")


def test_the_installed_program_establishes_a_connection(ucl, tmp_path):
    done = ucl("run", "01_establish_connection", "--practice", "-o", "out.ipynb", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert stat.S_IMODE((tmp_path / "out.ipynb").stat().st_mode) == 0o600
    assert json.loads(ucl("status", told["connection"], "--json").stdout)["state"] == "valid"


def test_what_is_not_there_is_said_so(ucl):
    done = ucl("run", "99_nothing")
    assert done.returncode == 2
    assert "01_establish_connection" in done.stderr
