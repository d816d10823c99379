"""One run folder becomes one MLflow run, on a real store."""

from __future__ import annotations

import math
import shutil
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import mlflow.artifacts
import pytest
from mlflow.entities import Run
from mlflow.utils import rest_utils

from mlwrap._delivery.deliver import deliver
from mlwrap._journal.records import (
    AnyRecord,
    Artifact,
    Metrics,
    Model,
    Params,
    RunEnded,
    RunStarted,
    Saved,
    Signature,
    Tags,
    TensorSpec,
)
from mlwrap._journal.writer import Writer
from mlwrap._mlflow.server_errors import without_client_retries
from mlwrap._spool.open_run import OpenRun, open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import spool_root
from mlwrap.errors import DeliveryError, Refused, Unreachable

ENDED = RunEnded(status="FINISHED", time=1_700_000_005_000)


@pytest.fixture
def opened(spool: Path, store: str):
    """Make a run folder with these records in its journal, its writer gone."""

    def make(*records: AnyRecord, **fields: str | None) -> RunFolder:
        run = begin(spool, store, **fields)
        for record in records:
            run.append(record)
        run.release()
        return run.folder

    return make


def begin(spool: Path, store: str, **fields: str | None) -> OpenRun:
    """A run folder whose journal holds the start."""
    defaults = {"name": "a run", "tracking_uri": store, "folder": str(Path.cwd()), "experiment": "digits"}
    key = uuid.uuid4().hex
    return open_run(
        spool_root(str(spool)),
        RunStarted(key=key, time=1_700_000_000_000, tags={"team": "vision"}, **{**defaults, **fields}),
    )


def runs() -> list[Run]:
    """All runs of all experiments."""
    ids = [e.experiment_id for e in mlflow.search_experiments()]
    return mlflow.MlflowClient().search_runs(ids)


def only_run() -> Run:
    """The one run that there is."""
    (run,) = runs()
    return run


def test_mlflow_looks_like_the_run_folder(opened):
    """Run, times, tags, parameters, metrics and status; and the folder is gone."""
    folder = opened(
        Params(values={"units": "64"}),
        Metrics.of({"loss": 0.5, "accuracy": 0.9}, step=0, time=1_700_000_001_000),
        Metrics.of({"loss": 0.25}, step=1, time=1_700_000_002_000),
        Tags(values={"phase": "two"}),
        ENDED,
    )
    progress = deliver(folder)
    run = only_run()
    assert progress.run_id == run.info.run_id
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000, 1_700_000_005_000)
    assert run.data.params == {"units": "64"}
    assert run.data.metrics == {"loss": 0.25, "accuracy": 0.9}
    assert run.data.tags.items() >= {"team": "vision", "phase": "two", "mlwrap.key": folder.key}.items()
    assert mlflow.get_experiment(run.info.experiment_id).name == "digits"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (0, 0.5, 1_700_000_001_000),
        (1, 0.25, 1_700_000_002_000),
    ]
    assert not folder.path.exists()


def test_an_open_run_is_delivered_as_far_as_it_goes(spool: Path, store: str):
    """Then further, without a second run or a second point."""
    run = begin(spool, store)
    run.append(Metrics.of({"loss": 1.0}, step=0, time=1))
    assert not deliver(run.folder).ended
    assert only_run().info.status == "RUNNING"
    run.append(Metrics.of({"loss": 0.5}, step=1, time=2))
    run.append(ENDED)
    run.release()
    assert deliver(run.folder).ended
    found = only_run()
    assert found.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "loss")
    assert [m.step for m in history] == [0, 1]


def test_a_delivery_that_died_anywhere_is_taken_up(opened, monkeypatch: pytest.MonkeyPatch):
    """Whatever it had written down of its progress: one run, each point and model once."""
    folder = opened(Params(values={"a": "1"}), Metrics.of({"loss": 1.0}, step=0, time=1), ENDED)
    monkeypatch.setattr(RunFolder, "remove", lambda self: None)
    kept = []
    real = RunFolder.save_progress

    def keep(self: RunFolder, progress) -> None:
        real(self, progress)
        kept.append((self.path / "delivered.json").read_bytes())

    monkeypatch.setattr(RunFolder, "save_progress", keep)
    deliver(folder)
    monkeypatch.setattr(RunFolder, "save_progress", real)
    assert len(kept) >= 3
    for state in kept:
        (folder.path / "delivered.json").write_bytes(state)
        assert deliver(folder).ended
        run = only_run()
        assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")) == 1


def test_more_than_one_batch(opened):
    """MLflow takes 1000 entities a request, 100 of them parameters or tags."""
    points = [Metrics.of({f"m{i % 7}": float(i)}, step=i, time=i) for i in range(2500)]
    params = Params(values={f"p{i}": str(i) for i in range(250)})
    tags = Tags(values={f"t{i}": str(i) for i in range(250)})
    deliver(opened(*points[:1200], params, tags, *points[1200:], ENDED))
    run = only_run()
    client = mlflow.MlflowClient()
    assert sum(len(client.get_metric_history(run.info.run_id, f"m{i}")) for i in range(7)) == 2500
    assert len(run.data.params) == 250
    assert run.data.tags.items() >= tags.values.items()


def test_what_is_not_finite_arrives(opened):
    """NaN stays NaN; MLflow's SQL stores keep infinity as their greatest number."""
    deliver(opened(Metrics.of({"a": float("nan"), "b": float("inf")}, step=0, time=1), ENDED))
    metrics = only_run().data.metrics
    assert math.isnan(metrics["a"])
    assert metrics["b"] > 1e308


def test_an_artifact_arrives_and_its_stage_goes(spool: Path, store: str):
    """Files and folders, each at its own path."""
    run = begin(spool, store)
    file = run.folder.stage("note") / "note.txt"
    file.write_text("hello")
    run.append(Artifact(staged=run.folder.relative(file), path="notes/note.txt"))
    tree = run.folder.stage("plots") / "plots"
    tree.mkdir()
    (tree / "a.txt").write_text("a")
    run.append(Artifact(staged=run.folder.relative(tree), path="plots"))
    deliver(run.folder)
    run_id = only_run().info.run_id
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/note.txt") == "hello"
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/plots/a.txt") == "a"
    assert not file.exists()
    assert not tree.exists()
    run.release()


def model_record(run: OpenRun, **fields) -> Model:
    """A staged model of one file, for a loader of MLflow's that needs no framework."""
    stage = run.folder.stage("m")
    (stage / "data").mkdir()
    (stage / "data/weights").write_bytes(b"w" * 100)
    return Model(
        name="m",
        staged=run.folder.relative(stage),
        time=1,
        saver="nobody",
        saver_format=1,
        python="3.11.7",
        **fields,
    )


SAVED = Saved(
    flavors={"something": {"data": "data"}},
    signature=Signature(
        inputs=(TensorSpec(dtype="float32", shape=(-1, 64)),),
        outputs=(TensorSpec(dtype="float32", shape=(-1, 10)),),
    ),
    details={"kept": 1},
)


def test_a_model_is_a_logged_model_that_is_ready(spool: Path, store: str):
    """With MLmodel, requirements, signature; found through the run; the stage is gone."""
    run = begin(spool, store)
    record = model_record(run, saved=SAVED, requirements=("keras==3.15.1",), step=7)
    run.append(record)
    run.append(ENDED)
    run.release()
    progress = deliver(run.folder)
    known = progress.models[record.staged]
    model = mlflow.get_logged_model(known.model_id)
    assert (model.name, model.status.value, model.source_run_id) == ("m", "READY", progress.run_id)
    (output,) = only_run().outputs.model_outputs
    assert (output.model_id, output.step) == (known.model_id, 7)
    info = mlflow.models.get_model_info(f"runs:/{progress.run_id}/m")
    assert info.flavors["something"] == {"data": "data"}
    assert info.flavors["mlwrap"]["saver"] == "nobody"
    assert info.flavors["mlwrap"]["details"] == {"kept": 1}
    assert info.signature.inputs.inputs[0].shape == (-1, 64)
    place = Path(model.artifact_location)
    assert (place / "requirements.txt").read_text() == "keras==3.15.1\n"
    assert (place / "data/weights").read_bytes() == b"w" * 100
    assert not run.folder.path.exists()


def test_a_model_that_could_not_be_saved_is_failed(spool: Path, store: str):
    """MLflow shows it, with the reason."""
    run = begin(spool, store)
    run.append(Model(name="m", staged="staged/1-m", time=1, saver="keras", saver_format=1, error="no room"))
    run.append(ENDED)
    run.release()
    progress = deliver(run.folder)
    model = mlflow.get_logged_model(progress.models["staged/1-m"].model_id)
    assert model.status.value == "FAILED"
    assert model.tags["mlwrap.error"] == "no room"


def test_a_model_is_made_once(spool: Path, store: str, monkeypatch: pytest.MonkeyPatch):
    """A delivery that died between the rename and READY is finished by the next one."""
    run = begin(spool, store)
    record = model_record(run, saved=SAVED)
    run.append(record)
    run.append(ENDED)
    run.release()
    from mlwrap._mlflow.client import Client  # noqa: PLC0415 - imports MLflow

    real = Client.link_model

    def die(*_: object) -> None:
        raise SystemExit("cut")

    monkeypatch.setattr(Client, "link_model", die)
    with pytest.raises(SystemExit, match="cut"):
        deliver(run.folder)
    monkeypatch.setattr(Client, "link_model", real)
    progress = deliver(run.folder)
    found = mlflow.MlflowClient().search_logged_models([progress.experiment_id])
    assert [(m.model_id, m.status.value) for m in found] == [
        (progress.models[record.staged].model_id, "READY")
    ]


def test_a_child_is_delivered_under_its_open_parent(spool: Path, store: str):
    """The parent's run is made first, if it has to be."""
    parent = begin(spool, store, name="parent")
    child = begin(spool, store, name="child", parent_key=parent.folder.key)
    child.append(ENDED)
    child.release()
    deliver(child.folder)
    found = {run.info.run_name: run for run in runs()}
    assert found["parent"].info.status == "RUNNING"
    assert found["child"].data.tags["mlflow.parentRunId"] == found["parent"].info.run_id
    parent.append(ENDED)
    parent.release()
    deliver(parent.folder)
    assert len(runs()) == 2


def test_a_child_finds_a_parent_that_is_delivered_already(spool: Path, store: str):
    """By the key that it left in MLflow."""
    parent = begin(spool, store, name="parent")
    child = begin(spool, store, name="child", parent_key=parent.folder.key)
    parent.append(ENDED)
    parent.release()
    parent_id = deliver(parent.folder).run_id
    child.append(ENDED)
    child.release()
    deliver(child.folder)
    found = {run.info.run_name: run for run in runs()}
    assert found["child"].data.tags["mlflow.parentRunId"] == parent_id


def test_a_damaged_line_is_counted_on_the_run(opened):
    """And costs nothing else."""
    folder = opened(Metrics.of({"loss": 1.0}, step=0, time=1))
    with folder.journal.open("ab") as file:
        file.write(b"\x00\x00\n")
    writer = Writer(folder.journal)
    writer.append(Metrics.of({"loss": 0.5}, step=1, time=2))
    writer.append(ENDED)
    writer.close()
    progress = deliver(folder)
    run = only_run()
    assert progress.damaged == 1
    assert run.data.tags["mlwrap.damaged_records"] == "1"
    assert run.data.metrics == {"loss": 0.5}


def test_a_server_that_is_away_leaves_the_folder_as_it_is(opened):
    """Nobody listens: said at once, nothing lost."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = opened(Params(values={"a": "1"}), ENDED, tracking_uri=f"http://127.0.0.1:{port}")
    before = folder.journal.read_bytes()
    with pytest.raises(Unreachable, match=str(port)):
        deliver(folder)
    assert folder.journal.read_bytes() == before


def test_a_deleted_experiment_is_refused_with_the_cure(opened):
    """Trying again would not help."""
    experiment_id = mlflow.create_experiment("gone")
    mlflow.delete_experiment(experiment_id)
    with pytest.raises(Refused, match=r"'gone'.* is deleted\. Restore it"):
        deliver(opened(ENDED, experiment="gone"))


def test_one_folder_is_delivered_by_one_at_a_time(opened, monkeypatch: pytest.MonkeyPatch):
    """The second one says so instead of doing it again."""
    monkeypatch.setattr("mlwrap._delivery.deliver.LEASE_SECONDS", 0)
    folder = opened(ENDED)
    with folder.delivery_lease(), pytest.raises(DeliveryError, match="by another process"):
        deliver(folder)


def test_delivery_stands_where_the_training_stood(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An SQL store's artifacts lie beside it, wherever the delivery is called from."""
    folder = opened(ENDED, folder=str(tmp_path / "work"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    deliver(folder)
    assert Path.cwd() == elsewhere
    experiment = mlflow.get_experiment(only_run().info.experiment_id)
    assert experiment.artifact_location.startswith(str(tmp_path / "work/mlruns"))


def test_delivery_needs_no_framework(opened):
    """TensorFlow, Keras and the rooms that know them are not imported to deliver."""
    folder = opened(Params(values={"a": "1"}), ENDED)
    source = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mlwrap._delivery.deliver import deliver\n"
        "from mlwrap._spool.run_folder import RunFolder\n"
        f"assert deliver(RunFolder(Path({str(folder.path)!r}))).ended\n"
        "unwanted = {'tensorflow', 'keras', 'torch', 'mlwrap.savers', 'mlwrap._capture'}\n"
        "print(sorted(unwanted & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_two_trainings_of_one_store_have_their_artifacts_beside_them(opened, tmp_path: Path):
    """MLflow keeps a store, and where its artifacts lie, for all of a process."""
    for name in "ab":
        (tmp_path / name).mkdir()
        progress = deliver(opened(ENDED, folder=str(tmp_path / name), experiment=name))
        experiment = mlflow.get_experiment(progress.experiment_id)
        assert experiment.artifact_location.startswith(str(tmp_path / name / "mlruns"))


@pytest.mark.parametrize("escaped", [False, True])
def test_a_percent_sign_in_the_path(opened, empty_store: Path, tmp_path: Path, escaped: bool):
    """As a CI writes the names of branches; by hand, and as MLflow's own default is written."""
    folder = tmp_path / "feature%2Flogin"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    named = str(folder).replace("%", "%25") if escaped else str(folder)
    progress = deliver(opened(ENDED, tracking_uri=f"sqlite:///{named}/mlflow.db", folder=str(folder)))
    client = mlflow.MlflowClient(f"sqlite:///{str(folder).replace('%', '%25')}/mlflow.db")
    client.log_text(progress.run_id, "x", "a.txt")
    assert [file.path for file in client.list_artifacts(progress.run_id)] == ["a.txt"]


def test_other_threads_ask_as_they_did():
    """A setting of a delivery's requests is that of its thread alone."""
    settings = (rest_utils.MLFLOW_HTTP_REQUEST_MAX_RETRIES, rest_utils.MLFLOW_HTTP_REQUEST_TIMEOUT)
    before = [setting.get() for setting in settings]
    with without_client_retries(), ThreadPoolExecutor(1) as other:
        assert [setting.get() for setting in settings] == [0, 20]
        assert list(other.map(lambda setting: setting.get(), settings)) == before
    assert [setting.get() for setting in settings] == before
    assert before[0] > 0


@pytest.fixture
def existing(store: str) -> Run:
    """A run that somebody else made, and that has ended."""
    client = mlflow.MlflowClient(store)
    run = client.create_run(client.create_experiment("theirs"), run_name="theirs", tags={"team": "text"})
    client.log_param(run.info.run_id, "units", "32")
    client.set_terminated(run.info.run_id, "FAILED", end_time=1_600_000_000_000)
    return run


def test_an_existing_run_is_written_on(opened, existing: Run):
    """It keeps its name, its experiment and its parameters; a parameter that it has otherwise is refused."""
    run_id = existing.info.run_id
    folder = opened(
        Params(values={"units": "64", "rate": "0.1"}),
        Metrics.of({"loss": 1.0}, step=0, time=1),
        ENDED,
        run_id=run_id,
    )
    progress = deliver(folder)
    run = only_run()
    assert (progress.run_id, progress.experiment_id) == (run_id, existing.info.experiment_id)
    assert (run.info.run_name, run.info.status, run.info.end_time) == ("theirs", "FINISHED", ENDED.time)
    assert run.data.params == {"units": "32", "rate": "0.1"}
    assert run.data.metrics == {"loss": 1.0}
    assert run.data.tags.items() >= {"team": "vision", "mlwrap.key": folder.key}.items()
    assert "units" in run.data.tags["mlwrap.refused"]


def test_an_existing_run_is_running_until_its_end(spool: Path, store: str, existing: Run):
    """A delivery that knows nothing of an earlier one goes on with the same run."""
    run = begin(spool, store, run_id=existing.info.run_id)
    run.append(Metrics.of({"loss": 1.0}, step=0, time=1))
    deliver(run.folder)
    assert only_run().info.status == "RUNNING"
    (run.folder.path / "delivered.json").unlink()
    run.append(ENDED)
    run.release()
    assert deliver(run.folder).ended
    assert only_run().info.status == "FINISHED"


def test_a_child_of_an_existing_run_is_in_its_experiment(spool: Path, store: str, existing: Run):
    """Of which its journal does not know, whether the parent is delivered before it or not."""
    run_id = existing.info.run_id
    parent = begin(spool, store, run_id=run_id, experiment=None)
    for number in range(2):
        asked = {"name": f"child {number}", "parent_key": parent.folder.key, "experiment": None}
        child = begin(spool, store, **asked, parent_run_id=run_id if number else None)
        child.append(ENDED)
        child.release()
        deliver(child.folder)
        if number == 0:
            parent.append(ENDED)
            parent.release()
            deliver(parent.folder)
    found = {run.info.run_name: run for run in runs()}
    assert {run.info.experiment_id for run in found.values()} == {existing.info.experiment_id}
    for number in range(2):
        assert found[f"child {number}"].data.tags["mlflow.parentRunId"] == run_id


@pytest.mark.parametrize("deleted", [True, False])
def test_an_existing_run_that_is_not_there(opened, existing: Run, deleted: bool):
    """Deleted, or never made: refused, and the folder waits."""
    run_id = existing.info.run_id
    if deleted:
        mlflow.MlflowClient().delete_run(run_id)
    folder = opened(ENDED, run_id=run_id if deleted else "0" * 32)
    with pytest.raises(Refused, match=run_id if deleted else "0" * 32):
        deliver(folder)
    assert folder.path.exists()
