"""Execute the cells of a headless notebook, with a deadline, and ready to be stopped.

SIGINT, SIGTERM or a passed deadline interrupts the current cell. Its output is kept for another
:data:`GRACE_SECONDS`. If the cell has not ended by then, the kernel is killed. The kernel's process
sends no more output than the notebook keeps, and no widgets; see :mod:`ucl_helpers.headless.kernel_process`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import ensure_async, run_sync
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode, ValidationError
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient

from ucl_helpers.errors import DeadlineExceeded
from ucl_helpers.headless import KERNEL_NAME, CellFailed
from ucl_helpers.tables import span

if TYPE_CHECKING:
    from ucl_helpers.headless.kernel import EncryptedKernelManager

GRACE_SECONDS = 5.0


class _Stopped(Exception):
    """A signal stops the run. A coroutine raises this, because KeyboardInterrupt would end the event loop."""


class _AllowedError(NotebookNode):
    """An output of type ``error`` in a cell that did not fail, such as a traceback that the cell shows itself.

    Papermill ends with an error if any output has this type. It reads the attribute, and the file gets the item.
    """

    @property
    def output_type(self) -> str:
        kind = str(self["output_type"])
        return "allowed-error" if kind == "error" else kind


class HeadlessClient(PapermillNotebookClient):
    """Executes a notebook for papermill.

    A cell fails unless the kernel's reply says that it is ``ok``, or the cell is tagged ``raises-exception``. What the
    cell shows does not count: an exception can be shown in other ways than as an output of type ``error``, or not at
    all.

    Args:
        nb_man: papermill's manager, which saves, and gets the failure of a cell.
        kernel: executes the cells; it is started if it was not yet, and ended.
        deadline: the whole run may take this long.
        cell_seconds: each cell may take this long; None for any time.
        stops: exceptions for the signals that came so far; further ones are added.
        note: adds the exception for a signal to ``stops``.
        options: nbclient's.
    """

    def __init__(
        self,
        nb_man: Any,
        kernel: "EncryptedKernelManager",
        *,
        deadline: timedelta,
        cell_seconds: float | None,
        stops: list[BaseException],
        note: Callable[[int], None],
        **options: Any,
    ) -> None:
        super().__init__(nb_man, kernel_name=KERNEL_NAME, store_widget_state=False, iopub_timeout=60, **options)
        self._kernel, self._stops, self._note = kernel, stops, note
        self._deadline, self._ends, self._cell_seconds = deadline, monotonic() + deadline.total_seconds(), cell_seconds
        self._heard: Callable[[], object] = lambda: None

    def stop(self, number: int) -> None:
        """Note a signal, so that the run stops waiting. A second signal stops it without the grace period.

        It raises nothing here: in the middle of the making of a socket, that would leave a socket that is never
        closed, and ZeroMQ waits for such a socket at the end of the process.
        """
        self._note(number)
        self._heard()

    def create_kernel_manager(self) -> Any:
        """Return the manager of the kernel, which nbclient would make otherwise."""
        return self._kernel

    def execute(self, **options: Any) -> Any:
        """Execute the notebook; the kernel is gone however this ends, also if it never answered."""
        try:
            executed = super().execute(**options)
        except BaseException as error:
            self._abandon()
            if self._stops:
                raise self._stops[0] from (None if isinstance(error, _Stopped) else error)
            raise
        if self._stops:  # a signal came after the last cell
            raise self._stops[0]
        return executed

    async def _async_abandon(self) -> None:
        await _cancel_others()
        if self.km is not None:
            self.shutdown_kernel = "immediate"
            await self._async_cleanup_kernel()
        if await ensure_async(self._kernel.is_alive()):  # a clean-up was interrupted
            await ensure_async(self._kernel.shutdown_kernel(now=True))

    _abandon = run_sync(_async_abandon)

    def papermill_execute_cells(self) -> None:
        """Execute cell after cell, up to one that fails; save each when it is over, however it ended."""
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type != "code":
                continue
            if self._stops:  # while the previous cell was saved
                raise self._stops[0]
            self.nb_man.cell_start(cell, index)
            try:
                self.execute_cell(cell, index)
            except CellExecutionError as error:
                self.nb_man.failure = failure = _failure(index, error, cell.outputs)
                self.nb_man.cell_exception(cell, cell_index=index, exception=error)
                cell.metadata.papermill["exception"] = not failure.is_exit  # papermill reads it, too
                break
            except BaseException as error:
                self.nb_man.cell_exception(cell, cell_index=index, exception=error)
                raise
            else:
                allowed: Any = _AllowedError
                cell.outputs = [allowed(out) if out["output_type"] == "error" else out for out in cell.outputs]
            finally:
                self.nb_man.cell_complete(cell, cell_index=index)
                for output in cell.outputs:  # only now, because the secrets are removed
                    super().log_output_message(output)

    async def async_start_new_kernel_client(self) -> Any:
        """Return the client once the kernel answers; raise what ends the run before."""
        begun = super().async_start_new_kernel_client()
        return await self._unless_ended(begun, self._seconds_left(), "before its first cell")

    start_new_kernel_client = run_sync(async_start_new_kernel_client)

    async def async_execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Execute one cell; raise what ends the run, if the cell has to be given up."""
        executed = super().async_execute_cell(cell, cell_index, **options)
        seconds = self._seconds_left()
        seconds = min(seconds, self._cell_seconds or seconds)
        return await self._unless_ended(executed, seconds, f"in cell {cell_index + 1}", cell_index)

    execute_cell = run_sync(async_execute_cell)

    async def _check_raise_for_error(self, cell: Any, cell_index: int, exec_reply: Any) -> None:
        """Raise an error if the cell failed, or was not executed, which nbclient takes for a success."""
        status = exec_reply["content"]["status"] if exec_reply else "no reply"
        if status not in {"ok", "error"}:
            raise CellExecutionError("", "CellNotExecuted", f"the kernel did not execute this cell ({status})")
        await super()._check_raise_for_error(cell, cell_index, exec_reply)

    async def async_wait_for_reply(self, msg_id: str, cell: Any = None) -> Any:
        """Return the kernel's answer when all cells are done; raise what ends the run before."""
        answered = super().async_wait_for_reply(msg_id, cell)
        return await self._unless_ended(answered, max(self._seconds_left(), GRACE_SECONDS), "after its last cell")

    wait_for_reply = run_sync(async_wait_for_reply)

    def _seconds_left(self) -> float:
        return max(self._ends - monotonic(), 0.0)

    async def _unless_ended(
        self, coroutine: Coroutine[Any, Any, Any], seconds: float, where: str, index: int | None = None
    ) -> Any:
        """Return the result of a coroutine, unless a signal or the end of ``seconds`` comes first."""
        if self._stops:
            coroutine.close()
            raise _Stopped
        running = asyncio.ensure_future(coroutine)
        await self._until(running, seconds, 1)
        if running.done() and not self._stops:
            return running.result()
        why, enough = (_Stopped(), 2) if self._stops else (self._too_late(where, index), 1)
        if index is not None:
            with suppress(RuntimeError):  # the kernel has died meanwhile
                await ensure_async(self.km.interrupt_kernel())
            await self._until(running, GRACE_SECONDS, enough)
        if not running.done():
            self.shutdown_kernel = "immediate"
            await _cancel_others()
        if running.done() and not running.cancelled():
            running.exception()  # marks it as retrieved, or asyncio would report the interruption
        raise why

    async def _until(self, running: asyncio.Future[Any], seconds: float, stops: int) -> None:
        """Wait until a task has ended, so many signals have come in all, or so many seconds have passed."""
        loop = asyncio.get_running_loop()
        enough = loop.create_future()

        def hear() -> None:
            if len(self._stops) >= stops and not enough.done():
                enough.set_result(None)

        self._heard = partial(loop.call_soon_threadsafe, hear)  # wakes the loop if it sleeps
        hear()
        await asyncio.wait({running, enough}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def _too_late(self, where: str, index: int | None) -> DeadlineExceeded:
        of_all = monotonic() >= self._ends
        took = self._deadline if of_all else timedelta(seconds=self._cell_seconds or 0)
        return DeadlineExceeded(
            f"The {'run' if of_all else 'cell'} took longer than {span(took)}; it was ended {where}.",
            remedy="Nothing is lost; run it again, with a longer deadline if it is always so long.",
            **({} if index is None else {"cell": index + 1}),
        )

    def log_output_message(self, output: Any) -> None:
        """Nothing is logged while a cell runs; see :meth:`papermill_execute_cells`."""

    def output(self, outs: Any, msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Keep what a cell shows."""
        try:
            return super().output(outs, msg, display_id, cell_index)
        except ValidationError:  # do not raise it: its text would contain the output
            note = "[an output that no notebook can hold was left out]\n"
            outs.append(new_output("stream", name="stderr", text=note))
            return None

    def _update_display_id(self, display_id: str, msg: Any) -> None:
        for index in self.nb_man.condemned & {*self._display_id_map.get(display_id, ())}:
            del self._display_id_map[display_id][index]  # a note has replaced the outputs of that cell
        with suppress(ValidationError):  # keep the earlier output
            super()._update_display_id(display_id, msg)

    def handle_comm_msg(self, outs: Any, msg: Any, cell_index: int) -> None:
        """Ignore widgets: a headless run has no page to show them."""


def _failure(index: int, error: CellExecutionError, outputs: Sequence[Any]) -> CellFailed:
    """Return a cell's failure; if a ``__repr__`` failed, only the cell's output names the exception."""
    shown = [output for output in outputs if output["output_type"] == "error"]
    if error.ename == "NoneType" and shown:
        return CellFailed(index, shown[-1]["ename"], shown[-1]["evalue"])
    return CellFailed(index, error.ename, error.evalue)


async def _cancel_others() -> None:
    """Cancel the other tasks of this loop, such as the one that checks the kernel, and wait for them."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=GRACE_SECONDS)
