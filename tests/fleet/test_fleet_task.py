"""What a second attempt in the same run of a fleet may skip, and what it may not."""

import pytest
from meddler import answers, lost_on_the_way_back
from steps import pending_of

from ucl_helpers.errors import UCLError
from ucl_helpers.fleet.task import renew_one
from ucl_helpers.procedures.renewal import renew

pytest_plugins = ["procedure_fixtures"]


def attempt(connection, base, **more):
    result = renew_one(str(connection.home.path), connection.name, base, **more)
    return result.error["class"] if result.error else result.outcome


@pytest.mark.parametrize(("again", "came_to"), [(True, "renewed"), (False, "Waiting")])
def test_of_what_is_due_the_pause_after_a_failure(due, between, again, came_to):
    base = due.current.name
    between.on("configuration", answers(503))
    assert attempt(due, base) == "Unavailable"
    assert attempt(due, base, again=again) == came_to


@pytest.mark.parametrize(("again", "came_to"), [(True, "renewed"), (False, "Waiting")])
def test_and_of_what_is_not_but_was_sent_for_signing(secure, between, again, came_to):
    base = secure.current.name
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(UCLError):
        renew(secure)
    assert attempt(secure, base, again=again) == came_to
    assert bool(pending_of(secure)) != again
    assert attempt(secure, secure.current.name, again=True) == ("not-due" if again else "renewed")


def test_of_what_was_not_sent_it_makes_nothing(secure, between):
    base = secure.current.name
    between.on("configuration", answers(503))
    with pytest.raises(UCLError):
        renew(secure)
    assert attempt(secure, base, again=True) == "not-due"
    assert secure.current.name == base
