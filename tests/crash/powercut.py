"""Procedures as real processes, every state that a power cut during one may leave, and the law these have to keep.

The law: key and CSR last before the signing request leaves, and so does ``sent`` (of a revocation: its intent);
``current`` points to nothing that does not last; what the program told as done lasts.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
from command_line import BITS, UCL, Shell, environment, made_by_hand
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from disk import Dice, Disk, Op, State, lay
from quick_keys import QUICK_BITS
from recorder import record
from secrets_watch import CANARY
from steps import Clock

from ucl_helpers import renew, revoke
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.pending import Pending, set_aside
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.crypto import dump_certificates
from ucl_helpers.errors import Refused, UCLError
from ucl_helpers.keys import load_key
from ucl_helpers.models import OneTimeToken
from ucl_helpers.procedures.establishment import establish
from ucl_helpers.procedures.generations import export
from ucl_helpers.procedures.importing import import_identity, read_identity
from ucl_sandbox import RunningSandbox

CSR_AT_LEAST = 1000  # bytes; a request without one is smaller
REVOCATION = b"revocation"
CURRENT, CSR = "home/connections/prod/current", "home/connections/prod/pending/csr.pem"


@dataclass(frozen=True, eq=False)
class Cut:
    """What a power cut may leave."""

    state: State = field(repr=False)
    done: int  # operations
    how: str
    asked: tuple[bytes, ...]  # CSRs that had left by then, or the revocation
    over: str | None  # what is current, once the program had said that it was done

    @property
    def revoking(self) -> bool:
        return REVOCATION in self.asked

    @property
    def signed(self) -> list[rsa.RSAPublicKey]:
        """The keys for which a certificate may exist."""
        return [x509.load_pem_x509_csr(csr).public_key() for csr in self.asked if csr != REVOCATION]


@dataclass(frozen=True)
class Recording:
    """One run of ``ucl``: the disk before it, and what it did."""

    before: Disk = field(repr=False)
    ops: tuple[Op, ...] = field(repr=False)
    asked: tuple[bytes, ...] = ()  # by a run before it that was killed

    @classmethod
    def of(
        cls, base: Path, *arguments: Any, before: Disk | None = None, asked: tuple[bytes, ...] = (), **env: str
    ) -> Self:
        """Run ``ucl`` with the home folder ``base/home`` and record it; its end is what really lies on the disk."""
        before = before or Disk(base)
        trace = base.with_name(f"{base.name}.trace")
        done, ops = record(base, UCL, *arguments, environment=environment(base / "home", **env), trace=trace)
        assert done.returncode == 0, done
        disk, known = before.after(), []
        for op in ops:
            disk.do(op)
            if op.call == "send" and arguments[0] == "revoke":
                known.append(replace(op, data=REVOCATION))
            elif op.call == "send" and op.size > CSR_AT_LEAST:
                known.append(replace(op, data=disk.everything()[CSR]))
            else:
                known.append(op)
        assert disk.everything() == Disk(base).everything()
        return cls(before, tuple(known), asked)

    def but(self, *ops: Op) -> Self:
        """With other operations."""
        return replace(self, ops=ops)

    def killed_after(self, number: int, base: Path, *arguments: Any, **env: str) -> Self:
        """The run is killed after so many operations, and another one goes on: what is not synced yet, still is not."""
        disk = self.before.after(*self.ops[:number])
        lay(disk.everything(), base)
        asked = tuple(op.data for op in self.ops[:number] if op.call == "send" and op.data)
        return self.of(base, *arguments, before=disk, asked=asked, **env)

    def cuts(self, mixtures: int, seed: int) -> Iterator[Cut]:
        """At every point what fsyncs cover, everything, and mixtures; each different state once."""
        disk, dice, seen, asked = self.before.after(), Dice(seed), set(), self.asked
        for number, op in enumerate((None, *self.ops)):
            if op is not None:
                disk.do(op)
                asked += (op.data,) if op.call == "send" and op.data else ()
            over = disk.everything()[CURRENT] if number == len(self.ops) else None
            states = {"synced": disk.synced(), "everything": disk.everything()}
            states |= {f"mixture {n}": disk.mixture(dice) for n in range(mixtures)}
            for how, state in states.items():
                if (mark := (len(asked), over, frozenset(state.items()))) not in seen:
                    seen.add(mark)
                    yield Cut(state, number, how, asked, over)


def faults(home: Home, cut: Cut, *, established: bool = True, identities: int = 0) -> list[str]:
    """What is against the law in a state that lies on disk; so many identities are there and whole."""
    connection = Connection(home, "prod")
    try:
        current = connection.current
        if current is None and (established or cut.over):
            return ["no connection"]
        if current is not None:
            check_every_file(current)
        if cut.over and f"generations/{current.name}" != cut.over:
            return ["told as done, but not in use"]
        pending = Pending(connection.path / "pending")
        if pending.read_state().sent and not pending.has_request:
            return ["sent, but the request is not whole"]
        if cut.revoking:
            known = {"revoked"} if cut.over else {"revoked", "revoke-intended"}
            return [] if known & {connection.journal()[-1]["event"]} else ["no word of the revocation"]
        return ["a key is lost"] if lost(connection, cut, identities) else []
    except (UCLError, ValueError, AssertionError) as error:
        return [f"damaged: {error}"]


def lost(connection: Connection, cut: Cut, identities: int) -> bool:
    whole = {one.stem for one in connection.generations() if one.is_readable}
    return len(whole) < identities or any(key not in keys_kept(connection) for key in cut.signed)


def check_every_file(generation: Generation) -> None:
    generation.check_whole()
    wanted = {"certificate.pem": generation.chain[:1], "client-ca.pem": generation.client_ca}
    for name, certificates in wanted.items():
        assert (generation.path / name).read_bytes() == dump_certificates(*certificates), name
    assert x509.load_pem_x509_certificates(generation.server_ca.read_bytes())
    assert generation.facts["connectorUrl"].startswith("https://")


def keys_kept(connection: Connection) -> list[rsa.RSAPublicKey]:
    """Of identities that are or were in use, and of those that are known to be out for a signature."""
    current = connection.current
    kept = [key_in(one.path) for one in connection.generations() if current and one.name <= current.name]
    for one in [Pending(connection.path / "pending"), *set_aside(connection.path)]:
        if one.read_state().sent and (one.path / "csr.pem").exists():
            with suppress(ValueError, OSError):  # not whole
                csr = x509.load_pem_x509_csr(one.csr())
                kept += [csr.public_key()] if csr.public_key() == key_in(one.path) else []
    return kept


def key_in(folder: Path) -> rsa.RSAPublicKey:
    return load_key((folder / "key.pem").read_bytes()).public_key()


# -- procedures --------------------------------------------------------------------------------------------------------

Recorder = Callable[[Path, RunningSandbox], Recording]


def established(base: Path, ucl: RunningSandbox) -> Shell:
    shell = Shell(base / "home")
    shell.establish("prod", ucl)
    return shell


def token_for(ucl: RunningSandbox) -> tuple[Any, ...]:
    return "--token", "env:T", "--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file, *BITS


def establishment(base: Path, ucl: RunningSandbox) -> Recording:
    return Recording.of(base, "establish", "prod", *token_for(ucl), T=ucl.one_time_token())


def renewal(base: Path, ucl: RunningSandbox) -> Recording:
    established(base, ucl)
    return Recording.of(base, "renew", "prod", "--force", *BITS)


def importing(base: Path, ucl: RunningSandbox) -> Recording:
    files = by_hand(base)
    made_by_hand(files, ucl)
    identity = ("--key", files / "ucl-app.key", "--certificate", files / "ucl-app.crt")
    where = ("--connector-url", ucl.certificate_secured_connector_url, "--ca-file", ucl.ca_file)
    return Recording.of(base, "import", "prod", *identity, *where)


def revocation(base: Path, ucl: RunningSandbox) -> Recording:
    established(base, ucl)
    return Recording.of(base, "revoke", "prod", "--yes")


def going_back(base: Path, ucl: RunningSandbox) -> Recording:
    assert established(base, ucl).ucl("renew", "prod", "--force", *BITS).code == 0
    return Recording.of(base, "rollback", "prod")


def encrypting(base: Path, ucl: RunningSandbox) -> Recording:
    """Two generations whose keys lie there in plain, and are to be encrypted."""
    assert established(base, ucl).ucl("renew", "prod", "--force", *BITS).code == 0
    by_hand(base).mkdir()
    (by_hand(base) / "passphrase").write_text(CANARY)
    settings = base / "home" / "connections" / "prod" / "settings.toml"
    settings.write_text(f'key_passphrase = "file:{by_hand(base) / "passphrase"}"\n[exports]\ncombined = true\n')
    return Recording.of(base, "export", "prod")


def by_hand(base: Path) -> Path:
    return base.with_name("by-hand")


# -- the next run ------------------------------------------------------------------------------------------------------


def renew_again(home: Home, ucl: RunningSandbox, files: Path, cut: Cut) -> None:
    """The next renewal succeeds; a key that is out for a signature is the one it goes on with, and none is lost."""
    connection = home.connection("prod")
    pending, settled = Pending(connection.path / "pending"), key_in(connection.current.path)
    out = key_in(pending.path) if pending.read_state().sent else settled
    assert renew(connection, key_length=out.key_size).outcome == "renewed"
    assert (key_in(connection.current.path) == out) == (out != settled)
    assert all(key in keys_kept(connection) for key in cut.signed)


def token_is_unused(ucl: RunningSandbox, state: State) -> None:
    """The token that is kept was not used by then, whatever was recorded later."""
    token, told = (state.get(f"home/connections/prod/pending/{name}") for name in ("token", "state.json"))
    if token and told:
        client = json.loads(told)["configuration"]["subject"].split("CN=")[1].split(",")[0]
        ucl._memory._rows("UPDATE system_auths SET token = ?, used_at = NULL WHERE id = ?", token.decode(), client)


def establish_again(home: Home, ucl: RunningSandbox, files: Path, cut: Cut) -> None:
    """It is established, or can be; then it can be renewed."""
    connection = home.new("prod")
    if connection.current is None:
        if not cut.asked:
            token_is_unused(ucl, cut.state)
        access = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
        assert establish(connection, access, ca_file=ucl.ca_file, key_length=QUICK_BITS).outcome == "established"
    assert renew(connection, key_length=QUICK_BITS).outcome == "renewed"


def import_again(home: Home, ucl: RunningSandbox, files: Path, cut: Cut) -> None:
    identity = read_identity(files / "ucl-app.key", files / "ucl-app.crt")
    import_identity(home, "prod", identity, ucl.certificate_secured_connector_url, ca_file=ucl.ca_file)
    assert renew(home.connection("prod"), key_length=QUICK_BITS).outcome == "renewed"


def revoke_again(home: Home, ucl: RunningSandbox, files: Path, cut: Cut) -> None:
    """Revoked in the end, whether the request had left or not; and then nothing is renewed any more."""
    connection = home.connection("prod")
    ucl._memory._rows("UPDATE certificates SET revoked_at = ?", "then" if cut.revoking else None)
    assert revoke(connection, clock=Clock(minutes=11)).outcome == "revoked"
    fingerprint = connection.require_current().fingerprint
    assert connection.verdicts()[fingerprint].status == "revoked"  # the journal's line may be lost with the power
    with pytest.raises(Refused, match="revoked"):
        renew(connection)
    ucl._memory._rows("UPDATE certificates SET revoked_at = NULL")  # for the next cut


def export_again(home: Home, ucl: RunningSandbox, files: Path, cut: Cut) -> None:
    """All is encrypted then, the same identities are there, and the one in use can be renewed."""
    connection = home.connection("prod")
    export(connection)
    assert [one.is_sealed for one in connection.generations()] == [True, True]
    for one in connection.generations():
        one.check_whole()
    assert renew(connection, key_length=QUICK_BITS).outcome == "renewed"


@dataclass(frozen=True)
class Case:
    """A procedure: how it is recorded, and what comes after a cut."""

    record: Recorder
    go_on: Callable[[Home, RunningSandbox, Path, Cut], None]
    established: bool = True
    identities: int = 0


CASES = {
    "renew": Case(renewal, renew_again),
    "establish": Case(establishment, establish_again, established=False),
    "import": Case(importing, import_again, established=False),
    "revoke": Case(revocation, revoke_again),
    "rollback": Case(going_back, renew_again),
    "export": Case(encrypting, export_again, identities=2),
}
