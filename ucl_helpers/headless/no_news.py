"""What a run that is stopped still waited for."""

import asyncio


def what_waits_is_no_news() -> None:
    """Whatever else this loop waits for comes to nothing from now on, and nobody is told: the process is ended."""
    for waiting in asyncio.all_tasks() - {asyncio.current_task()}:
        waiting.add_done_callback(lambda task: task.cancelled() or task.exception())
