"""A new certificate that becomes valid within a minute is waited for in the run; a later one is not."""

from datetime import timedelta

import pytest
from steps import Clock, go

from ucl_helpers import Renewal
from ucl_helpers.errors import RetryLater

pytest_plugins = ["procedure_fixtures"]


class Waiting:
    """A clock of ours; waiting moves it, and that of the server."""

    def __init__(self, *clocks):
        self.clocks, self.waits = clocks, []

    def __call__(self, seconds):
        self.waits.append(seconds)
        for clock in self.clocks:
            clock.ahead += timedelta(seconds=seconds)


@pytest.fixture
def signed(secure, monkeypatch):
    """A renewal up to its decoded answer, whose certificate is valid so many seconds after the answer's ``Date``."""

    def sign(seconds):
        ours = Clock()
        renewal = Renewal.begin(secure, clock=ours)
        renewal.wait = Waiting(ours)
        go(renewal, "sign")
        identity = go(renewal, "decode", since="decode")
        behind = identity.certificate.not_valid_before_utc - ours() - timedelta(seconds=seconds)
        renewal.pending.update(clock_difference=behind.total_seconds())  # what the Date of the answer said
        return renewal

    return sign


@pytest.mark.kind("the right culprit: a certificate that is not valid yet")
@pytest.mark.parametrize("seconds", [2, 20, 59])
def test_up_to_a_minute_is_waited_for_and_then_verified(signed, seconds):
    renewal = signed(seconds)
    go(renewal, since="verify")
    (waited,) = renewal.wait.waits
    assert seconds - 2 < waited <= seconds
    assert renewal.outcome().outcome == "renewed"


@pytest.mark.kind("the right culprit: a certificate that is not valid yet")
@pytest.mark.parametrize("seconds", [-5, 0, 65, 3600])
def test_what_is_valid_and_what_is_later_is_not_waited_for(signed, seconds):
    renewal = signed(seconds)
    try:
        renewal.verify()
    except RetryLater:
        assert seconds > 60
    assert renewal.wait.waits == []


def test_nothing_is_waited_for_when_nothing_is_due(secure):
    renewal = Renewal.begin(secure, only_if_due=True)
    renewal.wait = Waiting()
    go(renewal)
    assert renewal.wait.waits == []
