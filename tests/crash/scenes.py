"""The procedures that are cut off: what each begins with, its command, what is right then, and what the next run does.

The program that is cut off is the real one, at the real sandbox. Only what comes before and after it runs in this
process, with keys that were made once, since it is not what is tried and would take most of the time.
"""

import os
import shutil
from contextlib import contextmanager, suppress
from itertools import count, cycle
from pathlib import Path
from threading import Condition
from unittest.mock import patch

from command_line import UCL
from contract_replay import Landscape, rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from examining import is_accepted, load_key, unsaid
from quick_keys import QUICK_BITS
from secrets_watch import CANARY
from steps import install
from tracing import record

from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.crypto import make_csr, parse_subject
from ucl_helpers.errors import UsageError
from ucl_helpers.keys import make_key
from ucl_helpers.models import Configuration, OneTimeToken
from ucl_helpers.procedures import procedure
from ucl_helpers.procedures.establishment import establish
from ucl_helpers.procedures.generations import export
from ucl_helpers.procedures.importing import import_identity, read_identity
from ucl_helpers.procedures.renewal import renew
from ucl_helpers.procedures.revocation import revoke
from ucl_helpers.procedures.rollback import rollback

SETTINGS = f"key_length = {QUICK_BITS}\nkeep = 2\n"
LONG_AGO = 86_400 * 1000.0
ASKED = Configuration("O=Org,CN=client", "rsa2048", None, None)


class Ground:
    """One sandbox, what it has signed, readers, and a folder for homes: shared by all scenes of a run."""

    def __init__(self, ucl, clock, folder, readers):
        self.ucl, self.clock, self.folder, self.readers = ucl, clock, folder, readers
        self.signed, self.heard, self._homes = [], Condition(), count(1)
        self.keys_before, self.keys_after = (cycle([make_key(QUICK_BITS) for _ in range(3)]) for _ in range(2))

    @contextmanager
    def quickly(self, keys):
        """Keys that were made once, and are not proved again each time they are read."""
        with (
            patch.object(procedure, "make_key", lambda bits: next(keys)),
            patch(
                "ucl_helpers.keys.load_pem_private_key", lambda data, password, **_: load_key(data, password=password)
            ),
        ):
            yield

    def new_home(self):
        return self.folder / f"home-{next(self._homes):05d}"


class Scene:
    """A procedure, cut off."""

    name = ""
    established = True  # before it begins
    aside = False  # whether something may rightly be set aside in the end

    def __init__(self, ground):
        self.ground, self.ucl = ground, ground.ucl
        self.template = ground.folder / f"template-{self.name}"
        with ground.quickly(ground.keys_before):
            self.make(self.template)
        self.calls = ()

    def make(self, folder: Path) -> None:
        """Make the home that each run begins with."""

    def arguments(self) -> tuple:
        """The command, and what it gets in its environment."""
        return (self.name, "prod"), {}

    def fresh(self) -> Path:
        """A home to run it in."""
        home = self.ground.new_home()
        if self.template.exists():
            shutil.copytree(self.template, home, symlinks=True)
        return home

    def command(self, home):
        arguments, secrets = self.arguments()
        return [UCL, "--home", str(home), *map(str, arguments)], secrets

    def recorded(self):
        """Every call of a whole run that matters."""
        home = self.fresh()
        self.calls = record(*self.command(home), home)
        shutil.rmtree(home)
        return self.calls

    def wrong(self, connection):
        """What is wrong with it right after the cut, besides damages."""
        current = connection.current
        if self.established and current is None:
            yield "the connection is lost"
        if current is not None and not is_accepted(connection, current):
            yield "the identity in use is not accepted"

    def settle(self, connection) -> None:
        """The next runs: the same again, and a renewal."""
        with self.ground.quickly(self.ground.keys_after):
            self.again(connection)
            assert renew(connection).outcome == "renewed"

    def again(self, connection: Connection) -> None:
        """The same procedure once more, in this process."""


class Renew(Scene):
    """There are three generations; with the fourth the eldest, which is old by now, is pruned."""

    name = "renew"

    def make(self, folder):
        connection = install(Home(folder), self.ucl, folder.parent)
        (connection.path / "settings.toml").write_text(SETTINGS)
        renew(connection)
        renew(connection)
        eldest = connection.generations()[0].path
        os.utime(eldest, (LONG_AGO, LONG_AGO))

    def arguments(self):
        return ("renew", "prod", "--force"), {}


class Rollback(Renew):
    name = "rollback"

    def arguments(self):
        return ("rollback", "prod"), {}

    def again(self, connection):
        assert rollback(connection).outcome == "rolled-back"


class Establish(Scene):
    """By a one-time token, from nothing."""

    name = "establish"
    established = False
    aside = True  # a token is for another client: what was signed for the one before stays its own

    def _way(self):
        return ("--connector-url", self.ucl.connector_url, "--ca-file", self.ucl.ca_file, "--key-length", QUICK_BITS)

    def arguments(self):
        return ("establish", "prod", "--token", "env:T", *self._way()), {"T": self.ucl.one_time_token()}

    def again(self, connection):
        token = OneTimeToken(self.ucl.one_time_token(), self.ucl.connector_url)
        connection = connection.home.new("prod")
        connection.write_settings({"key_length": QUICK_BITS})
        with suppress(UsageError):  # it is established, and is accepted
            establish(connection, token, ca_file=self.ucl.ca_file)


class Import(Scene):
    name = "import"
    established = False

    def make(self, folder):
        self.key, self.chain = folder.with_name("import.key"), folder.with_name("import.pem")
        self.chain.write_bytes(Landscape(self.ucl, self.ucl.one_time_token).establish(folder.parent).chain)
        pem = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.key.touch(0o600)
        self.key.write_bytes(pem)

    def arguments(self):
        where = ("--connector-url", self.ucl.certificate_secured_connector_url, "--ca-file", self.ucl.ca_file)
        return ("import", "prod", "--key", self.key, "--certificate", self.chain, *where), {}

    def again(self, connection):
        url, ca = self.ucl.certificate_secured_connector_url, self.ucl.ca_file
        import_identity(connection.home, "prod", read_identity(self.key, self.chain), url, ca_file=ca)
        connection.write_settings({"key_length": QUICK_BITS})


class Revoke(Scene):
    """Two identities, an hour old; revocation is for good, so each run needs its own."""

    name = "revoke"

    def fresh(self):
        home = self.ground.new_home()
        self.ground.clock.set(hours=-1)
        for _ in range(2):
            install(Home(home), self.ucl, self.ground.folder)
        self.ground.clock.set()
        return home

    def arguments(self):
        return ("revoke", "prod", "--all", "--yes"), {}

    def wrong(self, connection):
        yield from unsaid(connection)

    def settle(self, connection):
        with self.ground.quickly(self.ground.keys_after):
            assert revoke(connection, everything=True).outcome in {"revoked", "nothing-to-revoke"}
        assert not any(is_accepted(connection, one) for one in connection.generations())
        assert connection.revoked().keys() == {one.fingerprint for one in connection.generations()}


class Export(Renew):
    """Every key lies there in plain, and is to be encrypted: of three generations, of what is pending and set aside."""

    name = "export"
    aside = True

    def make(self, folder):
        super().make(folder)
        connection = Home(folder).connection("prod")
        folder.with_name("passphrase").write_text(CANARY)
        for _ in range(2):
            pending = connection.pending
            pending.begin("renew", "000000-0123456789ab", ASKED, bits=QUICK_BITS, server_ca=None)
            pending.keep_request(rsa_key(), make_csr(rsa_key(), parse_subject(ASKED.subject)))
            pending.update(sent="2026-03-01")
        (connection.path / "settings.toml").write_text(
            f'{SETTINGS}key_passphrase = "file:{folder.with_name("passphrase")}"\n[exports]\ncombined = true\n'
        )
        self.marks = [one.fingerprint for one in connection.generations()]

    def arguments(self):
        return ("export", "prod"), {}

    def wrong(self, connection):
        yield from super().wrong(connection)
        for one in connection.generations():
            if not one.is_readable:
                yield f"{one.name} is not whole"
        if not {one.fingerprint for one in connection.generations()} >= set(self.marks):
            yield "an identity is lost"

    def settle(self, connection):
        """Two go before the renewal does: one finishes, and to the other there is nothing left to do."""
        with self.ground.quickly(self.ground.keys_after):
            export(connection)
            again = export(connection)
            assert again.outcome == "nothing-to-export", again
            names = [one.name for one in connection.generations()]
            assert [one.fingerprint for one in connection.generations()] == self.marks, names
            in_plain = [one for one in connection.path.rglob("*.pem") if b"BEGIN PRIVATE" in one.read_bytes()]
            assert in_plain == [], in_plain
            assert renew(connection).outcome == "renewed"


SCENES = (Renew, Establish, Import, Revoke, Rollback, Export)
PROCEDURES = tuple(scene.name for scene in SCENES)
