"""What holds of the store at any time, whatever was done to it: held against the model of `store_model.py`."""

from certificates import NOW
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from stored import chain, identity_pem, key_of

from ucl_helpers.connection import files
from ucl_helpers.connection.pending import set_aside
from ucl_helpers.keys import dump_key
from ucl_helpers.models import fingerprint
from ucl_helpers.procedures.revocation import valid_identities


def now():
    return NOW


def mark(number):
    return fingerprint(chain(number)[0])


class StoreLaws(RuleBasedStateMachine):
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
        assert all(one.fingerprint == mark(self.known[one.name]) for one in there)

    @invariant()
    def what_was_sent_is_kept_with_its_key(self):
        self.pending.reload()
        folders = {one.read_state().id: one for one in [self.pending, *set_aside(self.connection.path)]}
        for id_ in self.sent:
            state = folders[id_].read_state()
            assert folders[id_].key_path.read_bytes() == dump_key(key_of(int(state.base)))
            assert state.sent == NOW.isoformat(timespec="seconds")
        asides = folders.keys() - {self.pending.read_state().id, None}
        assert asides <= self.sent.keys()

    @invariant()
    def what_is_pending_is_as_far_as_it_came(self):
        self.pending.reload()
        state, signed_ = self.pending.read_state(), self.pending.answer() is not None
        stage = "nothing" if not state else "signed" if signed_ else "sent" if state.sent else "begun"
        stage = "requested" if stage == "begun" and self.pending.has_request else stage
        assert (stage, state.base) == (self.stage, str(self.renewal) if state else None)

    @invariant()
    def nothing_is_left_behind(self):
        folders = ("", "generations", "pending", "aside")
        found = [one.name for folder in folders for one in (self.connection.path / folder).glob("*")]
        assert not [name for name in found if files.TEMPORARY.fullmatch(name)]

    @invariant()
    def the_journal_is_what_was_recorded(self):
        told = [(one["event"], one.get("fingerprint")) for one in self.connection.journal()]
        assert told == self.events
        assert self.connection.revoked().keys() == self.revoked

    @rule()
    def what_is_valid_can_be_revoked(self):
        """Every identity on disk that is not revoked, whether in use, earlier, signed and waiting, or set aside."""
        waiting = [self.pending, *set_aside(self.connection.path)]
        found = {mark(self.known[name]) for name in self.there}
        found |= {fingerprint(one.certificate) for pending in waiting for one in pending.signed()}
        assert {one.fingerprint for one in valid_identities(self.connection, now)} == found - self.revoked
