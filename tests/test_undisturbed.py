"""While something is being saved, signals change nothing."""

import signal
import threading

import pytest

from ucl_helpers.automation.undisturbed import undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_let_pass_within_and_not_before_or_after(number):
    got = []
    before = signal.signal(number, lambda *_: got.append(number))
    try:
        signal.raise_signal(number)
        with undisturbed():
            signal.raise_signal(number)
        assert got == [number]
        signal.raise_signal(number)
        assert got == [number, number]
    finally:
        signal.signal(number, before)


def test_in_another_thread_nothing_is_changed():
    found = []

    def look():
        with undisturbed():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
