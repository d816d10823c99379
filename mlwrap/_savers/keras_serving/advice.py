"""What a Keras model's forms can do, said when it is saved: what works, what does not, and the cure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlwrap._savers.keras_checks.config import ConfigNames
from mlwrap._savers.keras_checks.packages import backend
from mlwrap._savers.modules import import_problem, is_installed
from mlwrap._savers.saver import subject
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
    """Say now, and not at loading, where a model that was written whole will not work; nothing if it will.

    Args:
        names: What its configuration names.
        package: The Keras that it is of.
        kind: ``"model"`` or ``"layer"``.
        serves: Whether it has a serving form.
        problem: Why it has none, where it needs one.
        classes: Classes of its own layers, by name.
        unsafe: What in its serving form does more than compute.
    """
    troubles, cures = _obstacles(names, package, classes or {})
    if not troubles and problem is None and not unsafe:
        return
    said = [f"{subject(f'The Keras {kind}')} is saved."]
    if serves:
        said.append(_anywhere())
    if unsafe:
        said.append(f"Mind that this form does more than compute: {'; '.join(unsafe)}.")
    if troubles:
        loaders = "load_model() will" if serves else "load_model() and stock MLflow will"
        said.append(f"{loaders} not load it as it is in another process: {'; '.join(troubles)}.")
        said += cures
        said.append("As it is, load_model(uri, into=model) restores its weights into a model that you built.")
    if problem is not None:
        said.append(f"Stock MLflow can't predict with it where your code is not: {_first_sentence(problem)}.")
    warn(" ".join(said))


def warn_of_weights(trouble: SaveError, *, serves: bool, problem: SaveError | None) -> None:
    """Say that only the weights of a model are kept, how they come back, and what would keep all of it."""
    what = subject("The Keras model")
    said = [f"{what} can't be written as a .keras file, so its weights are kept."]
    said.append("load_model(uri, into=model) restores them into a model that your code has built.")
    if serves:
        said.append(_anywhere())
    elif problem is not None:
        said.append(f"Stock MLflow can't predict with it: {_first_sentence(problem)}.")
    said.append(f"To keep all of it: {trouble}")
    warn(" ".join(said))


def _anywhere() -> str:
    form = "a program of PyTorch's" if backend() == "torch" else "a SavedModel"
    return f"Stock MLflow predicts with it in any process, from {form} that is kept with it."


def _first_sentence(problem: SaveError) -> str:
    return str(problem).rstrip(".")


def _obstacles(names: ConfigNames, package: str, classes: Mapping[str, type]) -> tuple[list[str], list[str]]:
    """What keeps the model from being rebuilt elsewhere; and all that has to be done, each in a sentence."""
    troubles, cures = [], []
    decorate = f"@{package}.saving.register_keras_serializable()"
    columns = [name for name in names.unregistered if _is_feature_column(name)]
    unregistered = [name for name in names.unregistered if name not in columns]
    if columns:
        troubles.append(f"Keras can't build its feature columns again ({', '.join(columns)})")
        cures.append(f"In place of feature columns use {package}.utils.FeatureSpace or preprocessing layers.")
    if unregistered:
        troubles.append(f"Keras can't find {', '.join(unregistered)} by name")
        moves = [name for name in unregistered if _is_hidden(classes.get(name.rpartition(".")[2]))]
        cures.append(
            f"Decorate {', '.join(unregistered)} with {decorate}"
            + (f", in a module of its own that you import ({', '.join(moves)})." if moves else ".")
        )
    for name, trouble in names.hidden.items():
        troubles.append(f"{name} is registered here, but {trouble.rstrip('.')}")
    for name, trouble in names.unbuildable.items():
        troubles.append(f"{name} can't be made of its configuration: {trouble}")
    if names.unbuildable:
        cures.append(
            f"Let get_config() of {', '.join(names.unbuildable)} return every argument of __init__(), and "
            "__init__() take **kwargs and hand them to super().__init__(**kwargs)."
        )
    if names.unsafe:
        troubles.append(f"it has {'; '.join(names.unsafe)}, which loaders refuse by default")
        cures.append(
            "Make that a registered layer or function, with what it needs in the model itself, or load the "
            "model with trust=True."
        )
    own = [*names.hidden, *unregistered, *(m for m in names.modules if not is_installed(m))]
    if troubles and own:
        cures.append("Once it is saved again, load_model(uri, trust=True) imports your module and loads it.")
    return troubles, cures


def _is_feature_column(name: str) -> bool:
    """Whether a name is that of a class of TensorFlow's feature columns, which nobody can register."""
    return hasattr(sys.modules.get("tensorflow.python.feature_column.feature_column_v2"), name)


def _is_hidden(cls: Any) -> bool:
    """Whether what is to be registered has to be moved too; of functions nobody knows where they are."""
    return cls is None or import_problem(cls) is not None
