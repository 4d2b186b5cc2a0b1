"""An error instead of any system call that can end with it: the program says what it was, and loses nothing.

Which error fits which call is told in a table; a call that was only interrupted is made again, and nobody notices.
"""

import pytest
from scenes import PROCEDURES
from tracing import UNFIT
from walking import cut_off

pytest_plugins = ["cut_off_fixtures"]
pytestmark = pytest.mark.skipif(bool(UNFIT), reason=UNFIT)

NAMES = {"mkdir", "rename", "symlink"}  # each needs room for a name
GONE = {"unlink", "unlinkat", "rmdir"}
FITS = {
    ("ENOSPC", "file"): {"openat", "write", "pwrite64", "fsync", *NAMES},
    ("EIO", "file"): {"openat", "write", "pwrite64", "ftruncate", "fsync", "chmod", "fchmod", "close", *NAMES, *GONE},
    ("EIO", "reading"): {"openat"},
    ("EACCES", "file"): {"openat", "chmod", "fchmod", *NAMES, *GONE},
    ("EACCES", "reading"): {"openat"},
    ("EACCES", "socket"): {"connect"},
    ("EINTR", "file"): {"openat", "write", "pwrite64", "ftruncate", "fsync", "flock"},
    ("EINTR", "socket"): {"read", "write", "poll"},
    ("EMFILE", "file"): {"openat"},
    ("EMFILE", "reading"): {"openat"},
    ("EMFILE", "socket"): {"socket"},
}
ORDERLY = {
    0: "made up for",
    3: "retry later",
    10: "storage",
    11: "a new token is needed",
}


def told(run):
    """A failure that has a name and a remedy; no traceback, nothing unexpected."""
    wrong = run.code not in ORDERLY or any(word in run.said for word in ("Traceback", "Unexpected", "Exception"))
    return [f"it ended with {run.code}: {run.said}"] if wrong else []


def unnoticed(run):
    return [f"it ended with {run.code}: {run.said}"] if run.code else []


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EACCES", "EINTR", "EMFILE"])
@pytest.mark.parametrize("procedure", PROCEDURES)
def test_an_error_at_any_call_is_told_and_loses_nothing(cut, procedure, error):
    judge = unnoticed if error == "EINTR" else told
    assert cut(procedure, error, judge, fits=lambda call: call.name in FITS.get((error, call.on), ())) == []


def test_an_answer_that_cannot_be_read_now_is_not_taken_for_none(scenes):
    """To ask again would be to have a second certificate signed while the first lies there."""
    scene = scenes("renew")
    opened = [one for one in scene.calls or scene.recorded() if one.role.startswith("/connections/prod/pending/answer")]
    problems, run = cut_off(scene, [one for one in opened if one.on == "reading"][-1], "EIO")
    assert (problems, run.code) == ([], 10)
    assert "pending: Input/output error." in run.said
