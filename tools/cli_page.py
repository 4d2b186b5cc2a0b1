"""The reference page of the command line, docs/reference/cli.md, from the help texts in click.

``UCL_WRITE_TABLE=1 pytest tests/project/test_docs.py`` writes it. The test compares it with what ``ucl … --help``
prints.
"""

import re
from collections.abc import Iterator
from inspect import cleandoc
from textwrap import dedent

import click

INTRODUCTION = """# The command `ucl`

This page has the `--help` text of `ucl` and of each of its commands. A test compares the two.
[Errors](errors.md) explains each exit code, and what you can do.
"""
_OPTION = re.compile(r"(?<![\w`-])--[a-z][a-z-]*")
_MARKUP = re.compile(r"([\\*_<>|#\[\]])")


def page(group: click.Group, name: str) -> str:
    """Return the page as Markdown, with a section for the group and one for each command below it."""
    top = click.Context(group, info_name=name, **group.context_settings)
    return "\n".join([INTRODUCTION, *(_section(*command) for command in _commands(group, top))])


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from _commands(child, click.Context(child, info_name=name, parent=context))


def _section(command: click.Command, context: click.Context) -> str:
    path = context.command_path
    parts = [f"## `{path}`", *_paragraphs(command.help), _block("Usage", [_usage(command, context)])]
    options = [option for option in command.params if isinstance(option, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    # click makes this option, with the names that it had when they were first read
    records.append((", ".join(context.help_option_names), "Show this message and exit."))
    parts += ["Options:", "\n".join(f"- `{names}`: {_prose(' '.join(text.split()))}" for names, text in records)]
    if isinstance(command, click.Group):
        children = sorted(command.commands.items())
        rows = [f"- [`{name}`](#{f'{path} {name}'.replace(' ', '-')}): {_first(child)}" for name, child in children]
        parts += ["Commands:", "\n".join(rows)]
    return "\n\n".join([*parts, *_paragraphs(command.epilog)]) + "\n"


def _usage(command: click.Command, context: click.Context) -> str:
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def _paragraphs(text: str | None) -> Iterator[str]:
    """Yield the paragraphs of a help text as Markdown. A paragraph that click does not rewrap becomes a code block."""
    for paragraph in cleandoc(text or "").split("\n\n"):
        kept, lines = paragraph.startswith("\b"), paragraph.strip("\b\n").splitlines()
        if kept:
            yield _block(lines[0].rstrip(":"), dedent("\n".join(lines[1:])).splitlines())
        elif lines:
            yield _prose(" ".join(lines))


def _block(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:", "", "```text", *lines, "```"])


def _first(command: click.Command) -> str:
    return next(_paragraphs(command.help))


def _prose(text: str) -> str:
    return _OPTION.sub(r"`\g<0>`", _MARKUP.sub(r"\\\1", text))
