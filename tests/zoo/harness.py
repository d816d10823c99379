"""Train the zoo in one process, load and serve it in another, and say what came of each model."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.zoo.training import same

ROOT = Path(__file__).parents[2]
_TRAINING_SECONDS = 420
_TO_KEEP = ("checkpoint", "weights.npy")  # no model, and kept all the same


class Row(NamedTuple):
    """What became of one model.

    Attributes:
        family: The file that it is in.
        name: The model.
        stands_for: What published code it is like.
        forms: What is kept.
        with_code: How ``load_model`` gives it back where its code is.
        stock: What stock ``mlflow.pyfunc`` does with it where its code is not.
        http: What MLflow's server does with it.
        said: What was said when it was saved.
        gap: What is known not to work.
        trouble: What is wrong, for a test's message; not in the table.
    """

    family: str
    name: str
    stands_for: str
    forms: str
    with_code: str
    stock: str
    http: str
    said: list[str]
    gap: str
    trouble: str

    @property
    def is_whole(self) -> bool:
        """Whether it predicts the same everywhere, or is nothing that could predict and comes back."""
        if self.forms in _TO_KEEP:
            return self.with_code != "no"
        return self.stock == "yes" and self.http in ("yes", "as base64")


def environment() -> str:
    """The name of this environment, of those that the Makefile makes."""
    if importlib.util.find_spec("tensorflow_estimator") is not None:
        return "estimator"
    if importlib.util.find_spec("tensorflow") is not None:
        return "today"
    return "torch" if importlib.util.find_spec("torch") is not None else "jax"


def run(families: list[str], work: Path, store: Path) -> dict[str, Row]:
    """Train, load and serve the models of some families, half of them at a time beside the other half.

    Args:
        families: Names of files in ``models/``.
        work: An empty folder.
        store: An empty sqlite store of MLflow's.
    """
    halves = [half for half in (families[::2], families[1::2]) if half]
    folders = [work / str(number) for number in range(len(halves))]
    with ThreadPoolExecutor() as threads:
        found = threads.map(_run, halves, folders, [store] * len(halves))
        rows = {name: row for half in found for name, row in half.items()}
    return dict(sorted(rows.items(), key=lambda item: families.index(item[1].family)))


def _run(families: list[str], work: Path, store: Path) -> dict[str, Row]:
    work.mkdir()
    shutil.copy(store, work / "mlflow.db")
    backend = environment() if environment() in ("jax", "torch") else "tensorflow"
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MLWRAP_", "MLFLOW_"))},
        "MLFLOW_TRACKING_URI": f"sqlite:///{work / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLWRAP_SPOOL": str(work / "spool"),
        "MLWRAP_QUIET": "1",
        "MLWRAP_DELIVERY": "inline",
        "HOME": str(work),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_BACKEND": backend,
        "PYTHONWARNINGS": "ignore",
    }
    log = work / "training.log"
    with log.open("wb") as output:
        trained = subprocess.run(
            [sys.executable, "-m", "tests.zoo.training", str(work), *families],
            cwd=work,
            env={**variables, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
            timeout=_TRAINING_SECONDS,
            check=False,
        )
    assert trained.returncode == 0, log.read_text()[-5000:]
    rows = json.loads((work / "trained.json").read_text())
    with _served(work, variables) as address:
        loaded = json.loads((work / "loaded.json").read_text())
        return {name: _row(name, row, loaded.get(name, {}), address) for name, row in rows.items()}


@contextlib.contextmanager
def _served(work: Path, variables: dict[str, str]) -> Iterator[str]:
    """The program that serves, where none of the training's code can be imported; gives its address."""
    program = shutil.copy(Path(__file__).parent / "serving.py", work / "serving.py")
    log = work / "serving.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(program), str(work)],
            cwd=work,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, log.read_text()[-5000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _row(name: str, row: dict[str, Any], loaded: dict[str, Any], address: str) -> Row:
    trouble = [str(row.get("load_errors", "")), loaded.get("error", "")]
    expected, names = row["expected"], row["names"]
    if not row["pyfunc"]:
        stock = http = "no loader" if row["status"] == "READY" else "none"
    elif row["feed"] is None:
        stock = http = "loads" if loaded.get("loads") else "no"
    else:
        stock, http = "yes" if same(expected, loaded.get("predicted"), names) else "no", "no"
        trouble.append(f"expected {expected}, found {loaded.get('predicted')}" if stock == "no" else "")
        if loaded.get("loads"):
            answer = _asked(f"{address}{row['path']}/invocations", row["feed"])
            http = "yes" if same(expected, answer, names) else "no"
            http = "as base64" if http == "no" and same(expected, _decoded(answer), names) else http
            trouble.append(f"over HTTP: {answer}" if http == "no" else "")
    return Row(
        row["family"],
        name,
        row["stands_for"],
        ", ".join(row["forms"]) or "none",
        row.get("with_code", "none"),
        stock,
        http,
        [re.sub(r"\s+", " ", text) for text in row["said"]],
        row["gap"],
        "\n".join(filter(None, trouble)),
    )


def _decoded(answer: Any) -> Any:
    """Text that came as base64, as MLflow's server writes bytes."""
    if isinstance(answer, list):
        return [_decoded(part) for part in answer]
    with contextlib.suppress(ValueError, AttributeError):
        return base64.b64decode(answer.strip(), validate=True).decode()
    return answer


def _asked(url: str, feed: Any) -> Any:
    """What MLflow's server predicts, or what it says instead."""
    inputs = feed["values"] if "values" in feed else {name: part["values"] for name, part in feed.items()}
    body = json.dumps({"inputs": inputs}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["predictions"]
    except urllib.error.HTTPError as error:
        return error.read().decode()[-1500:]
