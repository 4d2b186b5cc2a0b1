"""The store under any sequence of installing, switching, ageing, failing and reopening, against a plain model."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stored import chain, grow_old, identity_pem, install, names

from ucl_helpers import files
from ucl_helpers.errors import StorageFailed
from ucl_helpers.models import fingerprint
from ucl_helpers.store import Home

KEEP = 2
IDENTITIES = st.integers(0, 5)
OTHERS = st.sampled_from([".gitkeep", "notes.txt", ".generation.20260131", "000001"])


class StoreMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="store-"))
        self.connection = Home(self.home).new("mine")
        self.connection.write_settings({"keep": KEEP})
        self.current = None
        self.known, self.young, self.others = {}, set(), set()

    def teardown(self):
        shutil.rmtree(self.home)

    @property
    def there(self):
        return [one.name for one in self.connection.generations()]

    @rule(number=IDENTITIES)
    def install(self, number):
        new = install(self.connection, number)
        assert new.fingerprint == fingerprint(chain(number)[0])
        if new.name not in self.known:
            self.young.add(new.name)
        self.known[new.name], self.current = number, new.name
        kept = set(self.there) - self.young - {self.current}
        assert len({name[-12:] for name in kept}) <= KEEP
        assert {name for name in names(self.connection.path / "generations") if name not in self.known} == self.others

    @rule(number=IDENTITIES)
    def fail_to_install(self, number):
        """The disk says no at the very end; what was written stays for the next run."""

        def fail(link, target):
            raise StorageFailed("no")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "point", fail)
            with pytest.raises(StorageFailed, match=r"^no$"):
                install(self.connection, number)
        for name in set(self.there) - set(self.known):
            self.known[name] = number
            self.young.add(name)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def switch(self, data):
        chosen = data.draw(st.sampled_from(self.connection.generations()))
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

    @rule()
    def a_run_is_killed(self):
        staged = files.temporary(self.connection.path / "generations" / "new")
        staged.mkdir()
        (staged / "key.pem").touch()
        self.connection.sweep()
        assert not staged.exists()
        files.temporary(self.connection.path / "current").symlink_to("nowhere")

    @rule()
    def reopen(self):
        self.connection = Home(self.home).connection("mine")

    @invariant()
    def what_is_current_is_whole_and_as_it_was_installed(self):
        current = self.connection.current
        assert (current and current.name) == self.current
        if current:
            assert (current.path / "identity.pem").read_bytes() == identity_pem(self.known[current.name])

    @invariant()
    def no_young_one_is_gone_and_none_has_changed(self):
        there = self.connection.generations()
        assert self.young | ({self.current} - {None}) <= {one.name for one in there} <= set(self.known)
        assert all(one.fingerprint == fingerprint(chain(self.known[one.name])[0]) for one in there)


StoreMachine.TestCase.settings = settings(derandomize=True, deadline=None, max_examples=12, stateful_step_count=12)
TestStore = StoreMachine.TestCase
