"""Choose the forms that a Keras model is saved in, beside or instead of its ``.keras`` file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mlwrap._journal.records import Saved, Signature
from mlwrap._savers.identify import imported, owner
from mlwrap._savers.keras.weights import WEIGHTS_FILE, write_weights
from mlwrap._savers.keras_checks.config import ConfigNames
from mlwrap._savers.keras_checks.packages import (
    DATA,
    PACKAGES,
    backend,
    details_of,
    flavor_of,
    frameworks_of,
    is_keras_3,
)
from mlwrap._savers.keras_serving.advice import warn_of_weights
from mlwrap._savers.keras_serving.export import ServingForm, write_serving
from mlwrap._savers.keras_serving.inputs import is_layer
from mlwrap._savers.keras_serving.torch_program import write_program
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.signature import of_keras
from mlwrap.errors import SaveError


def save_weights_only(model: Any, folder: Path, options: SaveOptions, trouble: SaveError) -> Saved:
    """Save only the weights of a model that can't be written completely, and its serving form.

    Raises:
        SaveError: Its weights can't be written, either: says why the model could not be.
    """
    package = owner(model, "Model", packages=PACKAGES) or "keras"
    shutil.rmtree(folder / DATA, ignore_errors=True)
    try:
        write_weights(model, folder)
    except (OSError, MemoryError):
        raise
    except Exception:  # noqa: BLE001  # the model's own problem is the better message
        raise trouble from None
    version = str(imported(package).__version__)
    flavor, _ = flavor_of(package, version)
    form, problem = try_serving(model, folder, options, package)
    warn_of_weights(trouble, serves=form is not None, problem=problem)
    saved = Saved(
        signature=of_keras(model),
        details={**details_of(package, version), "weights": WEIGHTS_FILE},
        packages=frameworks_of(flavor, package),
        forms=("weights",),
    )
    if form is None:
        return saved
    return replace(with_serving(saved, form), flavors=form.flavors)


def with_serving(saved: Saved, form: ServingForm) -> Saved:
    """Return ``saved`` with a serving form, which stock MLflow predicts from."""
    signature = form.signature or saved.signature
    return replace(saved, pyfunc=form.pyfunc, signature=signature, forms=(*saved.forms, "serving"))


def choose_serving(
    model: Any, folder: Path, options: SaveOptions, names: ConfigNames, signature: Signature | None
) -> tuple[ServingForm | None, SaveError | None]:
    """Return the serving form of a model that stock MLflow can't rebuild or feed; or why it has none."""
    package = owner(model, "Model", packages=PACKAGES) or "keras"
    needs_code = names.modules or names.unregistered or names.hidden or names.unsafe or names.unbuildable
    is_text = signature is not None and any(spec.dtype == "str" for spec in signature.inputs)
    keras_3 = is_keras_3(package, str(imported(package).__version__))
    if not (needs_code or (is_text and keras_3)):
        return None, None
    form, problem = try_serving(model, folder, options, package)
    # If its module is imported, stock MLflow loads the model.
    return form, problem if is_text or not names.modules else None


def try_serving(
    model: Any, folder: Path, options: SaveOptions, package: str
) -> tuple[ServingForm | None, SaveError | None]:
    """Return the serving form of a model or layer; or why it has none."""
    backend_name = backend() if package == "keras" else "tensorflow"
    is_program = backend_name == "torch" and not is_layer(model)  # Keras exports no layer on its own
    if backend_name != "tensorflow" and not is_program:
        return None, _needs_tensorflow(model)
    try:
        if is_program:
            return write_program(model, folder, options.input_example), None
        return write_serving(model, folder, package, options.input_example), None
    except SaveError as error:
        return None, error


def _needs_tensorflow(model: Any) -> SaveError:
    return SaveError(
        f"on {backend()} Keras exports no SavedModel that stock MLflow could feed. Train on TensorFlow "
        "(KERAS_BACKEND=tensorflow) for that",
        model,
    )


def has_several_outputs(model: Any) -> bool:
    return len(getattr(model, "outputs", None) or ()) > 1
