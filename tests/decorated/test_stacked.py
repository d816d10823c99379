"""A tracked function among other decorators, and before those who read its signature."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import doctest
import functools
import importlib
import inspect
import pydoc
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from unittest import mock

import click
import click.testing
import jsonargparse
import pytest
import typer
import typer.testing
import tyro

from mlwrap import current_run, model_run, tracked_training
from mlwrap._spool.spool import run_folders
from mlwrap.testing import CapturedRun, CapturedRuns


@tracked_training
def train(
    units: int = 3, *, learning_rate: float = 1e-3, loss: Literal["mse", "mae"] = "mse"
) -> dict[str, float]:
    """Train a model.

    Args:
        units: Width of the hidden layer.
        learning_rate: Size of a step.
        loss: What is made small.
    """
    return {"result": units * learning_rate}


def params(runs: CapturedRuns) -> list[dict[str, str]]:
    """The parameters of each run."""
    return [run.params for run in runs]


# Above, below and around.


def test_a_cache_above(mlwrap_runs):
    """What is cached trains once, and is one run."""
    called = []

    @functools.lru_cache
    @tracked_training
    def train(units):
        called.append(units)
        return units

    assert [train(1), train(1), train(2)] == [1, 1, 2]
    assert train.cache_info().hits == 1
    assert called == [1, 2]
    assert params(mlwrap_runs) == [{"units": "1"}, {"units": "2"}]


def test_a_cache_below(mlwrap_runs):
    """Each call is a run, though the body runs once; the cache's own methods are still there."""

    @tracked_training
    @functools.lru_cache
    def train(units=1):
        return {"result": units}

    assert train(3) is train(3)
    assert train.cache_info().hits == 1
    train.cache_clear()
    assert train.cache_info().currsize == 0
    assert params(mlwrap_runs) == [{"units": "3"}] * 2
    assert mlwrap_runs[1].metrics["result"] == [(0, 3.0)]
    assert mlwrap_runs[0].name == "train"


def test_a_wrapper_of_somebodys_above_and_below(mlwrap_runs):
    """The usual decorator, by ``functools.wraps``: the names of the function's parameters are still known."""

    def somebodys(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs) + 1

        return wrapper

    @somebodys
    @tracked_training
    @somebodys
    def train(units, *, epochs=2):
        """Train."""
        return units * epochs

    assert train(5) == 12
    assert params(mlwrap_runs) == [{"units": "5", "epochs": "2"}]
    assert mlwrap_runs[0].tags["mlwrap.function"].endswith("<locals>.train")
    assert str(inspect.signature(train)) == "(units, *, epochs=2)"
    assert (train.__name__, train.__doc__) == ("train", "Train.")


def test_a_partial_around(mlwrap_runs):
    """What it fixes is a parameter as well."""
    assert functools.partial(train, 4, loss="mae")(learning_rate=0.5) == {"result": 2.0}
    assert params(mlwrap_runs) == [{"units": "4", "learning_rate": "0.5", "loss": "mae"}]


def test_a_context_manager_above(mlwrap_runs):
    """One of ``contextlib``'s is entered around the run."""

    @contextlib.contextmanager
    def outer() -> Iterator[None]:
        with model_run("outer"):
            yield

    @outer()
    @tracked_training
    def inner(units):
        return current_run().name

    assert inner(1) == "inner"
    assert [(run.name, run.parent) for run in mlwrap_runs] == [("outer", None), ("inner", mlwrap_runs[0].key)]


class Trainer(abc.ABC):
    """What decorators of classes and attributes make of a tracked method."""

    @tracked_training
    @abc.abstractmethod
    def below(self): ...

    @abc.abstractmethod
    @tracked_training
    def above(self): ...


def test_abstract_methods():
    """Stay abstract, in either order."""
    assert Trainer.__abstractmethods__ == {"below", "above"}
    with pytest.raises(TypeError, match="abstract"):
        Trainer()


@dataclasses.dataclass
class Experiment:
    """A dataclass whose methods are tracked."""

    units: int = 3

    @tracked_training
    def train(self, epochs: int = 1) -> int:
        return self.units * epochs

    @property
    @tracked_training
    def trained(self) -> int:
        return self.units

    @functools.cached_property
    @tracked_training
    def trained_once(self) -> int:
        return self.units

    twice = functools.partialmethod(train, epochs=2)


def test_methods_of_a_dataclass(mlwrap_runs):
    """They are no fields, and the instance is no parameter."""
    assert [field.name for field in dataclasses.fields(Experiment)] == ["units"]
    experiment = Experiment(5)
    assert experiment.train(epochs=2) == 10
    assert experiment.twice() == 10
    assert experiment == Experiment(5)
    assert params(mlwrap_runs) == [{"epochs": "2"}] * 2


def test_properties(mlwrap_runs):
    """Each look at a property is a run, at a cached one the first."""
    experiment = Experiment()
    assert [experiment.trained, experiment.trained] == [3, 3]
    assert [experiment.trained_once, experiment.trained_once] == [3, 3]
    assert [run.name for run in mlwrap_runs] == ["trained", "trained", "trained_once"]


# Commands.


def test_a_click_command_above(mlwrap_runs):
    """Its parameters arrive by keyword; options may stand above or below."""

    @click.command()
    @click.option("--units", default=3, help="Width.")
    @tracked_training
    @click.option("--learning-rate", default=1e-3)
    def train_model(units, learning_rate):
        """Train a model."""
        return {"result": units}

    done = click.testing.CliRunner().invoke(train_model, ["--units", "8"])
    assert (done.exit_code, done.output) == (0, "")
    assert train_model.name == "train-model"
    assert params(mlwrap_runs) == [{"units": "8", "learning_rate": "0.001"}]
    shown = click.testing.CliRunner().invoke(train_model, ["--help"]).output
    assert "Train a model." in shown
    assert "--learning-rate" in shown


def test_typer_above(mlwrap_runs):
    """Which reads the signature's types."""
    app = typer.Typer()
    app.command()(train)
    done = typer.testing.CliRunner().invoke(app, ["--units", "8", "--loss", "mae"])
    assert (done.exit_code, done.output) == (0, "")
    assert params(mlwrap_runs) == [{"units": "8", "learning_rate": "0.001", "loss": "mae"}]


@pytest.mark.parametrize(
    "read",
    [
        lambda: tyro.cli(train, args=["--units", "8", "--learning-rate", "0.5"]),
        lambda: jsonargparse.auto_cli(train, args=["--units=8", "--learning_rate=0.5"], as_positional=False),
    ],
    ids=["tyro", "jsonargparse"],
)
def test_who_makes_commands_of_signatures(mlwrap_runs, read: Callable[[], object]):
    """Gets the right types, and gives back what the function returned."""
    assert read() == {"result": 4.0}
    assert params(mlwrap_runs) == [{"units": "8", "learning_rate": "0.5", "loss": "mse"}]


def test_hydra_above(python, spool: Path):
    """Its configuration is flattened; several jobs are several runs."""
    done = python(
        "import sys\n"
        "sys.argv += ['--multirun', 'units=4,8', 'optimizer.rate=0.5', 'hydra.sweep.dir=sweep']\n"
        "import hydra\n"
        "from hydra.core.config_store import ConfigStore\n"
        "from mlwrap import tracked_training\n"
        "ConfigStore.instance().store('config', {'units': 3, 'layers': [8, 4], 'optimizer': {'rate': 0.1},\n"
        "                                        'twice': '${optimizer.rate}'})\n"
        "@hydra.main(version_base=None, config_name='config')\n"
        "@tracked_training\n"
        "def train(cfg):\n"
        "    return {'result': cfg.units * cfg.twice}\n"
        "train()\n",
        MLWRAP_DELIVERY="off",
    )
    assert done.stderr == ""
    runs = sorted(
        (CapturedRun(folder) for folder in run_folders(spool)), key=lambda run: run.params["cfg.units"]
    )
    assert [run.status for run in runs] == ["FINISHED"] * 2
    assert runs[0].params == {
        "cfg.units": "4",
        "cfg.layers": "[8, 4]",
        "cfg.optimizer.rate": "0.5",
        "cfg.twice": "0.5",
    }
    assert [run.metrics["result"] for run in runs] == [[(0, 2.0)], [(0, 4.0)]]


# TensorFlow.


def test_tf_function(mlwrap_runs):
    """Inside the body, called from it, and below the decorator."""
    import tensorflow as tf  # noqa: PLC0415 - the other tests do without

    @tf.function
    def doubled(x):
        return x * 2

    @tracked_training
    def body(rate: float):
        @tf.function
        def step(x):
            return doubled(x) * rate

        return {"result": step(tf.constant(2.0))}

    @tracked_training
    @tf.function
    def graph(x):
        return {"result": x + 1}

    assert float(body(0.5)["result"]) == 2.0
    assert float(graph(tf.constant(2.0))["result"]) == 3.0
    assert [run.metrics["result"] for run in mlwrap_runs] == [[(0, 2.0)], [(0, 3.0)]]
    assert [run.name for run in mlwrap_runs] == ["body", "graph"]
    assert "float32" in mlwrap_runs[1].params["x"]


# Tests.


@pytest.fixture
def a_result(mlwrap_runs) -> dict[str, float]:
    """What a tracked training returned."""
    return train(units=7)


@pytest.fixture
@tracked_training(ignore="mlwrap_runs")
def a_fixture(mlwrap_runs, tmp_path: Path) -> dict[str, float]:
    """A training that is a fixture itself."""
    return {"result": 1.0}


def test_pytest_fixtures(a_result, a_fixture, mlwrap_runs):
    """A fixture may call one, or be one."""
    assert a_result == {"result": 0.007}
    assert a_fixture == {"result": 1.0}
    assert [run.name for run in mlwrap_runs] == ["train", "a_fixture"]


@tracked_training(ignore="mlwrap_runs")
def test_a_test_that_is_tracked_itself(mlwrap_runs):
    """Is collected, gets its fixtures, and is a run."""
    assert current_run().name == "test_a_test_that_is_tracked_itself"
    assert len(mlwrap_runs) == 1


def test_autospec():
    """A stand-in has the function's own signature when it is made of that."""
    fake = mock.create_autospec(train.__wrapped__, return_value=5)
    assert fake(4, learning_rate=0.5) == 5
    fake.assert_called_once_with(units=4, learning_rate=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'unit'"):
        fake(unit=4)
    assert mock.create_autospec(train, return_value=5)(4) == 5


def test_doctest_finds_the_examples(monkeypatch: pytest.MonkeyPatch, mlwrap_runs):
    """Of a tracked function and of a tracked method; and they run."""
    Path("doctested.py").write_text(
        "from mlwrap import tracked_training\n"
        "@tracked_training\n"
        "def train(units=3):\n"
        '    """Train.\n\n    >>> train(2)\n    4\n    """\n'
        "    return units * 2\n"
        "class Trainer:\n"
        "    @tracked_training\n"
        "    def train(self):\n"
        '        """Train.\n\n        >>> Trainer().train()\n        5\n        """\n'
        "        return 5\n"
    )
    monkeypatch.syspath_prepend(Path.cwd())
    module = importlib.import_module("doctested")
    monkeypatch.delitem(sys.modules, "doctested")
    found = {test.name: len(test.examples) for test in doctest.DocTestFinder(exclude_empty=True).find(module)}
    assert {name for name, examples in found.items() if examples} == {
        "doctested.train",
        "doctested.Trainer.train",
    }
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=2)
    assert len(mlwrap_runs) == 2


# Readers.


def test_signature_and_type_hints():
    """As of the function itself, also where annotations are texts."""
    plain = train.__wrapped__
    assert inspect.signature(train) == inspect.signature(plain)
    assert inspect.signature(train, eval_str=True).parameters["units"].annotation is int
    assert typing.get_type_hints(train) == {
        "units": int,
        "learning_rate": float,
        "loss": Literal["mse", "mae"],
        "return": dict[str, float],
    }
    assert inspect.getfullargspec(train) == inspect.getfullargspec(plain)
    assert inspect.unwrap(train) is plain
    assert inspect.getsource(train) == inspect.getsource(plain)
    assert inspect.getdoc(train).startswith("Train a model.")
    assert str(inspect.signature(Experiment().train)) == "(epochs: 'int' = 1) -> 'int'"


@pytest.mark.parametrize(
    ("thing", "signature"),
    [(train, "train(units: 'int' = 3"), (Experiment, "train(self, epochs: 'int' = 1)")],
    ids=["function", "class"],
)
def test_help(thing: object, signature: str):
    """The signature and the docstring."""
    text = pydoc.plain(pydoc.render_doc(thing))
    assert signature in text
    assert (thing.__doc__ or "").splitlines()[0] in text
