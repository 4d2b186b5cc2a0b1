"""The run: renewals are started at a pace, what comes back is settled, what was lost is begun again.

The law of this file:

1.  At most as many renewals are under way as there are workers for, and they start no faster than the pace allows.
2.  A failure stops nobody else. What passes is tried again in this run, each connection :data:`ATTEMPTS` times at
    most: after 429, after another process' lock, after a worker was lost.
3.  SIGINT and SIGTERM start nothing more, and what is under way is finished; a second one waits for nothing.
4.  An endpoint that fails for several connections alike is not asked any more in this run, see
    :mod:`ucl_helpers.fleet.breaker`; connections of other endpoints go on.
5.  Without workers it waits for some time, and then leaves what is left to the next run; as when UCL answers 429 and
    wants to hear nothing for longer than :data:`LONGEST_WAIT`.

Everything that happens comes through one queue: a renewal that came back, or a signal.
"""

import heapq
import itertools
import queue
import signal
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from ucl_helpers.clock import utc_now
from ucl_helpers.errors import Busy, RetryLater, SettledElsewhere
from ucl_helpers.fleet.breaker import Breaker, endpoint_of
from ucl_helpers.fleet.executors import Workers
from ucl_helpers.fleet.pacing import DEFAULT_RATE, Pace
from ucl_helpers.fleet.plan import Plan
from ucl_helpers.fleet.report import EndpointFailed, FleetOutcome
from ucl_helpers.fleet.task import FAILED, LEFT, RENEWED, Result, failure, left, not_tried, renew_one
from ucl_helpers.headless.interruption import handling_signals

ATTEMPTS = 5
PATIENCE = 60.0
LONGEST_WAIT = 300.0
"""Seconds; what UCL wants to hear of later than that is left to the next run."""

_BUSY_SECONDS, _LOOK_SECONDS, _ENOUGH = 2.0, 1.0, 2
_STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_BUSY = {Busy.__name__, SettledElsewhere.__name__}
Task = Callable[[str, str, str | None, bool, bool], Result]


def renew_fleet(
    plan: Plan,
    workers: Workers,
    *,
    rate: float = DEFAULT_RATE,
    patience: float = PATIENCE,
    progress: Callable[[str, Result], object] = lambda *_: None,
    task: Task = renew_one,
) -> FleetOutcome:
    """Renew what is planned, over any :class:`concurrent.futures.Executor`.

    Args:
        plan: see :func:`ucl_helpers.fleet.plan.plan`.
        workers: who does it.
        rate: calls to UCL a second, over all workers together.
        patience: seconds without any worker until it gives up.
        progress: told of each connection that is settled.
        task: what a worker is given; it must be importable there.

    It never raises for a connection's sake: what became of each stands in the outcome.
    """
    run = _Run(plan, workers, Pace(rate, now=time.monotonic()), patience, progress, task)
    with run.signals():
        outcome = run.outcome()
    if not outcome.counts[LEFT]:
        plan.done()
    return outcome


@dataclass
class _Run:
    plan: Plan
    workers: Workers
    pace: Pace
    patience: float
    progress: Callable[[str, Result], object]
    task: Task
    results: dict[str, Result] = field(default_factory=dict)
    under_way: dict[Future[Result], tuple[str, float]] = field(default_factory=dict)
    later: list[tuple[float, int, str, Result]] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    signalled: list[int] = field(default_factory=list)
    stopped: str | None = None
    lost: int = 0

    def __post_init__(self) -> None:
        self.results.update(self.plan.settled)
        self.waiting = deque(self.plan.bases)
        self.happened: queue.SimpleQueue[Future[Result] | int] = queue.SimpleQueue()
        self.breakers: defaultdict[str, Breaker] = defaultdict(Breaker)  # by endpoint
        self._order = itertools.count()
        self._seen = time.monotonic()  # when there was a worker, or nothing to do

    def outcome(self) -> FleetOutcome:
        """Run, and tell what came of it."""
        started = utc_now()
        while (self.waiting or self.later or self.under_way) and len(self.signalled) < _ENOUGH:
            if not self.stopped:
                self._start()
            elif not self.under_way:
                break
            self._next()
        if self.under_way:
            self.workers.executor.shutdown(wait=False)
        for name in self.plan.bases:
            self.results.setdefault(name, left())
        if all(one["outcome"] != LEFT or one["error"] for one in self.results.values()):
            self.stopped = None
        code = 128 + self.signalled[0] if self.signalled else RetryLater.exit_code
        return FleetOutcome(
            started,
            utc_now(),
            self.pace.wanted,
            self.results,
            limited=self.pace.limited,
            repeated=sum(count - 1 for count in self.attempts.values()),
            lost=self.lost,
            endpoints=self._endpoints_that_failed(),
            stopped=self.stopped,
            stop_code=code if self.stopped else 0,
        )

    def _start(self) -> None:
        """Start as many as may be started now."""
        now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            self.waiting.appendleft(heapq.heappop(self.later)[2])
        capacity = self.workers.capacity()
        if self.under_way or not self.waiting or (capacity and self.pace.delay(now)):
            self._seen = now
        elif now - self._seen >= self.patience:
            self.stopped = "no workers"
            return
        while self.waiting and len(self.under_way) < capacity and not self.pace.delay(now := time.monotonic()):
            suspected = any(one.is_suspected and not one.is_open for one in self.breakers.values())
            if not self._begin(self._other_end() if suspected else self.waiting.popleft(), now):
                break

    def _other_end(self) -> str:
        """Take the last of those that have failed least often: what fails for long says nothing of all the others."""
        failures = self.plan.failures
        fewest = min(failures.get(name, 0) for name in self.waiting)
        name = next(name for name in reversed(self.waiting) if failures.get(name, 0) == fewest)
        self.waiting.remove(name)
        return name

    def _begin(self, name: str, now: float) -> bool:
        """Start one; False when the workers turn out to be gone."""
        given = str(self.plan.home.path), name, self.plan.bases[name], self.plan.force, self.attempts[name] > 0
        try:
            future = self.workers.executor.submit(self.task, *given)
        except self.workers.lost:
            self.waiting.appendleft(name)
            return False
        self.pace.start(now)
        self.attempts[name] += 1
        self.under_way[future] = name, now
        future.add_done_callback(self.happened.put)
        return True

    def _next(self) -> None:
        """Wait for what happens next, or until something may be started."""
        now = time.monotonic()
        moments = [_LOOK_SECONDS]
        if self.waiting and not self.stopped:
            moments += [pause] if (pause := self.pace.delay(now)) else []
        if self.later and not self.stopped:
            moments.append(max(0.0, self.later[0][0] - now))
        try:
            event = self.happened.get(timeout=min(moments))
        except queue.Empty:
            return
        if isinstance(event, int):
            self.signalled.append(event)
            self.stopped = _STOPS[signal.Signals(self.signalled[0])]
        else:
            self._came_back(event)

    def _came_back(self, future: Future[Result]) -> None:
        name, started = self.under_way.pop(future)
        now = time.monotonic()
        error = CancelledError() if future.cancelled() else future.exception()
        if isinstance(error, self.workers.lost):
            self.lost += 1
            self._again(name, now, _lost(name))
            return
        result = failure(error) if error else future.result()
        after = result["retryAfter"]
        self._judge_endpoint(name, result, started, now)
        if result["limited"]:
            self.pace.slow_down(now, started=started, retry_after=after)
            after = after or 0.0
            if after > LONGEST_WAIT:  # of everybody
                self.stopped = self.stopped or "told to wait"
        elif result["error"] and result["error"]["class"] in _BUSY:
            after = _BUSY_SECONDS
        if result["outcome"] == FAILED and after is not None and after <= LONGEST_WAIT:
            self._again(name, now + after, result)
        else:
            self._settle(name, result)

    def _judge_endpoint(self, name: str, result: Result, started: float, now: float) -> None:
        """Leave out all that is left of an endpoint if this was one failure too many."""
        where = self.plan.endpoints.get(name, "")
        endpoint = endpoint_of(result["url"]) if result["verdict"] else where
        if not endpoint:
            return
        breaker = self.breakers[endpoint]
        breaker.came(name, result["verdict"], renewed=result["outcome"] == RENEWED, started=started, now=now)
        if not breaker.is_open:
            return
        tried = {one: earlier for _, _, one, earlier in self.later}
        for other in [*self.waiting, *tried]:
            if self.plan.endpoints.get(other) == endpoint:
                self._settle(other, tried.get(other) or not_tried(endpoint))
        self.waiting = deque(one for one in self.waiting if one not in self.results)
        self.later = [one for one in self.later if one[2] not in self.results]
        heapq.heapify(self.later)

    def _endpoints_that_failed(self) -> dict[str, EndpointFailed]:
        found = {}
        for endpoint in sorted(one for one, breaker in self.breakers.items() if breaker.is_open):
            breaker = self.breakers[endpoint]
            failed = [name for name in sorted(breaker.failed) if self.results[name]["outcome"] == FAILED]
            left = [name for name, one in sorted(self.results.items()) if one["outcome"] == LEFT and one["error"]]
            here = [name for name in left if self.plan.endpoints.get(name) == endpoint]
            found[endpoint] = EndpointFailed(breaker.is_silent, tuple(failed), tuple(here))
        return found

    def _again(self, name: str, when: float, result: Result) -> None:
        """Try it once more, unless it has been tried often enough, or its endpoint fails."""
        endpoint = self.plan.endpoints.get(name, "")
        fails = endpoint in self.breakers and self.breakers[endpoint].is_open
        if self.attempts[name] >= ATTEMPTS or self.stopped or fails:
            self._settle(name, result)
        else:
            heapq.heappush(self.later, (when, next(self._order), name, result))

    def _settle(self, name: str, result: Result) -> None:
        self.results[name] = result
        self.progress(name, result)

    def signals(self) -> AbstractContextManager[None]:
        """Let SIGINT and SIGTERM come through the queue."""
        return handling_signals(self.happened.put)


def _lost(name: str) -> Result:
    remedy = f"Nothing is lost: ucl status {name} shows what is pending, and the next run resumes it."
    return failure(RetryLater(f"The worker that renewed {name} was lost (killed, or short of memory).", remedy=remedy))
