"""What ``outcome.json`` says, read off executed cells without a kernel; and that it follows its schema."""

import json
from datetime import UTC, datetime

import jsonschema
import pytest
from notebook_runs import must_follow_the_schema
from steps import install

from ucl_helpers.connection.store import Home
from ucl_helpers.errors import DeadlineExceeded
from ucl_helpers.headless import CellFailed
from ucl_helpers.headless.outcome import Record, outcome_path, steps
from ucl_helpers.headless.redaction import Redactor
from ucl_helpers.headless.run import default_output, not_due_path, prune
from ucl_helpers.models import OUTCOME_MIME
from ucl_sandbox import Sandbox

NOW = datetime(2026, 1, 31, 23, 59, 59, 5, tzinfo=UTC)


def code(*outputs, status="completed", seconds=1.5):
    metadata = {"papermill": {"status": status, "duration": seconds}}
    return {"cell_type": "code", "source": "x", "metadata": metadata, "outputs": list(outputs)}


def heading(text):
    return {"cell_type": "markdown", "source": f"{text}\n\nProse.", "metadata": {}}


def said(**outcome):
    return {"output_type": "display_data", "metadata": {}, "data": {OUTCOME_MIME: outcome}}


def raised(name, text):
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": []}


def failed(name, text, index=0):
    return CellFailed(index, name, text)


def told(*cells, error=None, **parameters):
    record = Record("in.ipynb", parameters, NOW)
    record.end(cells, error, Redactor())
    outcome = record.as_json("out.ipynb")
    must_follow_the_schema(outcome)
    return outcome


ENDINGS = [
    ((), None, 0, "done"),
    ((said(outcome="renewed", exitCode=0),), None, 0, "renewed"),
    ((said(outcome="failed", exitCode=3, error="Unreachable", message="no"),), None, 3, "failed"),
    ((said(outcome="said", exitCode=3), raised("Unreachable", "no")), failed("Unreachable", "no"), 3, "said"),
    ((said(outcome="renewed", exitCode=0), raised("ValueError", "later")), failed("ValueError", "later"), 1, "failed"),
    ((raised("ValueError", "at once"),), failed("ValueError", "at once"), 1, "failed"),
    ((), failed("ValueError", "unseen"), 1, "failed"),
    ((raised("ValueError", "only shown"),), None, 0, "done"),
    ((raised("SystemExit", "0"),), failed("SystemExit", "0"), 0, "done"),
    ((said(outcome="renewed", exitCode=0),), failed("SystemExit", ""), 0, "renewed"),
    ((raised("SystemExit", "7"),), failed("SystemExit", "7"), 1, "failed"),
    ((), RuntimeError("Kernel died"), 1, "failed"),
    ((said(outcome="renewed", exitCode=0),), DeadlineExceeded("too long"), 3, "failed"),
    ((raised("KeyboardInterrupt", ""),), KeyboardInterrupt(), 130, "stopped"),
    ((raised("KeyboardInterrupt", ""),), SystemExit(143), 143, "stopped"),
]


@pytest.mark.parametrize(("outputs", "error", "exit_code", "outcome"), ENDINGS)
def test_the_exit_code_is_the_outcomes_and_never_0_after_an_error(outputs, error, exit_code, outcome):
    found = told(code(*outputs), error=error)
    assert (found["exitCode"], found["outcome"]) == (exit_code, outcome)


KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIB"


@pytest.mark.parametrize(
    ("outputs", "error", "exit_code", "outcome", "also"),
    [
        ((said(outcome="renewed", exitCode=0),), None, 14, "renewed", ""),
        (
            (said(outcome="renewed", exitCode=0), raised("ValueError", KEY)),
            failed("ValueError", KEY),
            14,
            "failed",
            "ValueError: [private key",
        ),
        ((), RuntimeError(f"died of {KEY}"), 14, "failed", "RuntimeError: [private key removed]"),
        ((), KeyboardInterrupt(), 130, "stopped", ""),
    ],
)
def test_a_secret_that_was_taken_out_has_its_own_exit_code_and_hides_no_failure(
    outputs, error, exit_code, outcome, also
):
    record, redactor = Record("in.ipynb", {}, NOW), Redactor()
    redactor.text(KEY, "cell 1, stdout")
    record.end([code(*outputs)], error, redactor)
    found = record.as_json("out.ipynb")
    must_follow_the_schema(found)
    assert (found["exitCode"], found["outcome"], also in found["message"]) == (exit_code, outcome, True)
    assert {"kind": "private key", "place": "cell 1, stdout"} in found["redacted"]
    assert "MIIE" not in json.dumps(found)


def test_an_outcome_counts_although_a_secret_condemned_what_was_shown_beside_it():
    shown = said(outcome="renewed", exitCode=0, rule="r")
    cells = [code({"output_type": "stream", "name": "stdout", "text": KEY}, shown)]
    record, redactor = Record("in.ipynb", {}, NOW), Redactor()
    redactor.notebook({"metadata": {}, "cells": cells})
    record.end(cells, None, redactor)
    found = record.as_json("out.ipynb")
    must_follow_the_schema(found)
    assert (found["exitCode"], found["outcome"], found["rule"]) == (14, "renewed", "r")
    assert "private key in cell 1, stdout" in found["message"]
    assert "MIIE" not in json.dumps([found, cells])


@pytest.mark.parametrize(("status", "outcome"), [("completed", "done"), ("pending", "failed"), ("running", "failed")])
def test_a_cell_that_was_not_executed_fails_the_run(status, outcome):
    found = told(code(), heading("# Between"), code(status=status))
    assert (found["outcome"], "cell 3 was not executed" in found.get("message", "")) == (outcome, outcome == "failed")


def test_the_last_outcome_counts_with_all_its_facts():
    found = told(code(said(outcome="a", exitCode=5, message="x")), code(said(outcome="b", exitCode=0, rule="r")))
    assert (found["outcome"], found["exitCode"], found["rule"], found["connection"]) == ("b", 0, "r", None)


def test_steps_are_named_by_their_headings():
    cells = [
        code(seconds=1),
        heading("# Title"),
        code(seconds=0.25),
        heading("## Step 1: Ask"),
        heading("More."),
        code(),
        code(),
    ]
    cells += [heading("## No code"), heading("### Sign"), code(status="failed"), heading("## Last"), code(seconds=None)]
    cells[-1]["metadata"] = {}
    assert list(steps(cells, "02")) == [
        {"name": "02", "seconds": 1, "status": "completed"},
        {"name": "Title", "seconds": 0.25, "status": "completed"},
        {"name": "Step 1: Ask", "seconds": 3.0, "status": "completed"},
        {"name": "Sign", "seconds": 1.5, "status": "failed"},
        {"name": "Last", "seconds": 0, "status": "pending"},
    ]


def test_a_run_that_failed_tells_how_its_connection_stands(tmp_path):
    home = Home(tmp_path / "home")
    with Sandbox() as ucl:
        connection = install(home, ucl, tmp_path)
    found = told(code(), error=failed("ValueError", "x"), connection=connection.name, home=str(home.path))
    assert (found["connection"], found["fingerprint"]) == (connection.name, connection.current.fingerprint)
    assert found["notAfter"] > found["dueAt"] > found["notBefore"]
    assert "fingerprint" not in told(code(), error=failed("ValueError", "x"), connection="other", home=str(home.path))


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 2},
        {"exitCode": "0"},
        {"redacted": [{"kind": "private key", "place": "x", "text": "…"}]},
        {"redacted": [{"kind": "private key", "place": "x"}]},
        {"error": "ValueError"},
        {"exitCode": 1},
        {"started": "2026-01-31 23:59:59"},
        {"fingerprint": "3f:a9"},
        {"kind": "look"},
        {"notebook": None},
    ],
)
def test_the_schema_takes_no_other(change):
    with pytest.raises(jsonschema.ValidationError):
        must_follow_the_schema({**told(), **change})


# -- where records lie -------------------------------------------------------------------------------------------------


def test_runs_are_kept_apart_by_their_moment(tmp_path):
    kept = default_output(tmp_path, tmp_path / "02_maintain_connection.ipynb", NOW)
    assert kept == tmp_path / "02_maintain_connection-20260131T235959.000005Z.ipynb"
    assert outcome_path(kept).name == "02_maintain_connection-20260131T235959.000005Z.outcome.json"


def test_the_oldest_runs_are_thrown_away_and_nothing_else(tmp_path):
    days = [NOW.replace(day=day) for day in range(1, 31)]
    for day in days:
        run = default_output(tmp_path, tmp_path / ("a.ipynb" if day.day % 2 else "b.ipynb"), day)
        run.touch()
        outcome_path(run).touch()
    others = {not_due_path(tmp_path, tmp_path / "a.ipynb", "prod"), tmp_path / "mine.ipynb", tmp_path / "a-1.ipynb"}
    for path in others:
        path.touch()
    prune(tmp_path, NOW, keep=10)
    left = {path.name.split("T")[0][-2:] for path in set(tmp_path.iterdir()) - others}
    assert left == {str(day) for day in range(21, 31)}
    assert all(path.exists() for path in others)
    assert len(list(tmp_path.iterdir())) == 20 + len(others)
    prune(tmp_path, days[0], keep=1)  # all of them are younger than a day, by that clock
    assert len(list(tmp_path.iterdir())) == 20 + len(others)
    prune(tmp_path / "not there", NOW)
