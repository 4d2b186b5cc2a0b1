"""Coverage-guided fuzzing of what parses others' words: every input that ever broke the law keeps it now, and no new
one is found while the fuzzer runs; longer by ``make fuzz SECONDS=3600``."""

import pytest
from fuzz_run import CORPUS, FINDINGS, LONGEST, NAMES, run
from fuzz_targets import TARGETS

SECONDS, WHOLE_SECONDS = 3, 450  # for each target
SEED = 4  # of the short runs, so that they go the same way each time
EACH = pytest.mark.parametrize("target", NAMES)


@pytest.fixture(scope="module")
def _atheris():
    pytest.importorskip("atheris", reason="atheris has no wheel for this platform")


@pytest.fixture(scope="module")
def fuzzed(_atheris, whole):
    seconds, seed = (WHOLE_SECONDS, 0) if whole else (SECONDS, SEED)
    return run(NAMES, seconds, seed=seed)


def test_every_target_has_a_corpus_of_small_files():
    assert set(NAMES) == set(TARGETS) == {one.name for one in CORPUS.iterdir()}
    assert {one.name for one in FINDINGS.iterdir()} <= set(NAMES)
    assert all(one.stat().st_size <= LONGEST for one in CORPUS.glob("*/*"))


@EACH
def test_corpus_and_findings_keep_the_law(target, proof):
    kept = [*(CORPUS / target).iterdir(), *(FINDINGS / target).glob("*")]
    for one in kept:
        TARGETS[target](one.read_bytes())
    assert kept
    proof("fuzz", "inputs of corpus and findings that keep the law", len(kept))


@EACH
def test_the_fuzzer_finds_nothing(target, fuzzed, proof):
    executions, told = fuzzed[target]
    assert not told, told
    assert executions
    proof("fuzz", f"executions of {target}", executions)


@pytest.mark.usefixtures("_atheris")
def test_but_it_finds_what_is_planted_keeps_it_and_fails(tmp_path):
    (tmp_path / "corpus" / "planted").mkdir(parents=True)
    (tmp_path / "corpus" / "planted" / "seed").write_bytes(b"{}")
    executions, told = run(["planted"], 60, findings=tmp_path, corpus=tmp_path / "corpus")["planted"]
    assert "LawBrokenError: planted" in told
    assert executions
    (kept,) = (tmp_path / "planted").iterdir()
    assert kept.read_bytes()[:3] == b"{}\n"
