"""While something is being saved, signals change nothing."""

import signal
import threading
from contextlib import suppress

import pytest

from ucl_helpers.automation.undisturbed import held_back, to_the_end, undisturbed


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_are_held_back_come_afterwards_however_it_ended(number):
    got = []
    before = signal.signal(number, lambda *_: got.append(number))
    try:
        with suppress(ZeroDivisionError), held_back():
            signal.raise_signal(number)
            assert got == []
            raise ZeroDivisionError
        assert got == [number]
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored_also_by_what_is_started():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


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


@pytest.mark.parametrize("block", [undisturbed, held_back])
def test_in_another_thread_nothing_is_changed(block):
    found = []

    def look():
        with block():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
