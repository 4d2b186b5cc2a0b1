"""What the run says beside its tests: how many recorded answers of the real servers the sandbox agrees with."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded as ``agreement``."""
    passed = terminalreporter.getreports("passed")
    told = sorted({value for report in passed for name, value in report.user_properties if name == "agreement"})
    if told:
        terminalreporter.section("agreement with the recordings")
        for line in told:
            terminalreporter.write_line(str(line))
