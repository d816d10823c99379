"""No call of a run's method ends the training, whatever it is called with."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from mlwrap import Run, model_run
from mlwrap.errors import Diverged, MlwrapWarning, OptionError, RunStateError
from mlwrap.keras import MetricsCallback

METHODS = sorted(
    name for name, method in inspect.getmembers(Run, inspect.isroutine) if not name.startswith("_")
)


def refuses(*_: Any, **__: Any) -> Any:
    """What a class that can't be asked anything does."""
    raise RuntimeError("not to be asked")


ASKED = "str repr bool iter len float int index hash eq contains getitem call fspath format enter bytes array"
Hostile = type("Hostile", (), {f"__{name}__": refuses for name in ASKED.split()})
RECURSIVE: dict[str, Any] = {}
RECURSIVE["again"] = [RECURSIVE]
DEEP: list[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]

ODD = [
    None,
    3,
    -1.5,
    math.nan,
    10**400,
    "text",
    "\0",
    "caf\udce9",
    "a/../..",
    b"bytes",
    [],
    ["a"],
    {},
    {"a": "b"},
    {1: 2},
]
ODD += [
    {"a": Hostile()},
    Hostile(),
    Hostile,
    object(),
    RECURSIVE,
    DEEP,
    np.zeros((3, 3)),
    np.array("text"),
    print,
    sys,
]
ODD += [
    set(),
    (1, 2),
    1j,
    itertools.count(),
    (n for n in ()),
    "x" * 100_000,
    type("Own", (str,), {"__str__": refuses})("a"),
]


def calls() -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Wrong in number, in name and in kind."""
    named = [{"step": odd} for odd in ODD[:12]] + [{"timestamp": odd} for odd in ODD[:12]] + [{"nobody": 1}]
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), {}), ((), {"self": 1}), ((1, 2, 3, 4, 5), {})]
    found += [((odd,), {}) for odd in ODD]
    found += [((odd, "a.txt"), {}) for odd in ODD]
    found += [(("a", odd), {}) for odd in ODD]
    found += [(({"a": 1.0},), keywords) for keywords in named]
    found += [(("a", 1.0), keywords) for keywords in named]
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", METHODS)
def test_any_call_of_a_run_is_survived(store: str, method: str):
    """Row 79. By number, name and kind of the arguments; the run goes on to its end."""
    with model_run("r", delivery="off") as run:
        for args, keywords in calls():
            result = getattr(run, method)(*args, **keywords)
            if method == "steps":
                assert all(isinstance(step, int) for step in itertools.islice(result, 3))
        run.log_metrics({"done": 1.0})
        assert run.status == "RUNNING"
    assert run.status == "FINISHED"


@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_call_is_said_with_what_was_expected(store: str, method: str, disabled: bool):
    """Where nothing is recorded, nothing is said of what would be recorded."""
    with (
        model_run("r", delivery="off", disabled=disabled) as run,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        getattr(run, method)(1, 2, 3, 4, 5, nobody=6)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, MlwrapWarning)]
    if disabled and method not in {"steps", "wait"}:
        assert not told
    else:
        (message,) = told
        assert message.startswith(f"run 'r': {method}() failed, and training goes on: TypeError: ")
        assert f" Expected: {method}(" in message


def test_a_run_with_wrong_calls_is_delivered(store: str):
    """MLflow has the run, FINISHED, with what was right in it."""
    with pytest.warns(MlwrapWarning) as caught, model_run("r", delivery="inline") as run:
        run.log_metrics("loss", 1)
        run.log_metric("loss")
        run.log_metric(name="named", value=3.0, step=2)
        run.log_metrics(metrics={"metrics": 4.0})
        run.log_params(["a"])
        run.set_tags(3)
        run.log_artifact(None)
        run.log_metric("x", "no number")
        run.log_metric([], 1.0)
    assert any("log_metrics(metrics, *, step=None, timestamp=None)" in str(w.message) for w in caught)
    logged = MlflowClient().get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics == {"named": 3.0, "metrics": 4.0}


def test_steps_that_are_no_number(store: str):
    """None is taken; where only the seconds are wrong, all are."""
    with model_run("r", delivery="off") as run:
        with pytest.warns(MlwrapWarning, match=r"steps\(\) failed"):
            assert list(run.steps("many")) == []
        with pytest.warns(MlwrapWarning, match="logs every second"):
            assert list(run.steps(3, every="day")) == [0, 1, 2]
        assert list(itertools.islice(run.steps(math.inf), 2)) == [3, 4]


def test_an_attribute_that_is_not_there(store: str):
    """Python's own error, with the nearest name."""
    with model_run("r", delivery="off") as run:
        with pytest.raises(AttributeError, match=r"no attribute 'log_metrc'. Did you mean: 'log_metric'\?"):
            run.log_metrc("loss", 1)
        with pytest.raises(AttributeError, match=r"no attribute 'xyz'$"):
            run.xyz  # noqa: B018 - it is asked for
        assert getattr(run, "log_everything_at_once", None) is None
        assert not hasattr(run, "_nothing")


def test_what_must_end_the_training_does(store: str):
    """An interrupt, and what the user asked for; after its end a run says that it has ended."""
    interrupts = type("Interrupts", (), {"__str__": lambda self: (_ for _ in ()).throw(KeyboardInterrupt)})
    with model_run("r", delivery="off", nonfinite="stop") as run:
        with pytest.raises(KeyboardInterrupt):
            run.set_tags({"a": interrupts()})
        with pytest.raises(Diverged):
            run.log_metric("loss", math.nan)
    with pytest.raises(RunStateError, match="has ended"):
        run.log_metric("loss", 1.0)


def test_a_hook_that_shows_warnings_and_fails(store: str, monkeypatch: pytest.MonkeyPatch, capsys):
    """What is to be said goes to standard error."""
    monkeypatch.setattr(warnings, "showwarning", refuses)
    with warnings.catch_warnings(), model_run("r", delivery="off") as run:
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "_showwarnmsg_impl", refuses)
        monkeypatch.setattr(warnings, "showwarning", refuses)
        run.log_metrics("loss")
    assert "log_metrics() failed" in capsys.readouterr().err


@pytest.mark.parametrize("run", ["r", 3])
def test_a_callback_is_given_a_run(run: Any):
    """Before the training, and not in it."""
    with pytest.raises(OptionError, match="expected a run"):
        MetricsCallback(run)
    with pytest.raises(OptionError, match="every='often'"):
        MetricsCallback(every="often")
