"""The command ``ucl``: parse, call, print, exit code."""

from ucl_helpers.cli.main import main

__all__ = ["main"]
