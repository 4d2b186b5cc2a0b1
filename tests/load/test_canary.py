"""A canary key, token and bearer are known; whatever headless runs wrote, none of them stands in it.

The notebooks 01, 02 and 03 and one that lets its secrets out in every way are run by `ucl run` and by papermill with
the engine `ucl`, some of them killed or stopped at a random moment. Then every file is searched that they wrote, the
key files aside: home, outputs, outcomes, temporary files, what they printed and logged. Without the engine the same
search finds the canary.
"""

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Lock
from time import monotonic

import pytest
from canaries import BEGIN, PARAMETERS, RAISED, Judge, keys_below, leaky
from command_line import BIN, UCL, Shell, environment
from notebook_runs import mode, must_follow_the_schema, write_notebook
from processes import wait_until
from quick_keys import QUICK_BITS

from ucl_sandbox import Sandbox

SEED, RUNS = 20260401, 100
NO_TIME = 0.0


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


class Choice(Random):
    """The same choices in each run; not for secrets."""


@dataclass
class Lab:
    """Runs of notebooks in a folder of their own, where home, HOME, temporary files and outputs lie."""

    folder: Path
    ucl: Sandbox
    texts: set = field(default_factory=set)
    keys: set = field(default_factory=set)
    said: list = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self):
        for name in ("own", "tmp", "out"):
            (self.folder / name).mkdir()
        self.leaky = leaky(self.folder / "leaky.ipynb")
        self.shell = Shell(self.folder / "home")
        self.shell.establish("prod", self.ucl)
        self.texts.add(self.ucl.director_token)
        self.remember()

    def remember(self):
        with self.lock:
            self.keys.update(keys_below(self.folder / "home"))

    @property
    def env(self):
        own = {
            "HOME": str(self.folder / "own"),
            "TMPDIR": str(self.folder / "tmp"),
            "IPYTHONDIR": str(self.folder / "own"),
        }
        with self.lock:
            token = self.ucl.one_time_token()
            self.texts.add(token)
        path = f"{BIN}:{os.environ['PATH']}"
        env = environment(self.shell.home, **own, T=token, BEARER=self.ucl.director_token, PATH=path)
        return {name: value for name, value in env.items() if name != "PYTEST_CURRENT_TEST"}  # ipykernel heeds it

    def secrets(self):
        key = self.folder / "home" / "connections" / "prod" / "current" / "key.pem"
        return ["-p", "key_file", key, "-p", "token", "env:T", "-p", "bearer", "env:BEARER"]

    def run(self, *command, kill=None, when=None, after=NO_TIME):
        """Run it to its end, or kill it when something holds, or after some seconds; its exit code."""
        process = subprocess.Popen(
            [str(part) for part in command],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
        )
        try:
            if when:
                wait_until(lambda: when() or process.poll() is not None)
            said = process.communicate(timeout=after if kill else None)
        except subprocess.TimeoutExpired:
            process.send_signal(kill)
            said = process.communicate()
        self.said += said
        self.remember()
        return process.returncode

    def has_removed(self):
        """A run has saved a cell that let out a secret."""
        return any(b"outputs removed" in path.read_bytes() for path in (self.folder / "out").glob(".*.run/*.ipynb"))

    def judged(self):
        """The files that hold a canary, or that it was printed; and how many texts were searched."""
        judge = Judge(self.keys, self.texts)
        found, searched = judge.files_that_hold_one(self.folder)
        state = self.folder / "home" / "sandbox"  # where a sandbox keeps what is secret of its own
        found = [path for path in found if state not in path.parents]
        return [*found, *("printed" for text in self.said if judge.finds(text))], searched + len(self.said)


@pytest.fixture
def lab(tmp_path, ucl):
    return Lab(tmp_path, ucl)


def ucl_run(lab, notebook, output, *parameters):
    return [UCL, "run", notebook, "-o", lab.folder / "out" / f"{output}.ipynb", "--json", *parameters]


def by_papermill(lab, output, *options):
    """All that papermill can be told to write."""
    written = ["--log-output", "--log-level", "DEBUG", "--stdout-file", lab.folder / "out" / "stdout.log"]
    written += ["--stderr-file", lab.folder / "out" / "stderr.log", "--no-progress-bar"]
    return [BIN / "papermill", lab.leaky, lab.folder / "out" / f"{output}.ipynb", *written, *options, *lab.secrets()]


def test_papermill_with_the_engine_lets_nothing_out(lab, proof):
    code = lab.run(*by_papermill(lab, "leaky", "--engine", "ucl", "-k", "python3", "-l", "python"))
    notebook, outcome = lab.folder / "out" / "leaky.ipynb", lab.folder / "out" / "leaky.outcome.json"
    assert (code, mode(notebook), mode(outcome)) == (1, 0o600, 0o600)
    found, searched = lab.judged()
    assert found == []
    told = json.loads(outcome.read_text())
    must_follow_the_schema(told)
    assert (told["exitCode"], told["error"], told["notebook"]) == (14, "SecretRedacted", str(notebook))
    places = {f"cell {number}, {what}" for number in (5, 7) for what in ("stdout", "stderr")}
    places |= {"cell 6, stdout", "cell 8, output", "cell 10, error"}
    assert places <= {find["place"] for find in told["redacted"]}
    assert notebook.stat().st_size < 3_000_000
    assert list((lab.folder / "tmp").iterdir()) == []
    proof("canary", "texts searched for a canary after headless runs", searched)


@pytest.mark.plants_secrets
def test_without_the_engine_it_would_be_found(lab):
    write_notebook(lab.leaky, BEGIN, "print(key)\nprint(key, file=sys.stderr)", RAISED, parameters=PARAMETERS)
    lab.run(*by_papermill(lab, "leaky", "-k", "python3", "-l", "python"))
    found, _ = lab.judged()
    names = {str(getattr(path, "name", path)) for path in found}
    assert {"leaky.ipynb", "stdout.log", "stderr.log", "printed"} <= names
    for path in found:
        if path != "printed":
            path.unlink()


def choices(lab, number, random):
    """What one run of many is: the command, the signal, and after which part of the time that a whole run takes."""
    name, kill = f"new-{number}", random.choice([None, None, None, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    way_in = ["-p", "connection", name, "-p", "ca_file", lab.ucl.ca_file, "-p", "key_length", str(QUICK_BITS)]
    director = ["-p", "director_url", lab.ucl.director_url, "-p", "tenant", lab.ucl.tenant]
    director += ["-p", "application_id", lab.ucl.application_id, "-p", "bearer", "env:BEARER"]
    token = ["-p", "connector_url", lab.ucl.connector_url, "-p", "token", "env:T"]
    prod = ["-p", "connection", "prod"]
    command = random.choice(
        [
            ucl_run(lab, lab.leaky, number, *lab.secrets()),
            ucl_run(lab, lab.leaky, number, *lab.secrets()),
            by_papermill(lab, number, "--engine", "ucl", "-k", "python3", "-l", "python"),
            ucl_run(lab, "01", number, *way_in, *random.choice([director, token])),
            ucl_run(lab, "02", number, *prod, "-p", "key_length", str(QUICK_BITS)),
            ucl_run(lab, "03", number, "-p", "connection", random.choice(["prod", "gone"]), "-p", "confirm", "gone"),
        ]
    )
    return command, kill, random.uniform(0.2, 1.2)


def test_nothing_that_headless_runs_wrote_holds_a_canary(lab, whole, proof):
    random = Choice(SEED)
    lab.shell.establish("gone", lab.ucl)
    runs = [choices(lab, number, random) for number in range(RUNS - 2 if whole else 0)]
    codes = [lab.run(*ucl_run(lab, lab.leaky, "killed", *lab.secrets()), kill=signal.SIGKILL, when=lab.has_removed)]
    assert codes == [-signal.SIGKILL]
    began = monotonic()
    codes += [lab.run(*command) for command in [ucl_run(lab, lab.leaky, "whole", *lab.secrets())] if whole]
    took = monotonic() - began
    with ThreadPoolExecutor(2) as pool:
        codes += pool.map(lambda run: lab.run(*run[0], kill=run[1], after=run[2] * took), runs)
    found, searched = lab.judged()
    assert found == []
    assert set(codes) <= {0, 1, 2, 3, 4, 8, 14, 130, 143, -9, -2, -15}, codes
    for path in lab.folder.rglob("*.outcome.json"):
        must_follow_the_schema(json.loads(path.read_text()))
    assert {mode(path) for path in (lab.folder / "out").glob("*.ipynb")} <= {0o600}
    proof("canary", "headless runs", len(codes))
    proof("canary", "of these killed or stopped at a random moment", sum(code < 0 or code > 128 for code in codes))
    proof("canary", "that ended because a secret was taken out", codes.count(14))
    proof("canary", "keys and tokens that were searched for", len(lab.keys) + len(lab.texts))
    proof("canary", "texts searched for a canary after headless runs", searched)
    proof("canary", "in which one was found", len(found))
