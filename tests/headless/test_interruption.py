"""What signals do while a notebook runs: they are noted or handled, and mean afterwards what they meant before."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import not_delivered

from ucl_helpers.headless.interruption import exception_for, handling_signals, noting_signals

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_signals_are_handled_within_and_not_before_or_after(number):
    got, within = [], []
    before = signal.signal(number, lambda *_: got.append(number))
    try:
        signal.raise_signal(number)
        with handling_signals(within.append):
            signal.raise_signal(number)
        assert (got, within) == ([number], [number])
        signal.raise_signal(number)
        assert (got, within) == ([number, number], [number])
    finally:
        signal.signal(number, before)


@BOTH
def test_what_is_noted_is_what_the_run_ends_with(number):
    stops = []
    with noting_signals(stops):
        signal.raise_signal(number)
        signal.raise_signal(number)
    expected = exception_for(number)
    assert [(type(one), one.args) for one in stops] == [(type(expected), expected.args)] * 2


def test_sigint_is_an_interrupt_and_sigterm_an_exit_with_143():
    assert isinstance(exception_for(signal.SIGINT), KeyboardInterrupt)
    assert exception_for(signal.SIGTERM).code == 143


def test_a_signal_that_is_ignored_stays_ignored_also_by_what_is_started():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noting_signals([]):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_changed():
    found = []

    def look():
        with noting_signals([]):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


STUCK = """
import os, signal, sys
from ucl_helpers.headless import interruption as signals
signals.END_SECONDS = float(sys.argv[1])

class Stops(list):
    def append(self, stop):
        super().append(stop)
        os.write(1, b"noted\\n")  # print cannot be called again within itself, and the next signal comes at once

with signals.noting_signals(Stops()):
    os.write(1, b"ready\\n")
    open("fifo")  # for ever: nothing writes
"""


@contextmanager
def stuck(folder, seconds):
    os.mkfifo(folder / "fifo")
    with subprocess.Popen([sys.executable, "-c", STUCK, str(seconds)], cwd=folder, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(120)
@BOTH
@pytest.mark.parametrize(("count", "seconds"), [(2, 0.1), (3, 1e6)])
def test_a_process_that_is_stuck_ends_after_the_second_signal_and_at_the_third(number, count, seconds, tmp_path):
    with stuck(tmp_path, seconds) as process:
        for _ in range(count):
            process.send_signal(number)
            assert process.stdout.readline() == b"noted\n"  # Python merges signals that come before it has handled one
        assert process.wait() == 128 + number


@pytest.mark.timeout(120)
def test_the_first_signal_alone_does_not_end_it(tmp_path):
    with stuck(tmp_path, 0) as process:
        process.terminate()
        while not_delivered(Path(f"/proc/{process.pid}/status")):
            os.sched_yield()
        (tmp_path / "fifo").write_text("")  # what it waited for
        assert process.wait() == 0


def test_a_block_that_ends_after_two_signals_leaves_the_process_alone():
    before = threading.active_count()
    with noting_signals([]) as note:
        note(signal.SIGTERM)
        note(signal.SIGTERM)
    assert threading.active_count() == before
