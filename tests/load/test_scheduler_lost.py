"""The scheduler is lost while a result is being fetched: Dask's client waits for it without end, a fleet does not."""

import pytest
from dask_cluster import Cluster
from fleet_tasks import Held
from processes import DEADLINE, wait_until

from ucl_helpers.fleet.executors import Scheduler
from ucl_helpers.fleet.over_dask import dask

PATIENCE = 60


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path, 1) as running:
        yield running


def test_what_was_being_fetched_when_the_scheduler_was_lost_is_lost(cluster, tmp_path):
    where = Scheduler(cluster.address, *(getattr(cluster.tls, one) for one in ("ca", "certificate", "key")))
    with dask(where, patience=PATIENCE) as workers:
        wait_until(lambda: workers.capacity() > 0)
        future = workers.executor.submit(Held, tmp_path)
        wait_until((tmp_path / "asked").exists)
        cluster.lose_scheduler()
        wait_until(lambda: workers.capacity() is not None and future.done())
        assert future.cancelled()
        (tmp_path / "given").touch()
        again = workers.executor.submit(Held, tmp_path)
        assert again.result(DEADLINE) == "given"
