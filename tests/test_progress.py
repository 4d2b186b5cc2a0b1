"""Who waits is told for what, and when it is over; who does not listen is not disturbed."""

import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from meddler import answers
from quick_keys import QUICK_BITS

from ucl_helpers import progress
from ucl_helpers.errors import Unavailable
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.procedures.procedure import KeyMaker
from ucl_helpers.views.notebook import Line, Wait, show_waits
from ucl_helpers.wire.client import Client

pytest_plugins = ["procedure_fixtures"]


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(progress, "_ANYWHERE", [])
    found = []
    progress.listen(found.append)
    return found


def test_a_wait_is_told_and_its_end_too_even_if_it_fails(told):
    with suppress(ValueError), progress.waiting("for nothing"):
        raise ValueError
    assert told == ["for nothing", ""]


def test_who_listens_to_some_code_alone_hears_that_alone(told):
    mine = []
    with progress.listening(mine.append), progress.waiting("here"):
        other = threading.Thread(target=wait_there)
        other.start()
        other.join()
    assert (mine, told) == (["here", ""], ["there", ""])


def wait_there():
    with progress.waiting("there"):
        pass


def test_without_a_listener_nothing_happens(monkeypatch):
    monkeypatch.setattr(progress, "_ANYWHERE", [])
    with progress.waiting("for nothing"):
        pass


def test_a_key_that_is_being_made_is_waited_for(told, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr("ucl_helpers.procedures.procedure.make_key", lambda bits: go_on.wait(60))
    maker = KeyMaker(4096)
    progress.listen(lambda text: (told.append(text), go_on.set()))
    assert maker.key() is True
    assert told == ["Making an RSA key of 4096 bits; this takes some seconds.", ""]


def test_a_key_that_is_there_is_not(told):
    maker = KeyMaker(QUICK_BITS)
    maker.start().result()
    maker.key()
    assert told == []


@pytest.fixture
def client(secure, ucl):
    def make(**options):
        return Client(
            secure.url,
            "certificate",
            ca_file=ucl.ca_file,
            credentials=secure.current.credentials,
            wait=time_flies,
            **options,
        )

    return make


def time_flies(seconds):
    assert seconds > 0


def test_a_retry_tells_why_and_when(told, client, between, monkeypatch):
    monkeypatch.setattr("ucl_helpers.wire.client.BACKOFF_SECONDS", (0.5, 1.0))
    between.on("configuration", answers(503), answers(503))
    with client() as one:
        one.call(CONFIGURATION)
    assert told[1::2] == ["", ""]
    assert re.fullmatch(r"https://\S+ cannot answer now \(503\)\. \(x-request-id \S+\) Try 2 in 0\.5 s\.", told[0])
    assert told[2].endswith("Try 3 in 1.0 s.")


def test_who_does_not_try_again_waits_for_nothing(told, client, between):
    between.on("configuration", answers(503))
    with client(retry=False) as one, pytest.raises(Unavailable):
        one.call(CONFIGURATION)
    assert told == []


# -- where it is shown -------------------------------------------------------------------------------------------------


def test_a_cell_shows_one_line_that_goes():
    shell = InteractiveShell.instance()
    try:
        with capture_output() as shown:
            line = Line(shell)
            for text in ("first", "", "second", ""):
                line(text)
            shell.execution_count += 1
            line("")
            line("another cell's")
    finally:
        InteractiveShell.clear_instance()
    assert [one.data["text/plain"] for one in shown.outputs] == ["first", "", "second", "", "another cell's"]
    assert [one.update for one in shown.outputs] == [False, True, True, True, False]


def test_outside_of_a_notebook_nobody_listens(monkeypatch):
    monkeypatch.setattr(progress, "_ANYWHERE", [])
    show_waits()
    assert progress._ANYWHERE == []


def test_a_line_is_escaped():
    assert "<script" not in Wait("<script>")._repr_mimebundle_()["text/html"]


WAITS = """
from ucl_helpers import progress
from ucl_helpers.cli.main import group, main

@group.command()
def wait():
    with progress.waiting("for this"):
        pass

main(["wait"])
"""


def test_a_terminal_is_told_and_a_pipe_is_not():
    piped = subprocess.run([sys.executable, "-c", WAITS], stderr=subprocess.PIPE, check=True)
    assert piped.stderr == b""
    above, below = pty.openpty()
    subprocess.run([sys.executable, "-c", WAITS], stderr=below, check=True)
    os.close(below)
    assert os.read(above, 1000) == b"for this\r\n"
    os.close(above)
