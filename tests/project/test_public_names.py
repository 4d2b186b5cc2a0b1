"""The public names, pinned: adding or removing one is a decision, not an accident."""

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

import pytest

import ucl_helpers

NAMES = [
    *("Connection", "DirectorAccess", "Establishment", "Home", "Outcome", "Renewal", "Status", "UCLError"),
    *("establish", "forget", "import_identity", "read_identity", "read_token", "renew", "require_consent"),
    *("resolve", "revoke", "rollback", "status_of", "valid_identities"),
]


def test_the_public_names_are_these():
    assert ucl_helpers.__all__ == NAMES
    assert sorted(set(NAMES)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_can_be_imported_and_says_what_it_is(name):
    assert getattr(import_module("ucl_helpers"), name).__doc__
    assert name in dir(ucl_helpers)


def test_there_are_no_others():
    names = {name for name in dir(ucl_helpers) if not name.startswith("_")}
    assert {name for name in names if not isinstance(getattr(ucl_helpers, name), ModuleType)} == set(NAMES)


def test_a_name_that_is_not_there_is_an_error_and_named():
    with pytest.raises(AttributeError, match="no attribute 'renewal_of'"):
        _ = ucl_helpers.renewal_of


def test_the_version_is_that_of_the_package():
    assert ucl_helpers.__version__ == version("ucl-helpers")
