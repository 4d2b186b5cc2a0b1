"""A plain model of the store, and every act on it: what hypothesis puts into any sequence. See `store_laws.py`."""

import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path

import pytest
from certificates import DAY, NOW
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from quick_keys import QUICK_BITS
from store_laws import StoreLaws, mark, now
from stored import KilledError, chain, grow_old, install, key_of, killed_after, names

from ucl_helpers.connection import files
from ucl_helpers.connection.pending import Pending, prune_aside, set_aside
from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import dump_certificates, encode, make_csr, parse_subject
from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.models import Configuration, SignedCertificates
from ucl_helpers.procedures.generations import clean_up
from ucl_helpers.procedures.rollback import _choose

KEEP = 2
EXPIRY, NEVER = NOW + 90 * DAY, NOW + 36_500 * DAY
IDENTITIES = st.integers(0, 5)
OTHERS = st.sampled_from([".gitkeep", "notes.txt", ".generation.20260131", "000001"])
MEMORY = Path("/dev") / "shm"  # where syncing costs nothing: this is not about power cuts
ASKED = Configuration("O=Org,CN=client", "rsa2048", None, None, "one-time-token-1")


@cache
def csr(number):
    return make_csr(key_of(number), parse_subject(ASKED.subject))


@cache
def signed(number):
    parts = chain(number), chain(number)[1:], chain(number)[:1]
    return SignedCertificates(*(encode(dump_certificates(*one)) for one in parts))


class StoreMachine(StoreLaws):
    kills = 0

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        unproved = partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)  # primes are slow to prove
        self.patch.setattr("ucl_helpers.keys.load_pem_private_key", unproved)
        self.home = Path(tempfile.mkdtemp(prefix="store-", dir=MEMORY if MEMORY.is_dir() else None))
        self.reopen()
        self.connection.write_settings({"keep": KEEP})
        self.current = None
        self.known, self.young, self.others = {}, set(), set()
        self.events = []
        self.renewal, self.stage = None, "nothing"  # the identity that is asked for, how far it has come
        self.sent = {}  # id of each renewal that was sent and is not settled -> until when its key is kept

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.home)

    @property
    def there(self):
        return [one.name for one in self.connection.generations()]

    @property
    def revoked(self):
        return {who for event, who in self.events if event == "revoked"}

    # -- generations ---------------------------------------------------------------------------------------------------

    @rule(number=IDENTITIES)
    def install(self, number):
        new = install(self.connection, number)
        assert new.fingerprint == mark(number)
        self.installed(number)
        kept = set(self.there) - self.young - {self.current}
        assert len({name[-12:] for name in kept}) <= KEEP
        assert {name for name in names(self.connection.path / "generations") if name not in self.known} == self.others

    def installed(self, number):
        self.take_in(number)
        self.current = self.connection.current.name

    def take_in(self, number):
        """What is new among the generations is of this identity, and young."""
        for name in set(self.there) - set(self.known):
            self.known[name] = number
            self.young.add(name)

    @rule(number=IDENTITIES)
    def fail_to_install(self, number):
        """The disk says no at the very end; what was written stays for the next run."""

        def fail(link, target):
            raise StorageFailed("no")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "swap_symlink", fail)
            with pytest.raises(StorageFailed, match=r"^no\b"):
                install(self.connection, number)
        self.take_in(number)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def switch(self, data):
        chosen = data.draw(st.sampled_from(self.connection.generations()))
        self.connection.switch(chosen)
        self.current = chosen.name

    @precondition(lambda self: self.current)
    @rule()
    def go_back(self):
        """To the newest other one that is not revoked."""
        usable = [name for name in self.there if name != self.current and mark(self.known[name]) not in self.revoked]
        if not usable:
            with pytest.raises(UsageError, match="can be used"):
                _choose(self.connection, None, now())
            return
        chosen = _choose(self.connection, None, now())
        assert chosen.name == usable[-1]
        self.connection.switch(chosen)
        self.current = chosen.name

    @rule()
    def grow_old(self):
        grow_old(self.connection)
        self.young.clear()

    @rule(name=OTHERS)
    def someone_puts_a_file_there(self, name):
        (self.connection.path / "generations" / name).touch()
        self.others.add(name)

    # -- a renewal under way -------------------------------------------------------------------------------------------

    @rule(number=IDENTITIES, upto=st.sampled_from([0, 1, 2, 2, 3, 3, 3]))
    def begin(self, number, upto):
        self.leave()
        self.pending.begin("renew", str(number), ASKED, bits=QUICK_BITS, server_ca=None)
        self.renewal, self.stage = number, "begun"
        for step in (self.request, self.send, self.answer)[:upto]:
            step()

    @precondition(lambda self: self.stage == "begun")
    @rule()
    def request(self):
        self.pending.keep_request(key_of(self.renewal), csr(self.renewal))
        self.stage = "requested"

    @precondition(lambda self: self.stage == "requested")
    @rule()
    def send(self):
        self.pending.about_to_send(NOW)
        self.sent[self.pending.read_state().id] = NEVER
        self.stage = "sent"

    @precondition(lambda self: self.stage == "sent")
    @rule()
    def answer(self):
        self.pending.keep_answer(signed(self.renewal))
        self.stage = "signed"

    @precondition(lambda self: self.stage == "signed")
    @rule()
    def reject(self):
        self.pending.drop_answer()
        self.stage = "sent"

    @precondition(lambda self: self.stage == "signed")
    @rule()
    def activate(self):
        id_ = self.pending.read_state().id
        self.install(self.renewal)
        self.pending.discard()
        self.stage = "nothing"
        del self.sent[id_]

    @rule()
    def set_aside(self):
        self.leave()
        self.pending.set_aside("something else is wanted")

    def leave(self):
        """What is pending is set aside if it was sent: with its certificate for as long as that is valid."""
        if self.stage == "signed":
            self.sent[self.pending.read_state().id] = EXPIRY
        self.stage = "nothing"

    @rule(at=st.sampled_from([EXPIRY, EXPIRY + timedelta(seconds=1), datetime.now(UTC) + 365 * DAY]))
    def prune(self, at):
        prune_aside(self.connection.path, at)
        kept = {one.read_state().id for one in set_aside(self.connection.path)}
        under_way = self.pending.read_state().id
        self.sent = {id_: until for id_, until in self.sent.items() if id_ == under_way or until >= at}
        assert kept == self.sent.keys() - {under_way}

    # -- the journal ---------------------------------------------------------------------------------------------------

    @rule(number=IDENTITIES, event=st.sampled_from(["renewed", "revoked", "revoke-intended"]))
    def record(self, number, event):
        self.connection.record(event, fingerprint=mark(number))
        self.events.append((event, mark(number)))

    @rule(
        torn=st.sampled_from([b'{"time": "2026', b'{"event": "revoked", "fingerprint": "', b"\xff", b"[]\n", b"null\n"])
    )
    def a_line_is_torn(self, torn):
        with (self.connection.path / "journal.jsonl").open("ab") as file:
            file.write(torn)

    # -- killed --------------------------------------------------------------------------------------------------------

    @rule(number=IDENTITIES, changes=st.integers(0, 25))
    def killed_while_it_installs(self, number, changes):
        self.killed("install", changes, lambda: install(self.connection, number), number)

    @precondition(lambda self: self.stage == "signed")
    @rule(changes=st.integers(0, 28))
    def killed_while_it_activates(self, changes):
        number = self.renewal
        self.killed("activate", changes, lambda: (install(self.connection, number), self.pending.discard()), number)

    @precondition(lambda self: self.there)
    @rule(changes=st.integers(0, 1))
    def killed_while_it_goes_back(self, changes):
        first = self.connection.generations()[0]
        self.killed("switch", changes, lambda: self.connection.switch(first))

    @rule(number=IDENTITIES, changes=st.integers(0, 9))
    def killed_while_it_begins(self, number, changes):
        begin = partial(self.pending.begin, "renew", str(number), ASKED, bits=QUICK_BITS, server_ca=None)
        self.killed("begin", changes, begin, number)

    @precondition(lambda self: self.stage != "nothing")
    @rule(changes=st.integers(0, 5))
    def killed_while_it_sets_aside(self, changes):
        self.killed("set aside", changes, lambda: self.pending.set_aside("something else is wanted"))

    def killed(self, act, changes, run, number=None):
        """At any change of the file system; the next run tidies up."""
        with suppress(KilledError), killed_after(changes):
            run()
            changes = None
        type(self).kills += changes is not None
        clean_up(self.connection, self.pending)
        self.adopt(act, number)

    def adopt(self, act, number):
        """Where either may be so, before or after, the model follows the disk."""
        number = self.renewal if act == "activate" else number
        if act in {"install", "activate"}:
            self.take_in(number)
            found = self.connection.current
            if found and found.name != self.current:
                assert self.known[found.name] == number
                self.current = found.name
        if act == "switch":
            found = self.connection.current
            assert (found and found.name) in {self.current, self.there[0]}
            self.current = found and found.name
        told = [(one["event"], one.get("fingerprint")) for one in self.connection.journal()][len(self.events) :]
        assert told in ([], [("settled", mark(self.renewal or 0))])  # what is pending is current already
        self.events += told
        if settled := self.sent.keys() - self.ids():  # only by being current
            assert self.known[self.current] == self.renewal
            del self.sent[settled.pop()]
            self.stage = "nothing"
        if act in {"begin", "set aside"} and self.pending.read_state().id not in self.sent:
            self.left(number)

    def left(self, number):
        """What was sent is aside now, for as long as its certificate is valid; what was begun is here, or not."""
        for one in set_aside(self.connection.path):
            if self.sent.get(one.read_state().id) == NEVER and one.answer():
                self.sent[one.read_state().id] = EXPIRY
        state = self.pending.read_state()
        if not state:
            self.stage = "nothing"
        elif int(state.base) != self.renewal or not self.pending.has_request:
            assert int(state.base) in {number, self.renewal}
            self.renewal, self.stage = int(state.base), "begun"

    def ids(self):
        self.pending.reload()
        folders = [self.pending, *set_aside(self.connection.path)]
        return {one.read_state().id for one in folders}

    @rule()
    def reopen(self):
        self.connection = Home(self.home).new("mine")
        self.pending = Pending(self.connection.path / "pending")
