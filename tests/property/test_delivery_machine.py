"""Any order of logging, cuts, deaths and deliveries ends with MLflow as a plain dict says."""

from __future__ import annotations

import csv
import gzip
import inspect
import shutil
import tempfile
from pathlib import Path

import mlflow
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import mlwrap
from mlwrap._delivery import close_for_the_dead, deliver
from mlwrap._delivery.client import Client
from mlwrap._delivery.thinning import FILE
from mlwrap._journal import RunFolder
from mlwrap.errors import JournalError, Unreachable
from tests.faults.weights import Weights, register
from tests.spools import waiting_in

AFTER = 20
NAMES = st.sampled_from(["loss", "accuracy", "a b", "weird#name"])


class Network:
    """Goes away at a chosen call of MLflow's client: before it arrives, or before its answer does."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: int | None = None  # so many more go through; None: all
        self.answered = True
        for name, method in inspect.getmembers(Client, inspect.isfunction):
            if not name.startswith("_"):
                patch.setattr(Client, name, self._through(method))

    def _through(self, method):
        def call(*args, **kwargs):
            if self.calls is None:
                return method(*args, **kwargs)
            self.calls -= 1
            if self.calls >= 0:
                return method(*args, **kwargs)
            if not self.answered:
                method(*args, **kwargs)
            raise Unreachable("cut")

        return call


class Expected:
    """What MLflow is to have of one run."""

    def __init__(self) -> None:
        self.status = "RUNNING"
        self.params: dict[str, str] = {}
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.files: dict[str, str] = {}
        self.models: list[int] = []


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """What MLflow is told of a metric, said in another way than in the code."""
    values = [value for _, value in points]
    always = {len(points) - 1, values.index(min(values)), values.index(max(values))}
    by_number = {n for n in range(len(points)) if n % 2 ** (n // AFTER).bit_length() == 0}
    return [points[n] for n in sorted(always | by_number)]


class Machine(RuleBasedStateMachine):
    """Runs and deliveries; ``expected`` is the model, a real store the real thing."""

    empty_store: Path
    network: Network

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        shutil.copy(self.empty_store, self.folder / "mlflow.db")
        self.uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        self.spool = self.folder / "spool"
        self.network.calls = None
        self.expected: dict[str, Expected] = {}
        self.context: mlwrap.model_run | None = None
        self.run: mlwrap.Run | None = None
        self.step = 0

    while_open = precondition(lambda self: self.run is not None)

    @property
    def now(self) -> Expected:
        """What is expected of the open run."""
        return self.expected[self.run.key]

    @rule()
    @precondition(lambda self: self.run is None)
    def start(self):
        self.context = mlwrap.model_run(
            "r",
            spool=self.spool,
            tracking_uri=self.uri,
            experiment="machine",
            delivery="off",
            thin_after=AFTER,
        )
        self.run = self.context.__enter__()
        self.expected[self.run.key] = Expected()

    @while_open
    @rule(name=NAMES, value=st.floats(-1e6, 1e6), count=st.integers(1, 30))
    def log_points(self, name: str, value: float, count: int):
        for _ in range(count):
            self.step += 1
            self.run.log_metric(name, value, step=self.step)
            self.now.points.setdefault(name, []).append((self.step, value))

    @while_open
    @rule(name=NAMES, value=st.integers(0, 9))
    def log_param(self, name: str, value: int):
        if self.now.params.setdefault(name, str(value)) == str(value):
            self.run.log_params({name: value})

    @while_open
    @rule(text=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20))
    def log_text(self, text: str):
        name = f"note{len(self.now.files)}.txt"
        self.run.log_text(text, name)
        self.now.files[name] = text

    @while_open
    @rule(size=st.integers(0, 5000))
    def save(self, size: int):
        self.run.log_model(Weights(size), "m")
        self.now.models.append(size)

    @while_open
    @rule()
    def finish(self):
        self.context.__exit__(None, None, None)
        self._gone("FINISHED")

    @while_open
    @rule()
    def fail(self):
        error = ValueError("theirs")
        self.context.__exit__(ValueError, error, None)
        self.now.files["traceback.txt"] = "ValueError: theirs\n"
        self._gone("FAILED")

    @while_open
    @rule()
    def kill(self):
        """The writer is gone without a word; the kernel gives its lease back."""
        mlwrap._lifetime.closed(self.context)
        mlwrap._run.current.set(self.context._run.around)
        self.run._recorder.release()
        self._gone("KILLED")

    def _gone(self, status: str) -> None:
        self.now.status = status
        self.context = self.run = None

    @rule(calls=st.integers(0, 12), answered=st.booleans())
    def cut(self, calls: int, answered: bool):
        """A delivery of all there is, during which the network goes away."""
        self.network.calls, self.network.answered = calls, answered
        self._deliver_all()
        self.network.calls = None

    @rule()
    def deliver(self):
        """What a sender does, of the open run and those that ended."""
        self._deliver_all()

    @rule()
    def sync(self):
        """All that is not open is delivered, and its folders are gone."""
        assert all(synced.error is None for synced in mlwrap.sync(str(self.spool)))
        left = {path.name for path in waiting_in(self.spool)}
        assert left == ({self.run.key} if self.run else set())
        for key, expected in self.expected.items():
            if expected.status != "RUNNING":
                self._compare(key, expected)

    def _deliver_all(self) -> None:
        for path in waiting_in(self.spool) if self.spool.exists() else ():
            folder = RunFolder(path)
            close_for_the_dead(folder, 0)
            try:
                deliver(folder)
            except (Unreachable, JournalError):
                continue

    def _compare(self, key: str, expected: Expected) -> None:
        client = mlflow.MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("machine").experiment_id
        (run,) = client.search_runs([experiment], f"tags.`mlwrap.key` = '{key}'")
        assert run.info.status == expected.status
        own = mlwrap._capture.rename
        assert run.data.params == {own(name): value for name, value in expected.params.items()}
        assert set(run.data.metrics) == {own(name) for name in expected.points}
        for name, points in expected.points.items():
            history = client.get_metric_history(run.info.run_id, own(name))
            assert sorted((point.step, point.value) for point in history) == thinned(points)
        there = {file.path for file in client.list_artifacts(run.info.run_id)} - {"params.json"}
        long = {own(name): points for name, points in expected.points.items() if len(points) > AFTER}
        assert there == set(expected.files) | ({FILE} if long else set())
        if long:
            assert set(run.data.tags["mlwrap.thinned"].split(", ")) == set(long)
            table = gzip.decompress(
                Path(f"{run.info.artifact_uri}/{FILE}".removeprefix("file://")).read_bytes()
            )
            rows = [
                (name, int(step), float(value))
                for name, step, _, value in csv.reader(table.decode().splitlines()[1:])
            ]
            for name, points in long.items():
                assert [row[1:] for row in rows if row[0] == name] == points
        for name, text in expected.files.items():
            uri = f"{run.info.artifact_uri}/{name}"
            assert mlflow.artifacts.load_text(uri) == text
        found = client.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'")
        assert [model.status.value for model in found] == ["READY"] * len(expected.models)
        sizes = [
            (Path(model.artifact_location.removeprefix("file://")) / "data/weights").stat().st_size
            for model in found
        ]
        assert sorted(sizes) == sorted(expected.models)

    @invariant()
    def no_half_is_visible(self):
        """Nothing half-copied has been left in the artifact store."""
        assert not list(self.folder.glob("mlruns/**/*.part"))

    def teardown(self):
        self.network.calls = None
        if self.run is not None:
            self.finish()
        if self.spool.exists():
            self.sync()
        shutil.rmtree(self.folder)


def test_any_order_ends_as_a_dict_says(empty_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Sixty histories of fifteen steps each."""
    register(monkeypatch)
    Machine.empty_store = empty_store
    Machine.network = Network(monkeypatch)
    bounds = settings(
        max_examples=60,
        stateful_step_count=15,
        deadline=None,
        # To shrink a history takes minutes, and what failed is told as it is.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=bounds)
