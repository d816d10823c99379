"""Who asks for system metrics, and what the sender is told of it."""

from __future__ import annotations

import threading

import mlflow
import pytest

from mlwrap import model_run
from mlwrap._journal.records import SystemMetrics
from mlwrap._process.system_metrics_settings import system_metrics
from mlwrap.config import settings
from mlwrap.errors import MlwrapWarning, OptionError
from mlwrap.testing import capture_runs

ASK = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


@pytest.fixture(autouse=True)
def _by_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLWRAP_DELIVERY", "sender")


@pytest.mark.parametrize(
    ("variables", "option", "expected"),
    [
        ({}, None, False),
        ({}, True, True),
        ({"MLWRAP_SYSTEM_METRICS": "on"}, None, True),
        ({"MLWRAP_SYSTEM_METRICS": "1"}, False, False),
        ({ASK: "true"}, None, True),
        ({ASK: "1"}, None, True),
        ({ASK: "false"}, None, False),
        ({ASK: "true"}, False, False),
        ({ASK: "true", "MLWRAP_SYSTEM_METRICS": "no"}, None, False),
    ],
)
def test_who_asks(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], option, expected: bool):
    """What mlwrap was told goes before what MLflow was told."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = system_metrics(settings(system_metrics=option))
    assert found == (SystemMetrics() if expected else None)


def test_mlflows_own_functions(monkeypatch: pytest.MonkeyPatch):
    """They count, too: MLflow leaves what they say in the environment."""
    for name in (
        ASK,
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL",
        "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING",
    ):
        monkeypatch.setenv(name, "0")  # so that they are as before afterwards
    mlflow.enable_system_metrics_logging()
    assert system_metrics(settings()) == SystemMetrics(interval=10.0, samples=1)
    mlflow.set_system_metrics_sampling_interval(2.5)
    mlflow.set_system_metrics_samples_before_logging(4)
    assert system_metrics(settings()) == SystemMetrics(interval=2.5, samples=4)


def test_a_node_is_renamed_as_a_metric_is(monkeypatch: pytest.MonkeyPatch):
    """For it stands within their names."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "0")
    assert system_metrics(settings(system_metrics=True)).node == "0"
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "a#b")
    assert "#" not in system_metrics(settings(system_metrics=True)).node


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "often"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "-1"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "nan"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1.5"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "-2"),
    ],
)
def test_a_variable_that_can_not_be_used(monkeypatch: pytest.MonkeyPatch, variable: str, text: str):
    """Is named before the training begins; nobody minds it who did not ask."""
    monkeypatch.setenv(variable, text)
    assert system_metrics(settings()) is None
    with (
        pytest.raises(OptionError, match=f"{variable}='{text}' can't be used: "),
        model_run("r", system_metrics=True),
    ):
        raise AssertionError


def test_without_a_sender_there_are_none():
    """And whoever asked for them is told."""
    with pytest.warns(MlwrapWarning, match="delivery='inline'.*no system metrics"):
        assert system_metrics(settings(delivery="inline", system_metrics=True)) is None


def test_captured_runs_say_nothing_of_it():
    """Tests of a training are not about the machine."""
    with capture_runs() as runs, model_run("r", system_metrics=True):
        pass
    assert runs[0].status == "FINISHED"


def test_mlflow_does_not_watch_as_well(store: str, monkeypatch: pytest.MonkeyPatch):
    """Where our run is made MLflow's active one, for the body's own calls."""
    monkeypatch.setenv(ASK, "true")
    context = model_run("r", delivery="inline")
    with pytest.warns(MlwrapWarning, match="no system metrics"):
        run = context.__enter__()
    assert mlflow.active_run().info.run_id == run.run_id
    assert not [thread for thread in threading.enumerate() if "SystemMetrics" in thread.name]
    context.__exit__(None, None, None)
