"""When a run is delivered that nobody waits for."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwrap._journal.records import Metrics, RunEnded, RunStarted
from mlwrap._journal.sender_protocol import ASK, WAKE
from mlwrap._sender import served_run
from mlwrap._sender.served_run import ServedRun, next_delivery_time
from mlwrap._spool.open_run import OpenRun, open_run
from mlwrap._spool.spool import spool_root

WAKE_SECONDS = 0.5  # a training does not wake the sender more often


TIMES = st.tuples(*[st.floats(0, 1e6)] * 3).map(sorted)


@given(TIMES, st.integers(0, 10**9))
def test_a_delivery_is_soon(times: list[float], waiting: int):
    """Five seconds after the one before at the latest, or one after what came; the more waits, the sooner."""
    joined, last, woken = times
    found = next_delivery_time(woken, last, joined, waiting)
    assert woken <= found <= max(woken + 1, last + 5)
    assert found >= last + 1 or waiting < 10**5
    assert next_delivery_time(woken, last, joined, waiting + 10**6) <= found


class Training:
    """A run that is served, in a time of its own.

    Attributes:
        delivered: When it was, in seconds from its beginning.
    """

    def __init__(self, run: OpenRun, line: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = run
        self.delivered: list[float] = []
        self._steps, self._clock, self._awake = 0, 1000.0, 0.0
        monkeypatch.setattr(served_run, "time", SimpleNamespace(monotonic=lambda: self._clock))
        self._served = ServedRun(run.folder)
        self._served.on_connect(line)

    def goes_on(self, seconds: int, points: int) -> None:
        """So many points are logged in each tenth of a second."""
        for _ in range(seconds * 10):
            self._clock += 0.1
            for _ in range(points):
                self._steps += 1
                self.run.append(Metrics(values={"loss": 0.5}, step=self._steps, time=1_700_000_000_000))
            if points and self._clock >= self._awake:
                self._awake = self._clock + WAKE_SECONDS
                self._served.on_message(WAKE)
            if self._served.due <= self._clock:
                self.delivered.append(round(self._clock - 1000, 1))
                self._served.begin()
                self._served.work()
                assert self._served.reschedule()


@pytest.fixture
def training(spool: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    """A run that has just begun; MLflow is imported, as in a sender that is warm."""
    ready = threading.Event()
    ready.set()
    monkeypatch.setattr(served_run, "ready", ready)
    first = RunStarted(key=uuid.uuid4().hex, name="r", time=0, tracking_uri=store, folder=str(spool))
    run = open_run(spool_root(str(spool)), first)
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(ours):
        yield Training(run, ours, monkeypatch)
        run.end(RunEnded(status="FINISHED", time=1))
        run.release()


def test_the_first_word_does_not_wait_for_the_store(spool: Path, store: str, monkeypatch: pytest.MonkeyPatch):
    """The deadline counts from when MLflow is imported, whatever the run's own store does."""
    monkeypatch.setattr(served_run, "ready", threading.Event())
    monkeypatch.setattr(
        "mlwrap._mlflow.tune_http.tune_http", lambda: None
    )  # this process is not the sender's
    first = RunStarted(key=uuid.uuid4().hex, name="r", time=0, tracking_uri=store, folder=str(spool))
    run = open_run(spool_root(str(spool)), first)
    ours, theirs = socket.socketpair()
    locked = os.open(Path(store.removeprefix("sqlite:///")).parent, os.O_RDONLY)
    fcntl.flock(locked, fcntl.LOCK_EX)  # whoever opens the store waits for this
    try:
        with closing(theirs), closing(ours):
            waiting = ServedRun(run.folder)
            waiting.on_connect(ours)
            waiting.on_message(ASK)
            waiting.begin()
            work = threading.Thread(target=waiting.work)
            work.start()
            assert served_run.ready.wait(300)
            waiting.tell_ready()
            theirs.settimeout(300)
            assert b'"progress"' in theirs.recv(65536)
            assert work.is_alive()
            fcntl.flock(locked, fcntl.LOCK_UN)
            work.join()
    finally:
        os.close(locked)
        run.release()


def points_of(run: Training) -> int:
    """How many MLflow has."""
    (found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return len(mlflow.MlflowClient().get_metric_history(found.info.run_id, "loss"))


def test_a_run_that_goes_on_is_delivered_less_often(training: Training):
    """At once, after a second, two more, then each five; what was logged is there."""
    training.goes_on(32, points=2)
    pauses = [after - before for before, after in itertools.pairwise(training.delivered)]
    assert training.delivered[0] == 0.1
    assert [round(pause) for pause in pauses] == [1, 2, 5, 5, 5, 5, 5]
    assert points_of(training) == round(training.delivered[-1] * 20)


def test_what_comes_after_a_rest_is_there_soon(training: Training):
    """An epoch a minute is not held back: nothing else would go with it."""
    training.goes_on(60, points=0)
    assert training.delivered == [0.1]
    training.goes_on(1, points=1)
    training.goes_on(20, points=0)
    assert len(training.delivered) <= 3
    assert training.delivered[1] <= 61.2
    assert points_of(training) == 10


def test_a_whole_request_does_not_wait(training: Training):
    """Nothing is gained by it, and the end of the run would have to wait for more."""
    training.goes_on(10, points=200)
    late = [seconds for seconds in training.delivered if seconds > 5]
    assert max(after - before for before, after in itertools.pairwise(late)) <= 1.6


def test_a_sender_is_ready_once_mlflow_and_delivery_are_imported(python):
    """Its first word to a run that waits comes then, and the run's deadline counts from that word."""
    done = python(
        "import sys\nfrom mlwrap._sender.served_run import warm_up\n"
        "print(sorted({'mlflow', 'mlwrap._delivery.deliver'} & set(sys.modules)))\nwarm_up()\n"
        "print(sorted({'mlflow', 'mlwrap._delivery.deliver'} & set(sys.modules)))\n"
    )
    assert done.stdout.splitlines() == ["[]", "['mlflow', 'mlwrap._delivery.deliver']"]
