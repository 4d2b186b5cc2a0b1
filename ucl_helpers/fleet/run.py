"""Run the renewals of a fleet: start them at a pace, settle results, and start lost renewals again.

The rules of this file:

1.  At most as many renewals run as there are workers for, and they start no faster than the pace allows.
2.  A failure stops no other connection. Temporary failures are tried again in this run, each connection
    :data:`ATTEMPTS` times at most: after 429, after another process' lock, after a worker was lost.
3.  SIGINT and SIGTERM start nothing more, and running renewals are finished. A second signal waits for nothing.
4.  An endpoint that fails for several connections alike is not called any more in this run, see
    :mod:`ucl_helpers.fleet.pacing`. Connections of other endpoints go on.
5.  Without workers the run waits for some time, and then leaves the rest to the next run. It does the same when UCL
    answers 429 with a pause longer than :data:`LONGEST_WAIT`.

Everything that happens comes through one queue: a result, or a signal.
"""

import heapq
import itertools
import queue
import signal
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from ucl_helpers.clock import utc_now
from ucl_helpers.errors import Busy, RetryLater, SettledElsewhere
from ucl_helpers.fleet.executors import Workers
from ucl_helpers.fleet.pacing import DEFAULT_RATE, Breaker, Pace, endpoint_of
from ucl_helpers.fleet.plan import Plan
from ucl_helpers.fleet.report import FAILED, LEFT, RENEWED, EndpointFailed, FleetOutcome, Result, failure
from ucl_helpers.fleet.task import renew_one
from ucl_helpers.headless.interruption import handling_signals

ATTEMPTS = 5
PATIENCE = 60.0
LONGEST_WAIT = 300.0
"""Seconds. If UCL asks for a longer pause, the next run does the rest."""

_BUSY_SECONDS, _WAKE_SECONDS, _ENOUGH_SIGNALS = 2.0, 1.0, 2
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
        workers: see :mod:`ucl_helpers.fleet.executors`.
        rate: calls to UCL a second, over all workers together.
        patience: seconds without any worker until it gives up.
        progress: called for each connection that is settled.
        task: what a worker does for a connection; it must be importable there.

    No error of a connection is raised; the outcome has them.
    """
    run = _Run(plan, workers, Pace(rate, now=time.monotonic()), patience, progress, task)
    with handling_signals(run.events.put):
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

    def __post_init__(self) -> None:
        self.breakers: defaultdict[str, Breaker] = defaultdict(Breaker)  # by endpoint
        self.events: queue.SimpleQueue[Future[Result] | int] = queue.SimpleQueue()
        self.results = dict(self.plan.settled)
        self.waiting = deque(self.plan.bases)
        self.later: list[tuple[float, int, str]] = []  # a heap by moment
        self.failed: dict[str, Result] = {}  # of the last attempt of each that is tried again
        self.running: dict[Future[Result], tuple[str, float]] = {}
        self.attempts = Counter[str]()
        self.signals: list[int] = []
        self.stopped: str | None = None
        self.lost = 0
        self._order = itertools.count()
        self._workers_seen = time.monotonic()  # when there was a worker, or nothing to do

    def outcome(self) -> FleetOutcome:
        """Run, and return the outcome."""
        started = utc_now()
        while (self.waiting or self.later or self.running) and len(self.signals) < _ENOUGH_SIGNALS:
            if not self.stopped:
                self._start()
            elif not self.running:
                break
            self._wait()
        if self.running:
            self.workers.executor.shutdown(wait=False)
        for name in self.plan.bases:
            self.results.setdefault(name, Result(LEFT))
        if all(result.outcome != LEFT or result.error for result in self.results.values()):
            self.stopped = None
        code = 128 + self.signals[0] if self.signals else RetryLater.exit_code
        return FleetOutcome(
            started,
            utc_now(),
            self.pace.wanted,
            self.results,
            limited=self.pace.limited,
            repeated=sum(count - 1 for count in self.attempts.values()),
            lost=self.lost,
            endpoints={
                endpoint: self._endpoint_failed(endpoint, breaker)
                for endpoint, breaker in sorted(self.breakers.items())
                if breaker.is_open
            },
            stopped=self.stopped,
            stop_code=code if self.stopped else 0,
        )

    def _endpoint_failed(self, endpoint: str, breaker: Breaker) -> EndpointFailed:
        failed = [name for name in sorted(breaker.failed) if self.results[name].outcome == FAILED]
        not_tried = [
            name
            for name, result in sorted(self.results.items())
            if result.outcome == LEFT and result.error and self.plan.endpoints.get(name) == endpoint
        ]
        return EndpointFailed(breaker.is_silent, tuple(failed), tuple(not_tried))

    def _start(self) -> None:
        """Start as many renewals as may start now."""
        now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            self.waiting.appendleft(heapq.heappop(self.later)[2])
        capacity = self.workers.capacity()
        if self.running or not self.waiting or (capacity and self.pace.delay(now)):
            self._workers_seen = now
        elif now - self._workers_seen >= self.patience:
            self.stopped = "no workers"
            return
        while self.waiting and len(self.running) < capacity and not self.pace.delay(now := time.monotonic()):
            name = self._next_name()
            base, is_again = self.plan.bases[name], self.attempts[name] > 0
            try:
                future = self.workers.executor.submit(
                    self.task, str(self.plan.home.path), name, base, self.plan.force, is_again
                )
            except self.workers.lost:
                self.waiting.appendleft(name)
                break
            self.pace.start(now)
            self.attempts[name] += 1
            self.running[future] = name, now
            future.add_done_callback(self.events.put)

    def _next_name(self) -> str:
        """Take the first connection; while an endpoint is suspected, the last of those that have failed least often."""
        if not any(breaker.is_suspected and not breaker.is_open for breaker in self.breakers.values()):
            return self.waiting.popleft()
        failures = self.plan.failures
        name = min(reversed(self.waiting), key=lambda name: failures.get(name, 0))
        self.waiting.remove(name)
        return name

    def _wait(self) -> None:
        """Wait for an event, or until something may start."""
        now = time.monotonic()
        seconds = [_WAKE_SECONDS]
        if self.waiting and not self.stopped and (delay := self.pace.delay(now)):
            seconds.append(delay)
        if self.later and not self.stopped:
            seconds.append(max(0.0, self.later[0][0] - now))
        try:
            event = self.events.get(timeout=min(seconds))
        except queue.Empty:
            return
        if isinstance(event, int):
            self.signals.append(event)
            self.stopped = _STOPS[signal.Signals(self.signals[0])]
        else:
            self._finish(event)

    def _finish(self, future: Future[Result]) -> None:
        """Settle a renewal, or start it again later."""
        name, started = self.running.pop(future)
        now = time.monotonic()
        error = CancelledError() if future.cancelled() else future.exception()
        if isinstance(error, self.workers.lost):
            self.lost += 1
            error = _lost(name)
        result = failure(error) if error else future.result()
        after = result.retry_after
        self._judge_endpoint(name, result, started, now)
        if result.limited:
            self.pace.slow_down(now, started=started, retry_after=after)
            after = after or 0.0
            if after > LONGEST_WAIT:  # concerns all connections
                self.stopped = self.stopped or "told to wait"
        elif result.error and result.error["class"] in _BUSY:
            after = _BUSY_SECONDS
        if result.outcome == FAILED and after is not None and after <= LONGEST_WAIT:
            self._try_again(name, now + after, result)
        else:
            self._settle(name, result)

    def _judge_endpoint(self, name: str, result: Result, started: float, now: float) -> None:
        """Leave out the rest of an endpoint if this was one failure too many."""
        endpoint = endpoint_of(result.url) if result.verdict else self.plan.endpoints.get(name, "")
        if not endpoint:
            return
        breaker = self.breakers[endpoint]
        breaker.record(name, result.verdict, renewed=result.outcome == RENEWED, started=started, now=now)
        if not breaker.is_open:
            return
        for other in [*self.waiting, *(later for _, _, later in self.later)]:
            if self.plan.endpoints.get(other) == endpoint:
                self._settle(other, self.failed.get(other) or _not_tried(endpoint))
        self.waiting = deque(other for other in self.waiting if other not in self.results)
        self.later = [entry for entry in self.later if entry[2] not in self.results]
        heapq.heapify(self.later)

    def _try_again(self, name: str, when: float, result: Result) -> None:
        """Try a connection once more, unless it has been tried often enough, or its endpoint fails."""
        endpoint = self.plan.endpoints.get(name, "")
        if self.attempts[name] >= ATTEMPTS or self.stopped or self.breakers[endpoint].is_open:
            self._settle(name, result)
        else:
            self.failed[name] = result
            heapq.heappush(self.later, (when, next(self._order), name))

    def _settle(self, name: str, result: Result) -> None:
        self.results[name] = result
        self.progress(name, result)


def _lost(name: str) -> RetryLater:
    message = f"The worker that renewed {name} was lost (killed, or short of memory)."
    remedy = f"Nothing is lost. ucl status {name} shows what is pending, and the next run resumes it."
    return RetryLater(message, remedy=remedy, retry_after=0.0)


def _not_tried(endpoint: str) -> Result:
    remedy = "Nothing of this connection has changed. The next run tries it."
    error = RetryLater(f"Not tried: {endpoint} fails for other connections too.", remedy=remedy)
    return failure(error, LEFT)
