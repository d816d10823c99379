"""``register_as``: a version in MLflow's registry, once, with its alias."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from mlwrap import load_model, model_run, sync, tracked_training
from mlwrap._journal.names import Registered
from mlwrap._mlflow.model_registry import Registry
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import MlwrapWarning, OptionError

tf = pytest.importorskip("tensorflow")


def checkpoint(value: float = 1.0):
    """The smallest thing that is saved."""
    return tf.train.Checkpoint(v=tf.Variable([value]))


def restored(uri: str) -> float:
    """The value of a checkpoint."""
    target = checkpoint(0.0)
    return float(load_model(uri, into=target).v[0])


def versions(name: str) -> dict[str, str]:
    """The versions of a registered model and the models behind them."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    return {str(version.version): version.source for version in found}


def test_a_returned_model_becomes_a_version(store: str, capfd: pytest.CaptureFixture[str]):
    """The second training's is version 2, to which the alias moves; the run's last lines name it."""

    @tracked_training(register_as="digits@champion", quiet=False)
    def train(value: float):
        return checkpoint(value)

    train(1.0)
    first = train.last_run.models[0]
    assert restored("models:/digits@champion") == 1.0
    train(2.0)
    second = train.last_run.models[0]
    assert [first.registered, second.registered] == ["models:/digits/1", "models:/digits/2"]
    assert versions("digits") == {"1": first.uri, "2": second.uri}
    assert restored("models:/digits@champion") == 2.0
    assert restored("models:/digits/1") == 1.0
    version = mlflow.MlflowClient().get_model_version("digits", "2")
    assert version.run_id == train.last_run.run_id
    assert f"READY {second.uri}, registered as models:/digits/2" in capfd.readouterr().err


@pytest.mark.parametrize("delivery", ["inline", "sender"])
def test_a_store_that_is_not_the_default_of_the_process(empty_store: Path, tmp_path: Path, delivery: str):
    """MLflow's registry in an SQL store looks a model up in the default one; nor is a store made by that."""
    shutil.copy(empty_store, tmp_path / "other.db")
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    with model_run("r", tracking_uri=uri, experiment="other", delivery=delivery, deadline=60) as run:
        run.log_model(checkpoint(5.0), "m", register_as="digits@champion")
    assert run.models[0].registered == "models:/digits/1"
    version = mlflow.MlflowClient(uri).get_model_version_by_alias("digits", "champion")
    assert version.source == run.models[0].uri
    assert not Path("mlflow.db").exists()
    assert not list((tmp_path / "spool").glob("mlflow.db"))


def test_several_models_are_registered_by_their_names(store: str):
    """A mapping; what is not in it is not registered."""
    with model_run("r") as run:
        run.record(
            {"generator": checkpoint(1.0), "critic": checkpoint(2.0)}, register_as={"critic": "c@best"}
        )
        run.log_model(checkpoint(3.0), "third", register_as="third")
    assert [model.registered for model in run.models] == [None, "models:/c/1", "models:/third/1"]
    assert restored("models:/c@best") == 2.0


def test_one_name_for_several_models_registers_none(store: str):
    """Which one was meant nobody can know; the models are logged, and the warning says how to name them."""
    with (
        model_run("r") as run,
        pytest.warns(MlwrapWarning, match=r"'digits' is for one model, and 2 came \('a', 'b'\); none is"),
    ):
        run.record({"a": checkpoint(), "b": checkpoint()}, register_as="digits")
    assert [(model.status, model.registered) for model in run.models] == [("READY", None)] * 2
    with model_run("s") as run, pytest.warns(MlwrapWarning, match=r"names 'b', and what came is 'a'"):
        run.record({"a": checkpoint()}, register_as={"a": "x", "b": "y"})
    assert run.models[0].registered == "models:/x/1"
    with model_run("t") as run, pytest.warns(MlwrapWarning, match=r"for one model, and none came"):
        run.record({"loss": 0.5}, register_as="digits")


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "..", "a@", "a@b c", "a@latest", "a@v3", "@b", 3])
def test_a_name_that_mlflow_would_not_take(name: object):
    """Refused at decoration; in a body it costs a warning, and not the model."""
    with pytest.raises(OptionError, match="register_as="):
        tracked_training(register_as=name)
    with pytest.raises(OptionError, match="register_as="):
        tracked_training(register_as={"model": name})


def test_the_rules_for_names_are_mlflows(store: str):
    """What passes at the door passes in MLflow, and the other way round."""
    client = mlflow.MlflowClient()
    for name in ("digits", "di gits", "a.b.c", "ä", "a-b_c", "a/b", "a:b", " ", ".."):
        try:
            Registered.parse(name)
        except OptionError:
            with pytest.raises(mlflow.MlflowException):
                client.create_registered_model(name)
        else:
            client.create_registered_model(name)


def test_a_bad_name_in_a_body(store: str):
    """Training has begun: a warning, and the model is logged."""
    with model_run("r") as run, pytest.warns(MlwrapWarning, match=r"'a/b' can't be used.* logged without"):
        run.log_model(checkpoint(), register_as="a/b")
    assert (run.models[0].status, run.models[0].registered) == ("READY", None)


def test_a_model_that_failed_is_not_registered(store: str):
    """There is nothing to give a version to."""
    with model_run("r") as run, pytest.warns(MlwrapWarning, match="could not be saved"):
        run.log_model(tf.keras.Sequential([tf.keras.layers.Dense(1)]), register_as="digits")
    assert versions("digits") == {}


@pytest.mark.parametrize("method", ["_create", "_set_alias"])
@pytest.mark.parametrize("before", [True, False])
def test_a_second_delivery_makes_no_second_version(
    store: str, monkeypatch: pytest.MonkeyPatch, method: str, before: bool
):
    """Wherever the first one stopped: before MLflow was asked, or when its answer was lost."""
    real = getattr(Registry, method)
    cut = []

    def cut_off(self: Registry, *args: str) -> object:
        if cut:
            return real(self, *args)
        cut.append(method)
        if not before:
            real(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Registry, method, cut_off)
    with pytest.raises(KeyboardInterrupt), model_run("r") as run:
        run.log_model(checkpoint(4.0), register_as="digits@champion")
    (done,) = sync()
    assert done.error is None
    assert list(versions("digits")) == ["1"]
    assert restored("models:/digits@champion") == 4.0


def test_a_registry_that_refuses_holds_the_model_and_not_the_run(
    store: str, monkeypatch: pytest.MonkeyPatch, spool: Path
):
    """The run is told to its end; what was refused is said, and a later sync tries again."""
    mlflow.MlflowClient().create_registered_model("other")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "nonsense://nowhere")

    @tracked_training(register_as="digits@champion")
    def train():
        return {"model": checkpoint(), "loss": 0.5}

    with pytest.warns(
        MlwrapWarning, match="not the registered version of the model 'model': .* not supported by the store"
    ):
        train()
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.5})
    assert RunFolder(spool / train.last_run.key).progress().held
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    (done,) = sync()
    assert done.error is None
    assert list(versions("digits")) == ["1"]
