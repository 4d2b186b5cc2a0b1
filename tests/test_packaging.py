"""The wheel: what is in it, and that it works in an environment where there was nothing."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WANTED = [
    "ucl_helpers_command.py",
    "ucl_helpers/errors.md",
    "ucl_helpers/py.typed",
    "ucl_helpers/sandbox/schema.graphql",
    "ucl_helpers/sandbox/director.graphql",
]
SHIPPED = ("ucl_helpers/", "ucl_helpers-", "ucl_helpers_command.py")
TREE = ("ucl_helpers", "ucl_helpers_command.py", "notebooks", "docs", "pyproject.toml", "README.md", "LICENSE")


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


def test_a_connection_in_the_checkout_does_not_get_into_a_wheel(tmp_path):
    for name in TREE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for home in (tmp_path / ".ucl", tmp_path / "notebooks" / ".ucl", tmp_path / "ucl_helpers" / ".ucl"):
        home.mkdir()
        (home / "key.pem").write_text("a key")
    (tmp_path / "notebooks" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "notebooks" / ".ipynb_checkpoints" / "00_start_here-checkpoint.ipynb").write_text("{}")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / "notebooks" / "mine.ipynb").write_text("{}")
    names = zipfile.ZipFile(build_wheel(tmp_path, tmp_path / "dist")).namelist()
    assert wheel_faults(names, ["mine.ipynb"]) == []


def test_the_installed_program_knows_its_version(ucl, wheel):
    version = wheel.name.split("-")[1]
    assert ucl("--version").stdout.split()[-1] == version


def test_the_installed_notebooks_are_copied_out(ucl, tmp_path):
    assert ucl("notebooks", "mine").returncode == 0
    copies = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_the_installed_catalogue_is_that_of_the_docs(ucl):
    entry = ucl("explain", "Unavailable").stdout.strip()
    assert entry
    assert f"## {entry}\n".replace("a kind of RetryLater", "a kind of [RetryLater](#retrylater)") in (
        ROOT / "docs" / "reference" / "errors.md"
    ).read_text("utf-8")


def test_the_installed_program_establishes_a_connection(ucl, tmp_path):
    done = ucl("run", "01_establish_connection", "-o", "out.ipynb", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert stat.S_IMODE((tmp_path / "out.ipynb").stat().st_mode) == 0o600
    assert json.loads(ucl("status", told["connection"], "--json").stdout)["state"] == "valid"


def test_what_is_not_there_is_said_so(ucl):
    done = ucl("run", "99_nothing")
    assert done.returncode == 2
    assert "01_establish_connection" in done.stderr
