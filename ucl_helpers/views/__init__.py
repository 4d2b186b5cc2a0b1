"""Show the toolkit's objects in a notebook: cards, bars, chains, tables of checks, and errors that ``ucl run`` reads.

After the import, a notebook shows each object of the toolkit as a card, and shows what a cell waits for.
"""

from ucl_helpers.extras import missing_for

try:
    from ucl_helpers.models import Checks
    from ucl_helpers.views.cards import certificate, html_of, show_as_cards
    from ucl_helpers.views.notebook import attempt, begin, report_errors, show_waits
    from ucl_helpers.views.overview import Overview, overview
    from ucl_helpers.views.setup import check_setup
    from ucl_helpers.views.step_card import StepCard, step_card
except ModuleNotFoundError as error:  # IPython and what comes with it
    raise missing_for(error, "lab") from None

__all__ = [
    "Checks",
    "Overview",
    "StepCard",
    "attempt",
    "begin",
    "certificate",
    "check_setup",
    "html_of",
    "overview",
    "report_errors",
    "step_card",
]

show_as_cards()
show_waits()
