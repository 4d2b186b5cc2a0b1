"""``ucl explain``: an entry of the error catalogue, which is the page ``docs/reference/errors.md``."""

import re
from pathlib import Path
from textwrap import dedent

import click

from ucl_helpers import errors
from ucl_helpers.errors import UCLError, UsageError

PACKAGE = Path(__file__).resolve().parent.parent
_ENTRY = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^]]+)]\([^)]+\)")


def catalogue() -> dict[str, str]:
    """Every entry by the name of its class, as plain text: from the wheel, or from the checkout."""
    installed = PACKAGE / "errors.md"
    page = installed if installed.exists() else PACKAGE.parent / "docs" / "reference" / "errors.md"
    return {name: _LINK.sub(r"\1", entry).strip() for name, entry in _ENTRY.findall(page.read_text("utf-8"))}


def _class_of(asked: str) -> type[UCLError]:
    """A class by its name, in whatever case, or the topmost one with an exit code."""
    kinds: list[type[UCLError]] = [getattr(errors, name) for name in catalogue()]
    for kind in kinds:
        if asked.lower() == kind.__name__.lower() or asked == str(kind.exit_code):
            return kind
    raise UsageError(f"There is no error {asked!r}.", remedy="All there are: ucl explain")


def names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Names of errors, for the shell's completion."""
    return [name for name in catalogue() if name.lower().startswith(incomplete.lower())]


@click.command("explain")
@click.argument("error", required=False, shell_complete=names)
def explain_command(error: str | None) -> None:
    """Explain ERROR, a name or an exit code: what it means, its likely causes, what helps.

    \b
    Examples:
      ucl explain NotYetAccepted
      ucl explain 11

    Without ERROR: all there are, with their exit codes. In an entry prod stands for the name of your connection.
    """
    if error is None:
        click.echo(dedent((errors.__doc__ or "").partition("::\n\n")[2]).rstrip())
        return
    kind = _class_of(error)
    kinds = [one.__name__ for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    below = [f"Kinds of it: {', '.join(kinds)}."] if kinds else []
    click.echo("\n\n".join([kind.__name__, catalogue()[kind.__name__], *below]))


COMMANDS = (explain_command,)
