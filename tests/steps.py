"""What the tests of procedures share: the steps by name, what lies on disk, a connection that is there at once."""

import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from contract_replay import Landscape, rsa_key
from cryptography import x509
from quick_keys import QUICK_BITS

from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.state import Verdict

STEPS = ("configuration", "request", "sign", "decode", "verify", "activate")


class Clock:
    """The system's clock, moved by ``ahead``."""

    def __init__(self, **ahead):
        self.set(**ahead)

    def set(self, **ahead):
        self.ahead = timedelta(**ahead)

    def __call__(self):
        return datetime.now(UTC) + self.ahead


def go(procedure, upto="activate", since="configuration"):
    """Run the steps from one to another; what the last of them returned."""
    result = None
    for name in STEPS[STEPS.index(since) : STEPS.index(upto) + 1]:
        result = getattr(procedure, name)()
    return result


def tree(folder):
    """Every file and link below a folder, but for the locks and what is remembered of attempts and certificates."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and path.name not in {"lock", "attempts.json", "revoked.json"}
    }


def pending_of(connection):
    return Pending(connection.path / "pending")


def aside(connection):
    folder = connection.path / "aside"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def events(connection):
    return [one["event"] for one in connection.journal()]


def judged(connection, status="revoked", mark=None, since=None):
    """The state file says this of a certificate: of the one in use, unless another is named."""
    with connection.lock.held():
        verdict = Verdict(status, since or datetime.now(UTC))
        connection.judge(mark or connection.current.fingerprint, verdict)


@contextmanager
def in_other_hands(connection):
    """Somebody else holds the connection's lock meanwhile."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with connection.home.connection(connection.name).lock.held():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def install(home, ucl, folder, *, url=None, name="prod"):
    """A connection whose identity the sandbox has signed just now, put where it belongs without the procedures."""
    signed = Landscape(ucl, ucl.one_time_token).establish(folder)
    connection = home.new(name)
    connection.write_settings({"key_length": QUICK_BITS})
    chain = tuple(x509.load_pem_x509_certificates(signed.chain))
    facts = {"connectorUrl": url or ucl.certificate_secured_connector_url}
    connection.install(rsa_key(), chain, chain[1:], ucl.ca_file.read_bytes(), facts)
    return connection
