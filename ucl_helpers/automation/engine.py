"""The papermill engines ``ucl`` and ``ucl-shell``: ``papermill --engine ucl …``, or ``engine_name="ucl"`` from Python.

Papermill loads every engine that is installed in each of its runs, also in those that use another one. So this module
loads nothing: it has what papermill asks an engine for, and the work is done in :mod:`ucl_helpers.automation.headless`.
"""

from typing import Any

KERNEL_NAME = "python3"


class UCLEngine:
    """Runs a notebook in a kernel of this interpreter: encrypted, without secrets, with a deadline and an outcome."""

    kernel = True

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, **options: Any) -> Any:
        """Execute it; see :func:`ucl_helpers.automation.headless.run` for the options and the errors raised."""
        from ucl_helpers.automation.headless import run

        del kernel_name  # always ours
        return run(nb, kernel=cls.kernel, **options)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """The kernel is this interpreter, whatever the notebook or ``--kernel`` says."""
        del nb, name
        return KERNEL_NAME

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """Python."""
        del nb, language
        return "python"


class ShellEngine(UCLEngine):
    """The same without a kernel: a process that holds IPython's shell executes the cells, reached over two pipes."""

    kernel = False
