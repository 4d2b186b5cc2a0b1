"""The text that ``ucl`` prints without a command: the state of a home folder, and the next steps.

It is read from disk, without a lock, a call, or a look at keys, which ``ucl doctor`` tries. Every command is whole and
can be pasted into a shell; a word in capitals after a ``$`` is for the user to fill in.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.attempts import TEMPORARY
from ucl_helpers.connection.status import STATES, Status, needs, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import printable
from ucl_helpers.extras import install_command, is_installed
from ucl_helpers.headless.notebooks import PACKAGE
from ucl_helpers.operate.doctor.on_disk import OnDisk, shell, ucl_command
from ucl_helpers.tables import moment, text_table

MOST = 10
"""So many connections are named; of more, so many of those that need something."""
WIDTH = 200  # characters of why something is to be done
_COMMANDS = {"ask": "renew", "protect": "export"}  # of needs whose command has another name
_NOTEBOOKS = "To read and run all of it as notebooks"


@dataclass(frozen=True)
class Step:
    """An action that a connection needs, and its reason."""

    action: str
    why: str


def greeting(home: Home, clock: Clock = utc_now) -> str:
    """Describe all connections of a home folder, with the commands that they need.

    Raises:
        StorageFailed: the home folder cannot be read, or is not a folder.
    """
    statuses = sorted((status_of(connection, clock, whole=False) for connection in home.connections()), key=urgency)
    steps = _steps(home, statuses, clock()) if statuses else _first_steps(home, clock())
    return printable("\n".join([*_overview(home, statuses), "", *steps, "", "All commands: ucl --help"]))


def urgency(status: Status) -> tuple[int, str]:
    """Sort connections: those in the worst state first, and by name within a state."""
    return -STATES.index(status.state), status.name


def next_step(status: Status) -> Step | None:
    """Return the next action of a person for a connection, or None if it needs nothing. Pure.

    :func:`ucl_helpers.connection.status.needs` decides. For a refused certificate the step is the doctor, which asks
    UCL again and names the way back; so it is after an error that is not temporary.
    """
    if (need := needs(status)) is None:
        return None
    if need.action in {"establish", "finish"}:
        return Step(need.action, need.why)
    if status.state == "refused":
        return Step("doctor", "UCL refused it when it was to be revoked")
    attempts, why = status.attempts, need.why
    action = _COMMANDS.get(need.action, need.action)
    if need.action in {"renew", "ask"} and attempts.last_error is not None:
        wait = f"; next try not before {moment(need.wait_until)}" if need.wait_until else ""
        why = f"{why}; failed {attempts.failures} in a row, the last: {attempts.last_error}{wait}"
        if attempts.last_error.exit_code not in TEMPORARY:
            action = "doctor"
    return Step(action, why)


def _overview(home: Home, statuses: Sequence[Status]) -> Iterator[str]:
    counts = Counter(status.state for status in statuses).items()
    yield f"Home folder: {home.path}"
    yield f"Connections: {', '.join(f'{number} {state}' for state, number in counts) or 'none yet'}"
    if 0 < len(statuses) <= MOST:
        yield ""
        yield text_table([("connection", "state", "renewal due"), *map(_row, statuses)])


def _row(status: Status) -> tuple[str, str, str]:
    due = moment(status.due.at) if status.due and status.state in {"valid", "due"} else "-"
    return status.name + (" (sandbox)" if status.sandbox else ""), status.state, due


def _first_steps(home: Home, now: datetime) -> Iterator[str]:
    """Name the ways to a first connection, and to the notebooks."""
    command = ucl_command(home, "establish", "practice", "--sandbox")
    yield from _practice("To practise, in a sandbox of your own", command)
    yield from _real(home, now)
    if (makefile := PACKAGE.parent / "Makefile").exists():
        yield from _advice(f"{_NOTEBOOKS}:", shell("make", "-C", makefile.parent, "lab"))
    elif is_installed("lab") and find_spec("jupyterlab"):
        lab = "ucl notebooks notebooks && jupyter lab notebooks/00_start_here.ipynb"
        yield from _advice(f"{_NOTEBOOKS}:", lab)
    else:
        yield from _advice(f"{_NOTEBOOKS}, first install the extra lab:", install_command("lab"))


def _practice(why: str, command: str) -> tuple[str, str]:
    """Give a command that needs the sandbox; while that is not installed, the command that installs it."""
    if is_installed("sandbox"):
        return _advice(f"{why}:", command)
    return _advice(f"{why}, first install the extra sandbox:", install_command("sandbox"))


def _real(home: Home, now: datetime) -> Iterator[str]:
    prod = OnDisk(Connection(home, "prod"), now)
    yield from _advice("With the tutorial's files:", prod.import_command(Path("ucl-app.key"), Path("ucl-app.crt")))
    yield from _advice("With a one-time token, which it asks for:", prod.establish_command())


def _steps(home: Home, statuses: Sequence[Status], now: datetime) -> Iterator[str]:
    """Name what each connection needs; if none needs anything, until when, and what else there is."""
    steps = [(status, step) for status in statuses if (step := next_step(status))]
    for status, step in steps[:MOST]:
        command = _command(step, OnDisk(Connection(home, status.name), now))
        calls = status.sandbox and step.action in {"renew", "finish", "establish"}
        why = f"{status.name}: {step.why}"
        yield from _practice(why, command) if calls else _advice(why, command)
    if len(steps) > MOST:
        yield from _advice(f"And {len(steps) - MOST} more:", ucl_command(home, "status"))
    if sum(step.action == "renew" for _, step in steps) > 1:
        yield from _advice("All that are due, at once:", ucl_command(home, "fleet", "renew"))
    if not steps:
        at, name = min((status.due.at, status.name) for status in statuses if status.due)
        yield f"Nothing is to be done before {moment(at)}, when {name} is due."
        if statuses[0].sandbox:
            yield from _practice("To see a renewal now", ucl_command(home, "renew", statuses[0].name, "--force"))
        if all(status.sandbox for status in statuses):
            yield from _real(home, now)


def _command(step: Step, disk: OnDisk) -> str:
    commands = {"renew": disk.renew_command, "finish": disk.finish_command, "establish": disk.establish_command}
    if step.action in commands:
        return commands[step.action]()
    return disk.command(step.action, *(["--edit"] if step.action == "settings" else []))


def _advice(why: str, command: str) -> tuple[str, str]:
    return shorten(why, WIDTH, placeholder=" …"), f"  {command}"
