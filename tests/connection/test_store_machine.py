"""The store under any sequence of installing, going back, renewing, revoking, ageing, failing, being killed and
reopened, against a plain model."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from store_model import StoreMachine

from ucl_helpers.connection import files
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import StorageFailed


def run(examples, steps):
    how = settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=examples,
        stateful_step_count=steps,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    StoreMachine.kills = 0
    run_state_machine_as_test(StoreMachine, settings=how)


def test_the_store_is_what_the_model_says(whole, proof):
    run(5000 if whole else 60, 40)
    assert StoreMachine.kills
    proof("fuzz", "acts on the store cut off at a change of the file system", StoreMachine.kills)


def in_two_steps(link, target):
    link.unlink(missing_ok=True)
    link.symlink_to(target)


@pytest.mark.parametrize(
    ("where", "name", "instead"),
    [
        (Pending, "set_aside", lambda pending, _: pending.discard()),
        (Pending, "answer", lambda _: None),
        (files, "swap_symlink", in_two_steps),
        (files, "sweep", lambda *_, **__: None),
        (Connection, "prune", lambda *_: None),
        (Connection, "revoked", lambda _: {}),
    ],
    ids=["sent and thrown away", "an answer is lost", "switched in two steps", "left behind", "kept", "not revoked"],
)
def test_a_store_that_is_not_is_found(monkeypatch, where, name, instead):
    monkeypatch.setattr(where, name, instead)
    with pytest.raises((AssertionError, KeyError, StorageFailed)):
        run(200, 40)
