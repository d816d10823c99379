"""Any order of logging, cuts, deaths, damage and deliveries ends with MLflow as a plain dict says."""

from __future__ import annotations

import csv
import gzip
import inspect
import itertools
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path, PurePosixPath

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
from mlwrap._delivery.dead_runs import mark_dead_run_killed
from mlwrap._delivery.deliver import deliver
from mlwrap._delivery.thinning import THINNED_FILE
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Artifact
from mlwrap._mlflow.client import Client
from mlwrap._run.run import recorder_of
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import DeliveryError, JournalError, MlwrapWarning, Unreachable
from tests.faults.weights import Weights, register
from tests.spools import waiting_in

AFTER = 20
NAMES = st.sampled_from(["loss", "accuracy", "a b", "weird#name"])
# Names of texts that no store takes as they are, and a file in whose place others want a folder.
ODD = st.sampled_from(["x#y", "x?y", "50%", "x\ny", "n" * 300, "a", "a/b", "a/b/c", "file:/etc/x", "x\udce9"])
DAMAGE = st.sampled_from(["remove", "cut", "change"])


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
        self.of_models: set[tuple[str, tuple[int, float]]] = set()  # points that are a model's metrics, too
        self.damaged: set[str] = set()  # names of the files and stages of the models that were


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
    @rule(name=ODD, text=st.sampled_from(["one", "two"]))
    def log_odd_text(self, name: str, text: str):
        self.run.log_text(text, name)
        self.now.files[name] = text

    @while_open
    @rule(size=st.integers(0, 5000))
    def save(self, size: int):
        self.run.log_model(Weights(size), "m")
        self.now.models.append(size)
        self.now.of_models |= {(name, points[-1]) for name, points in self.now.points.items()}

    @while_open
    @rule(how=st.none() | DAMAGE, which=st.integers(0, 50))
    def finish(self, how: str | None = None, which: int = 0):
        """Some of what waits then may be damaged before anybody can deliver it."""
        self.context.__exit__(None, None, None)
        self._gone("FINISHED")
        if how is not None:
            self._damage(how, which)

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
        mlwrap._process.shutdown.unlisten(self.context)
        mlwrap._run.run.current.set(self.context._run.parent)
        recorder_of(self.run).release()
        self._gone("KILLED")

    def _gone(self, status: str) -> None:
        self.now.status = status
        self.context = self.run = None

    @rule(how=DAMAGE, which=st.integers(0, 50))
    def damage(self, how: str, which: int):
        """Whatever an earlier delivery has left behind."""
        self._damage(how, which)

    def _damage(self, how: str, which: int) -> None:
        """A file that is staged in a run that has ended is not what was saved any more."""
        ended = [self.spool / key for key, run in self.expected.items() if run.status != "RUNNING"]
        files = sorted(
            f for run in ended for f in run.glob("staged/*/**/*") if f.is_file() and f.stat().st_size
        )
        if not files:
            return
        file = files[which % len(files)]
        data = file.read_bytes()
        if how == "remove":
            file.unlink()
        else:
            file.write_bytes(data[:-1] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
        key, _, stage, *_ = file.relative_to(self.spool).parts
        if not self._is_replaced(key, stage):
            self.expected[key].damaged.add(stage if stage.endswith("-m") else file.name)

    def _is_replaced(self, key: str, stage: str) -> bool:
        """Whether a text was logged again under the same name: the first one is not missed then."""
        records = (record for record, _ in read_records(self.spool / key / "journal.jsonl"))
        paths = {r.staged.split("/")[1]: r.path for r in records if isinstance(r, Artifact)}
        later = itertools.islice(itertools.dropwhile(lambda staged: staged != stage, paths), 1, None)
        return stage in paths and paths[stage] in {paths[staged] for staged in later}

    @rule(how=st.sampled_from(["remove", "empty", "zeros", "cut"]), which=st.integers(0, 50))
    def lose_progress(self, how: str, which: int):
        """What delivery had written down of a run is gone, or can't be read."""
        files = sorted(self.spool.glob("*/delivered.json"))
        if not files:
            return
        file = files[which % len(files)]
        data = file.read_bytes()
        if how == "remove":
            file.unlink()
        else:
            file.write_bytes({"empty": b"", "zeros": bytes(len(data)), "cut": data[: len(data) // 2]}[how])

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
        """All that is not open is delivered, and its folders are gone but for those of damaged things."""
        done = {Path(synced.folder).name: synced.error for synced in mlwrap.sync(str(self.spool))}
        damaged = {key for key, run in self.expected.items() if run.damaged}
        assert {key for key, error in done.items() if error is not None} <= damaged
        left = {path.name for path in waiting_in(self.spool)}
        assert left - damaged == ({self.run.key} if self.run else set())
        for key, expected in self.expected.items():
            if expected.status != "RUNNING":
                self._compare(key, expected)

    def _deliver_all(self) -> None:
        for path in waiting_in(self.spool) if self.spool.exists() else ():
            folder = RunFolder(path)
            mark_dead_run_killed(folder, 0)
            try:
                deliver(folder)
            except (DeliveryError, JournalError):
                continue

    def _compare(self, key: str, expected: Expected) -> None:
        client = mlflow.MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("machine").experiment_id
        (run,) = client.search_runs([experiment], f"tags.`mlwrap.key` = '{key}'")
        assert run.info.status == expected.status
        own = mlwrap._capture.mlflow_names.to_mlflow_name
        assert run.data.params == {own(name): value for name, value in expected.params.items()}
        assert set(run.data.metrics) == {own(name) for name in expected.points}
        for name, points in expected.points.items():
            history = client.get_metric_history(run.info.run_id, own(name))
            told = sorted((point.step, point.value) for point in history)
            of_models = {point for of, point in expected.of_models if of == name}
            assert [point for point in told if point not in of_models] == [
                point for point in thinned(points) if point not in of_models
            ]
            assert len(told) == len(set(told))
            assert set(thinned(points)) <= set(told)
        there = self._artifacts(client, run.info.run_id)
        there -= {"params.json", "artifact_names.json"}
        long = {own(name): points for name, points in expected.points.items() if len(points) > AFTER}
        names = mlwrap._capture.artifact_names.ArtifactNames()
        stored = {}
        for name in expected.files:
            path = names.storable(PurePosixPath(name))
            names.add(path, PurePosixPath(name))
            stored[str(path)] = expected.files[name]
        lost = {path for path in stored if PurePosixPath(path).name in expected.damaged}
        assert there - lost == (set(stored) | ({THINNED_FILE} if long else set())) - lost
        if long:
            assert set(run.data.tags["mlwrap.thinned"].split(", ")) == set(long)
            table = gzip.decompress(
                Path(f"{run.info.artifact_uri}/{THINNED_FILE}".removeprefix("file://")).read_bytes()
            )
            rows = [
                (name, int(step), float(value))
                for name, step, _, value in csv.reader(table.decode().splitlines()[1:])
            ]
            for name, points in long.items():
                assert [row[1:] for row in rows if row[0] == name] == points
        for path, text in stored.items():
            if path in there - lost:
                assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{path}") == text
        found = client.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'")
        damaged = sum(stage.endswith("-m") for stage in expected.damaged)
        states = sorted(model.status.value for model in found)
        assert states == ["FAILED"] * damaged + ["READY"] * (len(expected.models) - damaged)
        refused = run.data.tags.get("mlwrap.refused", "")
        assert refused.count("the model 'm'") == damaged
        assert bool(refused) == bool(expected.damaged)
        sizes = [
            (Path(model.artifact_location.removeprefix("file://")) / "data/weights").stat().st_size
            for model in found
            if model.status.value == "READY"
        ]
        assert len(sizes) == len(expected.models) - damaged
        assert not Counter(sizes) - Counter(expected.models)

    def _artifacts(self, client: mlflow.MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
        found: set[str] = set()
        for entry in client.list_artifacts(run_id, folder):
            found |= self._artifacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
        return found

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
    """Sixty histories of twenty steps each."""
    warnings.simplefilter("ignore", MlwrapWarning)  # of each odd name, and of what is damaged
    register(monkeypatch)
    Machine.empty_store = empty_store
    Machine.network = Network(monkeypatch)
    bounds = settings(
        max_examples=60,
        stateful_step_count=20,
        deadline=None,
        # To shrink a history takes minutes, and what failed is told as it is.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=bounds)
