"""What the tests of the doctor share: a fault is named and nothing else is, and its remedy is typed into a shell."""

import os
import subprocess
from contextlib import contextmanager

from command_line import BIN, environment

from ucl_helpers.operate.doctor import diagnose

NOBODY = 65534


def bad(diagnosis):
    """What is not well, by name."""
    return {one.name: one.status for one in diagnosis if one.status not in {"ok", "skipped"}}


def named(connection, name, *texts, status="failed", code=0, also=(), **options):
    """The one finding that is not well (besides those of ``also``): its name, texts in it, the exit code."""
    diagnosis = diagnose(connection, **options)
    assert bad(diagnosis) == {name: status, **dict.fromkeys(also, "warning")}, str(diagnosis)
    assert diagnosis.exit_code == code
    for text in texts:
        assert text in diagnosis[name].found, diagnosis[name]
    return diagnosis[name]


def right_url(ucl):
    return {"CERTIFICATE_SECURED_CONNECTOR_URL": ucl.certificate_secured_connector_url}


def well(connection, **options):
    diagnosis = diagnose(connection, **options)
    assert bad(diagnosis) == {}, str(diagnosis)
    return diagnosis


def typed(remedy, connection, given="", **variables):
    """Type a remedy into a shell."""
    path = f"{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", remedy],
        env=environment(connection.home.path, PATH=path, **variables),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def mended(finding, connection, given="", *, still=(), **variables):
    """The remedy, typed, mends it: afterwards nothing is wrong but what is in ``still``."""
    done = typed(finding.remedy, connection, given, **variables)
    assert done.returncode == 0, (finding, done)
    assert set(bad(diagnose(connection))) == set(still)


@contextmanager
def ordinary_user(folder):
    """An ordinary user owns the folder, and this process is that user; root steps down meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    for one in (folder, *folder.rglob("*")):
        os.chown(one, NOBODY, NOBODY, follow_symlinks=False)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
