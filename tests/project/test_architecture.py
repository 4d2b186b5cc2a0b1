"""Which room may import which, what does no I/O, how large things may grow: computed from the source, and each rule
tried on a doctored source as well."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools.architecture import ORDER, PICTURE, Source, code_lines, essential, imported, picture, room_of

CHECKOUT = Path(__file__).parents[2]
SOURCE = Source.of(CHECKOUT)

PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
FORBIDDEN = {
    "headless": {"procedures", "operate"},  # the notebook renews, not the program that runs it
    "fleet": {"views"},
}
TO_THE_SANDBOX = {"practice", "cli"}  # the sandbox itself imports nothing of ours: it is an independent judge
PURE = {"words", "rules", "formats"}
NOT_PURE = {"clock", "core_dumps", "extras", "progress"}  # words that name what the world offers
IO_MODULES = {
    *("asyncio", "http", "io", "multiprocessing", "os", "pathlib", "requests", "secrets", "select", "shutil", "signal"),
    *("socket", "subprocess", "sys", "tempfile", "threading", "time", "ucl_private_files", "urllib3"),
}
PARSERS = {"urllib3.util.parse_url", "urllib3.exceptions.LocationParseError"}  # they parse as calls do, without one
OWN_PRIMITIVES = {"open", "read_bytes", "write_bytes", "write_text", "mkdir", "makedirs", "touch", "symlink_to"}
"""The sandbox opens, writes and makes nothing but by ``ucl_private_files``, which guards it."""
IO_CALLS = {"open", "input", "print", "now", "utcnow", "today", "urlopen"}
HEAVY = {
    "papermill",
    "ipywidgets",
    "matplotlib",
    "numpy",
    "tornado",
    "graphql",
    "IPython",
    "jupyter_client",
    "nbformat",
    "dask",
    "distributed",
    "prometheus_client",
}

LIMITS = {
    "files at the top of ucl_helpers": 14,
    "lines there": 2500,
    "files in one folder": 13,
    "longest import chain between files": 12,
    "modules in import circles": 0,
    "lines of code of ucl_helpers": 10_500,
    "lines of code of ucl_sandbox": 3050,
    "lines of the longest module": 500,
    "base names that occur twice": 4,
}
MODULES = 8  # that one import of a rule may load
PAGE = (CHECKOUT / "docs" / "explanation" / "architecture.md").read_text("utf-8")


def told(figure):
    """What the page says of a figure: now, and its limit."""
    _, now, limit = next(line for line in PAGE.splitlines() if line.startswith(f"| {figure} |"))[2:-2].split(" | ")
    return int(now.replace(",", "")), int(limit.replace(",", ""))


def doctored(module, text):
    """The source with one module more, or with other text in it."""
    return Source({**SOURCE.files, Path(module): text})


def wrong_imports(source):
    """Imports against the order of the rooms, relative ones, and rooms that the order does not have."""
    found = [f"{room} is no room" for room in {room_of(path) for path in source.files} - PLACE.keys() - OUTSIDE]
    for path, text in source.files.items():
        found += [f"{path} imports relatively: {name}" for name in imported(text) if name.startswith(".")]
    for here, there in source.arrows:
        if there == "ucl_sandbox":
            wrong = here not in TO_THE_SANDBOX
        elif there == "public names":
            wrong = here != "cli"  # for the version
        elif here in OUTSIDE:
            wrong = True
        else:
            wrong = PLACE.get(there, 0) > PLACE.get(here, 0) or there in FORBIDDEN.get(here, ())
        if wrong:
            found += [f"{module} imports {name}" for module, name in source.arrows[here, there]]
    return found


OUTSIDE = {"ucl_sandbox", "public names"}


def names_called(text):
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls]


def impurities(source):
    """What reaches for the world in modules that are rules."""
    found = []
    for path, text in source.files.items():
        if room_of(path) in PURE and path.stem not in NOT_PURE:
            names = [name for name in imported(text) if name not in PARSERS]
            found += [f"{path}: import {name}" for name in names if name.split(".")[0] in IO_MODULES]
            found += [f"{path}: {name}()" for name in names_called(text) if name in IO_CALLS]
    return found


def own_primitives(source):
    """Where the sandbox reaches for a file past the module that guards it."""
    sandbox = {path: text for path, text in source.files.items() if room_of(path) == "ucl_sandbox"}
    return [f"{path}: {name}()" for path in sandbox for name in names_called(sandbox[path]) if name in OWN_PRIMITIVES]


def loaded_by(statement):
    """Return the modules that a fresh interpreter has loaded after a statement."""
    script = f"{statement}\nimport sys; print(*sys.modules)"
    return {*subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()}


def heavy_imports(statement):
    return {name.split(".")[0] for name in loaded_by(statement)} & HEAVY


def test_imports_follow_the_order_of_the_rooms():
    assert wrong_imports(SOURCE) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ucl_helpers/new.py", "from ucl_helpers.crypto import load_key"),
        ("ucl_helpers/formats/new.py", "import ucl_helpers.connection.store"),
        ("ucl_helpers/connection/new.py", "from ucl_helpers.procedures import renewal"),
        ("ucl_helpers/headless/new.py", "from ucl_helpers.procedures.renewal import renew"),
        ("ucl_helpers/headless/new.py", "from ucl_helpers.fleet.run import renew_fleet"),
        ("ucl_helpers/headless/new.py", "from ucl_helpers.operate.hooks import run_hooks"),
        ("ucl_helpers/headless/new.py", "from ucl_helpers.views import table"),
        ("ucl_helpers/fleet/new.py", "from ucl_helpers.cli.common import need"),
        ("ucl_helpers/fleet/new.py", "from ucl_helpers.practice import sandbox_of"),
        ("ucl_helpers/views/new.py", "from ucl_helpers.views.explorer import explore"),
        ("ucl_helpers/views/new.py", "from ucl_helpers.cli import main"),
        ("ucl_helpers/views/new.py", "from ucl_sandbox import Sandbox"),
        ("ucl_helpers/views/explorer/new.py", "from ucl_sandbox import Faults"),
        ("ucl_helpers/procedures/new.py", "from ucl_helpers.fleet import run"),
        ("ucl_helpers/procedures/new.py", "def late():\n    from ucl_helpers.headless import run"),
        ("ucl_helpers/procedures/new.py", "from ucl_helpers.practice import sandbox_of"),
        ("ucl_helpers/__init__.py", "from ucl_helpers.headless import run"),
        ("ucl_sandbox/new.py", "from ucl_helpers.errors import UCLError"),
        ("ucl_helpers/new.py", "from .errors import UCLError"),
        ("ucl_helpers/automation/new.py", ""),
    ],
)
def test_an_import_against_the_order_is_found(module, line):
    assert len(wrong_imports(doctored(module, line))) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ucl_helpers/cli/new.py", "from ucl_sandbox import Sandbox"),
        ("ucl_helpers/headless/new.py", "from ucl_helpers.connection.files import write"),
        ("ucl_helpers/fleet/new.py", "from ucl_helpers.procedures.renewal import renew"),
        ("ucl_helpers/cli/new.py", "from ucl_helpers.fleet.run import renew_fleet"),
        ("ucl_helpers/views/explorer/new.py", "from ucl_helpers.operate.doctor import diagnose"),
        ("ucl_sandbox/new.py", "from ucl_sandbox.ca import sign"),
        ("ucl_sandbox/new.py", "from ucl_private_files import write_file"),
        ("ucl_helpers/procedures/new.py", "from ucl_helpers.connection import files, store"),
        ("ucl_helpers/new.py", "if TYPE_CHECKING:\n    from ucl_helpers.connection.store import Connection"),
    ],
)
def test_an_import_along_the_order_is_not(module, line):
    assert wrong_imports(doctored(module, line)) == []


def test_the_picture_shows_the_imports():
    drawn = (CHECKOUT / PICTURE).read_text("utf-8")
    assert drawn == picture(SOURCE), "The imports changed. To draw them again: python tools/architecture.py --picture"


def test_another_import_is_another_arrow_of_the_picture_unless_it_follows_from_others():
    assert ("fleet", "views") not in essential(SOURCE)
    assert ("fleet", "views") in essential(doctored("ucl_helpers/fleet/new.py", "from ucl_helpers.views import table"))
    assert ("cli", "words") in SOURCE.arrows
    assert ("cli", "words") not in essential(SOURCE)


def test_rules_do_no_io():
    assert impurities(SOURCE) == []


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "from pathlib import Path",
        "import ucl_private_files",
        "import requests.adapters",
        "open('x')",
        "datetime.now(UTC)",
        "print(1)",
    ],
)
def test_io_in_a_rule_is_found_and_elsewhere_is_not(line):
    assert len(impurities(doctored("ucl_helpers/policy.py", line))) == 1
    assert impurities(doctored("ucl_helpers/connection/store.py", line)) == []


def test_the_sandbox_has_no_file_primitives_of_its_own():
    assert own_primitives(SOURCE) == ["ucl_sandbox/listeners.py: open()"]  # of a listener, not of a file
    module = CHECKOUT / "ucl_private_files.py"
    assert {name.split(".")[0] for name in imported(module.read_text())} <= sys.stdlib_module_names


@pytest.mark.parametrize("line", ["os.open(path, os.O_TRUNC)", "open(path)", "path.write_text('')", "path.mkdir()"])
def test_a_file_primitive_of_the_sandbox_is_found_and_elsewhere_is_not(line):
    found = own_primitives(doctored("ucl_sandbox/ca.py", line))
    assert [name for name in found if "ca.py" in name] == [f"ucl_sandbox/ca.py: {line.split('(')[0].split('.')[-1]}()"]
    elsewhere = doctored("ucl_helpers/connection/store.py", line)
    assert own_primitives(elsewhere) == own_primitives(SOURCE)


@pytest.mark.parametrize("figure", LIMITS)
def test_no_figure_is_above_its_limit_or_above_what_the_page_says(figure):
    now, limit = told(figure)
    assert limit == LIMITS[figure]
    rule = f"raise it in docs/explanation/architecture.md only with a reason; it says {now}, its limit is {limit}"
    assert SOURCE.figures()[figure] <= max(now, limit), rule


LONG = "x = 1\n" * 600
GROWN = {
    "files at the top of ucl_helpers": {f"ucl_helpers/new{number}.py": "" for number in range(14)},
    "lines there": {f"ucl_helpers/new{number}.py": LONG for number in range(2)},
    "files in one folder": {f"ucl_helpers/wire/new{number}.py": "" for number in range(28)},
    "longest import chain between files": {
        f"ucl_helpers/wire/new{number}.py": f"import ucl_helpers.wire.new{number + 1}" for number in range(25)
    },
    "modules in import circles": {
        f"ucl_helpers/wire/new{number}.py": f"import ucl_helpers.wire.new{(number + 1) % 9}" for number in range(9)
    },
    "lines of code of ucl_helpers": {"ucl_helpers/wire/new.py": LONG * 2},
    "lines of code of ucl_sandbox": {"ucl_sandbox/new.py": LONG},
    "lines of the longest module": {"ucl_helpers/wire/new.py": "\n" * 501},
    "base names that occur twice": {
        f"ucl_helpers/{room}/new{n}.py": "" for room in ("wire", "fleet") for n in range(9)
    },
}


@pytest.mark.parametrize("figure", LIMITS)
def test_a_figure_that_grew_is_found(figure):
    grown = Source({**SOURCE.files, **{Path(path): text for path, text in GROWN[figure].items()}})
    assert grown.figures()[figure] > max(told(figure))


def test_lines_of_code_are_those_without_comments_blank_lines_and_docstrings():
    text = '"""Module\n\ndocstring."""\n\n# comment\nx = """a\n\nb"""  # code\n\n\n'
    assert code_lines(text) == 3
    assert code_lines('def f():\n    """Do."""\n    return (\n        1)\n') == 1 + 2


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import ucl_helpers", {"ucl_helpers"}),
        ("from ucl_helpers import UCLError", {"ucl_helpers", "ucl_helpers.errors"}),
    ],
)
def test_a_public_name_is_loaded_when_it_is_first_used(statement, modules):
    assert our_modules(statement) == modules


def our_modules(statement):
    return {name for name in loaded_by(statement) if name.startswith("ucl_")}


@pytest.mark.parametrize("module", ["crypto", "policy", "checks", "operations"])
def test_a_rule_is_loaded_with_few_modules(module):
    assert (
        len(our_modules(f"from ucl_helpers import {module}")) <= MODULES < len(our_modules("from ucl_helpers import *"))
    )


def test_no_public_name_loads_anything_heavy():
    assert heavy_imports("from ucl_helpers import *") == set()
    assert heavy_imports("import ucl_helpers.headless.run") == set()
    assert heavy_imports("import ucl_helpers.fleet.executors") == set()


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("from ucl_helpers import *", False),
        ("import ucl_helpers.cli", False),
        ("from ucl_helpers.wire.client import Client; Client('https://localhost/', 'token')", True),
        ("from ucl_helpers import Connection, Home; Connection(Home('.'), 'one').session", False),
    ],
)
def test_requests_waits_for_a_call(statement, loaded):
    assert ("requests" in loaded_by(statement)) is loaded


def test_importing_what_runs_notebooks_does():
    assert "papermill" in heavy_imports("import ucl_helpers.headless.execution")
    assert "distributed" in heavy_imports("import ucl_helpers.fleet.over_dask")
