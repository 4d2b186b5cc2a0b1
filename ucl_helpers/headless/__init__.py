"""Notebooks run by papermill: engine, kernel, parameters, outcome, and the search for secrets."""

from datetime import timedelta

KERNEL_NAME = "python3"
"""What papermill calls the kernel of this interpreter."""
DEADLINE = timedelta(hours=1)
"""How long a run may take if the caller sets no deadline."""
