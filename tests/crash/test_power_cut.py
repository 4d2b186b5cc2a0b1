"""A kill does not test fsync. Real runs of `ucl` are recorded, and cut off at every point as by a loss of power.

Of each state that the disk may hold then: the connection opens and is whole, no key is lost whose certificate may have
been signed, and the next run goes on from there and tidies up. Twins: a recording with an fsync less, or in another
order, is against that law.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from command_line import BITS
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from disk import Dice, lay
from onlookers import Onlookers
from powercut import CASES, CURRENT, Recording, by_hand, faults, token_for, token_is_unused
from quick_keys import QUICK_BITS
from tracing import UNFIT

from ucl_helpers.connection.store import Home
from ucl_helpers.keys import make_key
from ucl_helpers.procedures import procedure
from ucl_sandbox import RunningSandbox, Sandbox

pytestmark = pytest.mark.skipif(bool(UNFIT), reason=UNFIT)


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, ucl):
    """A recording of a procedure, made once, and the folder it was made in."""
    made = {}

    def get(name):
        if name not in made:
            base = tmp_path_factory.mktemp(name) / "base"
            base.mkdir()
            made[name] = CASES[name].record(base, ucl), base
        return made[name]

    return get


@dataclass
class Bench:
    """Where states are laid on disk and looked at."""

    ucl: RunningSandbox
    readers: Onlookers
    recorded: Callable[[str], tuple[Recording, Path]]
    folder: Path
    proof: Callable[[str, str, int], None]
    whole: bool

    def judge(self, name, cuts, *, go_on=lambda home, cut: None):
        """Lay each on disk and let one go on from there: what is against the law, and after which operation."""
        for cut in cuts:
            home = Home(lay(cut.state, self.folder / "cut") / "home")
            wrong = faults(home, cut, established=CASES[name].established, identities=CASES[name].identities)
            if not wrong:
                go_on(home, cut)
            shutil.rmtree(self.folder / "cut")
            yield from ((cut.done, cut.how, one) for one in wrong)

    def survive(self, name, cuts, chosen):
        """None is against the law; from those chosen one goes on, and then nothing is left of what was begun."""

        def go_on(home, cut):
            if cut in chosen:
                self.readers.follow(home.path / "connections" / "prod", calls=name != "revoke")
                CASES[name].go_on(home, self.ucl, by_hand(self.recorded(name)[1]), cut)
                self.readers.look()
                self.readers.follow(None)
                assert list(home.path.rglob(".*")) == []
                assert not (home.path / "connections" / "prod" / "pending").exists()

        assert list(self.judge(name, cuts, go_on=go_on)) == []
        assert self.readers.told(self.proof, "a run went on after a power cut") == []
        self.proof("power", "states laid out that a power cut may leave; nothing lost", len(cuts))
        self.proof("power", "of these gone on from by the next run", len(chosen))

    def killed_after(self, name, number, *then: Any) -> Recording:
        """The recorded run killed after so many operations, and then another one."""
        recording, environment = self.recorded(name)[0], {}
        state = recording.before.after(*recording.ops[:number]).everything()
        if name == "establish" and CURRENT not in state:
            token_is_unused(self.ucl, state)
            then, environment = ("establish", "prod", *token_for(self.ucl)), {"T": self.ucl.one_time_token()}
        return recording.killed_after(number, self.folder / f"killed-{number}", *then, **environment)


@pytest.fixture
def bench(ucl, recorded, proof, whole):
    """In memory where that can be: the disk that counts is the model."""
    memory = Path("/dev", "shm")
    where = memory if os.access(memory, os.W_OK) else None
    readers = Onlookers(ucl.certificate_secured_connector_url, ucl.ca_file)
    with TemporaryDirectory(dir=where) as folder, readers:
        yield Bench(ucl, readers, recorded, Path(folder), proof, whole)


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch):
    """Keys are ready, and their primes are not proved each time."""
    keys = cycle([make_key(QUICK_BITS) for _ in range(3)])
    monkeypatch.setattr(procedure, "make_key", lambda bits: next(keys) if bits == QUICK_BITS else make_key(bits))
    unproved = partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)
    monkeypatch.setattr("ucl_helpers.keys.load_pem_private_key", unproved)


@pytest.mark.parametrize("name", CASES)
def test_a_power_cut_loses_nothing(name, bench):
    cuts = list(bench.recorded(name)[0].cuts(mixtures=40 if bench.whole else 3, seed=7))
    bench.survive(name, cuts, Dice(7).sample(cuts, min(len(cuts), 150 if bench.whole else 10)))


# -- killed, gone on with by another process, and then the power fails -------------------------------------------------

RENEW, OTHERWISE = ("renew", "prod", *BITS), ("renew", "prod", "--force", "--key-length", "2056")
NEW = "generations/000002"
KILLED = {
    "before a new generation's name was synced": ("renew", ("rename", NEW), RENEW),
    "before a new generation's name was synced, and rolled back to it": (
        "renew",
        ("rename", NEW),
        ("rollback", "prod"),
    ),
    "before it was synced what is current": ("renew", ("rename", "prod/current"), RENEW),
    "before it was synced that nothing is pending": ("renew", ("rename", "prod/.pending."), RENEW),
    "after it had asked, and asked otherwise": ("renew", ("send", ""), OTHERWISE),
    "before the connection's folder was synced": ("establish", ("mkdir", "connections/prod"), ()),
    "before the folder of all connections was synced": ("establish", ("mkdir", "home/connections"), ()),
    "before the home folder was synced": ("establish", ("mkdir", "home"), ()),
}


@pytest.mark.parametrize(("name", "last", "then"), KILLED.values(), ids=KILLED)
def test_what_a_killed_run_left_unsynced_lasts_once_the_next_builds_on_it(name, last, then, bench):
    number = position(bench.recorded(name)[0].ops, *last) + 1
    cuts = list(bench.killed_after(name, number, *then).cuts(mixtures=20 if bench.whole else 1, seed=number))
    bench.survive(name, cuts, Dice(7).sample(cuts, 40 if bench.whole else 3))


@pytest.mark.parametrize("name", ["renew", "establish"])
def test_so_it_is_wherever_the_run_was_killed(name, bench):
    everywhere = range(len(bench.recorded(name)[0].ops))
    numbers = everywhere if bench.whole else Dice(4).sample(everywhere, 1)
    for number in numbers:
        cuts = list(bench.killed_after(name, number, *RENEW).cuts(mixtures=2, seed=number))
        bench.survive(name, cuts, cuts[-1:])
        shutil.rmtree(bench.folder / f"killed-{number}")
    bench.proof("power", "kills after which another run went on before the power failed", len(numbers))


def position(ops, call, text, before=None):
    """Where the last operation of a kind stands; ``send``: the signing request."""
    found = [
        number
        for number, op in enumerate(ops[:before])
        if op.call == call and (op.data if call == "send" else text in (op.to or op.path))
    ]
    return found[-1]


# -- twins: what the judge finds ---------------------------------------------------------------------------------------

LEFT_OUT = {  # procedure, what is not fsynced any more, after which operation, and what comes of it
    "the key": ("renew", "pending/.key.pem", None, "damaged"),
    "the CSR": ("renew", "pending/.csr.pem", None, "lost"),
    "the folder of both": ("renew", "prod/pending", ("rename", "pending/key.pem"), "lost"),
    "identity.pem": ("renew", "tmp/.identity.pem", None, "damaged"),
    "key.pem": ("renew", "tmp/.key.pem", None, "damaged"),
    "certificate.pem": ("renew", "tmp/.certificate.pem", None, "damaged"),
    "chain.pem": ("renew", "tmp/.chain.pem", None, "damaged"),
    "client-ca.pem": ("renew", "tmp/.client-ca.pem", None, "damaged"),
    "server-ca.pem": ("renew", "tmp/.server-ca.pem", None, "damaged"),
    "connection.json": ("renew", "tmp/.connection.json", None, "damaged"),
    "the new generation's name": ("renew", "prod/generations", ("rename", NEW), "damaged"),
    "what is current": ("renew", "connections/prod", ("rename", "prod/current"), "not in use"),
    "a new home": ("establish", "base", None, "lost"),
    "a new folder of all connections": ("establish", "base/home", None, "lost"),
    "a new connection's folder": ("establish", "home/connections", None, "lost"),
    "an imported identity": ("import", "tmp/.identity.pem", None, "damaged"),
    "the intent to revoke": ("revoke", "journal.jsonl", None, "no word"),
    "what was gone back to": ("rollback", "connections/prod", ("rename", "prod/current"), "not in use"),
}


@pytest.mark.parametrize(("name", "what", "since", "wrong"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_an_fsync_that_is_left_out_is_missed(name, what, since, wrong, bench):
    recording, _ = bench.recorded(name)
    start = position(recording.ops, *since) if since else 0

    def left_out(op):
        path = f"base/{op.path}".removesuffix("/.")
        return op.call == "fsync" and (path.endswith(what) or f"{what}." in path)

    ops = [op for number, op in enumerate(recording.ops) if number < start or not left_out(op)]
    cuts = [cut for cut in recording.but(*ops).cuts(mixtures=0, seed=0) if cut.how == "synced"]
    assert any(wrong in text for *_, text in bench.judge(name, cuts))
    bench.proof("power", "fsyncs left out on purpose, and missed", len(recording.ops) - len(ops))


MOVED = {  # what comes too early, before what, and what comes of it
    "the request before its key is on disk": (("send", ""), ("rename", "pending/key.pem"), "lost"),
    "the request before it is known that it leaves": (("send", ""), ("rename", "pending/state.json"), "lost"),
    "the switch before the generation has its name": (("rename", "prod/current"), ("rename", NEW), "damaged"),
}


@pytest.mark.parametrize(("early", "late", "wrong"), MOVED.values(), ids=MOVED)
def test_a_wrong_order_is_found(early, late, wrong, bench):
    recording, _ = bench.recorded("renew")
    ops = list(recording.ops)
    last = position(ops, *early)
    first = last - (early[0] == "rename")  # a link is made just before
    place = position(ops, *late, before=first)
    moved = [*ops[:place], *ops[first : last + 1], *ops[place:first], *ops[last + 1 :]]
    cuts = recording.but(*moved).cuts(mixtures=0, seed=0)
    assert any(wrong in text for *_, text in bench.judge("renew", cuts))
