"""Many at once at one connection: one works, the others are told who does, and nobody waits for the dead."""

import os
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from queue import Queue

import pytest
from command_line import UCL, Said, environment
from onlookers import Onlookers
from steps import events, go, in_other_hands, pending_of

from ucl_helpers import Renewal, renew
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Busy, SettledElsewhere

pytest_plugins = ["procedure_fixtures"]
CROWD = 20


@pytest.fixture
def readers(due, ucl):
    """They look on at it."""
    with Onlookers(ucl.certificate_secured_connector_url, ucl.ca_file) as looking_on:
        looking_on.follow(due.path)
        yield looking_on


@pytest.fixture
def crowd(home):
    """Processes that renew ``prod``, started at once; they end one by one."""
    pool, ended = ThreadPoolExecutor(CROWD), Queue()

    def one(options):
        command = [UCL, "renew", "prod", "--json", *options]
        with subprocess.Popen(
            command, env=environment(home.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            said = Said(None, *process.communicate())
        said.code = process.returncode
        ended.put((process.pid, said))

    def start(number, *options):
        for _ in pool.map(one, repeat(options, number)):
            pass
        return [ended.get_nowait() for _ in range(number)]

    start.ended = ended
    with pool:
        yield start


def test_of_twenty_at_once_one_renews_and_the_others_name_it(due, readers, between, crowd, proof):
    """The one that was first is held up at UCL until all others have ended."""
    others_have_ended = threading.Event()

    def waits(forward, call):
        others_have_ended.wait()
        return forward()

    between.on("configuration", waits)
    with ThreadPoolExecutor(1) as aside:
        running = aside.submit(crowd, CROWD)
        try:
            others = [crowd.ended.get() for _ in range(CROWD - 1)]
        finally:
            others_have_ended.set()
        for other in others:
            crowd.ended.put(other)
        everybody = running.result()
    [(first, said)] = [one for one in everybody if one not in others]
    assert (said.code, said.json["outcome"]) == (0, "renewed")
    told = [(one.code, one.json["error"], one.json["data"]["holder"].split(" on ")[0]) for _, one in others]
    assert told == [(8, "Busy", f"process {first}")] * (CROWD - 1)
    assert events(due) == ["signing-requested", "renewed"]
    assert (len(between.seen("sign")), len(due.generations())) == (1, 2)
    readers.look()
    assert readers.told(proof, "a crowd renewed") == []
    proof("crowd", "renewals of one connection started at once as processes; one renewed", len(everybody))


def test_whoever_comes_later_finds_that_it_is_not_due(readers, between, crowd, whole, proof):
    number = CROWD if whole else 4
    everybody = [said for _, said in crowd(number)]
    ends = Counter(said.json.get("error") or said.json["outcome"] for said in everybody)
    assert ends["renewed"] == 1
    assert set(ends) <= {"renewed", "Busy", "not-due"}
    assert len(between.seen("sign")) == 1
    assert crowd(1)[0][1].json["outcome"] == "not-due"
    readers.look()
    assert readers.told(proof, "a crowd renewed") == []
    proof("crowd", "renewals of one connection started at once as processes; one renewed", len(everybody))


def test_with_force_each_that_comes_to_it_renews(due, between, crowd):
    """The twin: by its own wish everybody may renew, one after another."""
    outcomes = [said.json["outcome"] for _ in range(2) for _, said in crowd(1, "--force")]
    assert outcomes == ["renewed", "renewed"]
    assert (len(between.seen("sign")), len(due.generations())) == (2, 3)


def tried(act):
    """What it came to."""
    try:
        return act().outcome
    except (Busy, SettledElsewhere) as error:
        return type(error).__name__


@pytest.mark.parametrize("shared", [True, False], ids=["one object", "an object each"])
def test_so_it_is_with_threads(due, readers, between, shared, proof):
    barrier = threading.Barrier(CROWD)

    def one(_):
        connection = due if shared else Home(due.home.path).connection("prod")
        barrier.wait()
        return tried(lambda: renew(connection, only_if_due=True))

    with ThreadPoolExecutor(CROWD) as pool:
        ends = Counter(pool.map(one, range(CROWD)))
    assert ends["renewed"] == 1
    assert set(ends) <= {"renewed", "Busy", "not-due"}
    assert (len(between.seen("sign")), len(due.generations())) == (1, 2)
    readers.look()
    assert readers.told(proof, "a crowd renewed") == []
    proof("crowd", "renewals of one connection started at once as threads; one renewed", ends.total())


def test_notebooks_and_renewals_mixed_lose_nothing(due, readers, between, whole, proof):
    """A notebook takes the lock step by step, so that others come in between; what they settled is said."""
    pairs = CROWD // 2 if whole else 3
    barrier = threading.Barrier(2 * pairs)

    def one(number):
        connection = Home(due.home.path).connection("prod")
        barrier.wait()
        if number % 2:
            return tried(lambda: renew(connection))
        return tried(lambda: go(Renewal.begin(connection)))

    with ThreadPoolExecutor(2 * pairs) as pool:
        ends = Counter(pool.map(one, range(2 * pairs)))
    assert set(ends) <= {"renewed", "Busy", "SettledElsewhere"}
    assert ends["renewed"] >= 1
    assert events(due).count("renewed") == ends["renewed"]
    # Of the same key, signed twice within a second, comes the same certificate, and one generation.
    installed = {one["generation"] for one in due.journal() if one["event"] == "renewed"}
    assert installed == {one.name for one in due.generations()[1:]}
    assert renew(due).outcome == "renewed"
    assert not pending_of(due)
    readers.look()
    assert readers.told(proof, "a crowd renewed") == []
    proof("crowd", "notebooks' steps and renewals mixed, nothing lost", ends.total())


def test_while_another_thread_works_the_process_is_named(due):
    with in_other_hands(due), pytest.raises(Busy, match=rf"process {os.getpid()} on"):
        renew(due, only_if_due=True)
    assert renew(due, only_if_due=True).outcome == "renewed"
