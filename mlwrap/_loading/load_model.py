"""``load_model``: load a model with the saver that wrote it."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlwrap._process.mlflow_settings import destination
from mlwrap._recording.logged_model import LoggedModel
from mlwrap._run.run import Run
from mlwrap._run.run_info import calls_to_load, the_model
from mlwrap._savers import saver_registry
from mlwrap._savers.saver_interface import Saver
from mlwrap.config import settings
from mlwrap.errors import LoadError

if TYPE_CHECKING:
    from mlwrap._loading.find_model import ModelFiles

_GIGABYTE = 1_000_000_000


def load_model(
    uri: str | os.PathLike[str] | Run | LoggedModel | None,
    *,
    into: Any = None,
    trust: bool = False,
    tracking_uri: str | None = None,
) -> Any:
    """Load a model that mlwrap logged.

    Before any file is opened, all are compared with the SHA-256 manifest that was logged with them. If they
    are not on this machine, a copy is kept in the user's cache folder (``cache_size``).

    Args:
        uri: ``models:/<model id>``, ``models:/<name>/<version>``, ``models:/<name>@<alias>``,
            ``runs:/<run id>/<model name>``, the folder of a logged model, or a :class:`LoggedModel` of a
            run. A :class:`Run` or a run's id stands for the model of ``run.model_uri``; if the run has
            several, name one. Of several models with one name ``runs:/<run id>/<model name>`` is the last
            one, and ``runs:/<run id>/<model name>@<step>`` that of a step. ``None``, a possible value of a
            run's ``model_uri``, is an error.
        into: For a ``tf.train.Checkpoint``: the checkpoint to restore into. For the checkpoints of a manager
            or an Estimator: the path of a new folder to copy them into, for resuming the training there.
        trust: Whether to run code that came with the model (of a Lambda layer or a pickle), to import
            modules that register its classes but belong to no installed package, and to let a SavedModel
            write, read, run and connect.
        tracking_uri: URI of MLflow, as for :func:`mlwrap.model_run`; for a ``Run`` its own by default.

    Returns:
        A Keras model of the package that made it; what ``tf.saved_model.load`` returns; ``into``, restored;
        or, for an Estimator, the ``pathlib.Path`` of a folder to use as ``model_dir`` or ``warm_start_from``.

    Raises:
        LoadError: No such model exists, its files differ from the logged ones, or it can't be loaded here:
            the message says what to do.
        Unreachable: MLflow did not answer.
    """
    if isinstance(uri, Run):
        tracking_uri = tracking_uri or uri.tracking_uri or None
        uri = _uri_of_run(uri)
    elif isinstance(uri, LoggedModel):
        uri = _uri(uri)
    elif uri is None:
        raise LoadError(
            "None names no model: a run's model_uri is None until MLflow has a model of it. "
            "load_model(run) says what became of it."
        )
    files = find_files(os.fspath(uri), tracking_uri)
    try:
        saver = _saver_for(uri, files.saver, files.saver_format)
        saver_registry.import_needed(saver, files.folder, files.modules, files.details, trust=trust)
        loaded = saver_registry.load(saver, files.folder, files.details, into=into, trust=trust)
    except BaseException:
        files.release()
        raise
    # Some loaded models read their files later (assets, lazily built variables), and a path is its files.
    if not isinstance(loaded, Path) and loaded is not into:
        try:
            weakref.finalize(loaded, files.release).atexit = False
        except TypeError:  # it takes no weak references, so the copy is in use until the process ends
            return loaded
    return loaded


def find_files(uri: str, tracking_uri: str | None) -> ModelFiles:
    """Return a logged model's verified files on this machine; :func:`load_model` lists what is raised."""
    from mlwrap._loading.find_model import find_model  # noqa: PLC0415 - loads MLflow

    chosen = settings(tracking_uri=tracking_uri)
    return find_model(uri, destination(chosen).tracking_uri, int(chosen.cache_size * _GIGABYTE))


def _saver_for(uri: object, name: str, layout: int) -> Saver:
    saver = saver_registry.by_name(name)
    if layout > saver.format:
        raise LoadError(
            f"{uri} was written in format {layout} of the saver {name!r}, and this mlwrap reads up to "
            f"{saver.format}. Upgrade mlwrap."
        )
    return saver


def _uri_of_run(run: Run) -> str:
    model = the_model(run)
    if model is not None and model.status != "FAILED":
        return _uri(model)
    others = [other for other in run.models if other.status != "FAILED"]
    if model is None or not others:
        failed = ", ".join(other.label for other in run.models)
        raise LoadError(
            f"run {run.name!r} logged no model" + (f" that could be saved ({failed})." if failed else ".")
        )
    raise LoadError(
        f"the model {model.name!r} of run {run.name!r} could not be saved, so there is nothing to load. The "
        f"run has another one: {calls_to_load(run, others)}."
    )


def _uri(model: LoggedModel) -> str:
    if model.status == "FAILED":
        raise LoadError(f"the model {model.name!r} could not be saved, so there is nothing to load.")
    if model.uri is None:
        raise LoadError(
            f"MLflow does not have the model {model.name!r} yet: its run is still open, or waits in the "
            "spool, where 'mlwrap status' shows it and 'mlwrap sync' delivers it."
        )
    return model.uri
