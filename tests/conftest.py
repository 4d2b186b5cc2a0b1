"""What holds for the whole run: how much of the long proofs is run, signals, and what is told at the end."""

import signal
from collections import Counter
from collections.abc import Generator
from functools import partial

import pytest
from secrets_watch import Watch

from ucl_helpers.automation.runner import run_notebook


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--whole``: what ``make test`` runs shortened is run in full, without a limit of time."""
    parser.addoption("--whole", action="store_true", help="run in full what is shortened otherwise")
    parser.addoption("--no-skips", action="store_true", help="what would be skipped fails, and says why")


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach the programs that tests start, also where this run is a job in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.whole:
        config.option.timeout = 0
    config.addinivalue_line("markers", "plants_secrets: lets secrets out on purpose, to see that they are found")
    config.pluginmanager.register(Watch())


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport]:
    """Let a module that would be skipped fail, with ``--no-skips``."""
    return unskipped((yield), collector.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport]:
    """Let a test that would be skipped fail, with ``--no-skips``."""
    return unskipped((yield), item.config)


def unskipped(report, config):
    if report.skipped and config.option.no_skips and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"nothing may be skipped, but {report.longrepr[2]}"
    return report


@pytest.fixture(scope="session")
def whole(pytestconfig):
    """Whether long proofs are run in full."""
    return pytestconfig.option.whole


@pytest.fixture(params=["shell", "kernel"])
def run(request):
    """``run_notebook``, without a kernel and with one."""
    return partial(run_notebook, kernel=request.param == "kernel")


@pytest.fixture
def proof(record_property):
    """``proof("crash", "system calls killed at", 312)``: added up over all tests and told at the end of the run."""

    def count(area, what, number):
        record_property("proof", [area, what, number])

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded as ``agreement``, and what they have counted as ``proof``."""
    passed = terminalreporter.getreports("passed")
    told = sorted({value for report in passed for name, value in report.user_properties if name == "agreement"})
    if told:
        terminalreporter.section("agreement with the recordings")
        for line in told:
            terminalreporter.write_line(str(line))
    counts = Counter()
    for report in passed:
        for name, value in report.user_properties:
            if name == "proof":
                area, what, number = value
                counts[area, what] += number
    if counts:
        terminalreporter.section("what was proven")
        for (area, what), number in sorted(counts.items()):
            terminalreporter.write_line(f"{area:12} {number:>9,}  {what}")
