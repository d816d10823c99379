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

from mlwrap._journal.progress import Progress
from mlwrap._journal.tags import TagName
from mlwrap._journal.uri_passwords import mask_passwords, with_password
from mlwrap._mlflow.client import Client

_LIMIT_SECONDS = 300
_OK = "ok"
_MAX_TAG_LENGTH = 5000  # characters of a tag


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
            client.tag_model(model.model_id, {TagName.VERIFIED: verdict})
            model.verified = verdict
            if not verdict.startswith(_OK):
                model.troubles.append(f"it is logged, and does not pass its verification: {verdict}")
            save()


def _verdict(uri: str, tracking_uri: str, alive: Callable[[], None]) -> str:
    """What ``mlwrap verify`` says of a model, in a process that finds its modules where this one does."""
    source = f"import sys; sys.path[:] = {sys.path!r}; from mlwrap._cli.commands import main; main()"
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
        why = mask_passwords(errors).rpartition("mlwrap: ")[2].strip()
        return (why or f"exit status {process.returncode}")[:_MAX_TAG_LENGTH]
