"""``mlwrap run``: a function's parameters are the options of a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest

from mlwrap._cli import commands
from mlwrap._spool.spool import run_folders
from mlwrap.testing import CapturedRun

TRAINING = '''
from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mlwrap import Secret, current_run, tracked_training

if TYPE_CHECKING:
    import numpy as np

got = {}


class Optimizer(enum.Enum):
    ADAM = 1
    SGD = 2


@dataclasses.dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        batch: How many examples in a step.
    """

    batch: int = 32
    shuffle: bool = True


@tracked_training(experiment="digits")
def train(
    *,
    units: int,
    learning_rate: float = 1e-3,
    layers: list[int] = [8, 4],
    loss: Literal["mse", "mae"] = "mse",
    optimizer: Optimizer = Optimizer.ADAM,
    data: Data = Data(),
    log: Path | None = None,
    early_stopping: bool = True,
    api_key: str = "",
    images: np.ndarray | None = None,
    activation: Callable[[float], float] = abs,
    **more: float,
) -> np.ndarray:
    """Train a classifier of digits.

    Args:
        units: Width of the hidden layer.
        learning_rate: Size of a step.
    """
    got.update(locals())
    return {"accuracy": 0.5}


def plain(units: int, /, epochs=3, *layers: int):
    """Nothing tracks this one by itself."""
    got.update(locals())


def untyped(epochs=3, *layers, seed: int = None, **more):
    got.update(locals())


def fails(epochs: int = 1):
    raise ValueError("the loss is on fire")


def waits():
    current_run().log_metric("loss", 0.5)
    print("ready", flush=True)
    time.sleep(60)


def needs(units: int, images: np.ndarray, activation: Callable[[float], float], labels):
    raise AssertionError


class Trainer:
    @tracked_training
    @staticmethod
    def train(units: int = 3):
        got.update(locals())


def generator():
    yield 1


def in_a_thread(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await asyncio.to_thread(function, *args, **kwargs)

    return wrapper


threaded = in_a_thread(train)
cached = functools.lru_cache(train)
tracked_elsewhere = functools.partial(train, units=5)
number = 3
'''


class Done(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def package() -> Path:
    """A package in the working folder."""
    folder = Path("digits_pkg")
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "training.py").write_text(TRAINING)
    return folder


@pytest.fixture
def shell(package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator:
    """Run ``mlwrap run`` in this process; what it imports is forgotten after the test."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    known = set(sys.modules)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["mlwrap", "run", *arguments])
        with pytest.raises(SystemExit) as end:
            commands.main()
        return Done(end.value.code or 0, *capsys.readouterr())

    yield run
    for name in set(sys.modules) - known:
        if name.split(".")[0] in {"digits_pkg", "digits_file", "digits_neighbour"}:
            del sys.modules[name]


def got() -> dict:
    """The arguments that the function got."""
    return sys.modules["digits_pkg.training"].got


def command(*arguments: str, **options) -> subprocess.Popen[str]:
    """The command in a process of its own, whose runs stay in the spool."""
    return subprocess.Popen(
        [sys.executable, "-m", "mlwrap", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"env": {**os.environ, "MLWRAP_DELIVERY": "off"}} | options,
    )


def captured(spool: Path) -> CapturedRun:
    """The one run in a spool."""
    (folder,) = run_folders(spool)
    return CapturedRun(folder)


def all_runs(store: str) -> list[mlflow.entities.Run]:
    """What MLflow has, however it is called."""
    client = mlflow.MlflowClient(store)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_a_function_from_a_shell(package: Path, spool: Path):
    """The working folder's module, the options' types, the command line as a tag without its secrets."""
    canary = "canary-7f3a9c51d2"
    process = command(
        "digits_pkg.training:train", "--units", "3", "--learning-rate", "3e-4", "--api-key", canary
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    run = captured(spool)
    assert (run.name, run.status) == ("train", "FINISHED")
    assert run.params["units"] == "3"
    assert run.params["learning_rate"] == "0.0003"
    assert run.params["data.batch"] == "32"
    assert run.metrics["accuracy"] == [(0, 0.5)]
    assert run.tags["mlwrap.argv"].endswith(
        " run digits_pkg.training:train --units 3 --learning-rate 3e-4 --api-key [redacted]"
    )
    assert run.tags["mlflow.source.name"] == str((package / "training.py").resolve())
    assert run.tags["mlwrap.function"] == "digits_pkg.training:train"
    written = b"".join(file.read_bytes() for file in spool.rglob("*") if file.is_file())
    assert canary.encode() not in written


def test_a_function_that_calls_mlflow_logs_to_its_run(store: str):
    """The command imports MLflow before the function's module does."""
    Path("job.py").write_text(
        "import mlflow, mlwrap\n@mlwrap.tracked_training\ndef train():\n    mlflow.log_metric('loss', 0.5)\n"
    )
    process = command("job.py:train", env=dict(os.environ))
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    (run,) = all_runs(store)
    assert (run.info.run_name, run.data.metrics) == ("train", {"loss": 0.5})


def test_an_exception_is_the_users_own(package: Path, spool: Path):
    """Its traceback begins in the user's code; exit status 1, and the run is FAILED."""
    process = command("digits_pkg.training:fails")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    first, second, *_, last = err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert second.endswith("in fails")
    assert last == "ValueError: the loss is on fire"
    assert (captured(spool).status, captured(spool).error) == ("FAILED", "ValueError: the loss is on fire")


def test_ctrl_c(package: Path, spool: Path):
    """Exit status 130, no traceback, and the run is KILLED with what it had logged."""
    process = command("digits_pkg.training:waits")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    run = captured(spool)
    assert (run.status, run.metrics) == ("KILLED", {"loss": [(0, 0.5)]})


def test_types_and_defaults_are_the_signatures(shell, mlwrap_runs):
    """What was not given is the default, the very object where it can't be written."""
    done = shell(
        *("digits_pkg.training:train", "--units", "64", "--layers", "32", "16", "8", "--loss", "mae"),
        *(
            "--optimizer",
            "SGD",
            "--data.batch",
            "16",
            "--data.no-shuffle",
            "--log",
            "logs",
            "--no-early-stopping",
        ),
        *("--more", "dropout", "0.5"),
    )
    assert done == (0, "", "")
    training = sys.modules["digits_pkg.training"]
    assert got() == {
        "units": 64,
        "learning_rate": 1e-3,
        "layers": [32, 16, 8],
        "loss": "mae",
        "optimizer": training.Optimizer.SGD,
        "data": training.Data(16, shuffle=False),
        "log": Path("logs"),
        "early_stopping": False,
        "api_key": "",
        "images": None,
        "activation": abs,
        "more": {"dropout": 0.5},
    }
    (run,) = mlwrap_runs
    assert run.params["data.batch"] == "16"
    assert run.params["dropout"] == "0.5"


def test_a_function_that_is_not_decorated(shell, mlwrap_runs):
    """Is tracked as if it were; what has no name in a call has none on the command line."""
    assert shell("digits_pkg.training:plain", "64", "--epochs", "5", "--layers", "32", "16") == (0, "", "")
    assert got() == {"units": 64, "epochs": 5, "layers": (32, 16)}
    (run,) = mlwrap_runs
    assert (run.name, run.params) == ("plain", {"units": "64", "epochs": "5", "layers": "[32, 16]"})


def test_what_has_no_type(shell, mlwrap_runs):
    """Has that of its default; without one, and where it can be left out, it is."""
    assert shell("digits_pkg.training:untyped", "--epochs", "5") == (0, "", "")
    assert got() == {"epochs": 5, "layers": (), "seed": None, "more": {}}


def test_help(shell, mlwrap_runs):
    """The docstring, the parameters with what it says of them, the defaults; nothing runs."""
    code, out, err = shell("digits_pkg.training:train", "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: mlwrap run digits_pkg.training:train")
    for text in (
        "Train a classifier of digits.",
        "Width of the hidden layer. (required)",
        "Size of a step. (default: 0.001)",
        "{mse,mae}",
        "{ADAM,SGD}",
        "How many examples in a step. (default: 32)",
    ):
        assert text in out
    assert len(mlwrap_runs) == 0
    assert "--experiment" in shell("--help").out


def test_a_method_and_what_other_decorators_made(shell, mlwrap_runs):
    """One run a call, wherever in the stack the tracking is, and the name that it was given."""
    assert shell("--name", "static", "digits_pkg.training:Trainer.train", "--units", "5").code == 0
    assert got() == {"units": 5}
    assert shell("--name", "partial", "digits_pkg.training:tracked_elsewhere", "--loss", "mae").code == 0
    assert [run.name for run in mlwrap_runs] == ["static", "partial"]
    assert mlwrap_runs[1].params["loss"] == "mae"


def test_a_coroutine_is_run(shell, mlwrap_runs):
    """Calling it alone would train nothing."""
    assert shell("--name", "threaded", "digits_pkg.training:threaded", "--units", "5") == (0, "", "")
    (run,) = mlwrap_runs
    assert (run.name, run.status, run.params["units"]) == ("threaded", "FINISHED", "5")


def test_the_commands_own_options_go_first(shell, store: str):
    """Before those of the decorator; and they end with the call."""
    assert (
        shell("--experiment", "other", "--name", "named", "digits_pkg.training:train", "--units", "1").code
        == 0
    )
    sys.modules["digits_pkg.training"].train(units=2)
    found = [
        (mlflow.get_experiment(r.info.experiment_id).name, r.data.params["units"]) for r in all_runs(store)
    ]
    assert sorted(found) == [("digits", "2"), ("other", "1")]


def test_a_file(shell, mlwrap_runs):
    """By its path; what lies beside it can be imported, as by ``python path/to/file.py``."""
    folder = Path("elsewhere")
    folder.mkdir()
    (folder / "digits_neighbour.py").write_text("units = 3\n")
    (folder / "digits_file.py").write_text(
        "import digits_neighbour\n"
        "def train(units: int = digits_neighbour.units):\n"
        "    import pickle\n"
        "    assert pickle.loads(pickle.dumps(helper)) is helper\n"
        "def helper(): ...\n"
    )
    assert shell("elsewhere/digits_file.py:train", "--units", "4") == (0, "", "")
    (run,) = mlwrap_runs
    assert run.params == {"units": "4"}
    assert run.tags["mlflow.source.name"] == str((folder / "digits_file.py").resolve())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing:train"], "there is no module 'nothing', in {here} or installed"),
        (["digits_pkg.nothing:train"], "there is no module 'digits_pkg.nothing'"),
        (["digits_pkg..training:train"], "there is no module 'digits_pkg."),
        ([".training:train"], "'.training' is no name of a module"),
        (["nothing.py:train"], "there is no file 'nothing.py' in {here}"),
        (["json.py:train"], "'json.py' has the name of another module, 'json'"),
        (
            ["digits_pkg.training"],
            "'digits_pkg.training' names no function: expected package.module:function",
        ),
        (["digits_pkg.training:nothing"], "has no 'nothing'. It defines: train, plain, untyped, fails"),
        (["digits_pkg.training:number"], "digits_pkg.training:number is int and no function"),
        (["digits_pkg.training:generator"], "generator is a generator"),
        (["digits_pkg.training:Optimizer"], "decorates a training function"),
        (
            ["digits_pkg.training:needs"],
            "no text can become its images, activation (collections.abc.Callable[[float], float]), labels.",
        ),
        (["digits_pkg.training:train"], "--units INT"),
        (["digits_pkg.training:train", "--unit", "3"], "Unrecognized options"),
        (["digits_pkg.training:train", "--units", "many"], "Error parsing --units: invalid literal"),
        (["digits_pkg.training:train", "--units", "3", "--loss", "hinge"], "hinge"),
        (["--experimnt", "x", "digits_pkg.training:train"], "--experimnt"),
        ([], "Missing argument 'TARGET'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_before_anything_runs(shell, mlwrap_runs, arguments: list[str], words: str):
    """A sentence, exit status 2, and no run."""
    Path("json.py").touch()
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert words.format(here=Path.cwd()) in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert len(mlwrap_runs) == 0


def test_a_module_that_breaks_is_the_users_own(shell, package: Path):
    """What it can't import is no wrong target: its traceback, and exit status 1."""
    (package / "broken.py").write_text("import surely_not_there\n")
    code, _, err = shell("digits_pkg.broken:train")
    assert code == 1
    traceback, place, *_, last = err.splitlines()
    assert traceback == "Traceback (most recent call last):"
    assert place.endswith('broken.py", line 1, in <module>')
    assert last == "ModuleNotFoundError: No module named 'surely_not_there'"


def test_what_mlwrap_raises_is_a_sentence(shell, monkeypatch: pytest.MonkeyPatch):
    """A spool that can't be written is no bug of the training's."""
    Path("file").touch()
    monkeypatch.setenv("MLWRAP_SPOOL", "file/spool")
    code, _, err = shell("digits_pkg.training:plain", "1")
    assert code == 1
    assert err.startswith("mlwrap: ")
    assert "MLWRAP_SPOOL" in err


def test_no_other_command_loads_the_parser(python):
    """It takes a fifth of a second, and reads no signature there."""
    assert (
        python("import sys, mlwrap._cli.commands\nprint({'tyro', 'mlflow'} & set(sys.modules))\n").stdout
        == "set()\n"
    )
