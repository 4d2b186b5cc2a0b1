"""A procedure is struck at each of its system calls, one after the other, and what is left is examined each time."""

import shutil
from hashlib import sha256

from examining import damages, remains
from tracing import strike

from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UCLError

ROUNDS = 5


def walk(scene, how, wanted, judge):
    """Strike each of the ``wanted`` calls: all that was wrong, what was hit, and which of the wanted were not.

    A run may make a call more or less than the one that was recorded, say when an answer came sooner: then another
    was hit, which is examined as well, and the one that was missed is tried again by a new record.
    """
    problems, hit, missed = [], [], list(wanted)
    for _ in range(ROUNDS):
        for call in missed:
            found, run = cut_off(scene, call, how)
            if run.hit:
                hit.append(run.hit)
                found += judge(run)
            problems += [f"{how} at {run.hit or call}: {one}" for one in found]
        labels = {one.label for one in hit}
        if not (left := {one.label for one in wanted} - labels):
            return problems, hit, []
        missed = [one for one in scene.recorded() if one.label in left]
    return problems, hit, sorted(left)


def cut_off(scene, call, how):
    """One run that is struck: what was wrong afterwards, and the run."""
    ground, home = scene.ground, scene.fresh()
    connection, signed = Connection(Home(home), "prod"), len(ground.signed)
    ground.readers.follow(connection.path, calls=scene.name != "revoke")
    run = strike(call, how, *scene.command(home), home)
    problems = [*damages(connection, ground.signed[signed:]), *scene.wrong(connection)]
    try:
        scene.settle(connection)
    except (UCLError, AssertionError) as error:
        problems.append(f"the next run: {error!r}")
    problems += [f"after the next run: {one}" for one in damages(connection, ground.signed[signed:])]
    problems += remains(connection, aside=scene.aside)
    ground.readers.follow(None)
    if not problems:
        shutil.rmtree(home)
        home.with_name(f"{home.name}.log").unlink()
    return problems, run


def one_of_each_kind(calls):
    """The first call of each kind."""
    return list({one.kind: one for one in reversed(calls)}.values())[::-1]


def sample(calls, number, seed):
    """Some of the calls, the same ones in every run."""
    by_hash = sorted(calls, key=lambda one: sha256(f"{seed} {one.label}".encode()).digest())
    return by_hash[:number]
