"""Runs are delivered to servers that are older and newer than the client, and models loaded from them."""

from __future__ import annotations

import math
import uuid
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

import mlwrap
from tests.faults import proxy as how
from tests.faults.proxy import Proxy
from tests.faults.servers import Server
from tests.faults.weights import Weights


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex


@pytest.mark.parametrize("delivery", ["inline", "sender"])
def test_a_run_is_delivered_whole(server: Server, name: str, delivery: str, tmp_path: Path):
    """Parameters, tags, metrics with NaN, and artifacts in folders."""
    folder = tmp_path / "plots"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("a")
    with mlwrap.model_run(
        "r", params={"units": 64, "text": "grüße"}, tags={"team": "vision"}, tracking_uri=server.uri,
        experiment=name, delivery=delivery, deadline=120,
    ) as run:  # fmt: skip
        for step in range(2000):
            run.log_metrics({"loss": 1 / (step + 1), "odd": math.nan if step == 3 else step}, step=step)
        run.log_text("hello", "notes/note.txt")
        run.log_text("", "empty.txt")
        run.log_artifact(folder)
    client = MlflowClient(server.uri)
    logged = client.get_run(run.run_id)
    assert (logged.info.status, logged.data.params) == ("FINISHED", {"units": "64", "text": "grüße"})
    assert logged.data.tags["team"] == "vision"
    odd = client.get_metric_history(run.run_id, "odd")
    assert [point.step for point in odd] == list(range(2000))
    assert math.isnan(odd[3].value)
    into = mlflow.artifacts.download_artifacts(
        run_id=run.run_id, dst_path=str(tmp_path / "down"), tracking_uri=server.uri
    )
    assert {
        path.relative_to(into).as_posix(): path.read_text()
        for path in Path(into).rglob("*.txt")
    } == {"notes/note.txt": "hello", "empty.txt": "", "plots/deep/a.txt": "a"}  # fmt: skip


def test_an_answer_that_is_lost_creates_nothing_twice(server: Server, name: str, old_server_is_named):
    """The server is asked for the run, the model and the version before any is created again."""
    proxy = Proxy(server.port)
    for request in ("runs/create", "logged-models$", "model-versions/create"):
        proxy.rule(how.cut_after, request, times=1)
    with old_server_is_named(), mlwrap.model_run("r", tracking_uri=proxy.uri, experiment=name) as run:
        run.log_metric("loss", 1.0, step=0)
        run.log_model(Weights(), register_as=f"{name}@best")
    proxy.refuse()
    client = MlflowClient(server.uri)
    (logged,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert (logged.info.run_id, logged.info.status) == (run.run_id, "FINISHED")
    assert len(client.search_model_versions(f"name = '{name}'")) == 1
    assert [model.registered for model in run.models] == [f"models:/{name}/1"]


def test_a_model_is_loaded_by_each_of_its_uris(
    server: Server, name: str, is_mlflow_2: bool, old_server_is_named
):
    """A LoggedModel; on MLflow 2 an artifact of the run, with one warning."""
    with (
        old_server_is_named() as said,
        mlwrap.model_run("r", tracking_uri=server.uri, experiment=name, deadline=120) as run,
    ):
        run.log_model(Weights(1000), register_as=f"{name}@best")
        run.log_model(Weights(2000), "second")
    assert said is None or len(said) == 1
    assert [model.status for model in run.models] == ["READY", "READY"]
    first = run.models[0]
    assert first.uri.startswith("runs:/" if is_mlflow_2 else "models:/m-")
    assert first.registered == f"models:/{name}/1"
    uris = [first.uri, f"runs:/{run.run_id}/weights", first.registered, f"models:/{name}@best"]
    uris += [f"models:/{name}/latest"]
    for uri in uris:
        assert mlwrap.load_model(uri, tracking_uri=server.uri).size == 1000, uri
    assert mlwrap.load_model(f"runs:/{run.run_id}/second", tracking_uri=server.uri).size == 2000


def test_a_version_with_an_artifact_location_is_loaded(
    server: Server, name: str, is_mlflow_2: bool, old_server_is_named
):
    """As MLflow 2 registers models, and whoever calls MLflow's client."""
    with old_server_is_named(), mlwrap.model_run("r", tracking_uri=server.uri, experiment=name) as run:
        run.log_model(Weights(3000))
    client = MlflowClient(server.uri)
    client.create_registered_model(name)
    if is_mlflow_2:
        source = f"{client.get_run(run.run_id).info.artifact_uri}/weights"
        client.create_model_version(name, source=source, run_id=run.run_id)
    else:
        model = client.get_logged_model(run.models[0].uri.removeprefix("models:/"))
        source = model.artifact_location
        client.create_model_version(name, source=source, model_id=model.model_id)
    assert source.startswith("mlflow-artifacts:/")
    assert mlwrap.load_model(f"models:/{name}/1", tracking_uri=server.uri).size == 3000


def test_a_sweep_is_resumed_from_the_server(server: Server, name: str):
    """It asks the server which trials are finished."""
    calls = []

    @mlwrap.tracked_training(tracking_uri=server.uri, experiment=name)
    def train(units: int):
        calls.append(units)
        return {"loss": units / 10}

    train.sweep({"units": [1, 2]})
    train.sweep({"units": [1, 2, 3]}, resume=True)
    assert calls == [1, 2, 3]
