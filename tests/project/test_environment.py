"""pyproject.toml, environment.yml and the locks say the same; each check is tried on a doctored text as well."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = (ROOT / "environment.yml").read_text()
LOCKED = ("run", "lab", "dev", "docs", "browser")
BUILD = [*tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"], "editables~=0.3"]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(.*?)\\?\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)*)", re.MULTILINE)


def wanted(extra):
    """What an extra asks for, with the core and the extras it includes: name → version range."""
    found = {}
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            for included in requirement.extras:
                found |= wanted(included)
        else:
            found[canonicalize_name(requirement.name)] = requirement.specifier
    return found


def conda_differences(text):
    """Where environment.yml and the extra ``lab`` differ."""
    document = yaml.safe_load(text)
    plain = [Requirement(entry) for entry in document["dependencies"] if isinstance(entry, str)]
    conda = {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in plain}
    pip = [entry["pip"] for entry in document["dependencies"] if isinstance(entry, dict)]
    lab = {name: str(specifier) for name, specifier in wanted("lab").items()}
    lab |= {"python": PROJECT["requires-python"], "pip": ""}
    names = sorted(lab.keys() | conda.keys())
    found = [f"{name}: {conda.get(name)} is not {lab.get(name)}" for name in names if conda.get(name) != lab.get(name)]
    return found + ([] if pip == [["-e .[lab]"]] else [f"pip: {pip}"])


def lock_faults(text, requirements):
    """What a lock lacks: a pin in the range of each requirement, a hash for each pin, silence about hosts and paths."""
    pins = {canonicalize_name(name): (version, hashes) for name, version, _, hashes in PIN.findall(text)}
    found = [f"{name} is not locked" for name in requirements if name not in pins]
    found += [
        f"{name} {pins[name][0]} is not {specifier}"
        for name, specifier in requirements.items()
        if name in pins and pins[name][0] not in specifier
    ]
    found += [f"{name} has no hash" for name, (_, hashes) in pins.items() if not hashes]
    options = [
        line for line in text.splitlines() if line.startswith("-") or "://" in line or "@" in line or " /" in line
    ]
    return found + options


def test_conda_and_pip_ask_for_the_same():
    assert conda_differences(CONDA) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("papermill>=2.6", "papermill>=2.5"),
        ("  - tornado>=6.4\n", ""),
        ("  - pip\n", "  - pip\n  - pandas\n"),
        ("python>=3.11", "python>=3.12"),
        (".[lab]", "."),
    ],
)
def test_a_difference_between_conda_and_pip_is_found(old, new):
    assert CONDA.count(old) == 1
    assert len(conda_differences(CONDA.replace(old, new))) == 1


@pytest.mark.parametrize("extra", LOCKED)
def test_each_lock_holds_what_its_extra_asks_for(extra):
    assert lock_faults((ROOT / f"requirements/{extra}.txt").read_text(), wanted(extra)) == []


def test_the_build_backend_is_locked():
    requirements = {Requirement(text).name: Requirement(text).specifier for text in BUILD}
    assert lock_faults((ROOT / "requirements/build.txt").read_text(), requirements) == []


@pytest.mark.parametrize("name", ["build", "run", "lab", "docs", "browser"])
def test_all_locks_hold_the_same_versions(name):
    dev, other = (
        dict(re.findall(r"^(\S+)==(\S+)", (ROOT / f"requirements/{lock}.txt").read_text(), re.MULTILINE))
        for lock in ("dev", name)
    )
    assert {package: dev[package] for package in other if package in dev} == {
        package: other[package] for package in other if package in dev
    }


LOCK = f"requests==2.32.5 \\\n    --hash=sha256:{'0' * 64}\n    # via ucl-helpers (pyproject.toml)\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("requests==", "request=="),
        ("2.32.5", "2.31.0"),
        (f"    --hash=sha256:{'0' * 64}\n", ""),
        ("# via", "# from https://packages.example/simple"),
        ("    # via ucl-helpers (pyproject.toml)", "--index-url packages.example"),
        ("(pyproject.toml)", "( /" + "home/me/pyproject.toml)"),
    ],
)
def test_a_fault_of_a_lock_is_found(old, new):
    requirements = {"requests": wanted("run")["requests"]}
    assert lock_faults(LOCK, requirements) == []
    assert LOCK.count(old) == 1
    assert len(lock_faults(LOCK.replace(old, new), requirements)) == 1
