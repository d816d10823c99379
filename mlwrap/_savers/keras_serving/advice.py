"""Warn, when a Keras model is saved, where it will not load or predict, and say what to do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlwrap._savers.class_modules import import_problem, is_installed
from mlwrap._savers.keras_checks.config import ConfigNames
from mlwrap._savers.keras_checks.packages import backend
from mlwrap._savers.saver_interface import subject
from mlwrap.errors import SaveError, warn


def warn_of_forms(
    names: ConfigNames,
    package: str,
    *,
    kind: str = "model",
    serves: bool = False,
    problem: SaveError | None = None,
    classes: Mapping[str, type] | None = None,
    unsafe: tuple[str, ...] = (),
) -> None:
    """Warn where a completely saved model will not work in another process; nothing if it will.

    Args:
        names: The names in its configuration.
        package: The Keras package of the model.
        kind: ``"model"`` or ``"layer"``.
        serves: Whether it has a serving form.
        problem: Why it has no serving form, if it needs one.
        classes: Classes of its own layers, by name.
        unsafe: The parts of its serving form that do more than compute.
    """
    obstacles, remedies = _obstacles(names, package, classes or {})
    if not obstacles and problem is None and not unsafe:
        return
    sentences = [f"{subject(f'The Keras {kind}')} is saved."]
    if serves:
        sentences.append(_serving_form_sentence())
    if unsafe:
        sentences.append(f"Mind that this form does more than compute: {'; '.join(unsafe)}.")
    if obstacles:
        loaders = "load_model() will" if serves else "load_model() and stock MLflow will"
        sentences.append(f"{loaders} not load it as it is in another process: {'; '.join(obstacles)}.")
        sentences += remedies
        sentences.append(
            "As it is, load_model(uri, into=model) restores its weights into a model that you built."
        )
    if problem is not None:
        sentences.append(
            f"Stock MLflow can't predict with it where your code is not: {_without_period(problem)}."
        )
    warn(" ".join(sentences))


def warn_of_weights(trouble: SaveError, *, serves: bool, problem: SaveError | None) -> None:
    """Warn that only a model's weights are saved: how to restore them, and how to save the whole model."""
    model = subject("The Keras model")
    sentences = [f"{model} can't be written as a .keras file, so its weights are kept."]
    sentences.append("load_model(uri, into=model) restores them into a model that your code has built.")
    if serves:
        sentences.append(_serving_form_sentence())
    elif problem is not None:
        sentences.append(f"Stock MLflow can't predict with it: {_without_period(problem)}.")
    sentences.append(f"To keep all of it: {trouble}")
    warn(" ".join(sentences))


def _serving_form_sentence() -> str:
    form = "a program of PyTorch's" if backend() == "torch" else "a SavedModel"
    return f"Stock MLflow predicts with it in any process, from {form} that is kept with it."


def _without_period(problem: SaveError) -> str:
    return str(problem).rstrip(".")


def _obstacles(names: ConfigNames, package: str, classes: Mapping[str, type]) -> tuple[list[str], list[str]]:
    """Return why the model can't be rebuilt elsewhere, and what to do, one sentence each."""
    obstacles, remedies = [], []
    decorate = f"@{package}.saving.register_keras_serializable()"
    columns = [name for name in names.unregistered if _is_feature_column(name)]
    unregistered = [name for name in names.unregistered if name not in columns]
    if columns:
        obstacles.append(f"Keras can't build its feature columns again ({', '.join(columns)})")
        remedies.append(
            f"In place of feature columns use {package}.utils.FeatureSpace or preprocessing layers."
        )
    if unregistered:
        obstacles.append(f"Keras can't find {', '.join(unregistered)} by name")
        to_move = [name for name in unregistered if _must_move(classes.get(name.rpartition(".")[2]))]
        remedies.append(
            f"Decorate {', '.join(unregistered)} with {decorate}"
            + (f", in a module of its own that you import ({', '.join(to_move)})." if to_move else ".")
        )
    for name, obstacle in names.hidden.items():
        obstacles.append(f"{name} is registered here, but {obstacle.rstrip('.')}")
    for name, obstacle in names.unbuildable.items():
        obstacles.append(f"{name} can't be made of its configuration: {obstacle}")
    if names.unbuildable:
        remedies.append(
            f"Let get_config() of {', '.join(names.unbuildable)} return every argument of __init__(), and "
            "__init__() take **kwargs and hand them to super().__init__(**kwargs)."
        )
    if names.unsafe:
        obstacles.append(f"it has {'; '.join(names.unsafe)}, which loaders refuse by default")
        remedies.append(
            "Make that a registered layer or function, with what it needs in the model itself, or load the "
            "model with trust=True."
        )
    unimported = [
        *names.hidden,
        *unregistered,
        *(module for module in names.modules if not is_installed(module)),
    ]
    if obstacles and unimported:
        remedies.append(
            "Once it is saved again, load_model(uri, trust=True) imports your module and loads it."
        )
    return obstacles, remedies


def _is_feature_column(name: str) -> bool:
    """Return whether a name is that of a TensorFlow feature column, which can't be registered."""
    return hasattr(sys.modules.get("tensorflow.python.feature_column.feature_column_v2"), name)


def _must_move(cls: Any) -> bool:
    """Return whether a class to be registered must move to a module too; true if it is unknown."""
    return cls is None or import_problem(cls) is not None
