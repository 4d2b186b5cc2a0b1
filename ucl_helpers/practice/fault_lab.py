"""A connection to be broken on purpose: at a sandbox of its own in this process, in a home folder that goes away.

There is no way from here to a real UCL, nor to the folder of anybody's connections: a workbench takes neither a name of
a connection nor a URL nor a folder. Only notebooks use it.
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
from ucl_helpers.models import Check
from ucl_helpers.procedures.enrolment import Enrolment
from ucl_helpers.procedures.establishment import DirectorAccess, is_accepted
from ucl_helpers.tables import Row, Shown
from ucl_helpers.views import Checks

try:
    from ucl_sandbox import Fault, Sandbox
    from ucl_sandbox.faults.catalogue import CATALOGUE, answer_line
    from ucl_sandbox.listeners import Received
except ModuleNotFoundError as error:
    raise missing_for(error, "sandbox") from None

FOLDER = "ucl-workbench-"  # tools/stand_ins.py knows the folder by this


@dataclass(frozen=True)
class Calls(Shown):
    """Calls as UCL saw them, oldest first."""

    received: Sequence[Received]

    title: ClassVar[str] = "What UCL saw"
    header: ClassVar[Row] = ("asked for", "UCL acted on it", "and answered")

    def rows(self) -> list[Row]:
        """One row a call."""
        return [(one.operation, "yes" if acted_on(one) else "no", _answer(one)) for one in self.received]

    def acted(self, operation: str) -> int:
        """How many calls for an operation UCL has acted on, whatever became of the answer."""
        return sum(one.operation == operation and acted_on(one) for one in self.received)


class Workbench:
    """A practice connection ``practice-06``, established, and the faults that it is to meet.

    It goes away with :meth:`close`, with its last reference, or with the process.

    Args:
        key_length: RSA bits of its keys.

    Attributes:
        connection: That connection.
        way_in: How it is established, and established anew when it was revoked.
    """

    def __init__(self, key_length: int = 2048) -> None:
        with ExitStack() as stack:
            home = Home(Path(stack.enter_context(TemporaryDirectory(prefix=FOLDER))).resolve())
            stack.enter_context(_without_refused_handshakes())
            self._ucl = ucl = stack.enter_context(Sandbox(home.path / "sandbox"))
            self._kept, self._since = tuple[Received, ...](), 0
            self.connection = home.new("practice-06")
            self.connection.write_settings({"sandbox": str(ucl.state / "ready.json"), "key_length": key_length})
            access = DirectorAccess(ucl.director_url, ucl.tenant, ucl.application_id, ucl.director_token, ucl.ca_file)
            self.way_in = Enrolment(self.connection, access, ucl.ca_file)
            self.way_in.begin().run()
            self._end = weakref.finalize(self, stack.pop_all().close)

    def spoil(self, kind: str, **when: Any) -> None:
        """From now on a fault strikes at the certificate endpoint; see :class:`ucl_sandbox.Fault`.

        What is under way is set aside first: a cell that is run again meets its fault again, however late that is.

        Raises:
            FaultsError: there is no such fault.
        """
        self._ucl.faults.set([Fault(kind, at="certificate", **when)])
        with self.connection.lock.held():
            self.connection.pending.set_aside("another fault is to be met")
        self._count_from_here()

    def mend(self) -> None:
        """From now on nothing goes wrong any more."""
        self._ucl.faults.clear()
        self._count_from_here()

    @property
    def calls(self) -> Calls:
        """The calls since something was spoiled or mended, without our own of :meth:`checked`."""
        return Calls([*self._kept, *self._ucl.requests[self._since :]])

    def checked(self, **more: bool) -> Checks:
        """What must hold of the connection, whatever happens; UCL is asked whether it accepts the identity in use.

        Args:
            more: what must hold besides, by a name for each; underscores are shown as blanks.
        """
        kept = self.calls.received
        try:
            rows = [
                Check(name.replace("_", " "), "ok" if holds else "failed", "yes", "yes" if holds else "no")
                for name, holds in more.items()
            ]
            return Checks((*self._look(), *rows))
        finally:
            self._count_from_here(kept)

    def _count_from_here(self, kept: Sequence[Received] = ()) -> None:
        self._kept, self._since = tuple(kept), len(self._ucl.requests)

    def _look(self) -> Iterator[Check]:
        current, status = self.connection.require_current(), status_of(self.connection)
        whole = status.state in {"valid", "due"}
        yield Check("identity in use", "ok" if whole else "failed", "whole", current.name)
        yield self._ask_ucl()
        under_way = status.pending or "nothing"
        yield Check("under way", "warning" if status.pending else "ok", "nothing", under_way)
        wide = [one.name for one in self.connection.path.rglob("*") if not one.is_symlink() and _mode(one) & 0o077]
        found = ", ".join(wide) or "nothing"
        yield Check("open to others", "failed" if wide else "ok", "nothing", found)

    def _ask_ucl(self) -> Check:
        try:
            accepted = is_accepted(self.connection, utc_now)
        except Outage:
            return Check("UCL", "warning", "accepts it", "is down, and accepts nothing")
        return Check("UCL", "ok" if accepted else "failed", "accepts it", "it does" if accepted else "refuses it")

    def close(self) -> None:
        """End the sandbox, and remove it and the connection; a second call does nothing."""
        self._end()


def acted_on(call: Received) -> bool:
    """Whether UCL has done what it was asked for."""
    return CATALOGUE[call.fault].acted if call.fault else call.status == HTTPStatus.OK


def _answer(call: Received) -> str:
    return answer_line(call.status) if call.status else f"nothing ({call.fault})"


@contextmanager
def _without_refused_handshakes() -> Iterator[None]:
    """The server logs each handshake that it refuses; of one in the notebook's own process cells would show that."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("SSL Error on")

    logger = logging.getLogger("tornado.general")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
