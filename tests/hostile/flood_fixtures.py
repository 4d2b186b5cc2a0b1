"""A sandbox to be flooded, and what has to hold meanwhile; a plugin: ``pytest_plugins = ["flood_fixtures"]``."""

import threading
from contextlib import contextmanager
from functools import partial

import pytest
from contract_replay import CONFIGURATION, Landscape, graphql
from processes import forget_peak, held, own_process, wait_until

CONFIGURE = graphql(CONFIGURATION)
MEMORY = 300  # MiB more than at rest, at most and for a moment


@pytest.fixture(scope="module")
def landscape(tmp_path_factory):
    with own_process(tmp_path_factory.mktemp("floods")) as ucl:
        yield Landscape(ucl, ucl.one_time_token)


@pytest.fixture(scope="module")
def client(landscape, tmp_path_factory):
    return landscape.establish(tmp_path_factory.mktemp("client"))


@pytest.fixture
def bounded(landscape):
    """The sandbox holds a bounded amount of memory during the test, and then answers as before."""
    pid = landscape.ucl.pid
    forget_peak(pid)
    before = held(pid)
    yield
    assert held(pid).peak - before.memory < MEMORY
    assert landscape.at_token(CONFIGURE, landscape.new_token()).status == 200


@contextmanager
def _others_served(landscape):
    """Somebody else makes good requests all the while: each is answered, also when the block has come to its end."""
    stop, answered = threading.Event(), []

    def go_on():
        while not stop.is_set():
            answered.append(landscape.at_token(CONFIGURE, landscape.new_token()).status)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield answered
        there = len(answered)
        wait_until(lambda: len(answered) > there + 1)
    finally:
        stop.set()
        thread.join()
    assert set(answered) == {200}


@pytest.fixture
def others_served(landscape):
    """``with others_served():``, see above."""
    return partial(_others_served, landscape)
