"""``load_model``: gives back what was saved, by the saver that wrote it."""

from __future__ import annotations

import os
from typing import Any

from mlwrap import savers
from mlwrap._capture import destination
from mlwrap._delivery import find_model
from mlwrap.config import settings
from mlwrap.errors import LoadError


def load_model(
    uri: str | os.PathLike[str], *, into: Any = None, trust: bool = False, tracking_uri: str | None = None
) -> Any:
    """Give back a model that mlwrap logged.

    Args:
        uri: ``models:/<model id>``, ``models:/<name>/<version>``, ``models:/<name>@<alias>``,
            ``runs:/<run id>/<model name>``, or the folder of a logged model.
        into: For a ``tf.train.Checkpoint``: the one to restore into. For a manager's checkpoints and an
            Estimator's: the path of a new folder that they are copied into, for training to go on there.
        trust: Whether code that came with the model may run (a Lambda layer's, a pickle's), and modules that
            register its classes may be imported though they are of no installed package.
        tracking_uri: Where MLflow is, as for :func:`mlwrap.model_run`.

    Returns:
        A Keras model of the package that made it; what ``tf.saved_model.load`` gives; ``into``, restored;
        or, for an Estimator, the ``pathlib.Path`` of a folder to use as ``model_dir`` or ``warm_start_from``.

    Raises:
        LoadError: There is no such model, or it can't be loaded here: what to do is in the message.
        Unreachable: MLflow did not answer.
    """
    where = destination(settings(tracking_uri=tracking_uri))
    files = find_model(os.fspath(uri), where.tracking_uri)
    saver = savers.by_name(files.saver)
    if files.saver_format > saver.format:
        raise LoadError(
            f"{uri} was written in format {files.saver_format} of the saver {saver.name!r}, and this mlwrap "
            f"reads up to {saver.format}. Upgrade mlwrap."
        )
    savers.import_modules(files.modules, trust=trust)
    return savers.load(saver, files.folder, files.details, into=into, trust=trust)
