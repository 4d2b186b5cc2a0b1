"""Notebooks 00 to 06 executed headless, with real kernels, against the sandbox that they start themselves.

All runs are made first, two at a time in one home folder, since kernels take their time; the tests look at what came
of them.
"""

import copy
import json
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import BIN, Said, Shell, environment, tool
from notebook_runs import must_follow_the_schema
from quick_keys import QUICK_BITS

from ucl_helpers.headless.notebooks import find_notebook, packaged
from ucl_helpers.models import OUTCOME_MIME

SMALL = ("-p", "key_length", str(QUICK_BITS))
PRACTICE = ("--practice",)
TOKEN = re.compile(r"[A-Za-z0-9_-]{86}==")


def changed(name: str, path: Path, change) -> Path:
    """A notebook with its cells changed."""
    content = json.loads(find_notebook(name).read_text())
    content["cells"] = change(content["cells"])
    path.write_text(json.dumps(content))
    return path


def each_twice(cells):
    """Every code cell twice in a row, as if somebody had run it again; parameters would be as declared."""
    twins = [copy.deepcopy(cell) for cell in cells]
    for number, cell in enumerate(twins):
        cell["id"] = f"again-{number}"
        cell["metadata"] = {}
    again = [cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", ()) for cell in cells]
    pairs = zip(cells, twins, again, strict=True)
    return [one for cell, twin, twice in pairs for one in ([cell, twin] if twice else [cell])]


def up_to(text):
    """The cells up to the one that holds a text: what an interrupted run has done."""

    def cut(cells):
        last = next(number for number, cell in enumerate(cells) if text in "".join(cell["source"]))
        return cells[: last + 1]

    return cut


def loses_the_key(cells):
    """Who tidies up before the next run takes away the key that the answer was lost for."""
    mended = next(cell for cell in cells if "lab.clear()" in "".join(cell["source"]) and cell["cell_type"] == "code")
    lost = "import shutil\nshutil.rmtree(secure.pending.path)\n"
    return [{**cell, "source": lost + "".join(cell["source"])} if cell is mended else cell for cell in cells]


@dataclass
class Done:
    said: Said
    notebook: Path

    @property
    def outcome(self):
        cells = json.loads(self.notebook.read_text())["cells"]
        found = [out["data"][OUTCOME_MIME] for cell in cells for out in cell.get("outputs", []) if is_outcome(out)]
        return found[-1]


def is_outcome(output):
    return OUTCOME_MIME in output.get("data", {})


class Runs:
    """Runs of notebooks in one home folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shell, self.done = folder, Shell(folder / "home"), {}

    def run(self, label, notebook, *options):
        output = self.folder / "out" / f"{label}.ipynb"
        said = self.shell.ucl("run", notebook, "-o", output, "--json", *options)
        self.done[label] = Done(said, output)

    def cuts(self, label, name, *texts):
        return [
            (f"{label}-{n}", changed(name, self.folder / f"{label}-{n}.ipynb", up_to(text)), *SMALL)
            for n, text in enumerate(texts)
        ]

    def papermill(self, label, name):
        """Plain papermill, in a folder of its own."""
        (self.folder / label).mkdir()
        output = self.folder / label / "out.ipynb"
        command = [BIN / "papermill", "--cwd", ".", packaged("notebooks") / name, "out.ipynb", *SMALL]
        command += ["-p", "practice", "true"]
        env = environment(self.shell.home, PATH=f"{BIN}:{environment()['PATH']}")
        done = subprocess.run(command, cwd=self.folder / label, env=env, capture_output=True, text=True, check=False)
        self.done[label] = Done(Said(done.returncode, done.stdout, done.stderr), output)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = Runs(tmp_path_factory.mktemp("runs"))
    names = ("00", "01", "02", "03", "04", "05", "06")
    twice = {name: changed(name, made.folder / f"{name}-twice.ipynb", each_twice) for name in names}
    first = [
        [("maintain", "02", *PRACTICE)],
        [("maintain-too", "02", *SMALL, *PRACTICE)],  # at once with the first, in a home folder that is not there yet
    ]
    chains = [
        [("start", "00"), ("start-twice", twice["00"])],
        [("establish", "01", *PRACTICE), ("establish-twice", twice["01"], *SMALL, *PRACTICE)],
        [("maintain-twice", twice["02"], *SMALL, *PRACTICE)],
        [("revoke", "03", *PRACTICE), ("revoke-twice", twice["03"], *PRACTICE)],
        [
            *[
                (*cut, "-p", "connection", "lab", *PRACTICE)
                for cut in made.cuts("e", "01", "establishment.configuration()", "establishment.sign()")
            ],
            ("lab-established", "01", "-p", "connection", "lab", *SMALL, *PRACTICE),
            ("lab-established-already", "01", "-p", "connection", "lab", *SMALL),
            ("lab-not-due", "02", "-p", "connection", "lab", "-p", "only_if_due", "true"),
            *[
                (*cut, "-p", "connection", "lab")
                for cut in made.cuts("m", "02", "renewal.request()", "renewal.sign()", "renewal.verify()")
            ],
            ("lab-maintained", "02", "-p", "connection", "lab", *SMALL),
            ("lab-revoked", "03", "-p", "connection", "lab", "-p", "everything", "true"),
            ("lab-revoked-again", "03", "-p", "connection", "lab"),
            ("lab-maintained-no-more", "02", "-p", "connection", "lab", *SMALL),
        ],
        [("unknown-connection", "02", "-p", "connection", "nobody")],
        [("fleet-twice", twice["04"], *PRACTICE)],
        [("explore-twice", twice["05"], *PRACTICE), ("explore-nobody", "05", "-p", "connection", "nobody")],
        [("break", "06"), ("break-twice", twice["06"])],
        [("break-without-its-key", changed("06", made.folder / "06-without-its-key.ipynb", loses_the_key))],
    ]

    def follow(chain):
        for step in chain:
            made.run(*step)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(follow, first))
        list(pool.map(follow, sorted(chains, key=len, reverse=True)))
    made.papermill("papermill", "02_maintain_connection.ipynb")
    return made


EXPECTED = {
    "start": (0, "renewed", "practice-00"),
    "establish": (0, "established", "practice-01"),
    "revoke": (0, "revoked", "practice-03"),
    "break": (0, "renewed", "practice-06"),
    "break-twice": (0, "renewed", "practice-06"),
    "break-without-its-key": (6, "failed", "practice-06"),
    "start-twice": (0, "renewed", "practice-00"),
    "establish-twice": (0, "established", "practice-01"),
    "maintain-twice": (0, "renewed", "practice-02"),
    "revoke-twice": (0, "revoked", "practice-03"),
    "lab-established": (0, "established", "lab"),
    "lab-established-already": (0, "already-established", "lab"),
    "lab-not-due": (0, "not-due", "lab"),
    "lab-maintained": (0, "renewed", "lab"),
    "lab-revoked": (0, "revoked", "lab"),
    "lab-revoked-again": (0, "revoked", "lab"),
    "lab-maintained-no-more": (4, "failed", "lab"),
    "unknown-connection": (2, "failed", "nobody"),
}


@pytest.mark.parametrize("label", EXPECTED)
def test_a_notebook_ends_with_its_outcome(label, runs):
    done, (code, outcome, connection) = runs.done[label], EXPECTED[label]
    assert (done.said.code, done.said.json["outcome"], done.said.json["connection"]) == (code, outcome, connection)
    assert (done.outcome["outcome"], done.outcome["exitCode"]) == (outcome, code)
    assert done.said.err == ""
    assert stat.S_IMODE(done.notebook.stat().st_mode) == 0o600


def test_what_came_of_each_run_lies_beside_it_and_follows_the_schema(runs):
    for label, done in runs.done.items():
        outcome = done.notebook.with_suffix(".outcome.json")
        if label != "papermill":
            must_follow_the_schema(done.said.json)
            assert json.loads(outcome.read_text()) == done.said.json
            assert stat.S_IMODE(outcome.stat().st_mode) == 0o600
    steps = [step["name"] for step in runs.done["maintain"].said.json["steps"]]
    assert [name[:6] for name in steps if name.startswith("Step")] == ["Step 1", "Step 2", "Step 3", "Step 4"]
    assert {step["status"] for step in runs.done["maintain"].said.json["steps"]} == {"completed"}


def test_two_at_once_in_a_new_home_each_have_a_connection_of_their_own(runs):
    both = [runs.done["maintain"], runs.done["maintain-too"]]
    assert [one.said.code for one in both] == [0, 0]
    assert {one.outcome["connection"] for one in both} == {"practice-02", "practice-02-2"}


def test_the_key_is_as_long_as_the_parameter_says(runs):
    for label, bits in (("maintain", 4096), ("maintain-too", QUICK_BITS)):
        assert f"RSA, {bits} bits" in text_of(runs.done[label])
        assert f"RSA, {6144 - bits} bits" not in text_of(runs.done[label])
    key = Path(runs.done["maintain-too"].outcome["identityFile"]).with_name("key.pem")
    assert f"({QUICK_BITS} bit" in tool(Path(), "openssl", "pkey", "-in", key, "-noout", "-text")


def test_an_interrupted_establishment_was_finished_not_begun_again(runs):
    """Cut after the configuration, then after the signature: the whole run only decodes, verifies and activates."""
    assert [runs.done[f"e-{n}"].said.code for n in (0, 1)] == [0, 0]
    assert events(runs)[:2] == ["signing-requested", "established"]
    assert from_before(runs.done["lab-established"])
    assert not from_before(runs.done["e-1"])


def test_an_interrupted_renewal_was_finished_not_begun_again(runs):
    assert [runs.done[f"m-{n}"].said.code for n in (0, 1, 2)] == [0, 0, 0]
    assert events(runs)[2:4] == ["signing-requested", "renewed"]
    assert "kept from an earlier run" in text_of(runs.done["m-1"])
    assert [from_before(runs.done[label]) for label in ("m-1", "m-2", "lab-maintained")] == [False, True, True]


def test_a_step_that_is_not_needed_says_until_when(runs):
    done = runs.done["lab-not-due"]
    assert done.outcome["notNeededUntil"].endswith("Z")
    assert text_of(done).count("not needed until") > 5
    established = runs.done["lab-established"].outcome["fingerprint"]
    assert done.outcome["fingerprint"] == established != runs.done["lab-maintained"].outcome["fingerprint"]


# What a sentence says of a result must hold for every parameter set: it names its condition, or is a fact about UCL.
CLAIM = re.compile(
    r"\b(?:ha[sv]e?|was|were|(?:is|are) now)\b[^.:]*\b(?:signed|renewed|revoked|established|accepted|new)\b"
)
CONDITION = re.compile(r"\b(?:if|when|after|then|at the end of this tutorial|have your|what it has)\b", re.IGNORECASE)
VARIANTS = {
    "lab-established": ("Establish", {"not needed until": 0, "an earlier run's answer": 1}),
    "lab-established-already": ("Establish", {"not needed until": 6, "this call": 0, "not established": 0}),
    "lab-not-due": ("Maintain", {"not needed until": 6, "this call": 0, "lab: renewed": 0}),
    "lab-maintained": ("Maintain", {"not needed until": 0, "an earlier run's answer": 1, "lab: renewed": 1}),
    "maintain": ("Maintain", {"not needed until": 0, "an earlier run's answer": 0, "this call": 1}),
    "lab-revoked-again": ("Revoke", {"nothing was left to revoke": 2}),
}


@pytest.mark.parametrize("label", VARIANTS)
def test_what_a_notebook_says_holds_for_the_run_that_was_made(label, runs):
    title, counts = VARIANTS[label]
    cells = json.loads(runs.done[label].notebook.read_text())["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert prose[0].startswith(f"# {title}")
    sentences = re.split(r"(?<=[.?!:])\s+", re.sub(r"```.*?```", "", "\n".join(prose), flags=re.DOTALL))
    assert [one for one in sentences if CLAIM.search(one) and not CONDITION.search(one)] == []
    shown = text_of(runs.done[label])
    assert {text: len(re.findall(text, shown)) for text in counts} == counts


def test_a_sentence_that_claims_a_result_is_found():
    """The twin."""
    for text in (
        "UCL has signed the CSR.",
        "The connection was renewed.",
        "A new identity is in use, and it is now new.",
    ):
        assert CLAIM.search(text)
        assert not CONDITION.search(text)


def test_plain_papermill_in_another_folder_does_the_same(runs):
    done = runs.done["papermill"]
    assert (done.said.code, done.outcome["outcome"]) == (0, "renewed"), done.said.err
    assert [path.name for path in done.notebook.parent.iterdir()] == ["out.ipynb"]


def test_practice_shows_wherever_it_is_shown(runs):
    assert {one["sandbox"] for one in runs.shell.ucl("status", "--json").json} == {True}
    for label in ("start", "establish", "maintain", "revoke"):
        assert "(sandbox, for practice)" in text_of(runs.done[label])


def test_the_explorer_opens_and_changes_nothing(runs):
    done = runs.done["explore-twice"]
    assert done.said.code == 0, done.said.err
    shown = [out for cell in json.loads(done.notebook.read_text())["cells"] for out in cell.get("outputs", [])]
    explorers = [out["data"] for out in shown if "application/vnd.jupyter.widget-view+json" in out.get("data", {})]
    assert len(explorers) == 2
    assert all("ucl-card" in "".join(one["text/html"]) for one in explorers)
    assert (runs.folder / "home" / "connections" / "practice-05" / "current").readlink().name.startswith("000001-")


def test_the_explorer_does_not_open_on_nobody(runs):
    done = runs.done["explore-nobody"]
    assert done.said.code == 2
    assert "UnknownConnection" in done.said.out


def test_a_fleet_is_looked_at_and_simulated(runs):
    done = runs.done["fleet-twice"]
    assert (done.said.code, done.said.json["outcome"], done.said.err) == (0, "done", "")
    text = text_of(done)
    for shown in ("3 valid (sandbox, for practice)", "Validity of 3 connections", "Due dates of 3 connections"):
        assert text.count(shown) == 2
    peaks = re.findall(r"^usual rule, a run an hour +(\d+)$", text, re.MULTILINE)
    assert len(peaks) == 6
    assert {int(one) < 20_000 / 24 for one in peaks} == {True}


def test_what_breaks_is_shown_as_it_would_stop_us_and_nothing_of_it_is_left(runs):
    text = text_of(runs.done["break"])
    shown = re.findall(r"^error +(\w+)$", text, re.MULTILINE)
    assert shown[:5] == ["Unreachable", "ChecksFailed", "PossibleOutage", "Outage", "NotYetAccepted"]
    assert shown[5:] == ["RateLimited", "Waiting"]
    assert text.count("reset-after-acting") == 5
    for label in ("break", "break-twice", "break-without-its-key"):
        found = re.findall(r"^identity file +(/.+/ucl-fault-lab-\w+)/", text_of(runs.done[label]), re.MULTILINE)
        (folder,) = set(found)
        assert not Path(folder).exists()
    assert "practice-06" not in {path.name for path in (runs.shell.home / "connections").iterdir()}


def test_a_key_that_is_lost_stops_it_before_it_says_that_all_is_well(runs):
    done = runs.done["break-without-its-key"]
    assert "An assertion of the notebook failed" in done.said.json["message"]
    ran = [step["name"] for step in done.said.json["steps"] if step["status"] == "completed"]
    assert "2 The certificate is wrong" not in ran
    assert done.said.json["steps"][1]["status"] == "failed"


def events(runs: Runs) -> list[str]:
    """What happened to the connection ``lab``, oldest first."""
    journal = runs.shell.home / "connections" / "lab" / "journal.jsonl"
    return [json.loads(line)["event"] for line in journal.read_text().splitlines()]


def from_before(done: Done) -> bool:
    """Whether the signed certificate was there already when the run began."""
    return re.search("received in +an earlier run's answer", text_of(done)) is not None


def text_of(done: Done) -> str:
    """All plain text that the cells show."""
    cells = json.loads(done.notebook.read_text())["cells"]
    shown = [out.get("data", {}).get("text/plain", "") for cell in cells for out in cell.get("outputs", [])]
    return "\n".join("".join(part) for part in shown)


# -- secrets -----------------------------------------------------------------------------------------------------------


def secrets_in(home: Path) -> set[str]:
    """Each line of each private key that lies in a home folder, and the bearer token of its sandbox."""
    found = {json.loads((home / "sandbox" / "ready.json").read_text())["directorToken"]}
    for path in home.rglob("*.pem"):
        for key in re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.+?)-----END", path.read_text(), re.DOTALL):
            found.update(line for line in key.splitlines() if len(line) > 20)
    return found


def leaks(texts: dict[str, str], secrets: set[str]) -> list[str]:
    return [
        name
        for name, text in texts.items()
        if TOKEN.search(text) or "PRIVATE KEY-----" in text or any(secret in text for secret in secrets)
    ]


def told(runs: Runs) -> dict[str, str]:
    """Everything that may be read by others: executed notebooks, journals, logs, state without keys, output."""
    home = runs.shell.home
    kinds = [*home.rglob("*.jsonl"), *home.rglob("*.log"), *home.rglob("*.toml"), *home.rglob("connection.json")]
    notebooks = [path for path in runs.folder.rglob("*.ipynb") if "twice.ipynb" not in path.name]
    texts = {str(path): path.read_text() for path in (*kinds, *notebooks)}
    return texts | {label: done.said.out + done.said.err for label, done in runs.done.items()}


def test_no_key_and_no_token_is_in_what_others_may_read(runs):
    texts, secrets = told(runs), secrets_in(runs.shell.home)
    assert len(texts) > 60
    assert len(secrets) > 200
    assert leaks(texts, secrets) == []


def test_one_line_of_a_key_or_a_token_would_be_found(runs):
    secrets = secrets_in(runs.shell.home)
    for planted in (sorted(secrets)[7], "x" * 86 + "==", "-----BEGIN PRIVATE KEY-----"):
        assert leaks({"a": "harmless", "b": f'"text": "{planted}\\n"'}, secrets) == ["b"]


def test_what_is_secret_is_private(runs):
    kept = [path for path in runs.shell.home.rglob("*") if path.is_file() and not path.is_symlink()]
    holding = [path for path in kept if b"PRIVATE KEY" in path.read_bytes()]
    assert len(holding) > 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
