"""What holds for the whole run: signals reach what tests start, and the agreement with the recordings is counted."""

import signal

import pytest


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start, also where this run is a job in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded as ``agreement``."""
    passed = terminalreporter.getreports("passed")
    told = sorted({value for report in passed for name, value in report.user_properties if name == "agreement"})
    if told:
        terminalreporter.section("agreement with the recordings")
        for line in told:
            terminalreporter.write_line(str(line))
