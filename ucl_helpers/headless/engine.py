"""The papermill engine ``ucl``: ``papermill --engine ucl …``, or ``engine_name="ucl"`` from Python.

Papermill loads every installed engine in each of its runs, also in runs that use another engine. So this module imports
nothing heavy: it has what papermill asks an engine for, and :mod:`ucl_helpers.headless.execution` does the work.
"""

from typing import Any

from ucl_helpers.headless import KERNEL_NAME


class UCLEngine:
    """Runs a notebook in a kernel of this interpreter: encrypted, without secrets, with a deadline and an outcome."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, **options: Any) -> Any:
        """Execute it; see :func:`ucl_helpers.headless.execution.run` for the options and the errors raised."""
        from ucl_helpers.headless.execution import run

        del kernel_name  # always ours
        return run(nb, **options)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """Return this interpreter's kernel, whatever the notebook or ``--kernel`` says."""
        del nb, name
        return KERNEL_NAME

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """Return Python."""
        del nb, language
        return "python"
