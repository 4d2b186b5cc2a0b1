"""What `make bench` makes of what it measured. How long anything takes is not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import Pairs, Result, in_turn, process
from benchmarks.report import MODULES, cells, line, markdown, merged, write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MACHINE = {"CPU": "Z80", "cores": "1"}


def kept(name, module="renewing", *, measured=0.5, to_reach=1.0, at_most=True, unit="×", date="2026-01-01"):
    result = Result(name, f"what {name} does", "another", measured, unit, to_reach, at_most, {"pairs": 3})
    return line(result, module, date, "abc1234")


# -- how it is measured ------------------------------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_medians():
    pairs = Pairs([1.0, 2.0, 9.0], [4.0, 1.0, 8.0])
    assert (pairs.ratio, pairs.more) == (0.5, -2.0)
    assert pairs.described()["quartiles"] == [0.25, 1.125, 2.0]


def test_where_chance_makes_the_times_a_ratio_is_that_of_the_totals():
    pairs = Pairs([1.0, 2.0, 9.0], [4.0, 1.0, 8.0])
    assert pairs.total_ratio == 12 / 13 != pairs.ratio
    assert pairs.described()["totals"] == [12.0, 13.0]


def test_both_are_measured_in_turn_and_first_for_nothing():
    calls = []
    figures = in_turn(lambda: calls.append("ours") or len(calls), lambda: calls.append("theirs") or len(calls), 2)
    assert calls == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert (figures.ours, figures.theirs) == ([4, 5], [3, 6])


def test_a_process_is_as_large_as_what_it_holds_and_not_as_what_started_it():
    ballast = bytearray(64 * 2**20)
    small = process([sys.executable, "-c", "pass"])
    large = process([sys.executable, "-c", "bytearray(b'x' * 2**26)"])
    assert small.peak_bytes < len(ballast) < large.peak_bytes


def test_a_process_that_fails_is_not_measured():
    with pytest.raises(subprocess.CalledProcessError) as failed:
        process([sys.executable, "-c", "raise SystemExit('no')"])
    assert (failed.value.returncode, failed.value.stderr) == (1, b"no\n")


# -- what is made of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "to_reach", "at_most", "reached"),
    [(1.0, 1.0, True, True), (1.1, 1.0, True, False), (95.0, 95.0, False, True), (94.0, 95.0, False, False)],
)
def test_reached_is_said_in_the_table(measured, to_reach, at_most, reached):
    assert cells(kept("one", measured=measured, to_reach=to_reach, at_most=at_most))[-1] == ("yes" if reached else "no")


@pytest.mark.parametrize(
    ("unit", "at_most", "texts"),
    [
        ("×", True, ("0.50 ×", "1 × or less")),
        ("s", True, ("0.50 s more", "1 s or less")),
        ("%", False, ("0.50 %", "1 % or more")),
        ("", True, ("0.50", "1 or less")),
    ],
)
def test_a_figure_is_shown_with_its_unit(unit, at_most, texts):
    assert cells(kept("one", unit=unit, at_most=at_most))[2:4] == texts


def test_the_table_has_a_row_for_each_line_then_days_and_machine():
    lines = [kept("one"), kept("two", date="2026-01-02")]
    *table, _, measured = markdown(lines, MACHINE).splitlines()
    assert [row.count("|") for row in table] == [6] * 4
    assert measured == "Measured on 2026-01-01 (commit abc1234), 2026-01-02 (commit abc1234). CPU Z80; cores 1."


def test_all_is_written_and_can_be_read_again(tmp_path):
    results = merged(None, MACHINE, [kept("one")])
    write(results, tmp_path / "results")
    assert json.loads((tmp_path / "results" / "results.json").read_text("utf-8")) == results
    assert (tmp_path / "results" / "results.md").read_text("utf-8") == markdown(results["lines"], MACHINE)


# -- some of it measured again -----------------------------------------------------------------------------------------


def test_what_did_not_run_stays_as_it_was():
    before = merged(None, MACHINE, [kept("a"), kept("gone"), kept("b", "calling")])
    after = merged(before, MACHINE, [kept("a", measured=0.7, date="2026-02-02"), kept("new")])
    assert [(row["name"], row["measured"], row["date"]) for row in after["lines"]] == [
        ("a", 0.7, "2026-02-02"),
        ("new", 0.5, "2026-01-01"),
        ("b", 0.5, "2026-01-01"),
    ]


def test_lines_stand_in_the_order_of_the_modules():
    lines = [kept(module, module) for module in reversed(MODULES)]
    assert [row["name"] for row in merged(None, MACHINE, lines)["lines"]] == list(MODULES)


def test_lines_of_two_machines_are_not_mixed():
    before = merged(None, MACHINE, [kept("a"), kept("b", "calling")])
    with pytest.raises(ValueError, match="another machine"):
        merged(before, {**MACHINE, "cores": "2"}, [kept("a")])
    assert len(merged(before, {**MACHINE, "cores": "2"}, [kept("a"), kept("b", "calling")])["lines"]) == 2


@pytest.mark.parametrize("arguments", [["nonsense"], ["--pairs", "1"], ["--pairs", "many"]])
def test_what_cannot_be_measured_is_refused(arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 2


# -- the table in the docs ---------------------------------------------------------------------------------------------


def test_the_table_is_made_of_what_was_measured():
    results = json.loads((RESULTS / "results.json").read_text("utf-8"))
    assert (RESULTS / "results.md").read_text("utf-8") == markdown(results["lines"], results["machine"])
    changed = [{**row, "measured": row["measured"] + 1} for row in results["lines"]]
    assert (RESULTS / "results.md").read_text("utf-8") != markdown(changed, results["machine"])
