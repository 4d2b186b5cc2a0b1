"""Many connections, each by :func:`ucl_helpers.renewal.renew`: planned, paced, spread over workers, reported.

A layer of its own: the rest of ``automation`` runs notebooks, which renew; this calls ``renew()`` itself. What goes to
a worker is a connection's name and plain options, never a key; what comes back is plain data.
"""

from ucl_helpers.automation.fleet.report import FleetOutcome
from ucl_helpers.automation.fleet.run import renew_fleet

__all__ = ["FleetOutcome", "renew_fleet"]
