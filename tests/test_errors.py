"""The tree of errors is the one that is drawn, survives processes, and says what to do."""

import json
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler

import pytest
import tblib.pickling_support

from ucl_helpers import errors
from ucl_helpers.errors import BadAnswer, RateLimited, RequestRejected, UCLError, Unreachable

DRAWN = re.compile(r"^    (?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?: +(?P<code>\d+)  )?", re.MULTILINE)


def tree(kind):
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below)


KINDS = list(tree(UCLError))


def drawn(docstring):
    """Each class of the drawing with its parent and its exit code, inherited where none is drawn."""
    path, found = [], []
    for line in DRAWN.finditer(docstring):
        depth = len(line["indent"]) // 4
        parent = path[depth - 1] if depth else ("Exception", None)
        here = (line["name"], int(line["code"]) if line["code"] else parent[1])
        path[depth:] = [here]
        found.append((here[0], parent[0], here[1]))
    return found


def test_the_tree_is_the_one_that_is_drawn():
    assert drawn(errors.__doc__) == [(kind.__name__, kind.__base__.__name__, kind.exit_code) for kind in KINDS]


def test_another_drawing_would_not_be():
    for line in ("    │   ├── InvalidSettings\n", "    ├── Busy                      8"):
        assert line in errors.__doc__
    less = errors.__doc__.replace("    │   ├── InvalidSettings\n", "")
    other = errors.__doc__.replace("Busy                      8", "Busy                      7")
    assert drawn(errors.__doc__) not in (drawn(less), drawn(other))


def test_every_error_of_the_module_is_in_the_tree():
    found = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BaseException)}
    assert found == set(KINDS)


def test_exit_codes_differ_and_leave_room_for_success_and_the_shell():
    own = [kind.exit_code for kind in KINDS if "exit_code" in vars(kind)]
    assert sorted(own) == list(range(1, len(own) + 1))
    assert max(own) < 64


# -- what an error tells -----------------------------------------------------------------------------------------------


def through_pickle(error):
    return ForkingPickler.loads(ForkingPickler.dumps(error))


def facts(error):
    return type(error), error.message, error.remedy, dict(error.data), str(error), error.args


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [{}, {"failed": ["key", "subject"], "url": "https://ucl.example", "retry_after": 2.5}])
def test_it_goes_through_pickle_and_back(kind, data):
    error = kind("It went wrong.", remedy="Do this.", **data)
    assert facts(through_pickle(error)) == facts(error)
    assert facts(error)[1:5] == ("It went wrong.", "Do this.", data, "It went wrong. Do this.")


@pytest.mark.parametrize("hidden", [True, False])
def test_what_it_hides_is_not_pickled_with_it_even_by_dask(hidden):
    """Dask has tblib pickle what an error arose from as well, be it a request with a bearer in its headers."""

    def fail():
        try:
            json.loads("a bearer")
        except ValueError as error:
            raise BadAnswer("No JSON.") from (None if hidden else error)

    with pytest.raises(BadAnswer) as raised:
        fail()
    tblib.pickling_support.install(raised.value)
    assert (b"a bearer" in pickle.dumps(raised.value)) is not hidden
    assert facts(through_pickle(raised.value)) == facts(BadAnswer("No JSON."))


def fail(number):
    raise RateLimited(f"Number {number} was too much.", remedy="Wait.", retry_after=1.5)


def test_a_copy_has_what_is_replaced_and_keeps_the_rest():
    error = Unreachable("no answer", remedy="Check the URL.", url="https://localhost", status=None)
    other = error.replaced(remedy="Wait.", status=502)
    assert (type(other), other.message, other.remedy) == (Unreachable, "no answer", "Wait.")
    assert dict(other.data) == {"url": "https://localhost", "status": 502}
    assert (error.remedy, error.data["status"]) == ("Check the URL.", None)
    assert error.replaced("gone", remedy="").remedy == ""


def test_it_comes_out_of_a_process_pool_whole():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        error = pool.submit(fail, 7).exception()
    assert facts(error) == facts(RateLimited("Number 7 was too much.", remedy="Wait.", retry_after=1.5))


def test_without_a_remedy_the_text_is_the_message():
    assert str(BadAnswer("No JSON.")) == "No JSON."
    assert str(BadAnswer("No JSON.", remedy="Check the URL.")) == "No JSON. Check the URL."


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\rb\x00\x9b1m\x7f", r"a\rb\x00\x9b1m\x7f"),
        ("half of \ud800", r"half of \ud800"),
        ("\u202elive", r"\u202elive"),
        ("two\nlines\tand ä, 漢, 🙂", "two\nlines\tand ä, 漢, 🙂"),
    ],
)
def test_what_a_server_wrote_can_be_printed(written, shown):
    error = RequestRejected(f"UCL says: {written}", remedy=written, errors=[written])
    between = "\n" if "\n" in shown else " "  # a message of several lines stays apart from its remedy
    assert str(error) == f"UCL says: {shown}{between}{shown}"
    assert error.args == (f"UCL says: {shown}",)
    assert str(through_pickle(error)).encode() == str(error).encode()
