"""A fleet renewed by Dask, over TLS, while workers are killed in the midst of renewals, and the scheduler once.

Every connection is renewed once, none is lost, and a gateway that counts the calls has nobody to slow down.
"""

import json
import multiprocessing
import signal
import subprocess
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import repeat

import pytest
from command_line import UCL, environment
from contract_replay import send, trusting
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from dask_cluster import Cluster
from killed_in_midst import POINTS, drawn
from processes import DEADLINE, own_process, wait_until
from test_side_by_side import issued, marks, wrongs

from tools.make_fleet import make_fleet
from ucl_helpers import keys
from ucl_helpers.connection.store import Home
from ucl_sandbox.control import LIMIT_PATH

SEED = "26"
LIMIT, RATE = 22.5, 18.0  # calls a second: the gateway's, and the fleet's
BATCH = 500


@contextmanager
def limited_sandbox(home, rate):
    """A sandbox of the home folder behind a limit; gives what tells of the limit."""
    state = home.path / "sandbox"
    command = [UCL, "sandbox", "--state", str(state), "--validity", "24h", "--rate-limit", str(rate)]
    with subprocess.Popen(command, env=environment(home.path), stderr=subprocess.DEVNULL) as process:
        try:
            wait_until((state / "ready.json").is_file)
            ready = json.loads((state / "ready.json").read_text())
            yield partial(told, ready)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)


def told(ready):
    url = ready["directorUrl"].replace("/director/graphql", LIMIT_PATH)
    bearer = {"Authorization": f"Bearer {ready['directorToken']}"}
    return json.loads(send(url, trusting(ready["caFile"]), headers=bearer, method="GET").body)


def begin():
    """No proof of primes: what is tried afterwards is whether the certificate is accepted."""
    keys.load_pem_private_key = partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)


def wrongs_of(home, first, known):
    """What is not as it should be with each of them, by processes; not: certificates whose answer was lost."""
    names = list(first)
    some = [{name: first[name] for name in names[start : start + BATCH]} for start in range(0, len(names), BATCH)]
    if len(some) == 1:
        return [one for one in wrongs(home, first, known) if one[0] != "nobody"]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=begin) as pool:
        found = pool.map(wrongs, repeat(home), some, repeat(known))
        return [one for each in found for one in each if one[0] != "nobody"]


def renewals(home, names):
    """How often each was made current since it was made, by its journal."""
    events = {name: Counter(one["event"] for one in home.connection(name).journal()) for name in names}
    return {name: found["renewed"] + found["settled"] for name, found in events.items()}


@pytest.fixture(scope="module")
def landscape(tmp_path_factory, whole):
    """The home, how each connection began, what the command said, what the gateway counted, and who was killed."""
    folder = tmp_path_factory.mktemp("fleet")
    home, kills = Home(folder / "home"), folder / "kills"
    names = [f"c{number:05d}" for number in range(10_000 if whole else 12)]
    share = 0.01 if whole else 0.25
    kills.mkdir()
    make_fleet(
        home.path, names, validity=timedelta(hours=24), age=timedelta(hours=13), processes=2 if whole else 1, keys=2
    )
    first = {name: next(iter(marks(home.connection(name)).items())) for name in names}
    seeded = {"KILLS": str(kills), "KILL_SEED": SEED, "KILL_SHARE": str(share)}
    preload = ("--preload", "killed_in_midst")
    with limited_sandbox(home, LIMIT) as limit, Cluster(folder, 2, *preload, **seeded) as cluster:
        command = [UCL, "fleet", "renew", "--json", "--rate", str(RATE), *cluster.options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment(home.path), **pipes) as renewing:
            wait_until(lambda: home.connection(names[4]).current.name != f"000001-{first[names[4]][0][:12]}")
            cluster.lose_scheduler()
            out, err = renewing.communicate()
        counted = limit()
    due = {name for name in names if drawn(name, SEED, share) is not None}
    return home, first, (renewing.returncode, out, err), counted, {one.name for one in kills.iterdir()}, due


def test_each_is_renewed_once_though_workers_are_killed(landscape, proof):
    home, first, (code, out, err), counted, killed, due = landscape
    assert code == 0, err + out
    outcome = json.loads(out)
    assert outcome["counts"]["renewed"] + outcome["counts"]["renewed-before"] == len(first)
    assert renewals(home, first) == dict.fromkeys(first, 1)
    assert killed == due
    assert killed
    proof("fleet", "connections renewed over Dask, once each", len(first))
    proof("fleet", "workers killed in the midst of a renewal", len(killed))
    proof("fleet", "schedulers killed meanwhile", 1)
    proof("fleet", "calls counted by the gateway", counted["calls"])


def test_none_is_lost(landscape, proof):
    home, first, *_ = landscape
    with own_process(home.path) as ucl:
        known = issued(ucl)
        lost = wrongs_of(home, first, known)
    assert lost == []
    answers_lost = sum(POINTS[drawn(name, SEED, 1)][1:] == ("keep_answer", "before") for name in landscape[4])
    assert len(known) <= 2 * len(first) + answers_lost + len(landscape[4])
    proof("fleet", "of them lost or mixed up", len(lost))


def test_none_is_answered_429(landscape, proof):
    _, first, (_, out, _), counted, *_ = landscape
    assert counted["rate"] == LIMIT
    assert counted["calls"] >= 3 * len(first)
    assert (counted["refused"], json.loads(out)["answers429"]) == (0, 0)
    proof("fleet", "of these calls answered 429", counted["refused"])
