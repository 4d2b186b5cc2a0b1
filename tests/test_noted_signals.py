"""What signals do while a notebook runs: they are noted, or handled as is told, and afterwards mean what they meant."""

import signal
import threading

import pytest

from ucl_helpers.automation.signals import handled, noted, stopped_by

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_signals_are_handled_within_and_not_before_or_after(number):
    got, within = [], []
    before = signal.signal(number, lambda *_: got.append(number))
    try:
        signal.raise_signal(number)
        with handled(within.append):
            signal.raise_signal(number)
        assert (got, within) == ([number], [number])
        signal.raise_signal(number)
        assert (got, within) == ([number, number], [number])
    finally:
        signal.signal(number, before)


@BOTH
def test_what_is_noted_is_what_the_run_ends_with(number):
    stops = []
    with noted(stops):
        signal.raise_signal(number)
        signal.raise_signal(number)
    expected = stopped_by(number)
    assert [(type(one), one.args) for one in stops] == [(type(expected), expected.args)] * 2


def test_sigint_is_an_interrupt_and_sigterm_an_exit_with_143():
    assert isinstance(stopped_by(signal.SIGINT), KeyboardInterrupt)
    assert stopped_by(signal.SIGTERM).code == 143


def test_a_signal_that_is_ignored_stays_ignored_also_by_what_is_started():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted([]):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_changed():
    found = []

    def look():
        with noted([]):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
