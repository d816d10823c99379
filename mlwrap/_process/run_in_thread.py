"""Waiting that does not hold up an event loop."""

from __future__ import annotations

import sys
from collections.abc import Callable


async def run_in_thread(work: Callable[[], None], error: BaseException | None) -> None:
    """Do ``work`` in a thread of its own, and wait for it; cancelled, it goes on there.

    Not in one of the loop's threads: all of those may be waiting for this task.

    Args:
        work: What takes a while.
        error: What ended the coroutine; one that is being closed can't wait for anything.
    """
    asyncio = sys.modules.get("asyncio")
    try:
        loop = asyncio.get_running_loop() if asyncio is not None else None
    except RuntimeError:  # the loop is another library's
        loop = None
    if asyncio is None or loop is None or isinstance(error, GeneratorExit):
        work()
        return
    # Late: it can't be imported once the main thread is through, when threads may still begin runs.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    pool = ThreadPoolExecutor(1, "mlwrap")
    waiting = loop.run_in_executor(pool, work)
    pool.shutdown(wait=False)
    await asyncio.shield(waiting)
