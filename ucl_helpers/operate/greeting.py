"""Where things stand in a home folder, and what to do next: what ``ucl`` says by itself.

Read from disk, without a lock, a call, or a look at keys, which ``ucl doctor`` tries. Every command is whole and can be
pasted into a shell; a word in capitals behind a ``$`` is for the user to fill in.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.status import Status, status_of
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.extras import install_command, is_installed
from ucl_helpers.headless.notebooks import PACKAGE
from ucl_helpers.operate.doctor.findings import Commands, shell
from ucl_helpers.operate.doctor.on_disk import Kept
from ucl_helpers.operate.next_steps import Step, next_step, urgency
from ucl_helpers.tables import moment, printable, text_table

MOST = 10
"""So many connections are named; of more, so many of those that need something."""
WIDTH = 200  # characters of why something is to be done


def greeting(home: Home, clock: Clock = utc_now) -> str:
    """What there is to say.

    Raises:
        StorageFailed: the home folder cannot be looked into, or is none.
    """
    found = sorted((status_of(one, clock, whole=False) for one in home.connections()), key=urgency)
    told = _next(home, found, clock()) if found else _beginning(home)
    return printable("\n".join([*_standing(home, found), "", *told, "", "All commands: ucl --help"]))


def _standing(home: Home, found: Sequence[Status]) -> Iterator[str]:
    counts = Counter(one.state for one in found).items()
    yield f"Home folder: {home.path}"
    yield f"Connections: {', '.join(f'{number} {state}' for state, number in counts) or 'none yet'}"
    if 0 < len(found) <= MOST:
        yield ""
        yield text_table([("connection", "state", "renewal due"), *map(_row, found)])


def _row(one: Status) -> tuple[str, str, str]:
    due = moment(one.due.at) if one.due and one.state in {"valid", "due"} else "-"
    return one.name + (" (sandbox)" if one.sandbox else ""), one.state, due


def _beginning(home: Home) -> Iterator[str]:
    """Ways to a first connection, and to the notebooks."""
    yield from _practising("To practise, in a sandbox of your own", _commands(home, "practice", practice=True).finish())
    yield from _real(home)
    if (makefile := PACKAGE.parent / "Makefile").exists():
        yield from _told("To read and run all of it as notebooks:", shell("make", "-C", makefile.parent, "lab"))
    elif is_installed("lab") and find_spec("jupyterlab"):
        lab = "ucl notebooks notebooks && jupyter lab notebooks/00_start_here.ipynb"
        yield from _told("To read and run all of it as notebooks:", lab)
    else:
        yield from _told("To read and run all of it as notebooks, first install the extra lab:", install_command("lab"))


def _practising(why: str, command: str) -> tuple[str, str]:
    """A command that needs the sandbox; while that is not installed, the command that installs it."""
    if is_installed("sandbox"):
        return _told(f"{why}:", command)
    return _told(f"{why}, first install the extra sandbox:", install_command("sandbox"))


def _real(home: Home) -> Iterator[str]:
    prod = _commands(home, "prod")
    yield from _told("With the tutorial's files:", prod.again(Path("ucl-app.key"), Path("ucl-app.crt")))
    yield from _told("With a one-time token, which it asks for:", prod.establish())


def _next(home: Home, found: Sequence[Status], now: datetime) -> Iterator[str]:
    """What connections need, those first that work the least; if none does, until when, and what else there is."""
    steps = [(one.name, step) for one in found if (step := next_step(one))]
    practice = {one.name for one in found if one.sandbox}
    for name, step in steps[:MOST]:
        command = _command(step, Kept(Connection(home, name), now).commands)
        calls = name in practice and step.action in {"renew", "finish", "establish"}
        yield from _practising(f"{name}: {step.why}", command) if calls else _told(f"{name}: {step.why}", command)
    some = _commands(home, found[0].name)
    if len(steps) > MOST:
        yield from _told(f"And {len(steps) - MOST} more:", some.ucl("status"))
    if sum(step.action == "renew" for _, step in steps) > 1:
        yield from _told("All that are due, at once:", some.ucl("fleet", "renew"))
    if not steps:
        first = min((one.due.at, one.name) for one in found if one.due)
        yield f"Nothing is to be done before {moment(first[0])}, when {first[1]} is due."
        if found[0].sandbox:
            yield from _practising("To see a renewal now", some.renew("--force"))
        if all(one.sandbox for one in found):
            yield from _real(home)


def _commands(home: Home, name: str, *, practice: bool = False) -> Commands:
    return Commands(Connection(home, name), practice=practice, url=None, server_ca=None)


def _command(step: Step, commands: Commands) -> str:
    """The command that does it."""
    match step.action:
        case "renew":
            return commands.renew()
        case "finish":
            return commands.finish()
        case "establish":
            return commands.establish()
        case "settings":
            return commands.ucl("settings", commands.name, "--edit")
        case "doctor" | "hooks":
            return commands.ucl(step.action, commands.name)


def _told(why: str, command: str) -> tuple[str, str]:
    return shorten(why, WIDTH, placeholder=" …"), f"  {command}"
