"""What a person is told: one line when a run starts, one block when it ends, on standard error."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def started(name: str, experiment: str | None, tracking_uri: str, run_id: str | None) -> None:
    """Say that a run has started, and where it will be found."""
    place = f"experiment {experiment or 'Default'!r}" if run_id is None else f"on run {run_id}"
    say(f"mlwrap: run {name!r} started, {place} at {tracking_uri}")


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
    """Say how a run ended, its id, who delivers it or where it waits, and what became of each model."""
    lines = [f"mlwrap: run {name!r} {status} after {seconds:.1f} s"]
    if lost:
        lines.append("        " + lost_folder(folder))
    elif delivering:
        lines.append("        is being delivered; run.wait(), or the end of the process, waits for that")
    else:
        lines.append(f"        run {run_id}" if run_id else f"        waits in {folder} for 'mlwrap sync'")
    for model, uri, model_status, registered in models:
        version = f", registered as {registered}" if registered else ""
        lines.append(f"        {model} {model_status} {uri or ''}".rstrip() + version)
    say("\n".join(lines))


def lost_folder(folder: Path) -> str:
    """A sentence on a run folder that is gone without having been delivered."""
    return f"its run folder {folder} was removed: what MLflow does not have of it is lost."


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Say how far something got: a bar where standard error is a terminal, else a line for each.

    Yields:
        What to call with a line about each that is done.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        numbers = itertools.count(1)
        yield lambda line: say(f"mlwrap: {what} {next(numbers)}/{total} {line}")
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415 - likewise

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)

        def tell(line: str) -> None:
            bar.console.print(line, markup=False, highlight=False)
            bar.advance(task)

        yield tell


def say(text: str) -> None:
    """Write a text to standard error, whatever has become of that: training goes on."""
    try:
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError, LookupError):  # closed, detached, or never there
        return
