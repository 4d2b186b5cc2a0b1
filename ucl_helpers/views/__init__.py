"""How things are shown in a notebook: checks as a table, errors as a card that the runner can read as well."""

from ucl_helpers.views.checked import Checks, checked
from ucl_helpers.views.errors import report_errors
from ucl_helpers.views.fleet import Overview, overview
from ucl_helpers.views.setup import check_setup

__all__ = ["Checks", "Overview", "check_setup", "checked", "overview", "report_errors"]
