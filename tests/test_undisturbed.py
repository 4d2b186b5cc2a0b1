"""While something is being saved, signals change nothing."""

import signal
import threading

import pytest

from ucl_helpers.automation.undisturbed import to_the_end, undisturbed


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


def too_soon(before):
    """As ``undisturbed``, but so many signals strike before it has begun."""

    def begins():
        if before:
            raise before.pop()
        return undisturbed()

    return begins


@pytest.mark.parametrize("struck", [KeyboardInterrupt, SystemExit])
def test_a_signal_that_strikes_just_before_it_is_raised_when_all_is_done(struck, monkeypatch):
    monkeypatch.setattr("ucl_helpers.automation.undisturbed.undisturbed", too_soon([struck]))
    done = []
    with pytest.raises(struck):
        to_the_end(lambda: done.append(1))
    assert done == [1]


def test_what_goes_wrong_at_the_end_is_raised_and_not_tried_again():
    done = []
    with pytest.raises(ZeroDivisionError):
        to_the_end(lambda: done.append(1) or 1 / 0)
    assert (done, to_the_end(lambda: 5)) == ([1], 5)


def test_in_another_thread_nothing_is_changed():
    found = []

    def look():
        with undisturbed():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
