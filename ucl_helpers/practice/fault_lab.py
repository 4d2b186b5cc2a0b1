"""A connection to break on purpose: at a sandbox of its own in this process, in a temporary home folder.

A fault lab takes neither the name of a connection nor a URL nor a folder, so it cannot reach a real UCL or one of your
connections. Only notebooks use it.
"""

import logging
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from ucl_helpers.clock import utc_now
from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Outage
from ucl_helpers.extras import missing_for
from ucl_helpers.models import Check, Checks, Outcome
from ucl_helpers.practice import director_at
from ucl_helpers.procedures.acceptance import is_accepted
from ucl_helpers.procedures.establishment import Enrolment
from ucl_helpers.tables import Row, Tabular

try:
    from ucl_sandbox import Fault, Sandbox
    from ucl_sandbox.faults.catalogue import CATALOGUE, answer_line
    from ucl_sandbox.listeners import Received
except ModuleNotFoundError as error:
    raise missing_for(error, "sandbox") from None

FOLDER = "ucl-fault-lab-"  # tools/stand_ins.py recognises the folder by this prefix


@dataclass(frozen=True)
class Calls(Tabular):
    """Calls as UCL saw them, oldest first."""

    received: Sequence[Received]

    title: ClassVar[str] = "What UCL saw"
    header: ClassVar[Row] = ("asked for", "UCL acted on it", "and answered")

    def rows(self) -> list[Row]:
        """Return one row for each call."""
        return [(call.operation, "yes" if acted_on(call) else "no", _answer(call)) for call in self.received]

    def acted(self, operation: str) -> int:
        """Count the calls for an operation that UCL has acted on, whether or not its answer arrived."""
        return sum(call.operation == operation and acted_on(call) for call in self.received)


class FaultLab:
    """An established practice connection ``practice-06``, and a sandbox that fails as you choose.

    It is removed with :meth:`close`, with its last reference, or with the process.

    Args:
        key_length: RSA bits of its keys.

    Attributes:
        connection: The practice connection.
    """

    def __init__(self, key_length: int = 2048) -> None:
        with ExitStack() as stack:
            home = Home(Path(stack.enter_context(TemporaryDirectory(prefix=FOLDER))).resolve())
            stack.enter_context(_without_refused_handshakes())
            self._ucl = ucl = stack.enter_context(Sandbox(home.path / "sandbox"))
            self._received, self._since = tuple[Received, ...](), 0
            self.connection = home.new("practice-06")
            self.connection.write_settings({"sandbox": str(ucl.state / "ready.json"), "key_length": key_length})
            self.establish()
            self._end = weakref.finalize(self, stack.pop_all().close)

    def establish(self) -> Outcome:
        """Establish the connection by a one-time token from the sandbox's Director, again if it was revoked."""
        return Enrolment(self.connection, director_at(self._ucl), self._ucl.ca_file).begin().run()

    def inject(self, kind: str, **when: Any) -> None:
        """Make a fault strike at the certificate endpoint from now on; see :class:`ucl_sandbox.Fault`.

        An unfinished renewal is set aside first, so that a cell that you run again meets its fault again.

        Raises:
            FaultsError: there is no such fault.
        """
        self._ucl.faults.set([Fault(kind, at="certificate", **when)])
        with self.connection.lock.held():
            self.connection.pending.set_aside("another fault is to be met")
        self._count_from_here()

    def clear(self) -> None:
        """End all faults."""
        self._ucl.faults.clear()
        self._count_from_here()

    @property
    def calls(self) -> Calls:
        """The calls since the last :meth:`inject` or :meth:`clear`, without those of :meth:`check`."""
        return Calls([*self._received, *self._ucl.requests[self._since :]])

    def check(self, **more: bool) -> Checks:
        """Check what must be true of the connection at any time. It asks UCL whether it accepts the identity in use.

        Args:
            more: further facts that must be true, each by a name; underscores are shown as blanks.
        """
        received = self.calls.received
        try:
            rows = [
                Check(name.replace("_", " "), "ok" if holds else "failed", "yes", "yes" if holds else "no")
                for name, holds in more.items()
            ]
            return Checks((*self._connection_checks(), *rows))
        finally:
            self._count_from_here(received)

    def _count_from_here(self, received: Sequence[Received] = ()) -> None:
        self._received, self._since = tuple(received), len(self._ucl.requests)

    def _connection_checks(self) -> Iterator[Check]:
        current, status = self.connection.require_current(), status_of(self.connection)
        whole = status.state in {"valid", "due"}
        yield Check("identity in use", "ok" if whole else "failed", "whole", current.name)
        yield self._ask_ucl()
        yield Check("under way", "warning" if status.pending else "ok", "nothing", status.pending or "nothing")
        paths = (path for path in self.connection.path.rglob("*") if not path.is_symlink())
        wide = [path.name for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
        yield Check("open to others", "failed" if wide else "ok", "nothing", ", ".join(wide) or "nothing")

    def _ask_ucl(self) -> Check:
        try:
            accepted = is_accepted(self.connection, utc_now)
        except Outage:
            return Check("UCL", "warning", "accepts it", "is down, and accepts nothing")
        return Check("UCL", "ok" if accepted else "failed", "accepts it", "it does" if accepted else "refuses it")

    def close(self) -> None:
        """End the sandbox, and remove it and the connection. A second call does nothing."""
        self._end()


def acted_on(call: Received) -> bool:
    """Return whether UCL has done what the call asked for."""
    return CATALOGUE[call.fault].acted if call.fault else call.status == HTTPStatus.OK


def _answer(call: Received) -> str:
    return answer_line(call.status) if call.status else f"nothing ({call.fault})"


@contextmanager
def _without_refused_handshakes() -> Iterator[None]:
    """Drop the server's log records of refused handshakes, which the notebook's cells would show."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("SSL Error on")

    logger = logging.getLogger("tornado.general")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
