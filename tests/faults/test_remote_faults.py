"""The faults of a sandbox as another process sees and changes them, over the Director's listener."""

from dataclasses import replace

import pytest

from ucl_helpers import practice
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UCLError, UsageError
from ucl_sandbox import Fault, FaultsError, RemoteFaults, Sandbox, SandboxError


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    monkeypatch.setattr(practice, "_JOINED", {})
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # the sandbox is on this machine: no proxy is asked
    with Sandbox(tmp_path / "sandbox") as sandbox:
        yield sandbox


def test_a_plan_is_put_looked_at_and_taken_back(sandbox):
    faults = RemoteFaults(sandbox)
    assert faults.shown() == {"seed": 0, "faults": [], "struck": {}}
    told = faults.set('{"seed": 3, "faults": [{"kind": "http-503", "at": "certificate", "times": 2}]}')
    assert told == {"seed": 3, "faults": [{"kind": "http-503", "at": "certificate", "times": 2}], "struck": {}}
    assert sandbox.faults.plan == (Fault("http-503", "certificate", times=2),)
    assert faults.clear()["faults"] == []
    assert not sandbox.faults


def test_a_plan_that_cannot_be_used_changes_nothing(sandbox):
    faults = RemoteFaults(sandbox)
    faults.set("away")
    with pytest.raises(FaultsError, match="http-999"):
        faults.set("http-999")
    assert [one.kind for one in sandbox.faults.plan] == ["refused", "refused"]


def test_a_stranger_is_told_nothing(sandbox):
    with pytest.raises(SandboxError, match="answers 401"):
        RemoteFaults(replace(access_of(sandbox), director_token="guessed")).shown()


def test_one_that_has_ended_does_not_answer(sandbox):
    nobody = replace(access_of(sandbox), director_url="https://localhost:9/director/graphql")
    with pytest.raises(SandboxError, match="does not answer"):
        RemoteFaults(nobody).shown()


def test_practice_changes_them_and_says_what_is_wrong_in_the_toolkits_own_errors(sandbox, tmp_path, monkeypatch):
    home = Home(tmp_path)
    assert practice.change_faults(home, "lost-answer")["faults"][0]["kind"] == "reset-after-acting"
    assert practice.change_faults(home)["struck"] == {}
    with pytest.raises(UsageError, match="http-999"):
        practice.change_faults(home, "http-999")
    assert practice.change_faults(home, "")["faults"] == []
    nobody = replace(access_of(sandbox), director_url="https://localhost:9/director/graphql")
    monkeypatch.setattr(practice, "sandbox_of", lambda _: nobody)
    with pytest.raises(UCLError, match="does not answer"):
        practice.change_faults(home)


def access_of(sandbox):
    """How it is reached, as a value that can be changed."""
    return practice.sandbox_of(Home(sandbox.state.parent))
