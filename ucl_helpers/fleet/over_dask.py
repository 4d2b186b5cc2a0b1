"""Run renewals on other machines, on the workers of a running Dask cluster.

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
from ucl_helpers.fleet.executors import Scheduler, Workers

_REFRESH_SECONDS = 2.0
_LOST = (BrokenExecutor, CancelledError, KilledWorker, ClosedClientError, CommClosedError)


@contextmanager
def dask(scheduler: Scheduler, *, patience: float) -> Iterator[Workers]:
    """Return the workers of a scheduler.

    Args:
        scheduler: its address.
        patience: seconds to wait for it, now and when it is lost.

    Raises:
        UsageError: the connection to it is not safe.
        Unreachable: it does not answer, or not to us.
    """
    scheduler.require_safe()
    try:
        client = Client(scheduler.address, security=_security(scheduler), timeout=patience, set_as_default=False)
    except OSError as error:
        raise Unreachable(
            f"The scheduler {scheduler.address} does not answer ({type(error).__name__}).",
            remedy="Is it running, at this address, with a certificate of the same CA?",
        ) from None
    try:
        executor = _Cluster(client, pure=False)
        yield Workers(executor, executor.capacity, _LOST)
    finally:
        client.close()


def _security(scheduler: Scheduler) -> Security:
    if not scheduler.is_encrypted:
        return Security(require_encryption=False)
    return Security(
        tls_ca_file=str(scheduler.ca_file),
        tls_client_cert=str(scheduler.certificate),
        tls_client_key=str(scheduler.key),
        require_encryption=True,
    )


class _Cluster(ClientExecutor):
    """A cluster's workers. It cancels a renewal whose result will never arrive.

    When the scheduler is lost, Dask's client forgets its futures and cancels them, except for one whose result was
    being fetched at that moment: Dask waits for that one without end.
    """

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self._submitted: dict[Future[Any], Any] = {}
        self._forgotten = set[Future[Any]]()
        self._threads, self._refresh_at = 0, 0.0

    def _wrap_future(self, future: Any) -> Future[Any]:
        wrapped: Future[Any] = super()._wrap_future(future)
        self._submitted[wrapped] = future
        return wrapped

    def capacity(self) -> int:
        """Return how many renewals the cluster takes now: one for each thread, and one more for each worker."""
        if self._client.status != "running":
            return 0
        if (now := time.monotonic()) >= self._refresh_at:
            self._cancel_forgotten()
            try:
                threads = self._client.nthreads()
            except (OSError, ClosedClientError):
                return 0
            self._threads, self._refresh_at = sum(threads.values()) + len(threads), now + _REFRESH_SECONDS
        return self._threads

    def _cancel_forgotten(self) -> None:
        """Cancel the futures that the client had already forgotten at the last call."""
        self._submitted = {wrapped: future for wrapped, future in self._submitted.items() if not wrapped.done()}
        forgotten = {wrapped for wrapped, future in self._submitted.items() if future.key not in self._client.futures}
        for wrapped in forgotten & self._forgotten:
            wrapped.cancel()
        self._forgotten = forgotten
