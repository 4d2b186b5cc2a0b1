"""What the browser tests share: Debian's Chromium, pages that are watched, servers of the Jupyter family, pictures.

Where Chromium or the extra ``browser`` is missing, all of them are skipped; with ``--no-skips`` they fail.

What a test takes: ``jupyter`` (JupyterLab, Notebook 7), ``voila``, ``new_page`` (of any address), ``keep`` (pictures);
``workplace`` is where the notebooks lie that are opened. :mod:`opened`, :mod:`watched` and :mod:`accessibility` say
what can be asked of a page.
"""

import os
import re
import shutil
import socket
from contextlib import ExitStack
from importlib.util import find_spec

import pytest
from command_line import BIN
from jupyter_servers import ROOT, running
from processes import own_process

CHROMIUM = shutil.which("chromium")
MISSING = (
    "there is no Chromium (on Debian: apt install chromium)"
    if CHROMIUM is None
    else "the extra browser is not installed (make .venv/.browser)"
    if find_spec("playwright") is None
    else None
)
SCREENS = ROOT / "build" / "screens"
AS_ROOT = ["--allow-root"] if os.geteuid() == 0 else []
ELSEWHERE = re.compile(r"(http|ws)s?://(?!127\.0\.0\.1[:/])")
PATIENCE = 60_000  # milliseconds for what is bound to come


class NotHere(pytest.Module):
    """A module of tests that is not even imported: what it imports is missing."""

    def collect(self):
        pytest.skip(MISSING, allow_module_level=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path, parent):
    """Skip every module where nothing can be tried."""
    return NotHere.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium, without a window."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    flags = ["--no-sandbox", "--font-render-hinting=none"]  # as root; letters as wide on every machine
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium):
    """``new_page(color_scheme="dark", ...)``: a page as somebody has it who was never there, and what is wrong there.

    A request to another host is answered by nothing, and told.
    """
    from watched import Watched

    with ExitStack() as opened:

        def new(**settings):
            size = {"width": 1280, "height": 1000}
            context = chromium.new_context(**{"service_workers": "block", "viewport": size, **settings})
            opened.callback(context.close)
            context.set_default_timeout(PATIENCE)
            watched = Watched()
            context.route(ELSEWHERE, watched.refuse)
            page = context.new_page()
            watched.watch(page)
            return page, watched

        yield new


@pytest.fixture
def workplace(tmp_path):
    """A folder of one's own with ``notebooks`` (copies) and ``home``, where a sandbox runs until the end."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    with own_process(tmp_path / "home"):
        yield tmp_path


@pytest.fixture
def serving(workplace):
    """``serving("lab", ...)``: a server on the notebooks there, started as people start it, without a browser."""
    with ExitStack() as started:

        def serve(*command, ends_when_asked=True):
            home = str(workplace / "home")
            program = BIN / command[0]
            return started.enter_context(
                running(workplace, [program, *command[1:]], ends_when_asked=ends_when_asked, UCL_HOME=home)
            )

        yield serve


@pytest.fixture
def jupyter(workplace, serving, new_page):
    """``jupyter("lab", "00_start_here.ipynb")``: a notebook of the workplace, opened; ``"notebook"`` is Notebook 7."""
    from opened import Opened

    silent = workplace / "config" / "labconfig" / "page_config.json"
    silent.parent.mkdir(parents=True)
    silent.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')  # asks for news

    def opened(program, name, **settings):
        shown = {"lab": "/lab/tree", "notebook": "/notebooks"}[program]
        exposed = {"lab": "LabApp", "notebook": "JupyterNotebookApp"}[program]
        server = serving(
            "jupyter",
            program,
            "--no-browser",
            *AS_ROOT,
            "--ServerApp.port=0",
            f"--ServerApp.root_dir={workplace / 'notebooks'}",
            f"--{exposed}.expose_app_in_browser=True",
            "--LabApp.news_url=None",  # else its question lies over what is looked at
            "--KernelManager.transport_encryption=required",
        )
        page, watched = new_page(**settings)
        page.goto(server.address(f"{shown}/{name}"))
        return Opened.when_ready(page, watched, name)

    return opened


@pytest.fixture
def voila(workplace, serving, new_page):
    """``voila("00_start_here.ipynb")``: a notebook of the workplace as Voilà shows it, all cells done."""
    from opened import IN_VOILA

    def shown(name, **settings):
        notebook = workplace / "notebooks" / name
        flags = ["--no-browser", "--Voila.ip=127.0.0.1", f"--port={a_port()}"]
        alone = "--VoilaConfiguration.extension_denylist=@jupyter-notebook/lab-extension"  # for Notebook 7 only
        server = serving("voila", notebook, *flags, alone, ends_when_asked=False)
        page, watched = new_page(**settings)
        page.goto(server.address("/"))
        page.wait_for_function(IN_VOILA)
        return page, watched

    return shown


def a_port():
    """A port that was free just now: Voilà tries the next ones if it no longer is, and says which it has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def keep():
    """``keep(page_or_part, "name")``: a picture in ``build/screens``, for whoever looks at them after a run."""

    def kept(shown, name, **how):
        path = SCREENS / f"{name}.png"  # playwright makes the folder
        shown.screenshot(path=path, animations="disabled", **how)
        return path

    return kept
