"""Completion in the shell: ``ucl completion``, and what is completed besides commands and options.

click makes the script and asks this very program at each TAB. What cannot be looked up completes to nothing.
"""

from contextlib import suppress

import click
from click.shell_completion import CompletionItem, get_completion_class

from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UCLError
from ucl_helpers.headless.notebooks import notebooks_directory

SHELLS = ("bash", "zsh", "fish")


def connections(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of the connections in the home folder that ``--home`` or ``UCL_HOME`` names."""
    with suppress(UCLError, OSError):
        return [one for one in Home(context.params.get("home")).names() if one.startswith(incomplete)]
    return []


def notebooks(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of our notebooks; where none begins so, files."""
    ours = (path.stem for path in sorted(notebooks_directory().glob("*.ipynb")))
    found = [CompletionItem(name) for name in ours if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print what lets SHELL complete commands, options, names of connections and of notebooks.

    \b
    Example:
      ucl completion bash

    \b
    One line in the shell's start file turns it on, in the next shell:
      ~/.bashrc                   eval "$(ucl completion bash)"
      ~/.zshrc, after compinit    eval "$(ucl completion zsh)"
      ~/.config/fish/config.fish  ucl completion fish | source

    Names are those in the home folder of --home, if it stands before them, else of UCL_HOME, else of your user.
    """
    if made := get_completion_class(shell):
        click.echo(made(click.get_current_context().find_root().command, {}, "ucl", "_UCL_COMPLETE").source())


COMMANDS = (completion_command,)
