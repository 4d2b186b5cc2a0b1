"""Renew many connections with :func:`ucl_helpers.procedures.renewal.renew`, in local processes or on Dask.

A worker gets a connection's name and plain options, and never a key. It returns plain data. The package does not use
``headless``: that one runs notebooks, and this one calls ``renew()`` itself.
"""

from ucl_helpers.fleet.report import FleetOutcome
from ucl_helpers.fleet.run import renew_fleet

__all__ = ["FleetOutcome", "renew_fleet"]
