"""``mlwrap verify``: load a logged model in a process that has no objects of its training."""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import Any

from mlwrap._journal.input_example import Example
from mlwrap._loading.load_model import find_files, load_model
from mlwrap._process.mlflow_settings import destination
from mlwrap._savers.keras_serving.export import has_serving_form
from mlwrap._savers.predict import arrays, difference, predict
from mlwrap._savers.saver_registry import require_plain_graphs
from mlwrap.config import settings
from mlwrap.errors import LoadError, MlwrapError, describe_error

_ONLY_WEIGHTS = "its weights are whole; they are restored into a model that only your code can make"


def verify(uri: str, tracking_uri: str | None = None, *, trust: bool = False) -> str:
    """Load a model with mlwrap and with stock MLflow, and compare its predictions with the recorded ones.

    Args:
        uri: As for :func:`mlwrap.load_model`.
        tracking_uri: URI of MLflow.
        trust: Whether to load it with ``trust=True`` if it does not load without.

    Returns:
        ``"ok"``, and in brackets what the model needs, and what could not be compared.

    Raises:
        LoadError: It does not load, or its prediction differs: the message says which.
    """
    tracking_uri = destination(settings(tracking_uri=tracking_uri)).tracking_uri
    files = find_files(uri, tracking_uri)
    try:
        if files.saver == "checkpoint":
            return "ok (its files are whole; it is restored into objects that only your code can make)"
        example = Example.read(files.folder)
        with contextlib.redirect_stdout(sys.stderr):  # frameworks print their progress bars to stdout
            if "weights" in files.details:
                loaded, needs = None, _ONLY_WEIGHTS
            else:
                loaded, needs = _load(files.folder, trust=trust)
            if not trust:
                require_plain_graphs(files.folder)
            compared = _compare(example, loaded, files.folder, trust=trust)
    finally:
        files.release()
    remarks = [needs] if needs else []
    if not compared:
        remarks.append("it loads; there was no prediction to compare")
    return f"ok ({'; '.join(remarks)})" if remarks else "ok"


def _load(folder: Path, *, trust: bool) -> tuple[Any, str]:
    """Return the model and what it takes to load it; ``None`` if only its serving form works here."""
    try:
        return _attempt("it does not load", load_model, folder), ""
    except LoadError as error:
        if not trust:
            return _only_serving(folder, error)
    try:
        loaded = _attempt("it does not load", functools.partial(load_model, trust=True), folder)
    except LoadError as error:
        return _only_serving(folder, error)
    return loaded, "with trust=True"


def _only_serving(folder: Path, error: LoadError) -> tuple[None, str]:
    """Describe a model that only serves, because ``load_model`` needs its code.

    Raises:
        LoadError: It has no serving form.
    """
    if not has_serving_form(folder):
        raise error
    # The result is printed on one line.
    return None, f"by mlflow.pyfunc; load_model() does not load it here: {' '.join(str(error).split())}"


def _compare(example: Example | None, loaded: Any, folder: Path, *, trust: bool) -> bool:
    from mlwrap._mlflow.model_files.stock_predict import stock_predict  # noqa: PLC0415 - loads MLflow

    value = example.value() if example is not None else None
    predict_stock = functools.partial(stock_predict, trust=trust)
    stock = _attempt("mlflow.pyfunc does not load it, or can't predict", predict_stock, folder, value)
    if example is None or example.predicted is None:
        return False
    reloaded = None
    if loaded is not None:
        reloaded = _attempt("it loads, and can't predict", predict, loaded, example)
    for loader, prediction in (("", reloaded), ("by mlflow.pyfunc ", stock)):
        if prediction is not None and (problem := difference(example.predicted, arrays(prediction))):
            raise LoadError(
                f"it loads, and predicts {loader}something else than before it was saved: {problem}."
            )
    return True


def _attempt(failure: str, do: Any, *args: Any) -> Any:
    try:
        return do(*args)
    except MlwrapError:
        raise
    except Exception as error:
        raise LoadError(f"{failure}: {describe_error(error)}") from error
