"""The runs that wait: each is delivered on its own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from mlwrap._delivery.backlog import deliver_backlog
from mlwrap._journal.progress import Progress
from mlwrap._journal.records import RunEnded, RunStarted
from mlwrap._spool.open_run import open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import spool_root
from mlwrap.errors import Refused

DONE = Progress(ended=True, run_id="r")


@pytest.fixture
def ended(spool: Path) -> Callable[..., RunFolder]:
    """Make the folder of a run that has ended."""

    def make(store: str = "sqlite:///x") -> RunFolder:
        key = uuid.uuid4().hex
        first = RunStarted(key=key, name=key, time=1, tracking_uri=store, folder="/")
        run = open_run(spool_root(str(spool)), first)
        run.end(RunEnded(status="FINISHED", time=2))
        run.release()
        return RunFolder(run.folder.path)

    return make


def test_what_goes_wrong_with_one_costs_no_other(ended):
    """Whatever it is: a refusal, a bug, the end of an interpreter."""
    folders = [ended() for _ in range(6)]
    errors = dict(
        zip(folders, [Refused("no"), KeyError("x"), RecursionError("deep"), SystemExit(3)], strict=False)
    )

    def deliver(folder: RunFolder, _: object) -> Progress:
        if folder in errors:
            raise errors[folder]
        return DONE

    found = {outcome.folder: outcome for outcome in deliver_backlog(folders, deliver)}
    assert [found[folder].error for folder in folders] == [
        "no", "KeyError: 'x'", "RecursionError: deep", "SystemExit: 3", None, None,
    ]  # fmt: skip
    assert [found[folder].progress for folder in folders[4:]] == [DONE, DONE]
    for thread in threading.enumerate():  # none stays in a process that goes on
        if thread.name == "mlwrap-delivery":
            thread.join(60)
            assert not thread.is_alive()


def test_runs_that_get_nowhere_hold_up_no_other(ended):
    """Neither those of another store nor those of the same one: the last is delivered while they hang."""
    hanging = [ended("http://hangs") for _ in range(12)]
    others = [ended("http://hangs"), ended("sqlite:///y")]
    over = threading.Event()

    def deliver(folder: RunFolder, _: object) -> Progress:
        if folder in hanging:
            over.wait()
        return DONE

    outcomes = deliver_backlog([*hanging, *others], deliver)
    assert {next(outcomes).folder, next(outcomes).folder} == set(others)
    over.set()
    assert {outcome.folder for outcome in outcomes} == set(hanging)


def test_a_delivery_without_progress_is_given_up(ended):
    """It is reported as waiting, once, and why; one that makes progress is not given up."""
    hanging, slow = ended("http://hangs"), ended("http://slow")
    over, gone = threading.Event(), threading.Event()

    def deliver(folder: RunFolder, told: Callable[[Progress], None]) -> Progress:
        if folder is hanging:
            over.wait()
            gone.set()
            return DONE
        seconds = 0
        while not over.wait(0.1):
            seconds += 1
            told(Progress(seconds=seconds))
        assert gone.wait(60)
        return DONE

    outcomes = deliver_backlog([hanging, slow], deliver, lambda _: 1.5)
    first = next(outcomes)
    assert first.folder is hanging
    assert first.error is not None
    assert "its delivery to http://hangs made no progress" in first.error
    assert hanging.reason() == first.error
    over.set()
    assert [outcome.folder for outcome in outcomes] == [slow]


def test_a_changing_error_is_no_progress(ended):
    """Else what is told over and over again would keep the command for ever."""
    hanging = ended()
    over = threading.Event()

    def deliver(_: RunFolder, told: Callable[[Progress], None]) -> Progress:
        number = 0
        while not over.wait(0.05):
            number += 1
            told(Progress(error=f"object at {number:#x}"))
        return DONE

    (outcome,) = deliver_backlog([hanging], deliver, lambda _: 1.0)
    over.set()
    assert outcome.progress is None


def test_a_run_that_is_open_or_gone_is_passed_over(ended, spool: Path):
    """Its process lives; or another delivery was faster."""
    first = RunStarted(key="a" * 32, name="n", time=1, tracking_uri="sqlite:///x", folder="/")
    run = open_run(spool_root(str(spool)), first)
    gone, removed = ended(), ended()
    gone.remove()

    def deliver(folder: RunFolder, _: object) -> Progress:
        folder.remove()
        raise Refused("it is gone")

    assert list(deliver_backlog([run.folder, gone, removed], deliver)) == []
    run.release()


def test_a_run_folder_that_is_damaged_waits_for_none(ended):
    """Its journal can't be read: an error of its own."""
    damaged, healthy = ended(), ended()
    damaged.journal.write_bytes(bytes(100))
    found = {o.folder: o for o in deliver_backlog([damaged, healthy], lambda *_: DONE)}
    assert "does not begin with a whole record" in (found[damaged].error or "")
    assert found[healthy].progress == DONE
