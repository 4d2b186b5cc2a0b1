"""Workers on other machines: a Dask cluster that runs already.

*Not* checked: that the workers see the same home folder under the same path, and that locks hold on it across machines
(``ucl doctor`` tests them from two processes of one).
"""

import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager
from typing import Any

from distributed import Client, KilledWorker
from distributed.cfexecutor import ClientExecutor
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.security import Security

from ucl_helpers.errors import Unreachable
from ucl_helpers.fleet.executors import Workers
from ucl_helpers.fleet.scheduler import Scheduler

_LOOK_AGAIN = 2.0
_LOST = (BrokenExecutor, CancelledError, KilledWorker, ClosedClientError, CommClosedError)


@contextmanager
def dask(scheduler: Scheduler, *, patience: float) -> Iterator[Workers]:
    """The workers of a scheduler.

    Args:
        scheduler: where it is.
        patience: seconds for which it is waited for, now and when it is lost.

    Raises:
        UsageError: the way there is not safe.
        Unreachable: nobody answers there, or not to us.
    """
    scheduler.must_be_safe()
    try:
        client = Client(scheduler.address, security=_security(scheduler), timeout=patience, set_as_default=False)
    except OSError as error:
        raise Unreachable(
            f"The scheduler {scheduler.address} does not answer ({type(error).__name__}).",
            remedy="Is it running, at this address, with a certificate of the same CA?",
        ) from None
    try:
        executor = Submitted(client, pure=False)
        yield Workers(executor, _Capacity(client, executor), _LOST)
    finally:
        client.close()


def _security(scheduler: Scheduler) -> Security:
    if not scheduler.encrypted:
        return Security(require_encryption=False)
    return Security(
        tls_ca_file=str(scheduler.ca_file),
        tls_client_cert=str(scheduler.certificate),
        tls_client_key=str(scheduler.key),
        require_encryption=True,
    )


class Submitted(ClientExecutor):
    """What was submitted is cancelled if nobody will ever tell what came of it.

    When the scheduler is lost, Dask's client forgets its futures and cancels them; but for one whose result was just
    being fetched: that is waited for without end.
    """

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self._begun: dict[Future[Any], Any] = {}
        self._forgotten = set[Future[Any]]()

    def _wrap_future(self, future: Any) -> Future[Any]:
        told: Future[Any] = super()._wrap_future(future)
        self._begun[told] = future
        return told

    def look(self) -> None:
        """To be called now and then: cancel what is still forgotten since the last time."""
        self._begun = {told: future for told, future in self._begun.items() if not told.done()}
        forgotten = {told for told, future in self._begun.items() if future.key not in self._client.futures}
        for told in forgotten & self._forgotten:
            told.cancel()
        self._forgotten = forgotten


class _Capacity:
    """How many renewals a cluster takes now: one for each thread, and one more for each worker to go on with."""

    def __init__(self, client: Client, executor: Submitted) -> None:
        self._client, self._executor, self._known, self._until = client, executor, 0, 0.0

    def __call__(self) -> int:
        if self._client.status != "running":
            return 0
        if (now := time.monotonic()) >= self._until:
            self._executor.look()
            try:
                threads = self._client.nthreads()
            except (OSError, ClosedClientError):
                return 0
            self._known, self._until = sum(threads.values()) + len(threads), now + _LOOK_AGAIN
        return self._known
