"""What holds for the whole run: how much of the long proofs is run, signals, and what is told at the end."""

import ctypes
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from secrets_watch import Watch

_PR_SET_DUMPABLE = 4  # prctl(2)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--whole``: what ``make test`` runs shortened is run in full, without a limit of time."""
    parser.addoption("--whole", action="store_true", help="run in full what is shortened otherwise")
    parser.addoption("--no-skips", action="store_true", help="what would be skipped fails, and says why")


def pytest_configure(config: pytest.Config) -> None:
    """Start from the same process attributes, whatever the caller's are.

    Files that tests write are not writable by others, as the product requires, even if the caller's umask is 000. Tests
    of umasks set their own. Signals reach the programs that tests start, even if the caller ignores them (``nohup``, a
    background job): a program inherits that a signal is ignored, but not a handler. So this process still ignores them,
    by a handler. Temporary folders have no blank in their path, since tests write shell commands with such paths.
    """
    os.umask(0o022)
    if " " in tempfile.gettempdir():
        os.environ["TMPDIR"] = tempfile.tempdir = str(Path("/", "tmp"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)
    if config.option.whole:
        config.option.timeout = 0
    config.addinivalue_line("markers", "needs_root(reason): skipped for an ordinary user; -m needs_root selects these")
    config.addinivalue_line("markers", "plants_secrets: lets secrets out on purpose, to see that they are found")
    config.addinivalue_line(
        "markers", "kind(name): the kind of case that this is one of; counted at the end of the run"
    )
    config.pluginmanager.register(Watch())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Record the kind of each case; skip what needs root for an ordinary user, with the reason that the test gives."""
    for item in items:
        item.user_properties += [("kind", name) for name in {marker.args[0] for marker in item.iter_markers("kind")}]
    if os.geteuid() == 0:
        return
    for item in items:
        if marker := item.get_closest_marker("needs_root"):
            (reason,) = marker.args
            item.add_marker(pytest.mark.skip(reason=f"needs root: {reason}"))


def pytest_runtest_logfinish() -> None:
    """Make this process dumpable again: a test that calls ``main()`` here makes it undumpable for all that follow.

    Files in ``/proc/self`` of an undumpable process belong to root (proc(5)), so its own user cannot write to them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


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


@pytest.fixture
def proof(record_property):
    """``proof("crash", "system calls killed at", 312)``: added up over all tests and told at the end of the run."""

    def count(area, what, number):
        record_property("proof", [area, what, number])

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as ``agreement``, counted as ``proof`` or as a ``kind``, and what was skipped why."""
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
    if kinds := Counter(value for report in passed for name, value in report.user_properties if name == "kind"):
        terminalreporter.section("cases of each kind")
        for kind, number in sorted(kinds.items()):
            terminalreporter.write_line(f"{number:>5}  {kind}")
    if reasons := Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped")):
        terminalreporter.section("skipped, by reason")
        for reason, number in reasons.most_common():
            terminalreporter.write_line(f"{number:>5}  {reason.removeprefix('Skipped: ')}")
