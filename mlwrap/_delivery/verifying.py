"""``verify="load"``: a fresh process loads what was logged, and MLflow is told what came of it.

It is a process of its own because it imports frameworks, which delivery never does, and because a model is
found to load only where nothing is in memory that its training has put there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.models import Model as MLmodel

from mlwrap._delivery.client import Client
from mlwrap._journal import Progress
from mlwrap._passwords import hidden, with_password
from mlwrap._shipped_loader import is_shipped
from mlwrap.errors import LoadError

_LIMIT_SECONDS = 300
_OK = "ok"
_MOST = 5000  # characters of a tag
_PICKLES = (".cloudpickle", ".pickle", ".pkl", ".pth")
_KERAS = ("keras", "tf_keras", "tensorflow.keras")


def verify_models(client: Client, progress: Progress, save: Callable[[], None]) -> None:
    """Load each model that was to be verified and was not yet; tag it with what came of it.

    Args:
        client: Where MLflow is.
        progress: How far the run's delivery got; brought up to date here, each second as a sign of life.
        save: Writes ``progress`` down.
    """

    def alive() -> None:
        progress.seconds += 1
        save()

    for model in progress.models.values():
        if model.status == "READY" and model.verified == "" and model.model_id:
            verdict = _verdict(f"models:/{model.model_id}", client.tracking_uri, alive)
            client.tag_model(model.model_id, {"mlwrap.verified": verdict})
            model.verified = verdict
            if not verdict.startswith(_OK):
                model.troubles.append(f"it is logged, and does not pass its verification: {verdict}")
            save()


def _verdict(uri: str, tracking_uri: str, alive: Callable[[], None]) -> str:
    """What ``mlwrap verify`` says of a model, in a process that finds its modules where this one does."""
    source = f"import sys; sys.path[:] = {sys.path!r}; from mlwrap.cli import main; main()"
    process = subprocess.Popen(  # noqa: S603 - this very interpreter
        # What was saved here, a moment ago, is trusted; the verdict says where that was needed.
        [sys.executable, "-c", source, "verify", uri, "--trust", "--tracking-uri", tracking_uri],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        # The training may hold all of a GPU's memory.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
        | {"MLFLOW_TRACKING_URI": with_password(tracking_uri)},
    )
    until = time.monotonic() + _LIMIT_SECONDS
    while True:
        try:
            said, errors = process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:
            alive()
            if time.monotonic() < until:
                continue
            process.kill()
            process.communicate()
            return f"it was not loaded within {_LIMIT_SECONDS} s"
        except BaseException:  # Ctrl-C, where this is the training's process
            process.kill()
            process.communicate()
            raise
        if process.returncode == 0:
            return said.strip().rpartition("\n")[2] or _OK
        why = hidden(errors).rpartition("mlwrap: ")[2].strip()
        return (why or f"exit status {process.returncode}")[:_MOST]


def _require_plain(folder: Path) -> None:
    """See that stock MLflow runs nothing that came with a model, whose description it trusts.

    Raises:
        LoadError: The description names code, or another loader than MLflow's own, or there is a pickle.
    """
    flavors = MLmodel.load(str(folder)).flavors
    pyfunc = flavors.get(mlflow.pyfunc.FLAVOR_NAME, {})
    why, known = None, is_shipped(folder, pyfunc)
    others = [config for config in flavors.values() if isinstance(config, dict) and config is not pyfunc]
    if any(config.get("code") for config in (others if known else [*others, pyfunc])):
        why = "it brings code of its own"
    elif not known and not str(pyfunc.get("loader_module", "mlflow.")).startswith("mlflow."):
        why = f"it is to be loaded by {pyfunc['loader_module']}, which is not MLflow's"
    elif pickles := sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES):
        why = f"{pickles[0]} in it is a pickle"
    else:
        for file in folder.rglob("keras_module.txt"):
            if (package := file.read_text(errors="replace").strip()) not in _KERAS:
                why = f"it is to be loaded by {package!r}, which is no Keras"
    if why is not None:
        raise LoadError(
            f"Stock MLflow was not asked to load this model: {why}. Pass --trust only if you trust where "
            "it comes from."
        )


def stock_predict(folder: Path, value: Any, *, trust: bool) -> Any:
    """What MLflow's own generic loader predicts for an example; ``None`` where it has no loader for it.

    Args:
        folder: The model's files.
        value: The example, or ``None`` to load the model and no more.
        trust: Whether code may run that came with the model.

    Raises:
        LoadError: It would run code that came with the model, without ``trust``.
        Exception: Whatever the loader or the model raises.
    """
    if mlflow.pyfunc.FLAVOR_NAME not in MLmodel.load(str(folder)).flavors:
        return None
    if not trust:
        _require_plain(folder)
    model = mlflow.pyfunc.load_model(str(folder))
    return None if value is None else model.predict(value)
