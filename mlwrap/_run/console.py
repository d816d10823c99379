"""Print the messages of a run on standard error: one line when it starts, one block when it ends."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mlwrap._spool.run_folder import lost_message


def started(name: str, experiment: str | None, tracking_uri: str, run_id: str | None) -> None:
    """Print that a run has started, and its experiment and tracking URI."""
    destination = f"experiment {experiment or 'Default'!r}" if run_id is None else f"on run {run_id}"
    say(f"mlwrap: run {name!r} started, {destination} at {tracking_uri}")


def ended(
    name: str,
    *,
    status: str,
    seconds: float,
    run_id: str | None,
    models: Iterable[tuple[str, str | None, str, str | None]],
    folder: Path,
    delivering: bool,
    lost: bool,
) -> None:
    """Print how a run ended, its id, whether it is delivered or where it waits, and each model's status."""
    lines = [f"mlwrap: run {name!r} {status} after {seconds:.1f} s"]
    if lost:
        lines.append("        " + lost_message(folder))
    elif delivering:
        lines.append("        is being delivered; run.wait(), or the end of the process, waits for that")
    else:
        lines.append(f"        run {run_id}" if run_id else f"        waits in {folder} for 'mlwrap sync'")
    for model, uri, model_status, registered in models:
        version = f", registered as {registered}" if registered else ""
        lines.append(f"        {model} {model_status} {uri or ''}".rstrip() + version)
    say("\n".join(lines))


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show progress: a bar if standard error is a terminal, else a line for each finished item.

    Args:
        what: Name of the items.
        total: Number of items.

    Yields:
        A function to call with a line about each finished item.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        numbers = itertools.count(1)
        yield lambda line: say(f"mlwrap: {what} {next(numbers)}/{total} {line}")
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415 - as above

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)

        def report(line: str) -> None:
            bar.console.print(line, markup=False, highlight=False)
            bar.advance(task)

        yield report


def say(text: str) -> None:
    """Write a text to standard error; ignore a closed or missing one, so that training continues."""
    try:
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError, LookupError):  # closed, detached or missing
        return
