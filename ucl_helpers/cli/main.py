"""Group all commands, and turn errors into exit codes."""

import atexit
import errno
import gc
import os
import sys
from collections import UserDict
from importlib import import_module
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from click.shell_completion import get_completion_class

from ucl_helpers import __version__
from ucl_helpers.cli.common import EXIT_CODES, FILE, print_error
from ucl_helpers.connection.store import Home
from ucl_helpers.core_dumps import no_dumps_at_all
from ucl_helpers.errors import OutputLost, StorageFailed, UCLError, UsageError
from ucl_helpers.progress import listen

INTERRUPTED, TERMINATED = 130, 143
SHELLS = ("bash", "zsh", "fish")
_OUTPUT, _ERRORS = 1, 2  # descriptors
_HELP = """Keep a UCL client certificate alive: establish a connection, renew it, revoke it.

\b
Examples:
  ucl establish practice --sandbox
  ucl status
  ucl renew practice --force
"""


_MODULES = {
    "connect": ("establish", "import"),
    "keep": ("renew", "hooks", "rollback", "revoke", "forget"),
    "watch": ("status", "path", "journal", "metrics", "doctor", "explain"),
    "settings": ("settings", "export"),
    "notebooks": ("run", "notebooks", "sandbox"),
    "fleet": ("fleet",),
}


class _Commands(UserDict[str, click.Command]):
    """The commands by name. The module of a command is imported when the command is needed, so ``ucl`` starts fast."""

    def __getitem__(self, name: str) -> click.Command:
        for module, names in _MODULES.items():
            if name in names and self.data[name] is None:
                self.data[name] = getattr(import_module(f"ucl_helpers.cli.{module}"), f"{name}_command")
        return super().__getitem__(name)


@click.group(
    commands=_Commands({name: None for names in _MODULES.values() for name in names}),  # type: ignore[misc]
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help=_HELP,
    epilog=EXIT_CODES,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.version_option(__version__, prog_name="ucl")
@click.option(
    "--home", type=FILE, help="Where connections are stored [default: UCL_HOME, else the user's data folder]."
)
@click.pass_context
def group(context: click.Context, home: Path | None) -> None:
    """Show the state of all connections and the next steps, if there is no command."""
    if sys.stderr and sys.stderr.isatty():
        listen(_show_wait)
    if context.invoked_subcommand is None:
        from ucl_helpers.operate.greeting import greeting

        click.echo(greeting(Home(home)))


def _show_wait(wait: str) -> None:
    if wait:
        click.echo(wait, err=True)


@group.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print a script that lets SHELL complete ucl commands.

    \b
    Example:
      ucl completion bash

    \b
    One line in the shell's start file turns it on, in the next shell:
      ~/.bashrc                   eval "$(ucl completion bash)"
      ~/.zshrc, after compinit    eval "$(ucl completion zsh)"
      ~/.config/fish/config.fish  ucl completion fish | source

    It completes commands, options, and names of connections and notebooks. The names are from the home folder: that of
    --home if you typed it before the name, else UCL_HOME, else your default one.
    """
    if kind := get_completion_class(shell):
        click.echo(kind(click.get_current_context().find_root().command, {}, "ucl", "_UCL_COMPLETE").source())


def main(arguments: list[str] | None = None) -> Any:
    """Run ``ucl`` and end with its exit code."""
    _open_standard_streams()
    no_dumps_at_all()
    atexit.register(gc.freeze)  # else Python searches all modules for garbage before it ends: 0.06 s
    _guard_streams()
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # the terminal may not show every character of a name or answer
    sys.excepthook = _unexpected
    try:
        code = group.main(args=given, prog_name="ucl", standalone_mode=False)
    except UCLError as error:
        code = _end(error, given)
    except OSError as error:
        failure = StorageFailed(f"The system reported an error: {error}.", remedy="Fix its cause, then run it again.")
        code = _end(failure, given)
        _silence()
    except SystemExit as stopped:
        if stopped.code == TERMINATED and "--json" not in given:
            _end(UCLError("Terminated.", remedy="Nothing is lost. Run it again to continue."), given, TERMINATED)
        raise
    except click.exceptions.Abort:
        code = _end(UCLError("Interrupted.", remedy="Nothing is lost. Run it again to continue."), given, INTERRUPTED)
    except click.ClickException as error:
        if "--json" in given:
            code = _end(UsageError(error.format_message(), remedy="ucl --help tells how."), given)
        else:
            error.show()
            code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_streams() -> None:
    """Open the null device for each standard stream that the caller closed.

    Otherwise the next file that is opened would get the stream's number, and child processes would write to that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _ERRORS:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _end(error: UCLError, given: list[str], code: int | None = None) -> int:
    code = error.exit_code if code is None else code
    try:
        print_error(error, code, json_output="--json" in given and not isinstance(error, OutputLost))
    except OutputLost:  # print it on standard error instead
        print_error(error, code, json_output=False)
    except OSError:  # the reader of the pipe has ended
        _silence()
    return code


def _silence() -> None:
    """Keep the interpreter from writing the lost output again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report a bug by its type only. Text and traceback might hold a secret; ``UCL_DEBUG`` shows them."""
    if os.environ.get("UCL_DEBUG") or not issubclass(kind, Exception):
        sys.__excepthook__(kind, error, trace)
    else:
        _end(UCLError(f"Unexpected: {kind.__name__}.", remedy="With UCL_DEBUG=1 it tells where."), sys.argv)


class _Output(FileIO):
    """Standard output. A failed write raises OutputLost, except if the reader of a pipe has ended."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), _OUTPUT
            )  # keeps the interpreter from writing it again when it ends
            raise OutputLost(
                f"The output could not be written: {error.strerror}. The command itself has run to its end.",
                remedy="Write the output elsewhere. To see where things are: ucl status.",
            ) from None


class _Errors(FileIO):
    """Standard error. A failed write is ignored."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data))


def _guard_streams() -> None:
    """Replace the streams that the interpreter has opened, but no others, such as those of a test."""
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(_OUTPUT, "w", closefd=False), sys.stdout)
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Errors(_ERRORS, "w", closefd=False), sys.stderr)


def _text(raw: FileIO, like: Any) -> TextIOWrapper:
    like.flush()
    return TextIOWrapper(
        BufferedWriter(raw), encoding=like.encoding, errors=like.errors, line_buffering=like.line_buffering
    )
