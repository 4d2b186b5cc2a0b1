"""Many connections renewed by :func:`ucl_helpers.procedures.renewal.renew`, over processes or Dask.

A layer of its own: ``headless`` runs notebooks, which renew; this calls ``renew()`` itself. What goes to
a worker is a connection's name and plain options, never a key; what comes back is plain data.
"""

from ucl_helpers.fleet.report import FleetOutcome
from ucl_helpers.fleet.run import renew_fleet

__all__ = ["FleetOutcome", "renew_fleet"]
