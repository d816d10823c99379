"""Wait in a coroutine without blocking the event loop."""

from __future__ import annotations

import sys
from collections.abc import Callable


async def run_in_thread(work: Callable[[], None], error: BaseException | None) -> None:
    """Run ``work`` in its own thread and wait for it; if the coroutine is cancelled, the thread continues.

    The loop's own threads are not used: all of them may be waiting for this task.

    Args:
        work: A function that may block.
        error: The exception that ended the coroutine. A coroutine that is being closed can't await, so with
            ``GeneratorExit`` ``work`` runs in the current thread.
    """
    asyncio = sys.modules.get("asyncio")
    try:
        loop = asyncio.get_running_loop() if asyncio is not None else None
    except RuntimeError:  # the event loop belongs to another library
        loop = None
    if asyncio is None or loop is None or isinstance(error, GeneratorExit):
        work()
        return
    # Not at module level: once the main thread has ended, when other threads may still start runs, this
    # import fails.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    pool = ThreadPoolExecutor(1, "mlwrap")
    future = loop.run_in_executor(pool, work)
    pool.shutdown(wait=False)
    await asyncio.shield(future)
