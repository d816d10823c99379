"""Save models of Keras 3, Keras 2 and tf_keras; each is saved and loaded by its own package.

All are saved as one ``.keras`` file, which contains no pickle. The files beside it are those that MLflow's
own loaders read (``mlflow/keras/load.py`` and ``mlflow/tensorflow/__init__.py`` of MLflow 3)::

    data/model.keras         the model
    data/keras_module.txt    for mlflow.tensorflow: the package that loads it
    data/save_format.txt     also for mlflow.tensorflow: "keras"; without it MLflow looks for a .h5 file
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mlwrap._journal.records import Metrics, Saved, Zip
from mlwrap._savers.history.fits import latest_fit
from mlwrap._savers.history.metrics import history_metrics
from mlwrap._savers.identify import class_name, has_class, imported, owner
from mlwrap._savers.keras.folder_writer import can_write_folders, write_folder
from mlwrap._savers.keras.optimizers import BACKEND_HOME, name_publicly
from mlwrap._savers.keras.shards import joined
from mlwrap._savers.keras.snapshot import Snapshot, take_snapshot
from mlwrap._savers.keras.weights import WEIGHTS_FILE, has_weights, restore_weights
from mlwrap._savers.keras_checks.archive import check_archive, read_config, weights_size
from mlwrap._savers.keras_checks.config import ConfigNames, declared, names_of, needs_module, not_here
from mlwrap._savers.keras_checks.packages import (
    DATA,
    PACKAGES,
    backend,
    details_of,
    flavor_of,
    frameworks_of,
    keras_for,
    pyfunc_of,
    tell_mlflow,
)
from mlwrap._savers.keras_serving.advice import warn_of_forms
from mlwrap._savers.keras_serving.forms import (
    choose_serving,
    has_several_outputs,
    save_weights_only,
    with_serving,
)
from mlwrap._savers.keras_serving.inputs import is_layer
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.signature import of_keras
from mlwrap._shipped.loader import ship_loader
from mlwrap.errors import LoadError, SaveError, describe_error

MODEL_FILE = f"{DATA}/model.keras"
_FEW_WEIGHTS = 16 << 20  # weights (64 MiB) that a configuration may declare without values in the file
_MAX_BYTES_PER_BYTE = 8


class KerasSaver:
    """Saves Keras models so that ``mlflow.keras``, ``mlflow.tensorflow`` and ``mlflow.pyfunc`` load them."""

    name = "keras"
    format = 1
    default_name = "keras_model"
    collective = True
    frameworks: tuple[str, ...] = PACKAGES

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is a model of any Keras."""
        return has_class(value, "Model", packages=PACKAGES)

    def snapshot(self, value: Any) -> Snapshot | None:
        """Return ``value`` as it is now, to be saved in another thread, if that is possible."""
        package = owner(value, "Model", packages=PACKAGES)
        return take_snapshot(value) if package == "keras" and can_write_folders(imported("keras")) else None

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Write ``value``, a model or a snapshot of one, with its own Keras.

        Raises:
            SaveError: It has no weights yet, they can't be read, or a part can only be pickled.
        """
        source, value = value, value.model if isinstance(value, Snapshot) else value
        package = owner(value, "Model", packages=PACKAGES) or "keras"
        keras: Any = imported(package)
        version = str(keras.__version__)
        if not has_weights(value, keras):
            raise SaveError(
                f"The Keras model {value.name!r} ({class_name(value)}) has no weights yet, so there is "
                "nothing to save. Call it on data once, fit it, or give it an Input layer or build(shape).",
                value,
            )
        signature = of_keras(value)
        if not isinstance(source, Snapshot):
            source = value = joined(value)
        (folder / MODEL_FILE).parent.mkdir()
        try:
            zips = write(source, folder / MODEL_FILE, keras)
        except SaveError as error:
            if isinstance(source, Snapshot):  # the model's weights have changed since the snapshot
                raise
            return save_weights_only(value, folder, options, error)
        classes = own_classes(value)
        config = read_config(folder / (zips[MODEL_FILE].folder if zips else MODEL_FILE))
        names = names_of(config, keras, classes)
        require_no_pickle(value, names)
        flavor, config = flavor_of(package, version)
        if flavor == "tensorflow":
            tell_mlflow(folder / DATA, package, "keras")
        saved = Saved(
            flavors={flavor: config},
            # mlflow.keras finds the folder through its flavor; mlflow.tensorflow is passed it.
            pyfunc=pyfunc_of(flavor),
            signature=signature,
            details=details_of(package, version) | names.details,
            packages=(*frameworks_of(flavor, package), *names.packages),
            modules=names.modules,
            zips=zips,
            forms=("training",),
        )
        if isinstance(source, Snapshot):  # the training continues: an export would have later weights
            form, problem = None, None
        else:
            form, problem = choose_serving(value, folder, options, names, saved.signature)
        warn_of_forms(
            names,
            package,
            serves=form is not None,
            problem=problem,
            classes=classes,
            unsafe=form.unsafe if form else (),
        )
        if form is not None:
            return with_serving(saved, form)
        if flavor != "keras" or not has_several_outputs(value):
            return saved
        # mlflow.keras makes one array of the predictions; mlflow.tensorflow returns them as they are.
        if backend() != "tensorflow":
            return replace(saved, pyfunc=ship_loader(folder, MODEL_FILE))
        tell_mlflow(folder / DATA, package, "keras")
        return replace(saved, pyfunc=pyfunc_of("tensorflow"))

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Return the metrics of each epoch of the last ``fit``."""
        return history_metrics(latest_fit(value))

    def needs_module(self, folder: Path, module: str) -> bool:
        """Return whether the model in ``folder`` has objects of a module.

        Raises:
            LoadError: The file was not written by Keras.
        """
        if not (folder / MODEL_FILE).exists():  # only its weights were saved
            return False
        check_archive(folder / MODEL_FILE)
        return needs_module(read_config(folder / MODEL_FILE), module)

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:
        """Return the model, compiled, loaded by the Keras that wrote it; or ``into``, with its weights.

        Raises:
            LoadError: That Keras is not installed, the file was not written by Keras, or the model needs
                classes or code that this process lacks.
        """
        package, version = str(details.get("keras")), str(details.get("version"))
        trained_on = str(details.get("backend", ""))
        keras = keras_for(package, version, trained_on)
        if "weights" in details:
            return restore_weights(into, folder / WEIGHTS_FILE, "Only the weights of this model were kept")
        file = folder / MODEL_FILE
        if into is not None:
            return restore_weights(into, file, "A Keras model is restored into one")
        check_archive(file)
        config = read_config(file)
        _refuse_oversized_config(config, weights_size(file))
        if not trust:
            _refuse_missing_and_unsafe(config, keras)
        try:
            return keras.saving.load_model(str(file), safe_mode=not trust)
        except Exception as error:
            raise LoadError(
                f"This Keras model could not be rebuilt: {describe_error(error)}\n"
                f"It was saved with {package} {version}{f' on {trained_on}' if trained_on else ''}, and this "
                f"is {keras.__version__}{f' on {backend()}' if trained_on else ''}. Layers and functions of "
                "your own must be registered, and be as they were then."
            ) from error


def write(model: Any, file: Path, keras: Any) -> dict[str, Zip]:
    """Write a model or layer; return the files that delivery must zip."""
    try:
        if can_write_folders(keras):
            zipped = _write_folder(model, file.with_suffix(".unzipped"))
            name_publicly(file.with_suffix(".unzipped") / "config.json")
            return {MODEL_FILE: zipped}
        if hasattr(model, "save"):
            model.save(str(file))
        else:  # a layer
            keras.saving.save_model(model, str(file))
    except (OSError, MemoryError, SaveError):  # a full disk is not a problem of the model
        raise
    except Exception as error:
        raise SaveError(
            f"Keras can't write {_model_or_layer(model)}: {describe_error(error)}\n"
            "Expected that each of its layers, losses and metrics has a get_config() that gives back "
            "numbers, text, lists, dictionaries and Keras objects, and that its weights can be read.",
            model,
        ) from error
    return {}


def _model_or_layer(value: Any) -> str:
    kind = "layer" if is_layer(value) else "model"
    # A feature space of Keras 2 may have no name.
    return f"the {kind} {getattr(value, 'name', kind)!r} ({class_name(value)})"


def require_no_pickle(value: Any, names: ConfigNames) -> None:
    """Check that the model contains no layer that Keras can only pickle.

    Raises:
        SaveError: It contains one.
    """
    if names.pickled:
        raise SaveError(
            f"The {_model_or_layer(value).removeprefix('the ')} has PyTorch modules in it "
            f"({', '.join(names.pickled)}), which Keras can only pickle, and pickles are not written. Build "
            "them of Keras's layers.",
            value,
        )


def _write_folder(model: Any, folder: Path) -> Zip:
    """Write a model, from a snapshot if that takes no memory: Keras copies a variable twice to read it."""
    if isinstance(model, Snapshot):
        return model.write_folder(folder)
    with contextlib.suppress(Exception):  # write_folder() below raises Keras's own error
        if (snapshot := take_snapshot(model, free=True)) is not None:
            return snapshot.write_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return write_folder(model, folder)


def own_classes(model: Any) -> dict[str, type]:
    """Return the classes of the model's parts by name; unregistered classes are found nowhere else."""
    flatten: Any = getattr(model, "_flatten_layers", None)  # Keras has no public function for it
    parts = [model, *(flatten(include_self=False) if flatten is not None else ())]
    return {type(part).__name__: type(part) for part in parts}


def _refuse_missing_and_unsafe(config: Any, keras: Any) -> None:
    missing, unsafe = not_here(config, keras)
    if backends := sorted({name.split(".")[3] for name in missing if name.startswith(BACKEND_HOME)}):
        raise LoadError(
            f"This Keras model's optimizer is of the backend {backends[0]}, as Keras names it in a file that "
            f"it wrote there, and this is {backend()}. Load it with KERAS_BACKEND={backends[0]}, or log the "
            "model itself in place of its file."
        )
    if unsafe:
        raise LoadError(
            f"This Keras model has {'; '.join(unsafe)}. That runs or reads what came with the model, or what "
            "its file names: pass trust=True only if you trust where it comes from."
        )
    if missing:
        raise LoadError(
            f"This Keras model needs {', '.join(missing)}, which Keras does not know here. Import the module "
            f"that registers it with @{keras.__name__}.saving.register_keras_serializable() first; or pass "
            "into= with a model that your code has built, to have its weights restored."
        )


def _refuse_oversized_config(config: Any, size: int) -> None:
    """Refuse a configuration that would create far more weights than the file has values for.

    Args:
        config: The model's configuration.
        size: Size of its weights in bytes; a quantized model has half a byte per weight.
    """
    weights = declared(config)
    if weights > max(_FEW_WEIGHTS, _MAX_BYTES_PER_BYTE * size):
        raise LoadError(
            f"This Keras model is refused: its configuration declares {weights:,} weights, and its file "
            f"holds {size:,} bytes. Load only what a training wrote, and if this is, download it again."
        )
