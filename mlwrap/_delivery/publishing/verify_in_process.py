"""Verify logged models for ``verify="load"``: load each in a fresh process, and tag it with the result.

A separate process is needed because delivery never imports a framework, and because only a process without
the training's objects in memory shows that a model can be loaded elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from mlwrap._journal.progress import Progress
from mlwrap._journal.tags import TagName
from mlwrap._journal.uri_passwords import mask_passwords, with_password
from mlwrap._mlflow.client import Client

_LIMIT_SECONDS = 300
_OK = "ok"
_MAX_TAG_LENGTH = 5000  # characters of a tag


def verify_models(client: Client, progress: Progress, save: Callable[[], None]) -> None:
    """Load each model whose verification was requested and not done yet, and tag it with the result.

    Args:
        client: The client of the MLflow that has the models.
        progress: The progress of the run's delivery; updated here, each second as a sign of life.
        save: Saves ``progress``.
    """

    def alive() -> None:
        progress.seconds += 1
        save()

    for model in progress.models.values():
        if model.status == "READY" and model.verified == "" and model.model_id:
            verdict = _verdict(f"models:/{model.model_id}", client.tracking_uri, model.search_path, alive)
            client.tag_model(model.model_id, {TagName.VERIFIED: verdict})
            model.verified = verdict
            if not verdict.startswith(_OK):
                model.troubles.append(f"it is logged, and does not pass its verification: {verdict}")
            save()


def _verdict(uri: str, tracking_uri: str, search_path: Sequence[str], alive: Callable[[], None]) -> str:
    """Return the result of ``mlwrap verify`` in a new process with the training's module search path."""
    path = list(dict.fromkeys([*search_path, *sys.path]))
    source = f"import sys; sys.path[:] = {path!r}; from mlwrap._cli.commands import main; main()"
    process = subprocess.Popen(  # noqa: S603 - this very interpreter
        # The model was saved here a moment ago, so it is trusted; the verdict says if that was needed.
        [sys.executable, "-c", source, "verify", uri, "--trust", "--tracking-uri", tracking_uri],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        # The training may use all of the GPU's memory.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
        | {"MLFLOW_TRACKING_URI": with_password(tracking_uri)},
    )
    until = time.monotonic() + _LIMIT_SECONDS
    while True:
        try:
            output, errors = process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:
            alive()
            if time.monotonic() < until:
                continue
            process.kill()
            process.communicate()
            return f"it was not loaded within {_LIMIT_SECONDS} s"
        except BaseException:  # Ctrl-C, if this is the training's process
            process.kill()
            process.communicate()
            raise
        if process.returncode == 0:
            return output.strip().rpartition("\n")[2] or _OK
        why = mask_passwords(errors).rpartition("mlwrap: ")[2].strip()
        return (why or f"exit status {process.returncode}")[:_MAX_TAG_LENGTH]
