"""What the coordinator of a fleet makes of what workers say: these are threads, and the renewals are stand-ins."""

import os
import signal
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import fleet_tasks
import pytest
from fleet_tasks import ASKED, by_name, renewed, well

from ucl_helpers.connection.store import Home
from ucl_helpers.errors import ChecksFailed, Refused, RetryLater, StorageFailed
from ucl_helpers.fleet import run
from ucl_helpers.fleet.executors import Workers
from ucl_helpers.fleet.pacing import Pace
from ucl_helpers.fleet.plan import Plan
from ucl_helpers.fleet.report import LEFT, SHOWN, FleetOutcome, Result, failure
from ucl_helpers.fleet.run import ATTEMPTS, renew_fleet

FAST = 1e6


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    monkeypatch.setattr(run, "_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(run, "_WAKE_SECONDS", 0.01)
    ASKED.clear()


@pytest.fixture
def fleet(tmp_path):
    """Renews connections of these names, by threads and the given task."""

    def renew(*names, task=by_name, rate=FAST, threads=2, **more):
        with ThreadPoolExecutor(threads) as pool:
            plan = Plan(Home(tmp_path), False, dict.fromkeys(names))
            return renew_fleet(plan, Workers(pool, lambda: threads), rate=rate, task=task, **more)

    return renew


def outcomes(outcome):
    return {name: result.outcome for name, result in outcome.results.items()}


def test_all_are_renewed_once_each(fleet):
    told = []
    outcome = fleet(*(f"c{number}" for number in range(100)), task=well, progress=lambda name, _: told.append(name))
    assert outcome.counts == {"renewed": 100, "renewed-before": 0, "not-due": 0, "failed": 0, "left": 0}
    assert set(ASKED.values()) == {1}
    assert sorted(told) == sorted(outcome.results)
    assert (outcome.exit_code, outcome.repeated, outcome.stopped) == (0, 0, None)


def test_a_failure_stops_nobody_else(fleet):
    outcome = fleet("refused", "bug", "away", "much-later", "well-1", "idle", "well-2")
    failed = dict.fromkeys(("refused", "bug", "away", "much-later"), "failed")
    assert outcomes(outcome) == {**failed, "well-1": "renewed", "well-2": "renewed", "idle": "not-due"}
    assert set(ASKED.values()) == {1}
    assert outcome.failures["refused"].error == {"class": "Refused", "message": "No.", "remedy": "Ask why."}


def test_of_a_bug_only_the_class_is_told(fleet):
    outcome = fleet("bug")
    assert outcome.failures["bug"].error["message"] == "Unexpected: ZeroDivisionError."
    assert "s3cr3t" not in str(outcome) + str(outcome.as_json())


@pytest.mark.parametrize("name", ["limited-2", "soon-2", "busy"])
def test_what_passes_is_tried_again_in_the_same_run(fleet, name):
    outcome = fleet(name, "well")
    assert outcomes(outcome) == {name: "renewed", "well": "renewed"}
    assert outcome.repeated == ASKED[name] - 1 > 0
    assert outcome.limited == (2 if name == "limited-2" else 0)


@pytest.mark.parametrize("name", ["limited-99", "soon-99"])
def test_but_not_for_ever(fleet, name):
    outcome = fleet(name)
    assert (outcomes(outcome), ASKED[name]) == ({name: "failed"}, ATTEMPTS)
    assert outcome.exit_code == 3


def test_429_slows_the_whole_fleet_down(fleet, monkeypatch):
    told = []

    class Noted(Pace):
        def slow_down(self, now, *, started, retry_after=None):
            told.append((started <= now, retry_after))
            super().slow_down(now, started=started, retry_after=retry_after)

    monkeypatch.setattr(run, "Pace", Noted)
    fleet("limited-2", "soon-2", "well")
    assert told == [(True, 0.01)] * 2


def test_who_is_told_to_wait_for_long_leaves_the_rest_to_the_next_run(fleet):
    outcome = fleet("limited", *(f"well-{number}" for number in range(20)), threads=1)
    assert (outcome.stopped, outcome.exit_code, ASKED) == ("told to wait", 3, {"limited": 1})
    assert outcome.counts["left"] == 20


# -- workers that are gone ---------------------------------------------------------------------------------------------


class Dying(Executor):
    """Its workers die with each of the first tasks."""

    def __init__(self, deaths):
        self.deaths = deaths

    def submit(self, task, /, *args, **kwargs):
        future = Future()
        if self.deaths:
            self.deaths -= 1
            future.set_exception(BrokenExecutor("gone"))
        else:
            future.set_result(task(*args, **kwargs))
        return future


def over(executor, tmp_path, *names, **more):
    plan = Plan(Home(tmp_path), False, dict.fromkeys(names))
    return renew_fleet(plan, Workers(executor, lambda: 1), rate=FAST, task=well, **more)


def test_what_a_lost_worker_had_in_hand_is_begun_again(tmp_path):
    outcome = over(Dying(3), tmp_path, "a", "b")
    assert outcomes(outcome) == {"a": "renewed", "b": "renewed"}
    assert (outcome.lost, outcome.repeated) == (3, 3)


def test_a_connection_that_is_the_end_of_each_worker_is_given_up(tmp_path):
    outcome = over(Dying(ATTEMPTS), tmp_path, "a")
    assert outcomes(outcome) == {"a": "failed"}
    assert "was lost" in outcome.failures["a"].error["message"]
    assert outcome.exit_code == 3


def test_without_workers_it_gives_up_and_leaves_the_rest(tmp_path):
    plan = Plan(Home(tmp_path), False, {"a": None})
    outcome = renew_fleet(plan, Workers(Dying(0), lambda: 0), rate=FAST, task=well, patience=0.01)
    assert (outcomes(outcome), outcome.stopped, outcome.exit_code) == ({"a": "left"}, "no workers", 3)


def test_workers_that_come_late_are_waited_for(tmp_path):
    some = iter([0, 0])
    plan = Plan(Home(tmp_path), False, {"a": None})
    outcome = renew_fleet(plan, Workers(Dying(0), lambda: next(some, 1)), rate=FAST, task=well)
    assert outcomes(outcome) == {"a": "renewed"}


def test_workers_that_are_gone_when_they_are_given_something_count_as_none(tmp_path):
    class Gone(Dying):
        def submit(self, task, /, *args, **kwargs):
            raise BrokenExecutor("gone")

    outcome = over(Gone(0), tmp_path, "a", patience=0.01)
    assert (outcomes(outcome), outcome.lost) == ({"a": "left"}, 0)


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "word", "code"), [("SIGINT", "interrupted", 130), ("SIGTERM", "terminated", 143)])
def test_a_signal_starts_nothing_more_and_finishes_what_is_under_way(fleet, number, word, code):
    names = [f"c{one}" for one in range(50)]
    outcome = fleet(*names, task=well, progress=lambda *_: os.kill(os.getpid(), signal.Signals[number]), threads=1)
    assert (outcome.stopped, outcome.exit_code) == (word, code)
    assert outcome.counts["left"] > 0
    assert sum(ASKED.values()) == outcome.counts["renewed"] == 50 - outcome.counts["left"]


def test_a_signal_when_all_is_done_changes_nothing(fleet):
    outcome = fleet("c1", task=well, progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert (outcome.stopped, outcome.exit_code) == (None, 0)


class Silent(Executor):
    """What it is given never comes back; the second task brings two signals."""

    def __init__(self, signals):
        self.signals, self.ended = signals, None

    def submit(self, task, /, *args, **kwargs):
        for _ in range(self.signals):
            os.kill(os.getpid(), signal.SIGTERM)
        return Future()

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.ended = wait


def test_a_second_signal_waits_for_nothing(tmp_path):
    silent = Silent(2)
    outcome = over(silent, tmp_path, "a")
    assert (outcomes(outcome), outcome.exit_code, silent.ended) == ({"a": "left"}, 143, False)


def test_afterwards_signals_mean_what_they_meant_before(fleet):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    fleet("c1", task=well)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


# -- the outcome -------------------------------------------------------------------------------------------------------


def told(**results):
    return FleetOutcome(datetime.now(UTC), datetime.now(UTC), 10.0, results)


REFUSED, LATER, DISK, CHECKS = map(failure, (Refused("a"), RetryLater("b"), StorageFailed("c"), ChecksFailed("d")))


@pytest.mark.parametrize(
    ("failures", "code"),
    [
        ([], 0),
        ([LATER], 3),
        ([LATER, LATER, REFUSED], 4),
        ([REFUSED, DISK, DISK], 10),
        ([DISK, CHECKS], 6),
    ],
)
def test_the_exit_code_is_that_of_the_commonest_failure_that_does_not_pass(failures, code):
    results = {f"c{number}": one for number, one in enumerate([renewed(), *failures])}
    assert told(**results).exit_code == code


def test_ten_thousand_failures_are_not_ten_thousand_lines():
    many = told(**{f"c{number:05d}": REFUSED for number in range(10_000)})
    assert len(str(many).splitlines()) <= SHOWN + 5
    assert "9980 more" in str(many)
    assert len(many.as_json()["connections"]) == 10_000


def test_each_failure_is_told_with_its_remedy():
    shown = str(told(**{"prod-1": failure(Refused("It said no.", remedy="Ask why.")), "prod-2": Result(LEFT)}))
    assert all(text in shown for text in ("prod-1", "4 Refused", "It said no.", "Ask why.", "run it again"))


def test_the_stand_ins_are_what_they_claim():
    assert partial(by_name, "", base=None, force=False, again=False)(name="away").exit_code == 3
    assert fleet_tasks.renewed().outcome == "renewed"
