"""``load_model``: gives back what was saved, by the saver that wrote it."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlwrap._process.mlflow_settings import destination
from mlwrap._recording.logged_model import LoggedModel
from mlwrap._run.known import calls_to_load, the_model
from mlwrap._run.run import Run
from mlwrap._savers import registry
from mlwrap._savers.saver import Saver
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
    """Give back a model that mlwrap logged.

    Its files are compared with the SHA-256 manifest that was logged with them before anything opens one.
    Where they are not on this machine a copy is kept in the user's cache folder (``cache_size``).

    Args:
        uri: ``models:/<model id>``, ``models:/<name>/<version>``, ``models:/<name>@<alias>``,
            ``runs:/<run id>/<model name>``, the folder of a logged model, or what a run logged (a
            :class:`LoggedModel`). A :class:`Run` or a run's id stands for the model that ``run.model_uri``
            means; where that is several, one has to be named. Of several with one name
            ``runs:/<run id>/<model name>@<step>`` is that of a step, else it is the last one. ``None``, which
            a run's ``model_uri`` may be, names none.
        into: For a ``tf.train.Checkpoint``: the one to restore into. For a manager's checkpoints and an
            Estimator's: the path of a new folder that they are copied into, for training to go on there.
        trust: Whether code that came with the model may run (a Lambda layer's, a pickle's), and modules that
            register its classes may be imported though they are of no installed package; and whether a
            SavedModel may write, read, run and connect.
        tracking_uri: Where MLflow is, as for :func:`mlwrap.model_run`; for a ``Run`` by default where
            that is.

    Returns:
        A Keras model of the package that made it; what ``tf.saved_model.load`` gives; ``into``, restored;
        or, for an Estimator, the ``pathlib.Path`` of a folder to use as ``model_dir`` or ``warm_start_from``.

    Raises:
        LoadError: There is no such model, its files are not those that were logged, or it can't be loaded
            here: what to do is in the message.
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
        saver = _reader(uri, files.saver, files.saver_format)
        registry.import_needed(saver, files.folder, files.modules, files.details, trust=trust)
        loaded = registry.load(saver, files.folder, files.details, into=into, trust=trust)
    except BaseException:
        files.release()
        raise
    # Some read their files later (assets, variables that are yet to be made), and a path is nothing else.
    if not isinstance(loaded, Path) and loaded is not into:
        try:
            weakref.finalize(loaded, files.release).atexit = False
        except TypeError:  # it takes no weak references, so that its end is that of the process
            return loaded
    return loaded


def find_files(uri: str, tracking_uri: str | None) -> ModelFiles:
    """A logged model's files on this machine, whole; :func:`load_model` says what is raised."""
    from mlwrap._loading.find_model import find_model  # noqa: PLC0415 - loads MLflow

    chosen = settings(tracking_uri=tracking_uri)
    return find_model(uri, destination(chosen).tracking_uri, int(chosen.cache_size * _GIGABYTE))


def _reader(uri: object, name: str, layout: int) -> Saver:
    saver = registry.by_name(name)
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
