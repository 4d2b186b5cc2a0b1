"""Who may import whom, what does no I/O, how large things may grow: read off the source, and each rule tried on a
doctored tree as well."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ucl_helpers

PACKAGE = Path(ucl_helpers.__file__).parent

# A module may import its own layer and those above it in this table, unless FORBIDDEN says otherwise.
LAYERS = {
    "words": {"errors", "show", "models", "exchange", "hook_results"},
    "rules": {"operations", "crypto", "checks", "policy", "tables", "settings", "described", "exports", "diagnosis"}
    | {"formats", "key_files", "texts"},
    "world": {
        "clock",
        "dumps",
        "extras",
        "files",
        "references",
        "passphrases",
        "access",
        "building",
        "headers",
        "tls",
        "proxy",
        "adapter",
        "client",
        "generation",
        "pending",
        "session",
        "journal",
        "state",
        "takeover",
        "store",
        "attempts",
        "outage",
        "status",
        "hook_state",
        "progress",
        "keymaker",
    },
    "procedure": {
        *("outcomes", "rebuilding", "resumption", "verification", "procedure", "renewal"),
        *("establishment", "importing", "revocation", "lifecycle", "ways_in"),
    },
    "surface": {"__init__", "views", "automation"},
    "fleet": {"automation.fleet"},  # a layer of its own: it calls renew(), as the rest of automation may not
    "bridge": {"practice", "workbench"},  # from the command line, the notebooks and the explorer to the sandbox
    "explorer": {"views.explorer"},  # a layer of its own: it shows what all the others do
    "command": {"cli"},
    "sandbox": {"sandbox"},
}
ORDER = list(LAYERS)
LAYER = {module: layer for layer, modules in LAYERS.items() for module in modules}
FORBIDDEN = {
    "automation": {"procedure", "surface"},  # the notebook renews, not the runner
    "__init__": {"surface"},
    "views": {"surface"},
    "sandbox": set(ORDER) - {"sandbox"},  # an independent judge
}
EXCEPTIONS = {("cli", "sandbox"), ("practice", "sandbox"), ("workbench", "sandbox")}
PURE = ("words", "rules")
IO_MODULES = {
    *("asyncio", "http", "io", "multiprocessing", "os", "pathlib", "requests", "secrets", "select", "shutil", "signal"),
    *("socket", "subprocess", "sys", "tempfile", "threading", "time", "ucl_private_files", "urllib3"),
}
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
LINES = 500


def place(parts):
    """The module or subpackage of ucl_helpers that a dotted name belongs to; some packages within one have a layer."""
    return inner if (inner := ".".join(parts[:2])) in LAYER else parts[0]


def part(path):
    """The module or subpackage of ucl_helpers a source file belongs to."""
    return place([one.removesuffix(".py") for one in path.parts])


def sources(package):
    return {path.relative_to(package): path.read_text() for path in sorted(package.rglob("*.py"))}


def imported(text):
    """Every module an import names, wherever it stands; from the package itself, with the name it takes."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from [f"{base}.{name.name}" for name in node.names] if base == "ucl_helpers" else [base]


def wrong_imports(tree):
    """Imports against the direction of the layers, imports nobody may make, and modules without a layer."""
    found = []
    for path, text in tree.items():
        here = part(path)
        if here not in LAYER:
            found.append(f"{here} has no layer")
            continue
        for name in imported(text):
            parts = name.split(".")
            if parts[0] == "":
                found.append(f"{here} imports relatively: {name}")
            there = place(parts[1:]) if parts[0] == "ucl_helpers" and len(parts) > 1 else here
            if there == here or there not in LAYER:
                continue
            layer = LAYER[there]
            upwards = ORDER.index(layer) > ORDER.index(LAYER[here]) and (here, layer) not in EXCEPTIONS
            if upwards or layer in FORBIDDEN.get(here, ()):
                found.append(f"{here} imports {there}")
    return found


def impurities(tree):
    """What reaches for the world in modules that are rules."""
    found = []
    for path, text in tree.items():
        if LAYER.get(part(path)) not in PURE:
            continue
        found += [f"{path}: import {name}" for name in imported(text) if name.split(".")[0] in IO_MODULES]
        calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        names = [call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls]
        found += [f"{path}: {name}()" for name in names if name in IO_CALLS]
    return found


def own_primitives(tree):
    """Where the sandbox reaches for a file past the module that guards it."""
    found = []
    for path, text in tree.items():
        if part(path) != "sandbox":
            continue
        calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        names = [call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls]
        found += [f"{path}: {name}()" for name in names if name in OWN_PRIMITIVES]
    return found


def too_long(tree, limit=LINES):
    return [f"{path}: {len(text.splitlines())} lines" for path, text in tree.items() if len(text.splitlines()) > limit]


def loaded_by(statement):
    """Return the modules that a fresh interpreter has loaded after a statement."""
    script = f"{statement}\nimport sys; print(*sys.modules)"
    return {*subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()}


def heavy_imports(statement):
    return {name.split(".")[0] for name in loaded_by(statement)} & HEAVY


def test_imports_follow_the_layers():
    assert wrong_imports(sources(PACKAGE)) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("models.py", "from ucl_helpers.crypto import load_key"),
        ("policy.py", "import ucl_helpers.store"),
        ("store.py", "from ucl_helpers import renewal"),
        ("automation/runner.py", "from ucl_helpers.renewal import renew"),
        ("automation/runner.py", "from ucl_helpers.automation.fleet.run import renew_fleet"),
        ("automation/doctor/reach.py", "from ucl_helpers.procedure import Procedure"),
        ("automation/fleet/run.py", "from ucl_helpers.cli.common import need"),
        ("automation/fleet/plan.py", "from ucl_helpers.practice import sandbox_of"),
        ("views/cards.py", "from ucl_helpers.views.explorer import explore"),
        ("views/cards.py", "from ucl_helpers.automation.doctor import diagnose"),
        ("views/explorer/faults.py", "from ucl_helpers.sandbox import Faults"),
        ("views/explorer/page.py", "from ucl_helpers.cli.main import main"),
        ("renewal.py", "from ucl_helpers.automation.fleet import renew_fleet"),
        ("automation/runner.py", "from ucl_helpers.views import table"),
        ("renewal.py", "def late():\n    from ucl_helpers.automation import runner"),
        ("views/chain.py", "from ucl_helpers.cli import main"),
        ("views/chain.py", "from ucl_helpers.sandbox import Sandbox"),
        ("establishment.py", "from ucl_helpers.practice import sandbox_of"),
        ("__init__.py", "from ucl_helpers.automation import runner"),
        ("sandbox/ca.py", "from ucl_helpers.errors import UCLError"),
        ("crypto.py", "from .errors import UCLError"),
        ("helpers.py", ""),
    ],
)
def test_an_import_against_the_layers_is_found(module, line):
    assert len(wrong_imports({Path(module): line})) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("cli/serve.py", "from ucl_helpers.sandbox import Sandbox"),
        ("automation/runner.py", "from ucl_helpers.files import write"),
        ("automation/fleet/task.py", "from ucl_helpers.renewal import renew"),
        ("automation/fleet/task.py", "from ucl_helpers.automation.hooks import run_hooks"),
        ("cli/fleet.py", "from ucl_helpers.automation.fleet.run import renew_fleet"),
        ("views/explorer/looking.py", "from ucl_helpers.automation.doctor import diagnose"),
        ("views/explorer/faults.py", "from ucl_helpers import practice"),
        ("sandbox/api.py", "from ucl_helpers.sandbox.ca import sign"),
        ("sandbox/ca.py", "from ucl_private_files import write_file"),
        ("files.py", "from ucl_private_files import write_file"),
        ("renewal.py", "from ucl_helpers import files, store"),
        ("crypto.py", "import base64"),
    ],
)
def test_an_import_along_the_layers_is_not(module, line):
    assert wrong_imports({Path(module): line}) == []


def test_rules_do_no_io():
    assert impurities(sources(PACKAGE)) == []


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
    assert len(impurities({Path("policy.py"): line})) == 1
    assert impurities({Path("store.py"): line}) == []


def test_the_sandbox_has_no_file_primitives_of_its_own():
    assert own_primitives(sources(PACKAGE)) == ["sandbox/listeners.py: open()"]  # of a listener, not of a file
    module = PACKAGE.parent / "ucl_private_files.py"
    assert {name.split(".")[0] for name in imported(module.read_text())} <= sys.stdlib_module_names


@pytest.mark.parametrize("line", ["os.open(path, os.O_TRUNC)", "open(path)", "path.write_text('')", "path.mkdir()"])
def test_a_file_primitive_of_the_sandbox_is_found_and_elsewhere_is_not(line):
    assert len(own_primitives({Path("sandbox/ca.py"): line})) == 1
    assert own_primitives({Path("sandbox/ca.py"): "write_file(path, b'')", Path("store.py"): line}) == []


def test_modules_stay_short():
    assert too_long(sources(PACKAGE)) == []


def test_a_long_module_is_found():
    assert too_long({Path("store.py"): "x = 1\n" * LINES}) == []
    assert too_long({Path("store.py"): "x = 1\n" * (LINES + 1)}) == [f"store.py: {LINES + 1} lines"]


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import ucl_helpers", {"ucl_helpers"}),
        ("from ucl_helpers import UCLError", {"ucl_helpers", "ucl_helpers.errors", "ucl_helpers.show"}),
    ],
)
def test_a_public_name_is_loaded_when_it_is_first_used(statement, modules):
    assert {name for name in loaded_by(statement) if name.startswith("ucl_helpers")} == modules


def test_no_public_name_loads_anything_heavy():
    assert heavy_imports("from ucl_helpers import *") == set()
    assert heavy_imports("import ucl_helpers.automation.runner") == set()
    assert heavy_imports("import ucl_helpers.automation.fleet.executors") == set()


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("from ucl_helpers import *", False),
        ("import ucl_helpers.cli", False),
        ("from ucl_helpers.client import Client; Client('https://localhost/', 'token')", True),
        ("from ucl_helpers import Connection, Home; Connection(Home('.'), 'one').session", False),
    ],
)
def test_requests_waits_for_a_call(statement, loaded):
    assert ("requests" in loaded_by(statement)) is loaded


def test_importing_what_runs_notebooks_does():
    assert "papermill" in heavy_imports("import ucl_helpers.automation.execution")
    assert "distributed" in heavy_imports("import ucl_helpers.automation.fleet.over_dask")
