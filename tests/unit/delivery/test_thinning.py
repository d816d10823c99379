"""Very long runs: which points MLflow is told, whatever interrupts it, and where the others are."""

from __future__ import annotations

import csv
import gzip
import math
import tracemalloc
import uuid
from pathlib import Path

import mlflow
import mlflow.artifacts
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwrap import model_run
from mlwrap._delivery.deliver import deliver
from mlwrap._delivery.thinning import THINNED_FILE, MetricAt, Thinning, write_points
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import header
from mlwrap._journal.records import Artifact, Metrics, RunEnded, RunStarted
from mlwrap._journal.writer import Writer
from mlwrap._mlflow.client import Client
from mlwrap._spool.open_run import open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import spool_root
from mlwrap.errors import OptionError, Refused, Unreachable
from tests.faults.weights import Weights, register

ENDED = RunEnded(status="FINISHED", time=10**12)
VALUES = st.floats() | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf])
RECORDS = st.lists(
    st.builds(
        Metrics.of,
        st.dictionaries(st.sampled_from("ab"), VALUES, min_size=1),
        step=st.integers(0, 200),
        time=st.integers(0, 5),
    ),
    max_size=150,
)


def told(records: list[Metrics], after: int, cuts: frozenset[int] = frozenset()) -> list[MetricAt]:
    """All points that MLflow is told, by deliveries that were cut before these records."""
    progress = Progress()
    thinning = Thinning(after, progress.seen)
    found = []
    for number, record in enumerate(records):
        if number in cuts:
            progress = msgspec.json.decode(msgspec.json.encode(progress), type=Progress)
            thinning = Thinning(after, progress.seen)
        found += thinning.select(record)
    return found + thinning.deferred()


def most(count: int, after: int) -> int:
    """So many of ``count`` points are told at most: by their number, and five for what they are."""
    octaves = (max(count - 1, 0) // after).bit_length()
    return min(count, after + octaves * math.ceil(after / 2) + 5)


def by_number(count: int, after: int) -> int:
    """So many of ``count`` points are told for their number alone."""
    total, start, stride = min(count, after), after, 2
    while start < count:
        end = min(count, stride * after)
        total += len(range(-(-start // stride) * stride, end, stride))
        start, stride = stride * after, stride * 2
    return total


@given(records=RECORDS, after=st.integers(1, 60), cuts=st.frozensets(st.integers(0, 150)))
def test_what_is_always_told(records: list[Metrics], after: int, cuts: frozenset[int]):
    """First, last, furthest, least, greatest, the first that is not finite; never more than the bound."""
    found = told(records, after, cuts)
    assert repr(found) == repr(told(records, after))  # NaN is unlike itself
    for name in "ab":
        points = [
            (name, float(record.values[name]), record.time, record.step)
            for record in records
            if name in record.values
        ]
        mine = [repr(point) for point in found if point[0] == name]
        assert {repr(point) for point in points} >= set(mine)
        assert len(mine) <= most(len(points), after)
        if len(points) <= after:
            assert mine == [repr(point) for point in points]
        if points:
            assert repr(points[0]) in mine
            assert repr(points[-1]) in mine
            furthest = max((step, time) for _, _, time, step in points)
            assert any((point[3], point[2]) == furthest for point in found if point[0] == name)
        finite = [value for _, value, _, _ in points if math.isfinite(value)]
        if finite:
            assert {min(finite), max(finite)} <= {point[1] for point in found if point[0] == name}
        odd = [repr(point) for point in points if not math.isfinite(point[1])]
        assert not odd or odd[0] in mine


@given(count=st.integers(0, 3000), after=st.integers(1, 100))
def test_how_many_are_told(count: int, after: int):
    """The first ``after``, every second of as many again, every fourth of twice as many after them."""
    thinning = Thinning(after, {})
    record = Metrics(values={"loss": 1.0}, step=0, time=0)
    assert sum(len(thinning.select(record)) for _ in range(count)) == by_number(count, after)
    assert by_number(count, after) <= most(count, after)


def test_ten_million_points():
    """The sentence in docs/reference/metrics.md: MLflow is told 2.6 million of them."""
    assert by_number(10_000_000, 1_000_000) == 2_625_000
    progress = Progress()
    thinning = Thinning(1_000_000, progress.seen)
    thinning.select(Metrics(values={"loss": 5.0}, step=0, time=0))
    progress.seen["loss"].count = 9_999_840  # as if all those had come
    last = [
        thinning.select(Metrics(values={"loss": value}, step=step, time=step))
        for step, value in enumerate([3.0] * 80 + [1.0, 9.0] + [3.0] * 78, start=9_999_840)
    ]
    assert [step for points in last for *_, step in points] == list(range(9_999_840, 10_000_000, 16))
    assert sorted(step for *_, step in thinning.deferred()) == [
        9_999_921,
        9_999_999,
    ]  # 1.0 was told by its number
    assert len(msgspec.json.encode(progress)) < 600  # all that is kept of them


def test_memory_is_flat(tmp_path: Path):
    """Ten times as many points take no more, neither to choose them nor to write them all down."""

    def peak(count: int) -> int:
        journal = tmp_path / f"{count}.jsonl"
        writer = Writer(journal)
        writer.append(RunStarted(key="k", name="r", time=0, tracking_uri="", folder=""))
        for step in range(count):
            writer.append(Metrics(values={"loss": -float(step)}, step=step, time=step))
        writer.close()
        thinning = Thinning(100, {})
        tracemalloc.start()
        try:
            for step in range(count):
                thinning.select(Metrics(values={"loss": -float(step)}, step=step, time=step))
            write_points(journal, thinning.thinned, tmp_path / THINNED_FILE, lambda: None)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is imported or kept at the first time
    assert peak(20_000) < 1.2 * peak(2_000)


# On a real store.


def recorded(spool: Path, store: str, count: int, **fields) -> RunFolder:
    """A run: a loss that falls, and is greatest where its number leaves it out; and a rare metric."""
    run = open_run(
        spool_root(str(spool)),
        RunStarted(
            key=uuid.uuid4().hex, name="r", time=1, tracking_uri=store, folder=str(Path.cwd()), **fields
        ),
    )
    for step in range(count):
        values = {"loss": 9e9 if step == 701 else 1 / (step + 1)} | ({"rare": 2.0} if step % 100 == 0 else {})
        run.append(Metrics.of(values, step=step, time=10 + step))
    run.append(ENDED)
    run.release()
    return run.folder


EXPECTED = sorted(
    {step for step in range(3000) if step % 2 ** ((step // 200).bit_length()) == 0} | {701, 2999}
)


def history(name: str) -> list[int]:
    """The steps of a metric of the one run that there is."""
    (run,) = only()
    return sorted(p.step for p in mlflow.MlflowClient().get_metric_history(run.info.run_id, name))


def only() -> list:
    """All runs."""
    return mlflow.MlflowClient().search_runs([e.experiment_id for e in mlflow.search_experiments()])


def file_of_all() -> list[list[str]]:
    """The table of all points of what was thinned."""
    (run,) = only()
    path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=THINNED_FILE)
    with gzip.open(path, "rt", newline="") as text:
        return list(csv.reader(text))


def test_a_long_run_is_thinned(spool: Path, store: str):
    """What is told, the tag, and the file that has them all; a metric with few points is whole."""
    folder = recorded(spool, store, 3000, thin_after=200)
    assert deliver(folder).ended
    assert history("loss") == EXPECTED
    assert history("rare") == list(range(0, 3000, 100))
    (run,) = only()
    assert run.data.metrics["loss"] == 1 / 3000
    assert run.data.tags["mlwrap.thinned"] == "loss"
    head, *rows = file_of_all()
    assert head == ["name", "step", "timestamp", "value"]
    assert [(name, int(step), int(time), float(value)) for name, step, time, value in rows] == [
        ("loss", step, 10 + step, 9e9 if step == 701 else 1 / (step + 1)) for step in range(3000)
    ]
    assert not folder.path.exists()


def test_an_older_journal_is_not_thinned(spool: Path, store: str):
    """It does not say ``thin_after``, and when it was written all points were told."""
    folder = recorded(spool, store, 3000)
    assert b"thin_after" not in folder.journal.read_bytes()
    assert header(folder.journal).thin_after == 0
    deliver(folder)
    assert history("loss") == list(range(3000))
    (run,) = only()
    assert "mlwrap.thinned" not in run.data.tags
    assert mlflow.MlflowClient().list_artifacts(run.info.run_id) == []


def test_a_delivery_that_dies_anywhere_chooses_the_same(
    spool: Path, store: str, monkeypatch: pytest.MonkeyPatch
):
    """Whatever it had written down; and where it was done already nothing changes."""
    folder = recorded(spool, store, 3000, thin_after=200)
    monkeypatch.setattr(RunFolder, "remove", lambda self: None)
    monkeypatch.setattr("mlwrap._delivery.batch.BATCH", 100)
    kept = []
    real = RunFolder.save_progress

    def keep(self: RunFolder, progress: Progress) -> None:
        real(self, progress)
        kept.append((self.path / "delivered.json").read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_progress", keep)
        deliver(folder)
    assert len({msgspec.json.decode(state, type=Progress).offset for state in kept}) > 5
    rows = file_of_all()
    for state in kept:
        (folder.path / "delivered.json").write_bytes(state)
        assert deliver(folder).ended
        assert history("loss") == EXPECTED
        assert file_of_all() == rows


def test_a_delivery_that_is_cut_in_the_middle_goes_on(
    spool: Path, store: str, monkeypatch: pytest.MonkeyPatch
):
    """Each second request is lost, before it arrives or after it."""
    monkeypatch.setattr("mlwrap._delivery.batch.BATCH", 100)
    folder = recorded(spool, store, 3000, thin_after=200)
    real = Client.log_batch
    calls = []

    def log_batch(*args, **kwargs) -> None:
        calls.append(None)
        if len(calls) % 4 == 2:
            raise Unreachable("cut")
        real(*args, **kwargs)
        if len(calls) % 4 == 0:
            raise Unreachable("the answer was cut")

    monkeypatch.setattr(Client, "log_batch", log_batch)
    monkeypatch.setattr("mlwrap._delivery.backoff.Backoff.after", lambda self, error: 0.0)
    assert deliver(folder).ended
    assert len(calls) > 10
    assert history("loss") == EXPECTED


def test_points_that_were_not_sent_are_not_counted(spool: Path, store: str, monkeypatch: pytest.MonkeyPatch):
    """A model is made, and noted, before the points that were logged before it are sent."""
    register(monkeypatch)
    monkeypatch.setenv("MLWRAP_THIN_AFTER", "200")
    with model_run("r", delivery="off") as run:
        for step in range(150):
            run.log_metric("loss", 1 / (step + 1))
        run.log_model(Weights())
    folder = RunFolder(spool / run.key)

    def cut(*_: object, **__: object) -> None:
        raise Unreachable("cut")

    with monkeypatch.context() as patch:
        patch.setattr(Client, "log_batch", cut)
        with pytest.raises(Unreachable):
            deliver(folder)
    (made,) = folder.progress().models.values()
    assert made.model_id
    assert deliver(folder).ended
    assert history("loss") == list(range(150))
    assert "mlwrap.thinned" not in only()[0].data.tags


def test_a_run_is_thinned_while_it_is_open(spool: Path, store: str):
    """Delivered whenever there is more: the tag is there before the end, the points held after it."""
    run = open_run(
        spool_root(str(spool)),
        RunStarted(
            key=uuid.uuid4().hex,
            name="r",
            time=1,
            tracking_uri=store,
            folder=str(Path.cwd()),
            thin_after=10,
        ),
    )
    for step in range(100):
        run.append(Metrics.of({"loss": 50.0 - step}, step=step, time=step))
        if step % 7 == 0:
            assert not deliver(run.folder).ended
    by_now = [step for step in range(99) if step % 2 ** ((step // 10).bit_length()) == 0]
    assert history("loss") == by_now
    assert only()[0].data.tags["mlwrap.thinned"] == "loss"
    run.append(ENDED)
    run.release()
    deliver(run.folder)
    assert history("loss") == [*by_now, 99]


def test_the_file_is_refused(spool: Path, store: str, monkeypatch: pytest.MonkeyPatch):
    """The run has its end all the same, and the folder waits with what MLflow would not take."""
    folder = recorded(spool, store, 500, thin_after=200)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise Refused("no artifacts today")

        patch.setattr(Client, "upload", refuse)
        with pytest.raises(Refused, match="no artifacts today"):
            deliver(folder)
    assert only()[0].info.status == "FINISHED"
    assert deliver(folder).ended
    assert len(file_of_all()) == 501
    assert not folder.path.exists()


def test_no_room_for_the_file(spool: Path, store: str, monkeypatch: pytest.MonkeyPatch):
    """The run has its end, and the file comes once there is room."""
    folder = recorded(spool, store, 500, thin_after=200)
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("mlwrap._delivery.thinning.csv.writer", full)
        with pytest.raises(Unreachable, match="No space left"):
            deliver(folder)
    assert only()[0].info.status == "FINISHED"
    assert deliver(folder).ended
    assert len(file_of_all()) == 501


def test_what_comes_after_the_end_came_too_late(spool: Path, store: str, monkeypatch: pytest.MonkeyPatch):
    """As of a sender that watched the machine while the run ended."""
    folder = recorded(spool, store, 3)
    writer = Writer(folder.journal)
    writer.append(Metrics.of({"late": 1.0}, step=0, time=1))
    writer.append(Artifact(staged="staged/none", path="none"))
    writer.close()
    monkeypatch.setattr(RunFolder, "remove", lambda self: None)
    for _ in range(2):  # the first dies before it has removed the folder
        assert deliver(folder).ended
        assert set(only()[0].data.metrics) == {"loss", "rare"}


def test_the_setting(store: str):
    """An option as all others."""
    with model_run("r", thin_after=5) as run:
        for step in range(20):
            run.log_metric("loss", 1.0, step=step)
    assert history("loss") == [0, 1, 2, 3, 4, 6, 8, 12, 16, 19]


@pytest.mark.parametrize("wrong", [-1, 1.5, "many"])
def test_a_setting_that_is_none(wrong):
    """Found before anything starts."""
    with pytest.raises(OptionError, match=r"thin_after=.* can't be used"):
        model_run("r", thin_after=wrong)
