"""The decorator: what goes in and comes out is in MLflow, and the function is as it was."""

from __future__ import annotations

import functools
import inspect
import json
import warnings
from pathlib import Path
from typing import Annotated

import mlflow
import mlflow.artifacts
import pytest

import mlwrap
from mlwrap import Secret, configure, current_run, model_run, tracked_training
from mlwrap.errors import MlwrapWarning, OptionError, SpoolError
from tests.spools import waiting_in


def test_a_call_is_a_run(runs):
    """Parameters with their defaults, numbers as metrics, FINISHED, and the very object comes back."""
    result = {"accuracy": 0.9, "note": "good"}

    @tracked_training
    def train(units, *layers, learning_rate=1e-3, **extra):
        """Train."""
        return result

    assert train(64, 32, 16, dropout=0.5) is result
    run = runs()["train"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "units": "64",
        "layers": "[32, 16]",
        "learning_rate": "0.001",
        "dropout": "0.5",
    }
    assert run.data.metrics == {"accuracy": 0.9}
    assert train.last_run.run_id == run.info.run_id
    assert train.last_run.status == "FINISHED"
    assert mlflow.get_experiment(run.info.experiment_id).name == "test"


def test_options(runs):
    """Each does what it says."""

    @tracked_training(name="named", experiment="elsewhere", tags={"team": "vision"}, ignore="data")
    def train(data, units=1):
        return None

    train([1, 2, 3])
    run = runs()["named"]
    assert run.data.params == {"units": "1"}
    assert run.data.tags["team"] == "vision"
    assert mlflow.get_experiment(run.info.experiment_id).name == "elsewhere"


def test_only(runs):
    """The named arguments and no other."""

    @tracked_training(only=["units"])
    def train(data, units=1, epochs=2):
        return None

    train(0)
    assert runs()["train"].data.params == {"units": "1"}


def test_where_a_run_came_from_is_in_its_tags(runs):
    """Source, user, versions and the function."""

    @tracked_training
    def train():
        return None

    train()
    tags = runs()["train"].data.tags
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlwrap.version"] == mlwrap.__version__
    assert tags["mlwrap.function"].endswith(":test_where_a_run_came_from_is_in_its_tags.<locals>.train")
    assert tags["mlwrap.key"] == train.last_run.key
    if (Path(__file__).parents[2] / ".git").exists():
        assert len(tags["mlflow.source.git.commit"]) == 40
        assert tags["mlwrap.git.dirty"] in {"true", "false"}


def test_secrets_stay_out(runs, spool: Path, monkeypatch: pytest.MonkeyPatch):
    """By name, by shape and by annotation; from parameters, tags, traceback and journal."""
    canary = "canary-7f3a9c51d2"
    monkeypatch.setenv("MLWRAP_DELIVERY", "off")

    @tracked_training(tags={"password": canary})
    def train(key: Annotated[str, Secret], api_key, url):
        raise ValueError(f"could not log in with {key}")

    with pytest.raises(ValueError, match=canary):
        train(canary, canary, f"https://me:{canary}@example.org")
    (folder,) = waiting_in(spool)
    everything = b"".join(f.read_bytes() for f in folder.rglob("*") if f.is_file())
    assert canary.encode() not in everything
    assert everything.count(b"[redacted]") >= 4


def test_long_values_are_kept_whole_beside(runs):
    """Cut in MLflow's parameter, whole in params.json."""

    @tracked_training
    def train(prompt, odd):
        return None

    train("x" * 10_000, {"a#b": 1})
    run = runs()["train"]
    assert len(run.data.params["prompt"]) <= 6000
    table = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/params.json"))
    assert table["prompt"] == {"name": "prompt", "value": "x" * 10_000}
    (renamed,) = [entry for entry in table.values() if entry["name"] == "odd.a#b"]
    assert renamed["value"] == 1


def test_an_exception_is_the_users_own(runs):
    """FAILED with type, message and traceback; the caller gets the very same exception."""
    error = ValueError("the loss is on fire")

    @tracked_training
    def train():
        current_run().log_metric("loss", 9.0)
        raise error

    with pytest.raises(ValueError, match="on fire") as caught:
        train()
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert caught.traceback[-1].name == "train"
    run = runs()["train"]
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"loss": 9.0}
    assert run.data.tags["mlwrap.error.type"] == "ValueError"
    assert run.data.tags["mlwrap.error.message"] == "the loss is on fire"
    text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/traceback.txt")
    assert text.endswith("ValueError: the loss is on fire\n")
    assert "raise error" in text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SystemExit(), "FINISHED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(3), "FAILED"),
        (SystemExit("bad"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (StopIteration(), "FAILED"),
        (RecursionError(), "FAILED"),
    ],
    ids=repr,
)
def test_every_ending_has_its_status(runs, error: BaseException, status: str):
    """And leaves as it came."""

    @tracked_training
    def train():
        raise error

    with pytest.raises(type(error)) as caught:
        train()
    assert caught.value is error
    assert runs()["train"].info.status == status


def test_the_function_is_as_it_was():
    """Name, docstring, signature, annotations, module and the undecorated function behind it."""

    def train(units: int = 3, *, learning_rate: float = 0.1) -> float:
        """Train a model."""
        return learning_rate

    tracked = tracked_training(train)
    assert tracked.__name__ == "train"
    assert tracked.__doc__ == "Train a model."
    assert tracked.__module__ == __name__
    assert inspect.signature(tracked) == inspect.signature(train)
    assert tracked.__annotations__ == train.__annotations__
    assert tracked.__wrapped__ is train
    assert tracked.__wrapped__() == 0.1
    assert tracked.last_run is None


class Trainer:
    """Methods of every kind; their runs have no ``self`` among the parameters."""

    scale = 2

    @tracked_training
    def method(self, units=1):
        return {"result": float(units * self.scale)}

    @tracked_training
    @classmethod
    def class_inside(cls, units=1):
        return {"result": float(units * cls.scale)}

    @classmethod
    @tracked_training
    def class_outside(cls, units=1):
        return {"result": float(units * cls.scale)}

    @tracked_training
    @staticmethod
    def static_inside(units=1):
        return {"result": float(units)}

    @staticmethod
    @tracked_training
    def static_outside(units=1):
        return {"result": float(units)}


@pytest.mark.parametrize(
    "name", ["method", "class_inside", "class_outside", "static_inside", "static_outside"]
)
def test_methods(runs, name: str):
    """On an instance: instance, class and static methods, in either order."""
    expected = 3.0 if "static" in name else 6.0
    assert getattr(Trainer(), name)(units=3) == {"result": expected}
    run = runs()[name]
    assert run.data.params == {"units": "3"}
    assert run.data.metrics == {"result": expected}


def test_a_method_called_on_its_class(runs):
    """The instance is no parameter there, either."""
    assert Trainer.method(Trainer(), 4) == {"result": 8.0}
    assert runs()["method"].data.params == {"units": "4"}
    assert Trainer.method.last_run.status == "FINISHED"
    assert Trainer().method.last_run is Trainer.method.last_run


def test_a_partial_and_a_callable_object(runs):
    """Whatever can be called can be tracked."""

    def train(units, epochs):
        return {"result": float(units * epochs)}

    class Training:
        def __call__(self, units):
            return {"result": float(units)}

    tracked_training(functools.partial(train, 2), name="partial")(epochs=5)
    tracked_training(Training(), name="object")(7)
    assert runs()["partial"].data.metrics == {"result": 10.0}
    assert runs()["object"].data.params == {"units": "7"}


def test_nested_runs_know_their_parent(runs):
    """A decorated function that calls another, and a with block between them."""

    @tracked_training
    def inner(fold):
        assert current_run() is inner.last_run
        return {"accuracy": fold / 10}

    @tracked_training
    def outer():
        mine = current_run()
        with model_run("middle") as middle:
            inner(1)
            assert current_run() is middle
        assert current_run() is mine

    outer()
    assert current_run() is None
    found = runs()
    parent = {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()}
    assert parent == {
        "outer": None,
        "middle": found["outer"].info.run_id,
        "inner": found["middle"].info.run_id,
    }
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_recursion_is_nested_runs(store: str):
    """One function, three runs, each under the one before."""

    @tracked_training
    def train(depth):
        return train(depth - 1) if depth else None

    train(2)
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    by_depth = {run.data.params["depth"]: run for run in found}
    assert len(found) == 3
    assert by_depth["0"].data.tags["mlflow.parentRunId"] == by_depth["1"].info.run_id
    assert by_depth["1"].data.tags["mlflow.parentRunId"] == by_depth["2"].info.run_id


def test_an_active_run_of_mlflows_own_is_the_parent(runs):
    """And is left open: we never close a run that we did not open."""
    with mlflow.start_run(run_name="theirs") as theirs:
        with model_run("ours"):
            pass
        assert mlflow.active_run().info.run_id == theirs.info.run_id
        assert runs()["ours"].data.tags["mlflow.parentRunId"] == theirs.info.run_id
        assert runs()["theirs"].info.status == "RUNNING"


def test_what_mlflow_was_told_is_honoured(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch):
    """set_tracking_uri and set_experiment in the training process."""
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    (tmp_path / "other.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # set_experiment leaves its own there
    mlflow.set_tracking_uri(uri)
    try:
        experiment = mlflow.set_experiment("chosen")
        with model_run("r"):
            pass
        (run,) = mlflow.MlflowClient(uri).search_runs([experiment.experiment_id])
        assert run.info.run_name == "r"
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None  # there is no public way back


# What is wrong is said when the function is decorated.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"experimnt": "x"}, "'experimnt' is no setting of mlwrap. Choose from: spool, delivery"),
        ({"experiment": 3}, "experiment=3 can't be used: Expected str"),
        ({"name": 3}, "name=3 can't be used: expected str, got int"),
        ({"tags": ["a"]}, "expected Mapping, got list"),
        ({"strict": "yes"}, "strict='yes' can't be used: Expected bool"),
        ({"delivery": "carrier pigeon"}, "delivery='carrier pigeon' can't be used"),
        ({"ignore": "nothing"}, "names no parameter. The function has: units"),
        ({"only": 3}, "only="),
        ({"ignore": "units", "only": "units"}, "can't both be given"),
        ({"serving_input_receiver_fn": 3}, "expected Callable, got int"),
    ],
)
def test_a_wrong_option_is_an_error_at_decoration(options: dict, words: str):
    """What was expected, what came, what there is."""
    with pytest.raises(OptionError) as caught:

        @tracked_training(**options)
        def train(units): ...

    assert words in str(caught.value)


def generator():
    """Returns before it has trained."""
    yield 1


async def async_generator():
    """And this."""
    yield 1


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (generator, "generator is a generator"),
        (functools.partial(generator), "generator is a generator"),
        (async_generator, "is a generator"),
        (Trainer, "decorates a training function"),
        (3, "decorates a training function"),
    ],
)
def test_what_is_no_training_function_is_refused(thing: object, words: str):
    """With a sentence that says what to do."""
    with pytest.raises(OptionError, match=words):
        tracked_training(thing)


def test_a_wrong_environment_is_an_error_before_the_body(monkeypatch: pytest.MonkeyPatch):
    """It names the variable."""
    called = []

    @tracked_training
    def train():
        called.append(1)

    monkeypatch.setenv("MLWRAP_STRICT", "perhaps")
    with pytest.raises(OptionError, match="MLWRAP_STRICT='perhaps'"):
        train()
    assert not called


def test_a_spool_that_cannot_be_written_is_an_error_before_the_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ten hours of training that could not be written down never start."""
    called = []
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLWRAP_SPOOL", str(tmp_path / "file" / "spool"))

    @tracked_training
    def train():
        called.append(1)

    with pytest.raises(SpoolError, match="MLWRAP_SPOOL"):
        train()
    assert not called
    assert current_run() is None


def test_a_type_that_nobody_knows_is_one_warning(runs):
    """It names the type and the savers there are; the value still reaches the caller."""

    class Odd:
        pass

    odd = Odd()

    @tracked_training
    def train():
        return odd, odd, {"more": Odd()}

    with pytest.warns(MlwrapWarning) as caught:
        assert train()[0] is odd
    (warning,) = caught
    assert "Odd" in str(warning.message)
    assert "keras, " in str(warning.message)
    assert warning.filename == __file__
    assert runs()["train"].info.status == "FINISHED"


def test_a_call_that_does_not_fit_is_the_functions_own_error():
    """As without the decorator."""

    @tracked_training
    def train(units):
        return None

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'units'"):
        train()


def test_disabled_is_as_if_undecorated(runs, spool: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is written; the body's run takes everything and does nothing."""

    @tracked_training
    def train():
        current_run().log_metric("loss", 1.0)
        current_run().log_artifact("nothing there")
        return 5

    monkeypatch.setenv("MLWRAP_DISABLED", "1")
    assert train() == 5
    assert train.last_run.status == "FINISHED"
    assert runs() == {}
    assert not spool.exists()


def test_configure_goes_before_the_environment(runs, monkeypatch: pytest.MonkeyPatch):
    """And the call itself before both."""
    monkeypatch.setenv("MLWRAP_EXPERIMENT", "from-environment")
    configure(experiment="from-configure")
    try:
        with model_run("a"):
            pass
        with model_run("b", experiment="from-call"):
            pass
    finally:
        configure(experiment=None)
    with model_run("c"):
        pass
    names = {name: mlflow.get_experiment(run.info.experiment_id).name for name, run in runs().items()}
    assert names == {"a": "from-configure", "b": "from-call", "c": "from-environment"}


def test_nothing_is_left_in_the_spool(spool: Path, runs):
    """After success and failure alike."""

    @tracked_training
    def train(fail):
        current_run().log_text("hello", "note.txt")
        if fail:
            raise ValueError("fail")

    train(False)
    with pytest.raises(ValueError, match="fail"):
        train(True)
    assert waiting_in(spool) == []


def test_delivery_off_leaves_the_run_for_sync(spool: Path, runs, monkeypatch: pytest.MonkeyPatch):
    """The folder holds all; sync() brings it to MLflow."""
    monkeypatch.setenv("MLWRAP_DELIVERY", "off")

    @tracked_training
    def train(units=3):
        return {"accuracy": 0.5}

    train()
    assert train.last_run.run_id is None
    assert runs() == {}
    (entry,) = mlwrap.sync()
    assert entry.error is None
    run = runs()["train"]
    assert run.info.run_id == entry.run_id
    assert (run.data.params, run.data.metrics) == ({"units": "3"}, {"accuracy": 0.5})
    assert mlwrap.sync() == []
    assert waiting_in(spool) == []


def test_a_server_that_is_away_costs_nothing_but_a_warning(runs, store: str, monkeypatch: pytest.MonkeyPatch):
    """The result reaches the caller; the warning names the folder and the command."""

    @tracked_training(tracking_uri="http://127.0.0.1:9")
    def train():
        return {"accuracy": 0.5}

    with pytest.warns(MlwrapWarning, match=r"waits in .*; 'mlwrap sync' delivers it"):
        assert train() == {"accuracy": 0.5}
    (entry,) = mlwrap.sync()
    assert "no server listens at 127.0.0.1:9" in entry.error


def test_warnings_come_from_the_users_line(runs):
    """Not from inside mlwrap."""
    with model_run("r") as run, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MlwrapWarning)
        run.log_metric("loss", "a lot")
    (warning,) = caught
    assert warning.filename == __file__
    assert "metric 'loss' is no number, and is left out" in str(warning.message)


def test_a_pruned_optuna_trial_is_no_failure(runs):
    """What the function's own calls suggested is logged all the same, and what is ignored is not."""
    optuna = pytest.importorskip("optuna", reason="only needed for sweeps with Optuna")

    @tracked_training(ignore="trial.params.seed")
    def train(trial):
        trial.suggest_float("lr", 0.0, 1.0)
        trial.suggest_int("seed", 0, 9)
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        train(optuna.trial.FixedTrial({"lr": 0.5, "seed": 3}, number=7))
    run = runs()["train"]
    assert (run.info.status, run.data.tags["mlwrap.pruned"]) == ("FINISHED", "true")
    assert run.data.params == {"trial.number": "7", "trial.params.lr": "0.5"}
    assert "mlwrap.error.type" not in run.data.tags
