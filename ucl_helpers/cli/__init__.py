"""The command ``ucl``: parse arguments, call the library, print the result, return an exit code."""

from ucl_helpers.cli.main import main

__all__ = ["main"]
