"""A model's files go to a store that is not on this machine's filesystem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from mlwrap._delivery.client import Client
from mlwrap._delivery.files import files_of
from mlwrap._journal import ModelProgress
from mlwrap.errors import Unreachable

_AT_ONCE = 8
_NOTE_SECONDS = 0.2  # of what arrived meanwhile one note is made


def upload(client: Client, staged: Path, model: ModelProgress, save: Callable[[], None]) -> None:
    """File by file, several at a time, only what is not there yet; ``MLmodel`` when all others are sent."""
    paths = files_of(staged)
    *others, last = paths
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sent = {
            pool.submit(client.upload, model.location, staged / path, path): path
            for path in others
            if path not in model.uploaded
        }
        failed = _note(sent, model, save)
    if failed is not None:
        raise failed
    client.upload(model.location, staged / last, last)
    _check_arrived(client, staged, paths, model, save)


def _note(
    sent: Mapping[Future[None], str], model: ModelProgress, save: Callable[[], None]
) -> BaseException | None:
    """Write down what has arrived until all has; what failed first, after which nothing more is sent."""
    failed: BaseException | None = None
    left = set(sent)
    while left:
        done, left = wait(left, _NOTE_SECONDS, FIRST_EXCEPTION)
        arrived = {sent[one] for one in done if not one.cancelled() and one.exception() is None}
        if arrived:
            model.uploaded |= arrived
            save()
        for one in done:
            failed = failed or (None if one.cancelled() else one.exception())
        if failed is not None:
            for one in left:
                one.cancel()  # but for those that are on their way, and may arrive
    return failed


def _check_arrived(
    client: Client, staged: Path, paths: list[str], model: ModelProgress, save: Callable[[], None]
) -> None:
    """A proxy's page looks like success to MLflow's client: what is there is what the store lists."""
    folders = {path.rpartition("/")[0] for path in paths}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = pool.map(lambda folder: client.uploaded_sizes(model.location, folder), folders)
        there = {path: size for each in listed for path, size in each.items()}
    lost = [path for path in paths if not has_arrived(staged / path, path, there)]
    if lost:
        model.uploaded.difference_update(lost)
        save()
        raise Unreachable(f"{lost[0]} of the model {model.name!r} was sent, and is not there.")


def has_arrived(file: Path, path: str, there: dict[str, int | None]) -> bool:
    """Whether ``path`` is there, and as long as ``file`` where the store tells lengths."""
    return path in there and there[path] in {None, file.stat().st_size}
