"""The advice for a missing package names this interpreter and the packages, or the checkout; never the project."""

import re
import shlex
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from command_line import BITS, environment

from ucl_helpers import extras
from ucl_helpers.errors import UsageError
from ucl_helpers.extras import MODULES, install_command, missing, require
from ucl_helpers.views.setup import check_setup

ROOT = Path(__file__).parents[2]
PYTHON = shlex.quote(sys.executable)
PIP = f"{PYTHON} -m pip install"
METADATA = """Metadata-Version: 2.4
Name: ucl-helpers
Version: 1
Provides-Extra: run
Requires-Dist: click>=8.1
Requires-Dist: not-there-a>=2.6; extra == 'run'
Requires-Dist: not-there-b<3,>=2; extra == "run"
Requires-Dist: pytest>=8; extra == 'run'
Requires-Dist: pytest>=8; extra == 'dask'
Requires-Dist: not-there-c; extra == 'running'
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs this distribution, as its metadata describe it, where the interpreter looks first."""

    def write(metadata=METADATA, source=None):
        folder = tmp_path / "ucl_helpers-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(metadata)
        if source:
            (folder / "direct_url.json").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    return write


def test_from_a_wheel_it_names_this_interpreter_and_the_packages_that_are_missing(install):
    install()
    assert install_command("run") == f"{PIP} 'not-there-a>=2.6' 'not-there-b<3,>=2'"


def test_where_all_are_installed_it_names_all_of_the_extra(install):
    install()
    assert install_command("dask") == f"{PIP} 'pytest>=8'"


def test_from_an_editable_install_it_names_the_checkout(install):
    install(source='{"url": "file:///srv/my%20tools", "dir_info": {"editable": true}}')
    assert install_command("run") == f"{PIP} -e '/srv/my tools[run]'"


@pytest.mark.parametrize("source", ['{"url": "file:///srv/x", "dir_info": {}}', '{"url": "file:///srv/x.whl"}'])
def test_a_folder_that_is_not_installed_in_place_is_not_named(install, source):
    install(source=source)
    assert "/srv" not in install_command("run")


def test_a_checkout_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(extras, "DISTRIBUTION", "not-there")
    assert install_command("lab") == f"{PIP} -e {shlex.quote(f'{ROOT}[lab]')}"


def test_in_an_environment_without_pip_it_names_uv(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    command = install_command("lab")
    assert command.startswith(f"uv pip install --python {PYTHON} ")


@pytest.mark.parametrize("extra", MODULES)
def test_each_extra_has_requirements_that_the_advice_can_read(extra, install):
    install(distribution("ucl-helpers").read_text("METADATA"))
    names = install_command(extra).removeprefix(PIP).split()
    assert names
    assert all(re.fullmatch(r"'?[a-z][\w.-]*(>=[\d.]+)?'?", name) for name in names)


@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_that_is_installed_is_accepted(extra):
    require(extra)


@pytest.mark.parametrize("extra", MODULES)
def test_a_missing_module_is_named_with_the_command(extra, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULES[extra][-1], None)
    with pytest.raises(UsageError, match=f"needs {MODULES[extra][-1]}") as caught:
        require(extra)
    assert caught.value.remedy == f"Install it with: {install_command(extra)}"
    assert str(missing(MODULES[extra][-1], extra)) == str(caught.value)


# -- every caller ------------------------------------------------------------------------------------------------------

TLS = [text for name in ("ca-file", "cert", "key") for text in (f"--tls-{name}", __file__)]
COMMANDS = {
    "run": ("papermill", ["run", "02"]),
    "sandbox": ("graphql", ["sandbox"]),
    "sandbox for practice": ("tornado", ["establish", "practice", "--sandbox", *BITS]),
    "metrics": ("prometheus_client", ["metrics"]),
    "dask": ("distributed", ["fleet", "renew", "--scheduler", "tls://localhost:1", *TLS]),
}
MODULES_OF_ITS_OWN = {
    "lab": ("matplotlib", "import ucl_helpers.views.charts"),
    "lab for a simulation": ("numpy", "import ucl_helpers.fleet.simulation"),
    "metrics": ("prometheus_client", "from ucl_helpers.operate.monitoring import render; render([], None)"),
    "notify": ("apprise", "from ucl_helpers.operate.notices import _send; _send(None, [], 'failure', {})"),
    "lab for cards": ("IPython", "import ucl_helpers.views"),
    "lab for the explorer": ("ipywidgets", "import ucl_helpers.views.explorer"),
    "sandbox": ("graphql", "from ucl_helpers import Home, practice; practice.sandbox_of(Home('home'))"),
    "sandbox for the fault lab": ("graphql", "from ucl_helpers.practice.fault_lab import FaultLab"),
    "sandbox for its server": ("tornado", "from ucl_helpers.practice.fault_lab import FaultLab"),
}


def without(module, script, *arguments, folder):
    """How a script ends in an interpreter that cannot import a module."""
    script = f"import sys; sys.modules[{module!r}] = None; {script}"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder / "home"), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_advises_it(name, tmp_path):
    module, arguments = COMMANDS[name]
    (tmp_path / "home" / "connections" / "prod").mkdir(parents=True, mode=0o700)
    (tmp_path / "home").chmod(0o700)
    ended = without(module, "from ucl_helpers.cli import main; main()", *arguments, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"This needs {module}.\nInstall it with: {install_command(name.split()[0])}\n" in ended.stderr


@pytest.mark.kind("the right culprit: an extra that is not installed")
@pytest.mark.parametrize("name", MODULES_OF_ITS_OWN)
def test_a_function_advises_it(name, tmp_path):
    module, script = MODULES_OF_ITS_OWN[name]
    ended = without(module, script, folder=tmp_path)
    assert ended.returncode == 1
    assert f"This needs {module}. Install it with: {install_command(name.split()[0])}\n" in ended.stderr


@pytest.mark.kind("the right culprit: an extra that is not installed")
@pytest.mark.parametrize("module", ["graphql", "tornado"])
def test_without_a_command_nothing_is_suggested_that_needs_the_sandbox(tmp_path, module):
    ended = without(module, "from ucl_helpers.cli import main; main()", folder=tmp_path)
    assert ended.returncode == 0, ended
    assert "establish practice" not in ended.stdout
    assert f"install the extra sandbox:\n  {install_command('sandbox')}" in ended.stdout
    assert (
        "establish practice --sandbox"
        in without("nothing", "from ucl_helpers.cli import main; main()", folder=tmp_path).stdout
    )


def test_the_check_of_the_set_up_advises_it(monkeypatch, tmp_path):
    monkeypatch.setattr("ucl_helpers.views.setup.NEEDED", ("requests", "not-there"))
    found = {check.name: check.found for check in check_setup(tmp_path).checks}
    assert found["not-there"] == f"not installed; install it with: {install_command('lab')}"
    assert "install" not in found["requests"]


# -- the whole repository ----------------------------------------------------------------------------------------------

NAME = r"(?<![\w./-])ucl[-_.]helpers"
BARE = (
    re.compile(rf"{NAME}\["),
    re.compile(
        rf"\b(?:pipx?3?|uv|conda|mamba|poetry)\s(?:[\w-]+\s)*?(?:install|add|run|sync)\b[^\n]*?{NAME}(?![\w./*-])"
    ),
    re.compile(rf"\buvx\b[^\n]*?{NAME}(?![\w./*-])"),
)
OWN = {"pyproject.toml", "tests/project/test_extras.py"}  # an extra that includes another; the examples below
TEXTS = {".py", ".md", ".rst", ".ipynb", ".toml", ".txt", ".yaml", ".yml", ".sh", ".service", ".cfg", ""}
MADE = {"build", "dist"}


def bare_names(text):
    """Advice to install this project by its name from an index."""
    return [match[0] for pattern in BARE for match in pattern.finditer(text.replace("\\\n", " "))]


def test_no_text_advises_to_install_it_by_its_name():
    tops = [ROOT / ".ci", *(top for top in ROOT.glob("[!.]*") if top.name not in MADE)]
    paths = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top])]
    paths = [path for path in paths if path.suffix in TEXTS and path.is_file()]
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8", errors="replace") for path in paths}
    assert {"README.md", "Makefile", "docs/how-to/notices.md", "ucl_helpers/extras.py"} <= texts.keys()
    found = {name: bare_names(text) for name, text in texts.items() if name not in OWN}
    assert {name: finds for name, finds in found.items() if finds} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'ucl-helpers[lab]'",
        "Install `ucl_helpers[dask]` on each worker.",
        "python -m pip install --upgrade ucl-helpers",
        "pip install \\\n    ucl-helpers==1",
        "pipx install ucl-helpers",
        "uv add ucl_helpers",
        "uv tool install ucl-helpers",
        "uvx --from ucl-helpers ucl",
        "conda install -c conda-forge ucl-helpers",
    ],
)
def test_advice_by_name_would_be_found(text):
    assert bare_names(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install '.[run]'",
        "pip install -e '/src/ucl-helpers[run]'",
        "pip install dist/ucl_helpers-0.1.0-py3-none-any.whl",
        "COPY dist/ucl_helpers-*.whl /tmp/\nRUN pip install /tmp/ucl_helpers-*.whl",
        "image: registry.example/ucl-helpers:0.1.0",
        "python -m ucl_sandbox",
    ],
)
def test_a_file_or_a_folder_is_no_name(text):
    assert bare_names(text) == []
